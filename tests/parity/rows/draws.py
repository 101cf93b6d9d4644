"""How augmentation draws: what many draws of a recipe have in common, beside what its source draws from."""

import dataclasses
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from audiobat.audio.augment import augment_spectrogram
from audiobat.config import AugmentConfig, FinetuneConfig, MixupConfig, SpecAugmentConfig, from_dict
from audiobat.config.recipes import load_recipe

from .base import Row, difference

DRAWN, BATCHES = 4_000, 1_500  # clips with stripes; batches of 2 clips that are mixed or rolled


class Case(NamedTuple):
    """A recipe, its source, and what that draws from."""

    recipe: str
    what: str
    source: str
    frames: int  # of the padded matrix
    widest: tuple[int, int]  # stripes, in frames and mel bins
    rolls: tuple[int, int] | None = None  # least and most, in frames; once around is half forwards and half backwards
    rolls_of_batch: int = 0  # draws for two clips
    mixup: str | None = None  # sample, batch


CASES = [
    Case("as20k", "AudioSet-20K, BAT", "paper, Table 6; EAT's fraction", 1_024, (204, 25), mixup="sample"),
    Case("as20k_released", "AudioSet-20K, BAT's release", "BAT's release", 1_024, (63, 15), mixup="sample"),
    Case("eat_as20k", "AudioSet-20K, EAT", "EAT, its code", 1_024, (204, 25), mixup="batch"),
    Case("esc50_released", "ESC-50, BAT's release", "BAT's release", 512, (31, 15), (-256, 255), 1),
    Case("eat_esc50", "ESC-50, EAT", "EAT, its code", 512, (204, 51)),
    Case("spc2-12-folder_released", "Speech Commands, BAT's release", "BAT's release", 112, (31, 15), (-56, 55), 1),
    Case("eat_spc2-35", "Speech Commands, EAT", "EAT, its code", 128, (25, 25), (-10, 9), 2, "batch"),
]


def changed(x: Tensor, targets: Tensor, config: AugmentConfig, seed: int) -> tuple[Tensor, Tensor]:
    out = augment_spectrogram(x, None, targets, config, np.random.default_rng(seed), window=x.shape[1])
    return out.inputs, out.targets


def stripes(config: SpecAugmentConfig, frames: int) -> Tensor:
    """Widths [2, DRAWN] of stripes of frames and of mel bins, one in each clip."""
    found = []
    for axis, shape in ((0, (DRAWN, frames, 1)), (1, (DRAWN, 1, 128))):
        other = "frequency_width" if axis == 0 else "time_width"
        alone = dataclasses.replace(config, time_masks=1, frequency_masks=1, **{other: 0.0})
        x, _ = changed(torch.ones(shape), torch.zeros(DRAWN, 1), AugmentConfig(spec_augment=alone), 0)
        found.append((x == 0).sum((1, 2)))
    return torch.stack(found).double()


def shares(config: MixupConfig) -> Tensor:
    """Lambda [BATCHES, 2] of both clips of batches of 2."""
    targets = torch.tensor([[1.0], [0.0]])
    mixed = [changed(torch.ones(2, 1, 1), targets, AugmentConfig(mixup=config), seed)[1] for seed in range(BATCHES)]
    return torch.stack([torch.stack([m[0, 0], 1 - m[1, 0]]) for m in mixed]).double()


def turns(config: AugmentConfig, frames: int) -> Tensor:
    """By how many frames [BATCHES, 2] both clips of batches of 2 are rolled, from -frames / 2 to frames / 2."""
    x = torch.arange(float(frames)).expand(2, -1)[:, :, None]
    rolled = [changed(x, torch.zeros(2, 1), AugmentConfig(time_roll=config.time_roll), n)[0] for n in range(BATCHES)]
    first = torch.stack(rolled)[:, :, 0, 0].double()
    return (frames // 2 - first) % frames - frames // 2


def of_stripes(config: SpecAugmentConfig, case: Case) -> Iterator[tuple[str, Tensor, Tensor, float]]:
    widths, widest = stripes(config, case.frames), torch.tensor(case.widest)
    yield "widest stripes", widths.amax(1), widest, 0.0
    yield "mean width of stripes", widths.mean(1), widest / 2, 0.04


def of_mixup(config: MixupConfig, case: Case) -> Iterator[tuple[str, Tensor, Tensor, float]]:
    """A chance of 0.9, and Beta(0.8, 0.8), whose mean is 1/2 and variance 1 / (4 (2 * 0.8 + 1))."""
    found = shares(config)
    mixed = found[found < 1]
    moments = torch.stack([(found < 1).double().mean(), mixed.mean(), 4 * mixed.var()])
    yield "chance of mixup, mean and spread of lambda", moments, torch.tensor([0.9, 0.5, 1 / 2.6]), 0.04
    # Of a lambda for each clip, both are 1 in 1 of 100 batches.
    alike = (found[:, 0] - found[:, 1]).abs().lt(1e-6).double().mean()
    yield "lambdas of a batch", 2 - alike, torch.tensor({"batch": 1.0, "sample": 1.99}[case.mixup]), 0.01


def of_rolls(config: AugmentConfig, case: Case) -> Iterator[tuple[str, Tensor, Tensor, float]]:
    found = turns(config, case.frames)
    draws = 1 + int((found[:, 0] != found[:, 1]).any())
    yield "range of rolls", torch.stack([found.min(), found.max()]), torch.tensor(case.rolls), 0.01
    yield "rolls of a batch", torch.tensor(draws), torch.tensor(case.rolls_of_batch), 0.0


def rows_of(case: Case) -> Iterator[Row]:
    """Tolerances other than 0 are four standard errors or more."""
    augment = from_dict(FinetuneConfig, load_recipe(f"finetune/{case.recipe}")).augment
    measured = [of_stripes(augment.spec_augment, case)]
    if case.mixup is not None:
        measured.append(of_mixup(augment.mixup, case))
    if case.rolls is not None:
        measured.append(of_rolls(augment, case))
    for compared, found, wanted, tolerance in chain.from_iterable(measured):
        yield Row(case.what, case.source, compared, difference(found, wanted), tolerance=tolerance)


def rows() -> Iterator[Row]:
    for case in CASES:
        yield from rows_of(case)
