"""A model in an ONNX, TFLite or TorchScript file as an encoder: `--model birdnet.onnx@48000`.

In: `FILE@RATE`, the rate in Hz that such files do not say; behind it, `:NAME`, which of the file's tensors are the
features. Out: an encoder whose tokens lie where the file's answers show them to.

The file takes a waveform [B, S], [B, 1, S] or [S] in [-1, 1], of one length or of any. A tensor [B, D] is one token for
each window, [B, T, D] a row of T tokens. Several names, joined by commas, are layers: tensors of one shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.errors import AudiobatError
from audiobat.zoo.adapters.runtimes import RUNTIMES, Runtime
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder

WINDOW_SECONDS = 10  # of a file that takes any length: our choice
LONGEST_SECONDS = 600  # of a file that takes one length: more is a rate that is not the model's
RATES = (1_000, 1_000_000)  # Hz
REST_SECONDS = 1  # a shorter rest behind the last whole window gets no vector of its own
SOURCE = re.compile(rf"(?P<file>.+(?P<kind>{'|'.join(map(re.escape, RUNTIMES))}))(@(?P<rate>[^:]*))?(:(?P<names>.+))?")


def is_program(source: str | Path) -> bool:
    """Whether `source` names a file for `load_file`: `.pt` and its kin with a rate alone, as weights have them too."""
    found = SOURCE.fullmatch(str(source))
    return found is not None and (found["rate"] is not None or found["kind"] in (".onnx", ".tflite"))


def load_file(source: str | Path, trust_remote_code: bool = False) -> FileEncoder:
    """Open `FILE@RATE` or `FILE@RATE:NAME,NAME`, and try it on silence.

    Args:
        source: the rate may be left out of an ONNX file that says it in its metadata (`sample_rate`).
        trust_remote_code: run a TorchScript program, which can do to files what its maker likes.

    Raises:
        AudiobatError: no such file, no rate, a runtime that is not installed, TorchScript without trust, a file that is
            damaged, does not take a waveform or has no such tensor.
    """
    found = SOURCE.fullmatch(str(source))
    assert found is not None
    file, kind, rate = Path(found["file"]), found["kind"], found["rate"]
    if not file.is_file():
        raise AudiobatError(f"There is no file {file}.")
    if kind not in (".onnx", ".tflite") and not trust_remote_code:
        raise AudiobatError(
            f"{file} is a TorchScript program, which runs as it is: allow that with --trust-remote-code if you trust "
            "its maker."
        )
    runtime = RUNTIMES[kind](file, found["names"].split(",") if found["names"] else [])
    if rate is None:
        rate = str(runtime.rate or "")
    if not (rate.isascii() and rate.isdecimal() and len(rate) < 8 and RATES[0] <= int(rate) <= RATES[1]):
        wrong = "a file like this does not say its rate"
        if rate:
            wrong = f"the rate {rate[:20]!r} is no whole number of Hz from {RATES[0]:,} to {RATES[1]:,}"
        raise AudiobatError(f"{file}: {wrong}: give what the model was trained on, as --model {file.name}@48000.")
    if runtime.rate not in (None, int(rate)):
        raise AudiobatError(f"{file} says that its rate is {runtime.rate} Hz: leave @{rate} out.")
    return FileEncoder(runtime, int(rate)).eval()


class FileEncoder(WindowedEncoder):
    """A model that a file holds and another program runs.

    Where tokens lie in time is measured: the axis that grows with the waveform is time, and the lengths at which one
    token more appears tell its samples. A file of one length gets windows of that length; the last one of a clip is
    filled with zeros, and left out if less than half of it is sound.
    """

    def __init__(self, runtime: Runtime, rate: int) -> None:
        super().__init__()
        self.runtime, self.sample_rate = runtime, rate
        self.window = window = runtime.samples or WINDOW_SECONDS * rate
        if not 0 < window <= LONGEST_SECONDS * rate:
            raise AudiobatError(
                f"{runtime.place} takes {window:,} samples, which are {window / rate:,.0f} s at {rate} Hz: check the "
                "rate."
            )
        whole = self.answers(window)
        half = whole if runtime.samples else self.answers(window // 2)
        self.time_axis = time_axis(whole[0], half[0], f"{runtime.place}: {runtime.names[0]}")
        if len({answer.shape for answer in whole}) > 1:
            shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in zip(runtime.names, whole, strict=True))
            raise AudiobatError(f"{runtime.place}: layers have one shape, but these are {shapes}: name others.")
        self.depth, tokens = len(whole), self.tokens(window)
        self.dim = whole[0].numel() // tokens
        self.fewest = window  # samples, below which zeros are added
        if runtime.samples:
            self.grid = even_grid(window, tokens, rate)
        else:
            self.fewest = smallest(lambda n: self.tokens(n) > 0, window)
            self.grid = self.measured_grid(tokens)

    def answers(self, samples: int) -> list[Tensor]:
        """The chosen tensors for one clip of digital silence."""
        return list(self.runtime(torch.zeros(1, samples)))

    def tokens(self, samples: int) -> int:
        """How many tokens a clip of this length has; 0 if it is too short for the model."""
        if self.time_axis is None and samples == self.window:
            return 1
        try:
            answer = self.answers(samples)[0]
        except AudiobatError:
            return 0
        return 1 if self.time_axis is None else answer.shape[self.time_axis]

    def measured_grid(self, tokens: int) -> TimeGrid:
        """Of a file that takes any length and gives `tokens` for a whole window."""
        if self.time_axis is None:  # a vector for whatever it gets: windows of our choice
            return TimeGrid(self.window, self.window, span=max(self.fewest, REST_SECONDS * self.sample_rate))
        first = self.tokens(self.fewest)
        one = smallest(lambda n: self.tokens(n) > first, self.window)  # here a column appears, there the next
        rows = max(1, self.tokens(one) - first)
        two = smallest(lambda n: self.tokens(n) > first + rows, self.window)
        if two > one and first % rows == 0:
            hop = two - one
            grid = TimeGrid(self.window, hop, max(0, one - first // rows * hop), rows)
            lacking = grid.columns(self.window) - tokens // rows
            if lacking == 1:  # the model has windows of its own, at whose end a column more would begin
                grid = replace(grid, span=grid.span + hop)
            if lacking in (-1, 0, 1):
                return grid
        return even_grid(self.window, tokens, self.sample_rate)

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to tokens [L, W, T, D], T = 1 where the file gives a vector."""
        filled = F.pad(waveform, (0, max(0, self.fewest - waveform.shape[1])))
        layers = []
        for answer in self.runtime(filled):
            frames = answer[:, None] if self.time_axis is None else answer.movedim(self.time_axis, 1)
            layers.append(frames.flatten(2))
        states = torch.stack(layers).to(waveform.device)
        tokens = self.grid.columns(waveform.shape[1]) * self.grid.freq_patches
        if states.shape[1] != len(waveform) or states.shape[2] < tokens or states.shape[3] != self.dim:
            raise AudiobatError(
                f"{self.runtime.place} gives {list(answer.shape)} for {list(waveform.shape)} samples, where {tokens} "
                f"tokens of {self.dim} were expected: wrap it as --model my_file.py:MyEncoder."
            )
        return states, None


def time_axis(whole: Tensor, half: Tensor, name: str) -> int | None:
    """Which axis of an answer to one clip is time; None if the answer is a vector.

    It is the one that differs between a window and half of it; with windows of one length the first that is not 1, if
    there is another one behind it.
    """
    sizes = list(whole.shape)
    long = [axis for axis in range(1, len(sizes)) if sizes[axis] > 1]
    grows = whole.ndim == half.ndim and whole.shape != half.shape
    if grows:  # what else there is, such as the channels and bands of a map [1, C, F, T], is a token's numbers
        found = [axis for axis, (one, other) in enumerate(zip(sizes, half.shape, strict=True)) if one != other]
    else:
        found = long[:-1]
    if whole.ndim < 2 or whole.ndim != half.ndim or sizes[0] != 1 or len(found) > 1:
        raise AudiobatError(
            f"{name} is {sizes} for one clip, and no vector [1, D] or row of tokens [1, T, D]: name another tensor, or "
            "wrap it as --model my_file.py:MyEncoder."
        )
    return found[0] if found else None


def even_grid(window: int, tokens: int, rate: int) -> TimeGrid:
    """Where `tokens` lie in a window, if all that is known is that they are spaced evenly.

    Frames overlap, or lie around their times, so that a window is no whole number of hops: of the hops near the mean
    one, the roundest in seconds is taken, such as 10 ms.
    """
    if tokens == 1:
        return TimeGrid(window, window, span=window // 2)
    mean = window / tokens
    near = range(math.ceil(0.95 * mean), min(int(1.05 * mean), window // (tokens - 1)) + 1)
    round_hop = max(near, key=lambda hop: (math.gcd(hop, rate), hop), default=int(mean))
    hop = int(mean) if window % tokens == 0 else round_hop
    return TimeGrid(window, hop, span=window - (tokens - 1) * hop)


def smallest(enough: Callable[[int], bool], most: int) -> int:
    """The smallest number from 1 to `most` that is enough, if every larger one is, too."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
