"""Augmentation of a batch at once, beside the plain way: a loop over clips, each changed as a data set's item would be.

    python benchmarks/augment.py [--batch 48] [--seconds 10] [--rounds 5] [--device cpu]

Both ways run in turns in one process on the same clips; medians, and their ratio. Noise and mixup touch every clip
where they are timed alone, and as many as the settings say in the lines of whole recipes. What a batch
is for is a device that is fed by few calls: on one core a loop's rolls are mere copies, which no gather reaches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import torch

from audiobat.audio.augment import augment_spectrogram, augment_waveform
from audiobat.config import AugmentConfig, FinetuneConfig, MixupConfig, NoiseConfig, SpecAugmentConfig, from_dict
from audiobat.config.recipes import load_recipe

RATE, BINS, CLASSES = 16_000, 128, 527
WAVEFORM = {
    "roll": AugmentConfig(roll=True),
    "gain": AugmentConfig(gain_beta=10.0),
    "coloured noise": AugmentConfig(noise=NoiseConfig(1.0)),
}
SPECTROGRAM = {
    "cell noise": AugmentConfig(cell_noise=0.1),
    "time roll": AugmentConfig(time_roll="eat"),
    "mixup": AugmentConfig(mixup=MixupConfig(1.0)),
    "SpecAugment": AugmentConfig(spec_augment=SpecAugmentConfig(0.2, 0.2)),
}
RECIPES = ("eat_as20k", "eat_spc2-35", "as20k", "as20k_released", "spc2-35_released")


def plain_waveform(clip: torch.Tensor, config: AugmentConfig, rng: np.random.Generator) -> torch.Tensor:
    """One clip's own samples [n], changed."""
    if config.roll:
        clip = clip.roll(int(rng.integers(len(clip))))
    if config.gain_beta is not None:
        clip = clip * (0.5 + rng.beta(config.gain_beta, config.gain_beta))
    if rng.random() < config.noise.probability:
        spectrum = torch.fft.rfft(torch.randn_like(clip))
        frequency = torch.arange(1, len(spectrum), device=clip.device)
        spectrum[0] = 0
        spectrum[1:] *= frequency ** (-rng.uniform(*config.noise.exponent) / 2)
        noise = torch.fft.irfft(spectrum, n=len(clip))
        ratio = 10 ** (rng.uniform(*config.noise.snr_db) / 10)
        clip = clip + noise * (clip.square().sum() / noise.square().sum() / ratio).sqrt()
    return clip


def plain_cells(clip: torch.Tensor, config: AugmentConfig, rng: np.random.Generator) -> torch.Tensor:
    """One clip's own frames [n, F], before mixup."""
    if config.cell_noise > 0:
        clip = clip + torch.rand_like(clip) * rng.uniform(0, config.cell_noise)
    low, high = (-10, 10) if config.time_roll == "eat" else (0, len(clip) + 1)
    return clip if config.time_roll is None else clip.roll(int(rng.integers(low, high)), 0)


def plain_stripes(clip: torch.Tensor, config: AugmentConfig, rng: np.random.Generator) -> None:
    """Blank out stripes of one clip's own frames [n, F] in place."""
    c = config.spec_augment
    for axis, width, masks in ((0, c.time_width, c.time_masks), (1, c.frequency_width, c.frequency_masks)):
        size = clip.shape[axis]
        widest = min(int(width), size) if c.unit == "absolute" else int(width * size)
        for _ in range(masks if widest else 0):
            wide = int(rng.integers(widest + 1))
            clip.narrow(axis, int(rng.integers(size - wide + 1)), wide).fill_(c.fill)


def both(config: AugmentConfig, batch: tuple[torch.Tensor, ...], waveform: bool, spectrogram: bool) -> list[Callable]:
    """The batch at once, and clip by clip."""
    waves, lengths, spectrograms, frames, targets = batch
    samples, columns = lengths.tolist(), frames.tolist()

    def at_once() -> None:
        rng = np.random.default_rng(0)
        if waveform:
            augment_waveform(waves, lengths, config, rng)
        if spectrogram:
            augment_spectrogram(spectrograms, frames, targets, config, rng)

    def one_by_one() -> None:
        rng = np.random.default_rng(0)
        if waveform:
            changed = waves.clone()
            for i, n in enumerate(samples):
                changed[i, :n] = plain_waveform(waves[i, :n], config, rng)
        if spectrogram:
            changed, labels = spectrograms.clone(), targets.clone()
            for i, n in enumerate(columns):
                changed[i, :n] = plain_cells(spectrograms[i, :n], config, rng)
            unmixed, partners = changed.clone(), list(range(len(changed)))[::-1]
            for i, partner in enumerate(partners):
                if rng.random() < config.mixup.probability:
                    weight = rng.beta(config.mixup.beta, config.mixup.beta)
                    changed[i] = weight * unmixed[i] + (1 - weight) * unmixed[partner]
                    labels[i] = weight * targets[i] + (1 - weight) * targets[partner]
                plain_stripes(changed[i, : max(columns[i], columns[partner])], config, rng)

    return [at_once, one_by_one]


def seconds(work: Callable[[], None], device: torch.device) -> float:
    start = perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start


def recipe_settings(name: str) -> AugmentConfig:
    """The augmentation of a fine-tuning recipe."""
    return from_dict(FinetuneConfig, load_recipe(f"finetune/{name}")).augment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    args = parser.parse_args()
    samples, length = int(args.seconds * RATE), int(args.seconds * 100) + 1
    share = torch.rand(args.batch) * 0.5 + 0.5
    batch = tuple(
        x.to(args.device)
        for x in (
            torch.randn(args.batch, samples) * 0.1,
            (share * samples).long(),
            torch.rand(args.batch, length, BINS),
            (share * length).long(),
            (torch.rand(args.batch, CLASSES) < 0.005).float(),
        )
    )
    rows = [(name, config, True, False) for name, config in WAVEFORM.items()]
    rows += [(name, config, False, True) for name, config in SPECTROGRAM.items()]
    rows += [(name, recipe_settings(name), True, True) for name in RECIPES]
    where = f"{args.device}, {torch.get_num_threads()} threads" if args.device.type == "cpu" else args.device
    print(f"{args.batch} clips of {args.seconds:g} s, {where}")
    print("| augmentation | batch, ms | clip by clip, ms | clip by clip / batch |")
    print("| --- | --- | --- | --- |")
    for name, config, waveform, spectrogram in rows:
        ways = both(config, batch, waveform, spectrogram)
        taken = [[seconds(way, args.device) for way in ways] for _ in range(args.rounds + 1)][1:]  # the first warms up
        batched, plain = (median(column) for column in zip(*taken, strict=True))
        print(f"| {name} | {1e3 * batched:.1f} | {1e3 * plain:.1f} | {plain / batched:.2f} |")


if __name__ == "__main__":
    main()
