"""Whether an encoder keeps the rules that probes and embed rely on: an encoder in, one finding for each rule out.

Each check is a short function that raises a `Fault`: what is wrong, and the hint. Clips are noise from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn

from audiobat.audio.read import pad_batch
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder, LayerFeatures, shape_fault, type_fault

TOLERANCE = 1e-3  # of the largest feature: batches of other sizes are rounded otherwise
RATES = (2_000, 500_000)  # Hz: whales to bats
SHORT, LONG = 0.1, 30.0  # seconds
SEED = 0


class Fault(Exception):
    """A rule that an encoder breaks: one sentence with the hint."""


@dataclass(frozen=True)
class Finding:
    """One check: its name, and the fault if there is one."""

    name: str
    fault: str | None


@dataclass(frozen=True)
class Patient:
    """An encoder, and clips for it."""

    encoder: Encoder
    device: torch.device

    def noise(self, *seconds: float) -> list[Tensor]:
        """Clips of white noise, the same ones at every call."""
        generator = torch.Generator().manual_seed(SEED)
        counts = [max(1, round(s * self.encoder.sample_rate)) for s in seconds]
        return [0.1 * torch.randn(count, generator=generator) for count in counts]

    @torch.no_grad()
    def features(self, clips: list[Tensor]) -> LayerFeatures:
        """The encoder's answer to a padded batch."""
        waveform, lengths = pad_batch(clips)
        return self.encoder.forward_intermediates(waveform.to(self.device), lengths.to(self.device))


Check: TypeAlias = Callable[[Patient], None]


def examine(encoder: Encoder, device: torch.device) -> Iterator[Finding]:
    """Run every check; one that fails in a way of its own is a fault too. Later checks need the first two."""
    patient = Patient(encoder, device)
    for count, (name, check) in enumerate(CHECKS.items(), start=1):
        fault = None
        try:
            check(patient)
        except Fault as found:
            fault = str(found)
        except AudiobatError as error:  # of a user's file, with the line
            fault = str(error).removesuffix(".")
        except Exception as error:  # whatever an encoder may raise
            fault = f"it raises {type(error).__name__}: {' '.join(str(error).split())}; fix forward_intermediates"
        yield Finding(name, fault)
        if fault and count <= 2:
            return


def need(condition: object, sentence: str) -> None:
    """Raise a Fault unless `condition` holds."""
    if not condition:
        raise Fault(sentence)


def attributes(patient: Patient) -> None:
    """sample_rate, dim and depth are whole numbers that can be true."""
    for name in ("sample_rate", "dim", "depth"):
        value = getattr(patient.encoder, name, None)
        need(type(value) is int and value > 0, f"{name} is {value!r}; set it to a whole number above 0")
    low, high = RATES
    rate = patient.encoder.sample_rate
    need(low <= rate <= high, f"sample_rate is {rate}; give it in Hz, {low} to {high}")
    need(
        callable(getattr(patient.encoder, "forward_intermediates", None)),
        "forward_intermediates is no method; define it",
    )


def shapes(patient: Patient) -> None:
    """Every tensor has the shape that `LayerFeatures` names."""
    fault = shape_fault(patient.encoder, patient.features(patient.noise(1.0, 1.0)), clips=2)
    need(fault is None, str(fault))


def dtypes(patient: Patient) -> None:
    """Features are floating point, `valid` is bool, and all are on the device of the waveform."""
    found = patient.features(patient.noise(1.0))
    fault = type_fault(found)
    need(fault is None, str(fault))
    for name, tensor in tensors(found).items():
        place = tensor.device.type
        need(place == patient.device.type, f"{name} is on {place}; leave it on the waveform's device, {patient.device}")


def finite(patient: Patient) -> None:
    """Noise gives finite features."""
    finite_features(patient.features(patient.noise(1.0)))


def silence(patient: Patient) -> None:
    """Digital silence, which divides by zero where a variance is not guarded."""
    finite_features(patient.features([torch.zeros(patient.encoder.sample_rate)]))


def short(patient: Patient) -> None:
    """A clip of 0.1 s gives at least one valid token."""
    found = patient.features(patient.noise(SHORT))
    need(found.valid.any(), f"a clip of {SHORT} s has no valid token; pad it inside and mark the first column valid")
    finite_features(found)


def long(patient: Patient) -> None:
    """A clip of 30 s is not cut off."""
    found = patient.features(patient.noise(LONG))
    finite_features(found)
    end = valid_columns(found)[0]
    last = found.frame_times[end - 1].item()
    need(
        last > LONG / 2,
        f"the last valid column of {LONG:g} s starts at {last:g} s; run long clips in windows and join their columns",
    )


def waveform_reaches(patient: Patient) -> None:
    """Other sounds give other features, and each layer is its own."""
    found = patient.features(patient.noise(1.0))
    quiet = patient.features([torch.zeros(patient.encoder.sample_rate)])
    need(
        found.patch_tokens.shape != quiet.patch_tokens.shape or difference(found, quiet) > TOLERANCE,
        "noise and silence have the same features; use the waveform",
    )
    for layer, (one, next_one) in enumerate(pairwise(found.patch_tokens), start=1):
        need(not torch.equal(one, next_one), f"layers {layer} and {layer + 1} are the same; return each block's output")


def lengths_may_be_absent(patient: Patient) -> None:
    """`lengths=None` means that all samples count."""
    (clip,) = patient.noise(1.0)
    with torch.no_grad():
        bare = patient.encoder.forward_intermediates(clip[None].to(patient.device))
    same(bare, patient.features([clip]), "without lengths the features are others; take lengths=None as all samples")


def padding(patient: Patient) -> None:
    """What lies beyond a clip's length, were it noise, does not change the clip."""
    clip, beyond = patient.noise(0.7, 0.5)
    whole = torch.cat([clip, beyond])
    stacked = torch.stack([whole, whole]).to(patient.device)
    lengths = torch.tensor([len(clip), len(whole)], device=patient.device)
    with torch.no_grad():
        together = patient.encoder.forward_intermediates(stacked, lengths)
    same_clip(
        together,
        patient.features([clip]),
        "padding changes a clip; mask it by lengths, or run clips of a length together",
    )


def batch_independence(patient: Patient) -> None:
    """A clip's neighbours, loud ones too, do not change it."""
    clip, other = patient.noise(1.0, 1.0)
    together = patient.features([clip, 30 * other])
    same_clip(together, patient.features([clip]), "a clip's neighbours change it; take no statistics over the batch")


def determinism(patient: Patient) -> None:
    """Twice the same clip, twice the same features."""
    module = patient.encoder
    need(not (isinstance(module, nn.Module) and module.training), "it is in training mode; call eval()")
    clips = patient.noise(1.0)
    same(
        patient.features(clips), patient.features(clips), "two runs differ; switch off dropout, dither and random crops"
    )


def valid_is_a_prefix(patient: Patient) -> None:
    """`valid` holds whole columns from the first one on, more of them for a longer clip."""
    clips = patient.noise(SHORT, 2.0, LONG / 10)
    found = patient.features(clips)
    counts = valid_columns(found)
    need(
        counts == sorted(counts), f"clips of {SHORT}, 2 and 3 s have {counts} valid columns; mark False on padding only"
    )
    need(counts[0] < counts[-1], f"a clip of {SHORT} s has as many valid columns as one of 3 s; mark padding False")
    need(counts[-1] == found.grid[0], "the longest clip's last column is not valid; end the grid where it ends")


def frame_times(patient: Patient) -> None:
    """Times are seconds, rise, and stay inside the clip."""
    seconds = 3.0
    found = patient.features(patient.noise(seconds))
    times = found.frame_times
    need(times[0].abs() < 0.5, f"frame_times begin at {times[0]:g}; give the start of each column in seconds")
    need((times.diff() > 0).all(), "frame_times do not rise; give the start of each column in seconds")
    last = times[valid_columns(found)[0] - 1].item()
    need(
        seconds / 3 < last < seconds or len(times) == 1,
        f"the last valid column of {seconds:g} s starts at {last:g}; give the start of each column in seconds",
    )


def gradient_free(patient: Patient) -> None:
    """Under no_grad nothing asks for a gradient, and the waveform is as it was."""
    (clip,) = patient.noise(1.0)
    waveform = clip[None].to(patient.device)
    before = waveform.clone()
    with torch.no_grad():
        found = patient.encoder.forward_intermediates(waveform)
    for name, tensor in tensors(found).items():
        need(not tensor.requires_grad, f"{name} asks for a gradient under no_grad; do not switch it on inside")
    need(torch.equal(waveform, before), "the waveform was changed in place; work on a copy")


CHECKS: dict[str, Check] = {
    "attributes": attributes,
    "shapes": shapes,
    "types and device": dtypes,
    "finite": finite,
    "silence": silence,
    "0.1 s clip": short,
    "30 s clip": long,
    "sound and layers": waveform_reaches,
    "lengths=None": lengths_may_be_absent,
    "padding": padding,
    "batch independence": batch_independence,
    "determinism": determinism,
    "valid": valid_is_a_prefix,
    "frame_times": frame_times,
    "no gradient": gradient_free,
}


def tensors(features: LayerFeatures) -> dict[str, Tensor]:
    """The tensors of features by name."""
    named = {name: getattr(features, name) for name in ("patch_tokens", "cls_token", "valid", "frame_times")}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def finite_features(features: LayerFeatures) -> None:
    """Valid features hold neither NaN nor infinity."""
    good = features.patch_tokens[:, features.valid].isfinite().all()
    if features.cls_token is not None:
        good &= features.cls_token.isfinite().all()
    need(good, "features hold NaN or infinity; guard divisions and logarithms")


def valid_columns(features: LayerFeatures) -> list[int]:
    """Valid columns of each clip, which must be the first ones, whole."""
    by_column = features.valid.unflatten(1, features.grid)  # [B, T, F]
    counts = by_column.all(2).sum(1)
    prefix = torch.arange(features.grid[0], device=counts.device) < counts[:, None]
    need(
        torch.equal(by_column, prefix[:, :, None].expand_as(by_column)),
        "valid has holes; mark whole columns, from the first on",
    )
    need((counts > 0).all(), "a clip has no valid column; mark at least the first")
    return [int(count) for count in counts]


def difference(one: LayerFeatures, other: LayerFeatures) -> float:
    """The largest difference of the patches and cls of two answers of one shape, as a share of the largest feature."""
    pairs = [(one.patch_tokens, other.patch_tokens)]
    if one.cls_token is not None and other.cls_token is not None:
        pairs.append((one.cls_token, other.cls_token))
    return max(float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-6)) for a, b in pairs)


def same(one: LayerFeatures, other: LayerFeatures, sentence: str) -> None:
    """Two answers agree."""
    agree = one.grid == other.grid and torch.equal(one.valid, other.valid)
    need(agree, f"{sentence} (another grid or valid)")
    share = difference(one, other)
    need(share <= TOLERANCE, f"{sentence} (by {share:.1%} of the largest feature)")


def same_clip(batch: LayerFeatures, alone: LayerFeatures, sentence: str) -> None:
    """The first clip of a batch has the valid features that it has alone."""
    first = batch.clip(0)
    count, wanted = valid_columns(first)[0], valid_columns(alone)[0]
    need(count == wanted, f"{sentence} ({count} valid columns, alone {wanted})")
    share = difference(cut(first, count), cut(alone, count))
    need(share <= TOLERANCE, f"{sentence} (by {share:.1%} of the largest feature)")


def cut(features: LayerFeatures, columns: int) -> LayerFeatures:
    """The first `columns` of one clip."""
    end = columns * features.grid[1]
    return LayerFeatures(
        features.patch_tokens[:, :, :end],
        features.cls_token,
        (columns, features.grid[1]),
        features.valid[:, :end],
        features.frame_times[:columns],
    )
