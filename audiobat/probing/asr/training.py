"""A recogniser trained on frozen features by CTC, and the texts that it finds in others.

In: a `FeatureSource`, ids of clips of its table, texts. Out: a `Recogniser`; recognised texts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss
from torch.optim import AdamW

from audiobat.config import ProbeTrainConfig
from audiobat.data.split import Split
from audiobat.engine.optim import set_lr
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics.words import edits_of
from audiobat.models.features import Encoder
from audiobat.models.heads import parameter_groups
from audiobat.probing.asr.alphabet import BLANK, Alphabet
from audiobat.probing.asr.decoding import beam_search, best_paths
from audiobat.probing.asr.head import Recogniser
from audiobat.probing.cache import FeatureSource
from audiobat.probing.encoding import encode
from audiobat.probing.feature_store import ClipIds
from audiobat.probing.training import LOOK_EVERY, batches_of, draw_clips, rate_at

FRAME_SECONDS = 0.02  # BAT's release: columns of 160 ms become 8 frames
PROBED_SECONDS = 2.0  # of the noise that tells how far apart an encoder's columns are
GRADIENT = 1.0  # norm to which gradients are cut: LSTMs need a bound; ours


def frames_per_column(encoder: Encoder) -> int:
    """Into how many frames of about 20 ms a column of the encoder's patches divides; at least one.

    Raises AudiobatError for an encoder that has one column a clip, which says nothing of where a character is.
    """
    parameters = list(encoder.parameters()) if isinstance(encoder, nn.Module) else []
    device = parameters[0].device if parameters else torch.device("cpu")
    noise = torch.randn(1, round(PROBED_SECONDS * encoder.sample_rate), generator=torch.Generator().manual_seed(0))
    times = encode(encoder, 0.1 * noise, torch.tensor([noise.shape[1]]), device).frame_times
    if len(times) < 2:
        raise AudiobatError(
            f"{type(encoder).__name__} gives one token for {PROBED_SECONDS:g} s: asr needs a model with tokens over "
            "time."
        )
    return max(1, round(float(times[1] - times[0]) / FRAME_SECONDS))


@dataclass(frozen=True)
class Utterances:
    """What is said in the clips of a table, for a recogniser of an alphabet."""

    texts: Sequence[str]  # [n] normal texts
    alphabet: Alphabet

    def of(self, clip_ids: ClipIds) -> list[str]:
        """The texts of these clips."""
        return [self.texts[i] for i in clip_ids.tolist()]

    def numbers(self, clip_ids: ClipIds) -> list[list[int]]:
        """The characters of these clips as numbers."""
        return [self.alphabet.encode(text) for text in self.of(clip_ids)]


@dataclass(frozen=True)
class Best:
    """The weights with the fewest character errors on the clips that validate, so far."""

    step: int  # steps done when they were there
    rate: float  # character errors
    state: dict[str, Tensor]


def train_recogniser(
    head: Recogniser,
    source: FeatureSource,
    said: Utterances,
    split: Split,
    train: ProbeTrainConfig,
    validate_every: int,
) -> Best | None:
    """Train `head` on what is said in the training clips; where clips validate, it ends with its best weights.

    Args:
        head: with the weights to begin with.
        source: features of all clips.
        said: what is said in them.
        split: the clips that train, and those that choose the step, if there are any.
        train: steps, batches, their order, and rates; nothing but the last matrix decays.
        validate_every: steps between two looks at the clips that validate; there is one after the last step, too.

    Returns:
        The weights that were kept; None where no clips validate, and the last ones stay.

    Raises:
        AudiobatError: a loss that is not finite; a first batch without a text that fits into its frames.
    """
    head.to(source.device).train()
    optimizer = AdamW(parameter_groups(head, train.weight_decay or 0.0), lr=train.lr, betas=train.betas)
    misfits: set[int] = set()  # clips whose texts have more characters than the clips have frames
    best: Best | None = None
    with Progress("train asr", total=train.steps) as bar:
        for step, (drawn, features) in enumerate(source.batches(draw_clips(split.train, train, train.steps))):
            texts = said.numbers(drawn)
            log_probs, frames = head(features)
            rooms = zip(drawn.tolist(), texts, frames.tolist(), strict=True)
            misfits.update(clip for clip, text, room in rooms if frames_for(text) > room)
            if step == 0 and misfits.issuperset(drawn.tolist()):
                raise AudiobatError(
                    f"asr: none of the texts of the first {len(drawn)} clips fits into the frames of its clip: set a "
                    "larger upsample, or check that the texts belong to the clips."
                )
            loss = ctc_loss(
                log_probs.transpose(0, 1),  # [frames, B, C]
                torch.tensor([number for text in texts for number in text], device=log_probs.device),
                frames,
                torch.tensor([len(text) for text in texts]),
                BLANK,
                zero_infinity=True,  # of misfits
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), GRADIENT)
            set_lr(optimizer, rate_at(step, train))
            optimizer.step()
            done = step + 1
            due = step % LOOK_EVERY == 0 or done == train.steps
            bar.advance(note=f"loss {float(loss.detach()):.4f}" if due else "")
            if due and not bool(loss.isfinite()):
                raise AudiobatError(f"asr: the loss is {float(loss)} at step {step}: lower lr, {train.lr:g}.")
            if len(split.valid) and (done == train.steps or done % validate_every == 0):
                found = recognise(head, source, split.valid, said.alphabet)
                rate = float(edits_of(said.of(split.valid), found).rate())
                if best is None or rate < best.rate:
                    best = Best(done, rate, {name: value.clone() for name, value in head.state_dict().items()})
                head.train()
    if misfits:
        print(
            f"! asr: {len(misfits):,} of {len(split.train):,} training texts have more characters than their clips "
            f"have frames, and taught nothing, such as that of {source.table.keys[min(misfits)]}: set a larger "
            "upsample, or check that the texts belong to the clips",
            file=sys.stderr,
            flush=True,
        )
    if best is not None:
        head.load_state_dict(best.state)
    return best


def frames_for(numbers: Sequence[int]) -> int:
    """Frames that a text needs at the least: one a character, and one for a blank between two that are the same."""
    return len(numbers) + sum(one == other for one, other in pairwise(numbers))


@torch.no_grad()
def recognise(
    head: Recogniser, source: FeatureSource, clip_ids: ClipIds, alphabet: Alphabet, beam: int = 1
) -> list[str]:
    """The text of each clip: that of the likeliest path, or of a search with `beam` beginnings; ends in eval mode."""
    head.eval()
    found = []
    for _, features in source.batches(batches_of(clip_ids)):
        log_probs, frames = head(features)
        numbers = best_paths(log_probs, frames) if beam == 1 else beam_search(log_probs, frames, beam)
        found += [alphabet.decode(own) for own in numbers]
    return found
