"""Steps of fine-tuning: recipes made small, beside the plain formulas; draws are read off what augmentation changed."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from audiobat.audio import augment
from audiobat.config import EncoderConfig, FinetuneConfig, FrontendConfig, ModelConfig, TaggerConfig, from_dict
from audiobat.config.recipes import load_recipe
from audiobat.data.build import clip_table
from audiobat.data.loader import CropBatch
from audiobat.engine.logs import RunLog
from audiobat.engine.loop import fit
from audiobat.engine.ranks import Ranks
from audiobat.evaluation.labels import task_for
from audiobat.finetuning import step as step_module
from audiobat.finetuning.layer_rates import build_adamw
from audiobat.finetuning.step import Finetuning
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger

from ..plain import finetuning as plain
from ..plain import frontends, networks, optimisers
from ..precision import precision
from .base import Named, Row, difference, largest
from .material import batch_of, keep_first_gradients, sounds, state, stir

DIM, HEADS, DEPTH, COLUMNS, STEPS, TOTAL, WARMUP = 24, 2, 3, 5, 20, 24, 5
FRAMES = COLUMNS * 16
FULL, FULL_EAT = 12_700, 13_050  # samples that fill the grid of either frontend
PADDED = (FRAMES - 1) * 160  # samples to which BAT's release pads AudioSet
EAT, RELEASE = "EAT, its code", "BAT's release"
CLASSES = tuple("abcde")
MULTI = [["a"], ["b", "c"], ["d"], ["a", "e"], ["c"]]
SINGLE = [["a"], ["b"], ["d"], ["e"], ["b"]]


class Case(NamedTuple):
    """A recipe, what its sources are, lengths of clips, and what the formulas need to know of them."""

    recipe: str
    what: str
    source: str
    lengths: tuple[int, ...]
    loss: str
    layers: str = "standard"
    layout: str = "bat"  # bat, released, eat
    statistics: tuple[float, float] = (0.0, 1.0)  # of EAT's spectrogram
    smoothing: float = 0.0


AS20K, ESC50, WORDS = "AudioSet-20K", "ESC-50", "Speech Commands"
UNEQUAL = (FULL, 9_000, 10_001, 5_555, FULL)
CASES = [
    Case("as20k", f"{AS20K}, BAT", "paper, Table 6; EAT", (FULL,) * 5, "bce"),
    Case("as20k_released", f"{AS20K}, BAT's release", RELEASE, (PADDED,) * 5, "asl", "released", "released"),
    Case("eat_as20k", f"{AS20K}, EAT", EAT, (FULL_EAT,) * 5, "bce per label", "eat", "eat", (-4.268, 4.569)),
    Case("esc50", f"{ESC50}, BAT, clips of unequal length", "paper, Table 6", UNEQUAL, "ce"),
    Case("esc50_released", f"{ESC50}, BAT's release", RELEASE, (FULL,) * 5, "ce", "released", "released"),
    Case("eat_esc50", f"{ESC50}, EAT", EAT, (FULL_EAT,) * 5, "ce", "eat", "eat", (-6.627, 5.359), 0.1),
    Case("spc2-12-folder_released", f"{WORDS}, BAT's release", RELEASE, (FULL,) * 5, "ce", "released", "released"),
    Case("eat_spc2-35", f"{WORDS}, EAT", EAT, (FULL_EAT,) * 5, "bce per label", "eat", "eat", (-6.846, 5.565)),
]


def model_of(case: Case) -> ModelConfig:
    frontend = FrontendConfig(kind="kaldi_fbank" if case.layout == "eat" else "mel_db")
    encoder = EncoderConfig(
        dim=DIM,
        depth=DEPTH,
        heads=HEADS,
        mlp_ratio=2.0,
        max_frames=FRAMES,
        gated_attention=case.layout != "eat",
        pad="mask" if case.layout == "bat" else "grid",
        positions="released" if case.layout == "released" else "paper",
    )
    return ModelConfig(frontend, encoder)


def config_of(case: Case) -> FinetuneConfig:
    """The recipe with a schedule that takes a moment, and waveforms padded to the few frames of the model."""
    config = from_dict(FinetuneConfig, load_recipe(f"finetune/{case.recipe}"))
    few = {"steps": TOTAL, "batch_size": len(case.lengths), "precision": "fp32", "log_every": 100, "save_every": 100}
    padded = {"pad_seconds": PADDED / 16_000} if config.frontend.pad_seconds else {}
    return dataclasses.replace(
        config,
        frontend=dataclasses.replace(config.frontend, **padded),
        optim=dataclasses.replace(config.optim, lr=2e-3, min_lr=1e-4, warmup_steps=WARMUP),
        train=dataclasses.replace(config.train, **few),
    )


def method_of(case: Case) -> plain.Method:
    """The formulas of the case's sources."""

    def eat(x: frontends.Array) -> frontends.Array:
        return frontends.eat_input(x, FRAMES, *case.statistics)

    spectrogram = eat if case.layout == "eat" else frontends.mel_db_minmax
    make_table = networks.released_positions if case.layout == "released" else networks.positions
    decay = 0.65 if case.layers == "eat" else 0.75
    columns = None if case.layout == "bat" else COLUMNS
    table = make_table(COLUMNS, 8, DIM)
    return plain.Method(spectrogram, columns, table, HEADS, case.loss, case.smoothing, decay, case.layers)


STAGES = [
    (step_module, "augment_waveform"),
    (step_module, "augment_spectrogram"),
    *((augment, name) for name in ("roll", "mixup", "spec_augment")),
]


class Watch:
    """Keeps what each stage of a step got and gave, and reads the draws off that."""

    def __init__(self, model: Finetuning) -> None:
        self.model = model
        self.seen: dict[str, tuple[Any, Any]] = {}
        self.paths: list[list[Tensor]] = [[] for _ in range(DEPTH)]
        self.losses: list[Tensor] = []
        self.pooled: tuple[Tensor, Tensor]
        model.register_forward_hook(lambda _, args, out: self.losses.append(out[0].detach()))
        for block, kept in zip(model.tagger.encoder.blocks, self.paths, strict=True):
            block.drop_path.register_forward_hook(
                lambda _, args, out, kept=kept: kept.append(out.detach().flatten(1).abs().sum(1) > 0)
            )  # once for attention, once for the MLP
        model.tagger.head.dropout.register_forward_hook(lambda _, args, out: setattr(self, "pooled", (args[0], out)))

    @contextmanager
    def taps(self) -> Iterator[None]:
        """Keep what functions that augment get and give."""
        with ExitStack() as stack:
            for module, name in STAGES:
                stack.enter_context(mock.patch.object(module, name, self.stage(name, getattr(module, name))))
            yield

    def stage(self, name: str, own: Any) -> Any:
        def kept(x: Tensor, *args: Any, **settings: Any) -> Any:
            out = own(x, *args, **settings)
            self.seen[f"{name} {x.ndim}"] = x.detach().double(), out
            return out

        return kept

    def draws(self) -> plain.Draws:
        """Of the step that has just run; the next one begins anew."""
        (waveform, changed), (spectrogram, _) = self.seen["augment_waveform 2"], self.seen["augment_spectrogram 3"]
        turns = gains = noise = cells = frames = None
        if "roll 2" in self.seen:
            turns, waveform = turned(*self.seen["roll 2"])
        changed = changed.double()
        if self.model.config.augment.gain_beta is not None:
            gains = ((changed * waveform).sum(1) / waveform.square().sum(1)).tolist()
        elif not torch.equal(changed, waveform):
            noise = list(changed - waveform)
        x, mixed = self.seen["mixup 3"]
        before, after = self.seen.get("roll 3", (x, x))
        if "roll 3" in self.seen:
            frames, _ = turned(before, after)
        if not torch.equal(before, spectrogram):
            cells = list(before - spectrogram)
        apart = x - x.flip(0)
        shares = ((mixed.inputs.double() - x.flip(0)) * apart).sum((1, 2)) / apart.square().sum((1, 2)).clamp_min(1e-30)
        stripes = [blanked(before, after) for before, after in zip(*self.seen["spec_augment 3"], strict=True)]
        rates = [0.1 * block / (DEPTH - 1) for block in range(DEPTH)]
        blocks = [torch.stack(own).T.double() / (1 - rate) for own, rate in zip(self.paths, rates, strict=True)]
        paths = torch.stack(blocks, 1).tolist()  # clips, blocks, branches
        dropped = list((self.pooled[1] / self.pooled[0]).detach().double())
        for branches in self.paths:
            branches.clear()
        self.seen.clear()
        return plain.Draws(turns, gains, noise, cells, frames, shares.tolist(), stripes, paths, dropped)


def turned(before: Tensor, after: Tensor) -> tuple[list[int], Tensor]:
    """By how much each row was rolled, where it is most like what it was; and what came of it."""
    before, after = before.double(), after.double()
    spectra = torch.fft.rfft(after, dim=1) * torch.fft.rfft(before, dim=1).conj()
    likeness = torch.fft.irfft(spectra, n=before.shape[1], dim=1)
    return likeness.flatten(2).sum(2).argmax(1).tolist() if before.ndim > 2 else likeness.argmax(1).tolist(), after


def blanked(before: Tensor, after: Tensor) -> tuple[list[int], list[int]]:
    """Frames and mel bins of a clip [T, F] that are 0 throughout, and were not."""
    empty, new = after == 0, (before != 0) & (after == 0)
    return tuple(torch.nonzero(empty.all(1 - axis) & new.any(1 - axis)).flatten().tolist() for axis in (0, 1))


class Trained(NamedTuple):
    """A few steps of training."""

    losses: Tensor  # of each step
    gradients: Named  # of the first
    weights: Named


def ours(case: Case, dtype: torch.dtype, steps: int) -> tuple[Named, list[plain.Draws], Trained]:
    """The package: the weights that it starts from, what it drew, and what became of them."""
    config = config_of(case)
    labels = SINGLE if case.loss == "ce" else MULTI
    table = clip_table("", [f"{i}.wav" for i in range(len(labels))], labels=labels, classes=CLASSES)
    with precision(dtype), tempfile.TemporaryDirectory() as folder, RunLog(Path(folder), 0, main=True) as log:
        model_config = model_of(case)
        encoder = AudioEncoder(dataclasses.replace(model_config, frontend=config.frontend.apply(model_config.frontend)))
        tagger = Tagger(encoder, TaggerConfig(config.head, CLASSES, "clip"))
        stir(tagger)
        model = Finetuning(tagger, task_for(config, table), case.loss.partition(" ")[0], config)
        model.freeze(False)
        watch = Watch(model)
        start = state(tagger)
        optimizer = build_adamw(tagger, config.optim)
        gradients: Named = {}
        draws: list[plain.Draws] = []
        keep_first_gradients(tagger, gradients)

        def after_step(step: int) -> None:
            model.after_step(step)
            draws.append(watch.draws())

        batch = batch_of(sounds(case.lengths))
        clips = np.arange(len(case.lengths))
        crop = CropBatch(batch.waveform, batch.lengths, clips, np.zeros(len(clips)), table.keys, 0, {})
        end = {"until": steps, "after_step": after_step}
        alone = Ranks(torch.device("cpu"))
        with redirect_stderr(StringIO()), watch.taps():
            fit(model, optimizer, [crop] * steps, config.train, config.optim, log=log, ranks=alone, **end)
        return start, draws, Trained(torch.stack(watch.losses), gradients, state(tagger))


def theirs(case: Case, start: Named, draws: list[plain.Draws]) -> Trained:
    """The plain formulas from the same weights, with the same draws."""
    method = method_of(case)
    weights = {name: value.double() for name, value in start.items()}
    adamw = optimisers.AdamW((0.9, 0.95))
    waveforms = sounds(case.lengths)
    clips = SINGLE if case.loss == "ce" else MULTI
    labels = torch.tensor([[float(name in clip) for name in CLASSES] for clip in clips], dtype=torch.float64)
    found, first = [], None
    for step, drawn in enumerate(draws):
        leaves = optimisers.watched(weights.items())
        loss = plain.loss_of(leaves, waveforms, labels, method, drawn)
        gradients = optimisers.gradients_of(loss, leaves)
        first = first or gradients
        found.append(loss.detach())
        rate = optimisers.warmup_cosine(
            step, 2e-3, 1e-4, WARMUP, TOTAL, method.layers == "released", method.layers == "eat"
        )
        rates = {name: plain.rate_of(name, rate, 2e-3, 1e-4, DEPTH, method) for name in weights}
        decays = {name: plain.decay_of(name, value, method) for name, value in weights.items()}
        weights = adamw(weights, gradients, rates.__getitem__, decays.__getitem__)
    return Trained(torch.stack(found), first, weights)


def rows_of(case: Case) -> Iterator[Row]:
    start, draws, found = ours(case, torch.float64, STEPS)
    wanted = theirs(case, start, draws)
    start32, draws32, found32 = ours(case, torch.float32, 1)
    wanted32 = theirs(case, start32, draws32)
    both = difference(found.losses, wanted.losses), difference(found32.losses, wanted32.losses)
    rounded = {"tolerance": 1e-5}  # the package draws lambda and gain in float32
    yield Row(case.what, case.source, f"losses of {STEPS} steps", *both, **rounded)
    both = largest(found.gradients, wanted.gradients), largest(found32.gradients, wanted32.gradients)
    yield Row(case.what, case.source, f"gradients of {len(wanted.gradients)} parameters", *both, **rounded)
    # AdamW makes more of that rounding where a gradient is nearly 0: a weight is off by 1e-5 of the farthest move
    moved = largest(found.weights, wanted.weights, start)
    yield Row(case.what, case.source, f"weights after {STEPS} steps of AdamW", moved, tolerance=1e-4)


def rows() -> Iterator[Row]:
    for case in CASES:
        yield from rows_of(case)
