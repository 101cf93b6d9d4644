"""Augmentation of a batch: waveforms [B, S], spectrograms [B, T, F] and targets in, changed copies of them out.

The settings of each task are in its recipe, `config/recipes/finetune` (Table 6 of the paper). A training step calls
`augment_waveform`, its frontend, and `augment_spectrogram`. All decisions are drawn on the host from `rng`, such as
`np.random.default_rng((seed, step))`, so that they are the same on every device and the host waits for none. A
clip's augmentation depends on its place in the batch, never on its neighbours' samples or lengths (mixup apart), and
changes the clip's own samples or frames alone: padding stays padding, unless the model takes it for part of the clip.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.audio.frontends.base import below
from audiobat.config import AugmentConfig, MixupConfig, NoiseConfig, SpecAugmentConfig
from audiobat.errors import AudiobatError


class Augmented(NamedTuple):
    """A batch of spectrograms after mixup."""

    inputs: Tensor  # [B, S] or [B, T, F]
    counts: Tensor | None  # [B] samples or frames that each clip now has; None: all
    targets: Tensor  # [B, ...] float32


def augment_waveform(
    waveform: Tensor, lengths: Tensor | None, config: AugmentConfig, rng: np.random.Generator
) -> Tensor:
    """Roll, gain and coloured noise of waveform [B, S], whose device and dtype stay.

    `lengths` [B] are the samples of each clip, from 1 to S; None: all S. Raises an AudiobatError for other shapes.
    """
    own = _own_counts(waveform, lengths, "waveform [clips, samples]", dims=2)
    for_roll, for_gain, for_noise = rng.spawn(3)  # a stream each: switching one off leaves the others' draws alone
    batch = len(waveform)
    if config.roll:
        turn = _move(for_roll.random(batch), waveform)
        waveform = roll(waveform, own, _uniform_integer(turn, own))
    if config.gain_beta is not None:
        gain = _move(0.5 + for_gain.beta(config.gain_beta, config.gain_beta, batch), waveform)
        waveform = (waveform * gain[:, None]).to(waveform.dtype)
    return add_noise(waveform, own, config.noise, for_noise)


def augment_spectrogram(
    spectrogram: Tensor,
    frames: Tensor | None,
    targets: Tensor,
    config: AugmentConfig,
    rng: np.random.Generator,
    *,
    window: int | None = None,
    padded: bool = False,
) -> Augmented:
    """Cell noise, time roll, mixup and SpecAugment, in the order of EAT's code, each with draws of its own.

    Args:
        spectrogram: [B, T, F], normalised; its device and dtype stay.
        frames: [B], frames of each clip, from 1 to T; None: all T.
        targets: [B, C], or anything with clips first.
        config: which augmentations, and how strong.
        rng: where every draw comes from.
        window: frames of the model's window, of which SpecAugment's unit `window` takes a share; None: T.
        padded: noise, rolls and stripes take padding for part of the clip, as EAT and BAT's release do, whose models
            attend to it.

    Raises:
        AudiobatError: the shapes do not fit.
    """
    own = _own_counts(spectrogram, None if padded else frames, "spectrogram [clips, frames, bins]", dims=3)
    for_cells, for_roll, for_mixup, for_masks = rng.spawn(4)
    batch = len(spectrogram)
    if config.cell_noise > 0:
        strength = _move(for_cells.uniform(0, config.cell_noise, batch), spectrogram)
        generator = _generator(for_cells, spectrogram.device)
        cells = torch.rand(spectrogram.shape, generator=generator, device=spectrogram.device) * strength[:, None, None]
        valid = below(own, spectrogram.shape[1])[:, :, None]
        spectrogram = spectrogram + (cells * valid).to(spectrogram.dtype)
    if config.time_roll is not None:
        # Integers of EAT from a range without its end; of the release with it, so that T leaves clips as they are.
        eat = config.time_roll == "eat"
        turn = for_roll.integers(-10, 10, batch) if eat else for_roll.integers(0, spectrogram.shape[1] + 1, 1)
        spectrogram = roll(spectrogram, own, _move(turn, spectrogram) % own.clamp(min=1))
    mixed = mixup(spectrogram, frames, targets, config.mixup, for_mixup)
    changed = None if padded else mixed.counts
    return mixed._replace(inputs=spec_augment(mixed.inputs, changed, config.spec_augment, for_masks, window))


def roll(x: Tensor, counts: Tensor, turn: Tensor) -> Tensor:
    """Turn the first counts [B] items of each row of x [B, n, ...] by turn [B], from 0 up to counts, to the right."""
    rows, size = x.shape[:2]
    whole = torch.int32 if rows * size < 2**31 else torch.int64  # half the memory to write; on a CPU that is the cost
    counts, turn = counts[:, None].to(whole), turn[:, None].to(whole)
    place = torch.arange(size, dtype=whole, device=x.device)
    source = torch.where(place < turn, place + (counts - turn), place - turn)  # [B, n]
    source = torch.where(place < counts, source, place)
    source += size * torch.arange(rows, dtype=whole, device=x.device)[:, None]
    return x.flatten(0, 1).index_select(0, source.flatten()).view_as(x)


def add_noise(waveform: Tensor, lengths: Tensor, config: NoiseConfig, rng: np.random.Generator) -> Tensor:
    """Add coloured noise to some clips of waveform [B, S], at a ratio that is exact over each clip's own lengths [B].

    A silent clip stays silent: no noise has a ratio to it.
    """
    batch, samples = waveform.shape
    chosen = np.flatnonzero(rng.random(batch) < config.probability)
    snr_db, exponent = rng.uniform(*config.snr_db, batch)[chosen], rng.uniform(*config.exponent, batch)[chosen]
    if not len(chosen):
        return waveform
    rows = _move(chosen, waveform)
    own = below(lengths[rows], samples)  # [k, S]
    noise = coloured_noise(samples, _move(exponent, waveform), _generator(rng, waveform.device)) * own
    signal_energy = (waveform[rows].float() * own).square().sum(1)
    noise_energy = noise.square().sum(1)
    scale = (signal_energy / noise_energy * _move(10 ** (-snr_db / 10), waveform)).sqrt()
    scale = torch.where(noise_energy > 0, scale, 0.0)
    return waveform.index_add(0, rows, (noise * scale[:, None]).to(waveform.dtype))


def coloured_noise(samples: int, exponent: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise [k, samples] whose power falls as 1 / f^exponent [k], without a constant part."""
    white = torch.randn(len(exponent), samples, generator=generator, device=generator.device)
    spectrum = torch.fft.rfft(white)
    frequency = torch.arange(1, spectrum.shape[1], device=white.device)
    spectrum[:, 0] = 0
    spectrum[:, 1:] *= frequency ** (-exponent[:, None] / 2)
    noise: Tensor = torch.fft.irfft(spectrum, n=samples)
    return noise


def mixup(
    x: Tensor, counts: Tensor | None, targets: Tensor, config: MixupConfig, rng: np.random.Generator
) -> Augmented:
    """Blend clips with partners, and targets in the same measure: lambda x_i + (1 - lambda) x_j.

    Partners are the batch in reverse, so that the middle clip of an odd batch stays as it is. `per` "sample": a lambda
    for each clip; "batch": one lambda.

    Takes x [B, S] or [B, T, F], and `counts` [B] of each clip's samples or frames (None: all), of which a blend owns as
    many as the longer of its two clips. Raises an AudiobatError for targets that are not [B, C], such as class numbers.
    """
    batch = len(x)
    if targets.ndim < 2 or len(targets) != batch:
        raise AudiobatError(f"The targets have shape {list(targets.shape)}: give [{batch} clips, classes] for mixup.")
    draws = batch if config.per == "sample" else 1
    mixed = rng.random(draws) < config.probability
    weight = np.where(mixed, rng.beta(config.beta, config.beta, draws), 1.0)
    targets = targets.float()
    if not mixed.any():
        return Augmented(x, counts, targets)
    weight = np.broadcast_to(weight, batch)
    if counts is not None:
        counts = counts.to(x.device)
        counts = torch.where(_move(weight, x) < 1, torch.maximum(counts, counts.flip(0)), counts)
    return Augmented(_blend(x, _move(weight, x)), counts, _blend(targets, _move(weight, targets)))


def spec_augment(
    spectrogram: Tensor,
    frames: Tensor | None,
    config: SpecAugmentConfig,
    rng: np.random.Generator,
    window: int | None = None,
) -> Tensor:
    """Blank out stripes of frames and of mel bins of spectrogram [B, T, F], within each clip's own frames [B].

    Unit `window` takes its share of `window` frames (None: T).
    """
    if config.time_width == 0 and config.frequency_width == 0:
        return spectrogram
    batch, length, bins = spectrogram.shape
    own = _own_counts(spectrogram, frames, "spectrogram [clips, frames, bins]", dims=3)
    draws = [_move(rng.random((2, batch, n)), spectrogram) for n in (config.time_masks, config.frequency_masks)]
    every = torch.full_like(own, bins)
    in_time = _draw_stripes(draws[0], length, own, _widest(own, config.time_width, config.unit, window or length))
    in_frequency = _draw_stripes(draws[1], bins, every, _widest(every, config.frequency_width, config.unit, bins))
    stripes = in_time[:, :, None] | (in_frequency[:, None, :] & below(own, length)[:, :, None])
    return spectrogram.masked_fill(stripes, config.fill)


def _widest(counts: Tensor, width: float, unit: str, window: int) -> Tensor:
    """The widest stripe [B] of an axis that is `window` long, of which each clip owns `counts` [B]."""
    if unit == "fraction":
        return (counts * width).long()
    return counts.clamp(max=int(width * window if unit == "window" else width))


def _draw_stripes(draws: Tensor, size: int, counts: Tensor, widest: Tensor) -> Tensor:
    """Where [B, size] an axis is blanked out, from two draws in [0, 1) a stripe [2, B, masks]: its width and start.

    A stripe is 0 to `widest` [B] wide and lies among the first `counts` [B] of the axis.
    """
    wide = _uniform_integer(draws[0], widest[:, None] + 1)  # [B, masks]
    start = _uniform_integer(draws[1], counts[:, None] - wide + 1)
    place = torch.arange(size, device=draws.device)
    return ((place >= start[..., None]) & (place < (start + wide)[..., None])).any(1)


def _uniform_integer(draw: Tensor, count: Tensor) -> Tensor:
    """Turn draws that are uniform in [0, 1) into whole numbers that are uniform in 0..count - 1."""
    return torch.minimum((draw * count).long(), count - 1)  # rounding may lift the product up to count


def _blend(x: Tensor, weight: Tensor) -> Tensor:
    """Rows of x [B, ...] times weight [B], plus the rest of 1 times the rows in reverse."""
    weight = weight.view(-1, *[1] * (x.ndim - 1))
    return (weight * x + (1 - weight) * x.flip(0)).to(x.dtype)


def _own_counts(x: Tensor, counts: Tensor | None, what: str, dims: int) -> Tensor:
    """Counts [B] on the device of x, all of its axis 1 where there are none; an error if the shapes do not fit."""
    if x.ndim != dims or (counts is not None and counts.shape != x.shape[:1]):
        given = f" with counts {list(counts.shape)}" if counts is not None else ""
        raise AudiobatError(f"Augmentation got a tensor {list(x.shape)}{given}: give a {what} and one count per clip.")
    if counts is None:
        return torch.full(x.shape[:1], x.shape[1], device=x.device)
    return counts.to(x.device, torch.int64)


def _move(values: NDArray[Any], like: Tensor) -> Tensor:
    """Draws from the host to the device of `like`, without waiting for it; fractions as float32."""
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    return torch.from_numpy(values).to(like.device, non_blocking=True)


def _generator(rng: np.random.Generator, device: torch.device) -> torch.Generator:
    """A generator on `device` for draws by the million, seeded from `rng`."""
    return torch.Generator(device).manual_seed(int(rng.integers(2**63)))
