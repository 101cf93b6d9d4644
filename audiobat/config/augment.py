"""Settings of augmentation: the random changes that training makes to its clips."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from audiobat.config.checks import LARGEST, check, check_choice, check_one_of

TimeRoll = Literal["eat", "released"]


@dataclass(frozen=True)
class NoiseConfig:
    """Coloured noise on the waveform (Table 6, "Noise Augmentation"; which noise, only BAT's released code says)."""

    probability: float = 0.0  # of each clip
    snr_db: tuple[float, float] = (5.0, 25.0)  # lowest and highest ratio of a clip's power to the noise's
    exponent: tuple[float, float] = (-2.0, 2.0)  # power falls as 1 / f^exponent, from violet to brown noise; our choice

    def __post_init__(self) -> None:
        check(0 <= self.probability <= 1, "augment.noise.probability", self.probability, "use 0 to 1")
        for name, limit in (("snr_db", 100), ("exponent", 4)):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            span = getattr(self, name)
            ordered = len(span) == 2 and -limit <= span[0] <= span[1] <= limit
            check(ordered, f"augment.noise.{name}", span, f"give two numbers from {-limit} to {limit}, the lower first")


@dataclass(frozen=True)
class MixupConfig:
    """lambda x_i + (1 - lambda) x_j, for inputs and targets alike, with lambda ~ Beta(beta, beta), j from the end."""

    probability: float = 0.0  # that a clip is mixed (per sample), or that the batch is (per batch)
    beta: float = 0.8
    per: Literal["sample", "batch"] = "sample"  # a lambda for each clip (BAT's release) or one for all (EAT)

    def __post_init__(self) -> None:
        check_choice(self, "per")
        check(0 <= self.probability <= 1, "augment.mixup.probability", self.probability, "use 0 to 1")
        check(0 < self.beta < math.inf, "augment.mixup.beta", self.beta, "it must be positive")


@dataclass(frozen=True)
class SpecAugmentConfig:
    """SpecAugment: stripes of the spectrogram are blanked; the width of each is uniform from 0 to the widest."""

    time_width: float = 0.0  # the widest stripe of frames; 0: none
    frequency_width: float = 0.0  # the widest stripe of mel bins; 0: none
    unit: Literal["fraction", "window", "absolute"] = "fraction"  # of widths: a share of a clip's own frames
    # (fraction) or of the model's window (window, as in EAT), and of all bins; or frames and bins (absolute)
    time_masks: int = 1
    frequency_masks: int = 1
    fill: float = 0.0  # EAT's; under norm "minmax" the floor, under "global" near the mean

    def __post_init__(self) -> None:
        check_choice(self, "unit")
        for name in ("time_width", "frequency_width"):
            width = getattr(self, name)
            if self.unit == "absolute":
                whole = 0 <= width <= LARGEST and width == int(width)
                check(whole, f"augment.spec_augment.{name}", width, "use a whole number, 0 or more")
            else:
                check(0 <= width <= 1, f"augment.spec_augment.{name}", width, "use 0 to 1 of the axis")
        for name in ("time_masks", "frequency_masks"):
            check(getattr(self, name) > 0, f"augment.spec_augment.{name}", getattr(self, name), "it must be positive")
        check(math.isfinite(self.fill), "augment.spec_augment.fill", self.fill, "it must be finite")


@dataclass(frozen=True)
class AugmentConfig:
    """The changes to a batch of clips, in the order in which they are made."""

    roll: bool = False  # roll a clip's samples circularly by a uniform amount
    gain_beta: float | None = None  # multiply the waveform by 0.5 + Beta(gain_beta, gain_beta); EAT: 10
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    cell_noise: float = 0.0  # add U[0, 1) to each spectrogram cell, times one U[0, cell_noise) a clip; EAT's SPC-2: 0.1
    time_roll: TimeRoll | None = None  # roll frames circularly: each clip by -10 to 9 (eat), or all clips of a batch by
    # one draw from 0 to all frames (released)
    mixup: MixupConfig = field(default_factory=MixupConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)

    def __post_init__(self) -> None:
        some = self.gain_beta is None or 0 < self.gain_beta < math.inf
        check(some, "augment.gain_beta", self.gain_beta, "use a positive number or null")
        check(0 <= self.cell_noise < math.inf, "augment.cell_noise", self.cell_noise, "it must not be negative")
        if self.time_roll is not None:
            check_one_of(get_args(TimeRoll), "augment.time_roll", self.time_roll)
