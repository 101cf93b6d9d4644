"""Whether an encoder keeps the rules that probes and embed rely on: an encoder in, one finding for each rule out.

Each check is a short method that raises an AudiobatError: what is wrong, and the hint. Clips are noise from a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from audiobat.audio.read import pad_batch
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder, LayerFeatures, shape_fault, type_fault

TOLERANCE = 1e-3  # of the largest feature: batches of other sizes are rounded otherwise
RATES = (2_000, 500_000)  # Hz: whales to bats
SHORT, LONG = 0.1, 30.0  # seconds
IN_SECONDS = "give the start of each column in seconds"


def examine(encoder: Encoder, device: torch.device) -> Iterator[tuple[str, str | None]]:
    """Run the checks and yield the name of each, and the fault with a hint or None.

    It ends at a fault in the first two checks, on which the others rely.
    """
    trial = Trial(encoder, device)
    for count, (name, check) in enumerate(CHECKS.items(), start=1):
        fault = None
        try:
            check(trial)
        except AudiobatError as error:  # of a check, or of a user's file, with the line
            fault = str(error).removesuffix(".")
        except Exception as error:  # whatever an encoder may raise
            fault = f"it raises {type(error).__name__}: {' '.join(str(error).split())}; fix forward_intermediates"
        yield name, fault
        if fault and count <= 2:
            return


@dataclass(frozen=True)
class Trial:
    """An encoder under test, and the checks that it goes through."""

    encoder: Encoder
    device: torch.device

    def noise(self, *seconds: float) -> list[Tensor]:
        """Clips of white noise [S] of these lengths, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        counts = [max(1, round(s * self.encoder.sample_rate)) for s in seconds]
        return [0.1 * torch.randn(count, generator=generator) for count in counts]

    @torch.no_grad()
    def features(self, *clips: Tensor) -> LayerFeatures:
        """The encoder's features of the clips as a padded batch."""
        waveform, lengths = pad_batch(list(clips))
        return self.encoder.forward_intermediates(waveform.to(self.device), lengths.to(self.device))

    def attributes(self) -> None:
        """sample_rate, dim and depth are whole numbers of a sensible size, and the method is there."""
        for name in ("sample_rate", "dim", "depth"):
            value = getattr(self.encoder, name, None)
            need(type(value) is int and value > 0, f"{name} is {value!r}; set it to a whole number above 0")
        (low, high), rate = RATES, self.encoder.sample_rate
        need(low <= rate <= high, f"sample_rate is {rate}; give it in Hz, {low} to {high}")
        method = getattr(self.encoder, "forward_intermediates", None)
        need(callable(method), "forward_intermediates is no method; define it")

    def shapes(self) -> None:
        """Every tensor has the shape that `LayerFeatures` names."""
        fault = shape_fault(self.encoder, self.features(*self.noise(1.0, 1.0)), clips=2)
        need(fault is None, str(fault))

    def types_and_device(self) -> None:
        """Features are floating point, `valid` is bool, and all are on the device of the waveform."""
        found = self.features(*self.noise(1.0))
        fault = type_fault(found)
        need(fault is None, str(fault))
        for name, tensor in tensors(found).items():
            place = tensor.device.type
            need(place == self.device.type, f"{name} is on {place}; leave it on the waveform's device, {self.device}")

    def finite(self) -> None:
        """Noise gives finite features."""
        check_finite(self.features(*self.noise(1.0)))

    def silence(self) -> None:
        """Digital silence gives finite features too: it divides by zero where a variance is not guarded."""
        check_finite(self.features(torch.zeros(self.encoder.sample_rate)))

    def short_clip(self) -> None:
        """A clip of 0.1 s gives at least one valid token."""
        found = self.features(*self.noise(SHORT))
        hint = "pad it inside and mark the first column valid"
        need(found.valid.any(), f"a clip of {SHORT} s has no valid token; {hint}")
        check_finite(found)

    def long_clip(self) -> None:
        """A clip of 30 s is not cut off."""
        (clip,) = self.noise(LONG)
        found = self.features(clip)
        check_finite(found)
        if found.grid[0] == 1:  # a token for whole clips, which has no time: the second half must have a say in it
            clip[len(clip) // 2 :] = 0
            heard = difference(self.features(clip), found) > TOLERANCE
            need(heard, f"the second half of {LONG:g} s changes nothing; run long clips in windows")
            return
        last = found.frame_times[valid_columns(found)[0] - 1].item()
        hint = "run long clips in windows and join their columns"
        need(last > LONG / 2, f"the last valid column of {LONG:g} s starts at {last:g} s; {hint}")

    def sound_and_layers(self) -> None:
        """Other sounds give other features, and no two layers are equal."""
        found = self.features(*self.noise(1.0))
        quiet = self.features(torch.zeros(self.encoder.sample_rate))
        differs = found.patch_tokens.shape != quiet.patch_tokens.shape or difference(found, quiet) > TOLERANCE
        need(differs, "noise and silence have the same features; use the waveform")
        for layer, (one, following) in enumerate(pairwise(found.patch_tokens), start=1):
            equal = torch.equal(one, following)
            need(not equal, f"layers {layer} and {layer + 1} are the same; return each block's output")

    def lengths_may_be_absent(self) -> None:
        """`lengths=None` means that all samples count."""
        (clip,) = self.noise(1.0)
        with torch.no_grad():
            bare = self.encoder.forward_intermediates(clip[None].to(self.device))
        sentence = "without lengths the features are others; take lengths=None as all samples"
        check_same(bare, self.features(clip), sentence)

    def padding(self) -> None:
        """Samples beyond a clip's length, noise here, do not change its features."""
        clip, beyond = self.noise(0.7, 0.5)
        whole = torch.cat([clip, beyond])
        lengths = torch.tensor([len(clip), len(whole)], device=self.device)
        with torch.no_grad():
            together = self.encoder.forward_intermediates(torch.stack([whole, whole]).to(self.device), lengths)
        sentence = "padding changes a clip; mask it by lengths, or run clips of a length together"
        check_same(together, self.features(clip), sentence)

    def batch_independence(self) -> None:
        """A loud neighbour in the batch does not change a clip's features."""
        clip, other = self.noise(1.0, 1.0)
        sentence = "a clip's neighbours change it; take no statistics over the batch"
        check_same(self.features(clip, 30 * other), self.features(clip), sentence)

    def determinism(self) -> None:
        """The same clip gives the same features twice."""
        training = isinstance(self.encoder, nn.Module) and self.encoder.training
        need(not training, "it is in training mode; call eval()")
        (clip,) = self.noise(1.0)
        sentence = "two runs differ; switch off dropout, dither and random crops"
        check_same(self.features(clip), self.features(clip), sentence)

    def valid_is_a_prefix(self) -> None:
        """`valid` holds whole columns from the first one on, more of them for a longer clip if clips have several."""
        found = self.features(*self.noise(SHORT, 2.0, LONG))
        counts = valid_columns(found)
        rises = counts == sorted(counts)
        need(rises, f"clips of {SHORT}, 2 and {LONG:g} s have {counts} valid columns; mark False on padding only")
        fewer = counts[0] < counts[-1] or found.grid[0] == 1
        need(fewer, f"a clip of {SHORT} s has as many valid columns as one of {LONG:g} s; mark padding False")
        need(counts[-1] == found.grid[0], "the longest clip's last column is not valid; end the grid where it ends")

    def frame_times(self) -> None:
        """Times are seconds, rise, and stay inside the clip."""
        found = self.features(*self.noise(3.0))
        times = found.frame_times
        need(times[0].abs() < 0.5, f"frame_times begin at {times[0]:g}; {IN_SECONDS}")
        need((times.diff() > 0).all(), f"frame_times do not rise; {IN_SECONDS}")
        last = times[valid_columns(found)[0] - 1].item()
        fits = 1.0 < last < 3.0 or len(times) == 1
        need(fits, f"the last valid column of 3 s starts at {last:g}; {IN_SECONDS}")

    def no_gradient(self) -> None:
        """Under no_grad no feature requires a gradient, and the waveform is not written to."""
        waveform = self.noise(1.0)[0][None].to(self.device)
        before = waveform.clone()
        with torch.no_grad():
            found = self.encoder.forward_intermediates(waveform)
        for name, tensor in tensors(found).items():
            need(not tensor.requires_grad, f"{name} asks for a gradient under no_grad; do not switch it on inside")
        need(torch.equal(waveform, before), "the waveform was changed in place; work on a copy")


CHECKS = {
    "attributes": Trial.attributes,
    "shapes": Trial.shapes,
    "types and device": Trial.types_and_device,
    "finite": Trial.finite,
    "silence": Trial.silence,
    "0.1 s clip": Trial.short_clip,
    "30 s clip": Trial.long_clip,
    "sound and layers": Trial.sound_and_layers,
    "lengths=None": Trial.lengths_may_be_absent,
    "padding": Trial.padding,
    "batch independence": Trial.batch_independence,
    "determinism": Trial.determinism,
    "valid": Trial.valid_is_a_prefix,
    "frame_times": Trial.frame_times,
    "no gradient": Trial.no_gradient,
}


def need(condition: object, fault: str) -> None:
    """Raise an AudiobatError with the fault unless `condition` holds."""
    if not condition:
        raise AudiobatError(fault)


def tensors(features: LayerFeatures) -> dict[str, Tensor]:
    """The tensors of features by name."""
    return {name: value for name, value in vars(features).items() if isinstance(value, Tensor)}


def check_finite(features: LayerFeatures) -> None:
    """Raise an AudiobatError if valid features hold NaN or infinity."""
    good = features.patch_tokens[:, features.valid].isfinite().all()
    if features.cls_token is not None:
        good &= features.cls_token.isfinite().all()
    need(good, "features hold NaN or infinity; guard divisions and logarithms")


def valid_columns(features: LayerFeatures) -> list[int]:
    """The number of valid columns of each clip; an AudiobatError unless they are whole columns from the first on."""
    by_column = features.valid.unflatten(1, features.grid)  # [B, T, F]
    counts = by_column.all(2).sum(1)
    prefix = torch.arange(features.grid[0], device=counts.device) < counts[:, None]
    whole = torch.equal(by_column, prefix[:, :, None].expand_as(by_column))
    need(whole, "valid has holes; mark whole columns, from the first on")
    need((counts > 0).all(), "a clip has no valid column; mark at least the first")
    return [int(count) for count in counts]


def difference(one: LayerFeatures, other: LayerFeatures, tokens: int | None = None) -> float:
    """The largest difference in the first `tokens` patch tokens and in cls tokens, as a share of the largest value."""
    pairs = [(one.patch_tokens[:, :, :tokens], other.patch_tokens[:, :, :tokens])]
    if one.cls_token is not None and other.cls_token is not None:
        pairs.append((one.cls_token, other.cls_token))
    return max(float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-6)) for a, b in pairs)


def check_same(batch: LayerFeatures, alone: LayerFeatures, sentence: str) -> None:
    """Raise an AudiobatError unless the first clip of a batch has the valid features that it has alone."""
    first = batch.clip(0)
    count, wanted = valid_columns(first)[0], valid_columns(alone)[0]
    need(count == wanted, f"{sentence} ({count} valid columns, alone {wanted})")
    share = difference(first, alone, count * first.grid[1])
    need(share <= TOLERANCE, f"{sentence} (by {share:.1%} of the largest feature)")
