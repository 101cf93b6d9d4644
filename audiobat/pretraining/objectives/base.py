"""The protocol of objectives: all that the run, its log, its plan and its release know of how an encoder is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from audiobat.config import PretrainConfig, check
from audiobat.config.registry import class_for
from audiobat.engine.memory import Need
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.layers import recompute_blocks
from audiobat.models.needs import bytes_of_weight, clip_needs, encoder_needs
from audiobat.pretraining.cost import StepCost
from audiobat.pretraining.lengths import Part, Waveforms, together
from audiobat.pretraining.masks.base import seeded_generator

Stats = Mapping[str, Tensor | float]


class Clips(NamedTuple):
    """A batch of whole clips as a student takes them in, before anything is masked."""

    spectrogram: Tensor  # [B, T, F], without gradient
    valid: Tensor | None  # bool [B, N], False on patches of padding; None where there is none
    tokens: Tensor  # [B, N, D] patches with their positions
    grid: tuple[int, int]  # patch columns and rows, (T, F) with T * F = N


class Objective(nn.Module, ABC):
    """Base of every objective; a subclass in this folder is a kind, one in a user's file is `FILE.py:CLASS`.

    The run's optimizer trains each parameter that requires a gradient. Parameters that an objective moves by itself do
    not require one; the state of an optimizer of its own goes into checkpoints by `get_extra_state` and
    `set_extra_state`, which torch calls.
    """

    encoder: AudioEncoder  # what a release of the run keeps: a part of this module, or a property that gives one
    health: ClassVar[Mapping[str, tuple[float, str]]] = {}  # statistic: alarm below this, and what that means
    health_hint: ClassVar[str] = ""  # of the alarm: what to change; empty: nothing is known to help
    in_parts: ClassVar[bool] = False  # whether `forward` runs its batch in `config.train.accumulate` parts

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def build(cls, config: PretrainConfig) -> Self:
        """The objective of a run."""
        return cls(config)

    def generator(self, step: int, device: torch.device) -> torch.Generator:
        """Random numbers, such as those of masks, that are a function of (seed, step) alone: the same on every rank."""
        return seeded_generator(device, self.config.train.seed, step, 0)

    @abstractmethod
    def forward(self, batch: Waveforms, step: int) -> tuple[Tensor, Stats]:
        """The loss of global step `step`, to be minimised, and statistics for the log.

        Statistics are means over the batch: scalar tensors or Python numbers.

        Random numbers come from `generator`, or from torch's global one, which each step seeds anew, too: a resumed
        run draws the same. On several ranks each has its own clips, and the loss is this rank's part of a mean over the
        clips, or the cells, of all: `mean_over_ranks` makes it from this rank's own mean.
        """

    def after_step(self, step: int) -> None:
        """Called once the optimizer has made update number `step`: move a teacher, update a codebook."""

    def compile_step(self) -> None:
        """Have torch.compile work on what is the same in every step; called once, before the first step."""
        self.compile()

    @classmethod
    def needs(cls, config: PretrainConfig, clips: int) -> list[Need]:
        """What it takes of a device's memory to train on `clips` clips at once, at the least, before it is built.

        Unless an objective knows more: the encoder, and the clips.
        """
        samples = round(config.data.clip_seconds * config.frontend.sample_rate)
        waveforms, *_ = clip_needs(config.model, clips, samples, per_patch=0)
        return [*encoder_needs(config.model, bytes_of_weight(config.train)), waveforms]

    def cost(self) -> StepCost | None:
        """What one step computes, for the plan of `--dry-run`; None where nobody has counted it."""
        return None


def embed_clips(encoder: AudioEncoder, batch: Waveforms) -> Clips:
    """The spectrograms and patch tokens of a batch: what is the same for all clones of a clip.

    The grid ends with the longest clip of all ranks, which must all call it; that of a `Part` with its own longest.
    """
    clips = batch if isinstance(batch, Part) else together(encoder, batch)
    with torch.no_grad():  # no frontend is trained
        spectrogram, valid = encoder.spectrogram(clips.waveform, clips.lengths)
    if clips.is_even:
        valid = None  # all True
    tokens = encoder.embed_patches(spectrogram)
    freq_patches = encoder.config.grid[1]
    return Clips(spectrogram, valid, tokens, (tokens.shape[1] // freq_patches, freq_patches))


def build_objective(config: PretrainConfig) -> Objective:
    """The objective that `config.objective.kind` names.

    Raises:
        AudiobatError: an unknown kind, parts that do not fit each other, an `encoder` that cannot be released, or
            `train.accumulate` for a kind that runs its batch at once.
    """
    objective: Objective = class_for(config.objective).build(config)
    encoder_prefix(objective)
    check(
        objective.in_parts or config.train.accumulate in (None, 1),
        "train.accumulate",
        config.train.accumulate,
        f"{type(objective).__name__} runs its batch at once: use null, or make its sum by `sum_in_chunks` "
        "(docs/variants.md)",
    )
    recompute_blocks(objective, config.train.recompute)
    return objective


def encoder_prefix(objective: Objective) -> str:
    """Where the names of the released encoder's weights begin in a checkpoint, such as `student.`."""
    encoder = getattr(objective, "encoder", None)
    for name, module in objective.named_modules():
        if module is encoder and isinstance(encoder, AudioEncoder):
            return f"{name}."
    raise AudiobatError(
        f"{type(objective).__name__}.encoder is a {type(encoder).__name__}: set it to the AudioEncoder among the "
        "objective's modules that a release keeps."
    )
