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
class Trial:
    """An encoder under test, and clips of noise for it."""

    encoder: Encoder
    device: torch.device

    def noise(self, *seconds: float) -> list[Tensor]:
        """Clips of white noise [S] of these lengths, the same at every call."""
        generator = torch.Generator().manual_seed(SEED)
        counts = [max(1, round(s * self.encoder.sample_rate)) for s in seconds]
        return [0.1 * torch.randn(count, generator=generator) for count in counts]

    @torch.no_grad()
    def features(self, clips: list[Tensor]) -> LayerFeatures:
        """The encoder's features of the clips as a padded batch."""
        waveform, lengths = pad_batch(clips)
        return self.encoder.forward_intermediates(waveform.to(self.device), lengths.to(self.device))


Check: TypeAlias = Callable[[Trial], None]


def examine(encoder: Encoder, device: torch.device) -> Iterator[Finding]:
    """Run the checks and yield each finding; it ends at a fault in the first two, on which the others rely."""
    trial = Trial(encoder, device)
    for count, (name, check) in enumerate(CHECKS.items(), start=1):
        fault = None
        try:
            check(trial)
        except (Fault, AudiobatError) as error:  # the second comes from a user's file, with the line
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


def attributes(trial: Trial) -> None:
    """sample_rate, dim and depth are whole numbers of a sensible size, and the method is there."""
    for name in ("sample_rate", "dim", "depth"):
        value = getattr(trial.encoder, name, None)
        need(type(value) is int and value > 0, f"{name} is {value!r}; set it to a whole number above 0")
    low, high = RATES
    rate = trial.encoder.sample_rate
    need(low <= rate <= high, f"sample_rate is {rate}; give it in Hz, {low} to {high}")
    need(
        callable(getattr(trial.encoder, "forward_intermediates", None)),
        "forward_intermediates is no method; define it",
    )


def shapes(trial: Trial) -> None:
    """Every tensor has the shape that `LayerFeatures` names."""
    fault = shape_fault(trial.encoder, trial.features(trial.noise(1.0, 1.0)), clips=2)
    need(fault is None, str(fault))


def dtypes(trial: Trial) -> None:
    """Features are floating point, `valid` is bool, and all are on the device of the waveform."""
    found = trial.features(trial.noise(1.0))
    fault = type_fault(found)
    need(fault is None, str(fault))
    for name, tensor in tensors(found).items():
        place = tensor.device.type
        need(place == trial.device.type, f"{name} is on {place}; leave it on the waveform's device, {trial.device}")


def finite(trial: Trial) -> None:
    """Noise gives finite features."""
    finite_features(trial.features(trial.noise(1.0)))


def silence(trial: Trial) -> None:
    """Digital silence gives finite features too: it divides by zero where a variance is not guarded."""
    finite_features(trial.features([torch.zeros(trial.encoder.sample_rate)]))


def short(trial: Trial) -> None:
    """A clip of 0.1 s gives at least one valid token."""
    found = trial.features(trial.noise(SHORT))
    need(found.valid.any(), f"a clip of {SHORT} s has no valid token; pad it inside and mark the first column valid")
    finite_features(found)


def long(trial: Trial) -> None:
    """A clip of 30 s is not cut off."""
    found = trial.features(trial.noise(LONG))
    finite_features(found)
    end = valid_columns(found)[0]
    last = found.frame_times[end - 1].item()
    need(
        last > LONG / 2,
        f"the last valid column of {LONG:g} s starts at {last:g} s; run long clips in windows and join their columns",
    )


def waveform_reaches(trial: Trial) -> None:
    """Other sounds give other features, and no two layers are equal."""
    found = trial.features(trial.noise(1.0))
    quiet = trial.features([torch.zeros(trial.encoder.sample_rate)])
    need(
        found.patch_tokens.shape != quiet.patch_tokens.shape or difference(found, quiet) > TOLERANCE,
        "noise and silence have the same features; use the waveform",
    )
    for layer, (one, next_one) in enumerate(pairwise(found.patch_tokens), start=1):
        need(not torch.equal(one, next_one), f"layers {layer} and {layer + 1} are the same; return each block's output")


def lengths_may_be_absent(trial: Trial) -> None:
    """`lengths=None` means that all samples count."""
    (clip,) = trial.noise(1.0)
    with torch.no_grad():
        bare = trial.encoder.forward_intermediates(clip[None].to(trial.device))
    same(bare, trial.features([clip]), "without lengths the features are others; take lengths=None as all samples")


def padding(trial: Trial) -> None:
    """Samples beyond a clip's length, noise here, do not change its features."""
    clip, beyond = trial.noise(0.7, 0.5)
    whole = torch.cat([clip, beyond])
    stacked = torch.stack([whole, whole]).to(trial.device)
    lengths = torch.tensor([len(clip), len(whole)], device=trial.device)
    with torch.no_grad():
        together = trial.encoder.forward_intermediates(stacked, lengths)
    same_clip(
        together,
        trial.features([clip]),
        "padding changes a clip; mask it by lengths, or run clips of a length together",
    )


def batch_independence(trial: Trial) -> None:
    """A loud neighbour in the batch does not change a clip's features."""
    clip, other = trial.noise(1.0, 1.0)
    together = trial.features([clip, 30 * other])
    same_clip(together, trial.features([clip]), "a clip's neighbours change it; take no statistics over the batch")


def determinism(trial: Trial) -> None:
    """The same clip gives the same features twice."""
    module = trial.encoder
    need(not (isinstance(module, nn.Module) and module.training), "it is in training mode; call eval()")
    clips = trial.noise(1.0)
    same(trial.features(clips), trial.features(clips), "two runs differ; switch off dropout, dither and random crops")


def valid_is_a_prefix(trial: Trial) -> None:
    """`valid` holds whole columns from the first one on, more of them for a longer clip."""
    clips = trial.noise(SHORT, 2.0, LONG / 10)
    found = trial.features(clips)
    counts = valid_columns(found)
    need(
        counts == sorted(counts), f"clips of {SHORT}, 2 and 3 s have {counts} valid columns; mark False on padding only"
    )
    need(counts[0] < counts[-1], f"a clip of {SHORT} s has as many valid columns as one of 3 s; mark padding False")
    need(counts[-1] == found.grid[0], "the longest clip's last column is not valid; end the grid where it ends")


def frame_times(trial: Trial) -> None:
    """Times are seconds, rise, and stay inside the clip."""
    seconds = 3.0
    found = trial.features(trial.noise(seconds))
    times = found.frame_times
    need(times[0].abs() < 0.5, f"frame_times begin at {times[0]:g}; give the start of each column in seconds")
    need((times.diff() > 0).all(), "frame_times do not rise; give the start of each column in seconds")
    last = times[valid_columns(found)[0] - 1].item()
    need(
        seconds / 3 < last < seconds or len(times) == 1,
        f"the last valid column of {seconds:g} s starts at {last:g}; give the start of each column in seconds",
    )


def gradient_free(trial: Trial) -> None:
    """Under no_grad no feature requires a gradient, and the waveform is not written to."""
    (clip,) = trial.noise(1.0)
    waveform = clip[None].to(trial.device)
    before = waveform.clone()
    with torch.no_grad():
        found = trial.encoder.forward_intermediates(waveform)
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
    """Raise a Fault if valid features hold NaN or infinity."""
    good = features.patch_tokens[:, features.valid].isfinite().all()
    if features.cls_token is not None:
        good &= features.cls_token.isfinite().all()
    need(good, "features hold NaN or infinity; guard divisions and logarithms")


def valid_columns(features: LayerFeatures) -> list[int]:
    """The number of valid columns of each clip; a Fault unless they are whole columns from the first on."""
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
    """The largest difference between two features of one shape, patches and cls, as a share of the largest value."""
    pairs = [(one.patch_tokens, other.patch_tokens)]
    if one.cls_token is not None and other.cls_token is not None:
        pairs.append((one.cls_token, other.cls_token))
    return max(float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-6)) for a, b in pairs)


def same(one: LayerFeatures, other: LayerFeatures, sentence: str) -> None:
    """Raise a Fault unless two features agree."""
    agree = one.grid == other.grid and torch.equal(one.valid, other.valid)
    need(agree, f"{sentence} (another grid or valid)")
    share = difference(one, other)
    need(share <= TOLERANCE, f"{sentence} (by {share:.1%} of the largest feature)")


def same_clip(batch: LayerFeatures, alone: LayerFeatures, sentence: str) -> None:
    """Raise a Fault unless the first clip of a batch has the valid features that it has alone."""
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
