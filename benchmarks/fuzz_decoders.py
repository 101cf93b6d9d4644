"""Fuzz the decoders: random and damaged files through `load_audio` and one open handle, in a worker under limits.

    python benchmarks/fuzz_decoders.py --inputs 10000 --seed 0

Every input must give samples or an AudiobatError: no other exception, no crash, no hang, no more memory than the limit.
Prints a table; keeps each input that broke the rule under --keep, and then exits with 1. Linux (it reads /proc).
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
import soundfile

from audiobat.audio.read import AUDIO_EXTENSIONS, audio_duration, load_audio, open_audio, read_span
from audiobat.errors import AudiobatError

RATE = 16_000
MEMORY = 512 * 2**20  # bytes that an input of some kilobytes may take beyond an idle worker
SECONDS = 20.0  # of wall time for one input; the machine may be busy
HOW = {"random": 0.1, "whole": 0.02, "flipped": 0.3, "cut": 0.13, "spliced": 0.15, "field": 0.2, "all": 0.1}
COMMON = {".flac", ".m4a", ".mp3", ".ogg", ".wav"}
GOOD = ("ok", "refused")
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)

Check = Callable[[bytes, str], None]
Rng = np.random.Generator


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz_findings"), help="folder for inputs that broke the rule"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    counts, slowest, peak = fuzz(args.inputs, args.seed, args.keep)
    print(
        f"{args.inputs} inputs, seed {args.seed}, {time.perf_counter() - began:.0f} s; the slowest input took ", end=""
    )
    print(f"{slowest:.2f} s; the worker grew by {peak / 2**20:.0f} MiB at most")
    outcomes, table, reasons = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    for (how, outcome, reason), count in counts.items():
        outcomes[outcome] += count
        table[how, outcome] += count
        reasons[f"{outcome} {reason}"] += count
    for how in HOW:
        print(f"{how:8}", *(f"  {outcome} {table[how, outcome]}" for outcome in sorted(outcomes)))
    print(f"{'together':8}", *(f"  {outcome} {outcomes[outcome]}" for outcome in sorted(outcomes)))
    for reason, count in reasons.most_common(25):
        print(f"{count:6}  {reason}")
    return int(any(outcome not in GOOD for outcome in outcomes))


def fuzz(
    inputs: int, seed: int, keep: Path, check: Check | None = None, seconds: float = SECONDS
) -> tuple[Counter[tuple[str, str, str]], float, int]:
    """Run all inputs; returns counts by (how made, outcome, reason), the slowest's seconds, peak bytes."""
    rng = np.random.default_rng(seed)
    seeds = make_seeds(rng)
    counts: Counter[tuple[str, str, str]] = Counter()
    slowest, peak = 0.0, 0
    worker = Worker(check or open_it, seconds)
    for number in range(inputs):
        how, data, extension = make_input(rng, seeds)
        began = time.perf_counter()
        outcome, reason, grown = worker.run(data, extension)
        slowest, peak = max(slowest, time.perf_counter() - began), max(peak, grown)
        counts[how, outcome, reason] += 1
        if outcome not in GOOD:
            keep.mkdir(parents=True, exist_ok=True)
            path = keep / f"{outcome}_{seed}_{number}{extension}"
            path.write_bytes(data)
            print(f"{outcome}: {reason}: {path}", flush=True)
    worker.stop()
    return counts, slowest, peak


# -- the worker --


def open_it(data: bytes, extension: str) -> None:
    """Everything that opens files, on one input: as bytes and as a file, whole and in part."""
    with tempfile.NamedTemporaryFile(suffix=extension) as file:
        file.write(data)
        file.flush()
        errors = []
        for read in (
            lambda: load_audio(data, RATE),
            lambda: load_audio(file.name, RATE),
            lambda: load_audio(file.name, RATE, start=0.05, seconds=0.05),
            lambda: np.array(audio_duration(file.name), np.float32),
            lambda: spans_of_one_handle(file.name),
        ):
            try:
                values = read()
            except AudiobatError as error:
                errors.append(error)
            else:
                assert values.dtype == np.float32
                assert len(values)
                assert np.isfinite(values).all()
        if errors:
            raise errors[0]


def spans_of_one_handle(path: str) -> np.ndarray:
    """Spans in an order that seeks back and forth, the length between them."""
    with open_audio(path) as file:
        spans = [read_span(file, path, RATE, start, 0.02) for start in (0.05, 0.0, 0.07)]
        file.samples()
        spans.append(read_span(file, path, RATE, 0.02, 0.01))
        return np.concatenate(spans)


class Worker:
    """A process that checks inputs one after another; a new one takes over when it dies or hangs."""

    def __init__(self, check: Check, seconds: float) -> None:
        self._check = check
        self._seconds = seconds
        self._start()

    def run(self, data: bytes, extension: str) -> tuple[str, str, int]:
        """Outcome, reason and bytes that the worker has grown by at its peak."""
        try:
            self._pipe.send((data, extension))
            if self._pipe.poll(self._seconds):
                return self._pipe.recv()
            outcome = "hang", f"no answer in {self._seconds:g} s", 0
        except (EOFError, OSError):
            self._process.join()
            outcome = "crash", f"exit code {self._process.exitcode}", 0
        self.stop()
        self._start()
        return outcome

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._check), daemon=True)
        self._process.start()
        theirs.close()


def serve(pipe: Connection, check: Check) -> None:
    """In the worker: limit its memory, then check each input that comes."""
    for stream in (1, 2):  # decoders print warnings
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    limit = status_bytes("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    idle = status_bytes("VmRSS")
    while True:
        data, extension = pipe.recv()
        outcome, reason = "ok", ""
        try:
            check(data, extension)
        except AudiobatError as error:
            reason = re.sub(r"^(\S*/tmp\S+|Audio given as \d+ bytes) ", "", str(error)).rsplit(": ", 1)[0]
            outcome = "breach" if "allocate memory" in reason else "refused"
            reason = re.sub(r"\b\d[\d.e+]*\b", "N", reason)
        except MemoryError as error:
            outcome, reason = "breach", str(error)
        except BaseException as error:
            outcome, reason = "exception", repr(error)
        pipe.send((outcome, reason, max(0, status_bytes("VmHWM") - idle)))


def status_bytes(field: str) -> int:
    """A number of this process's /proc status."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found
    return 1024 * int(found[1])


# -- the inputs --


def make_seeds(rng: Rng) -> list[tuple[str, bytes]]:
    """(extension, bytes) of a whole short file in every format that can be written here."""
    samples = (0.4 * np.sin(np.arange(4000) / 9) + 0.05 * rng.standard_normal(4000)).astype(np.float32)
    seeds = []
    for kind in sorted({*soundfile.available_formats()} - {"RAW", "SD2"}):  # no header; a second file beside it
        for subtype in soundfile.available_subtypes(kind):
            for channels in (1, 2):
                file = io.BytesIO()
                try:
                    soundfile.write(file, np.tile(samples[:, None], channels), RATE, format=kind, subtype=subtype)
                except (soundfile.SoundFileError, ValueError):  # not every format takes every rate and channel count
                    continue
                seeds.append((f".{kind.lower()}", file.getvalue()))
    for extension, container, codec, format_ in (
        (".m4a", "ipod", "aac", "fltp"),
        (".m4a", "ipod", "alac", "s16p"),
        (".webm", "webm", "libopus", "s16"),
        (".mka", "matroska", "ac3", "fltp"),
        (".aac", "adts", "aac", "fltp"),
        (".mpeg", "mpegts", "mp2", "s16"),
        (".avi", "avi", "mp3", "fltp"),
        (".flv", "flv", "aac", "fltp"),
        (".tta", "tta", "tta", "s16"),
        (".wv", "wv", "wavpack", "fltp"),
        (".wma", "asf", "wmav2", "fltp"),
    ):
        seeds.append((extension, encode(samples, container, codec, format_)))
    return seeds


def encode(samples: np.ndarray, container: str, codec: str, sample_format: str) -> bytes:
    """Encode mono samples [S] at 48 kHz with FFmpeg."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48_000, layout="mono")
        stream.bit_rate = 64_000
        stream.codec_context.format = sample_format
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate, frame.pts = 48_000, 0
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(sample_format, "mono", 48_000, frame_size=size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


def make_input(rng: Rng, seeds: list[tuple[str, bytes]]) -> tuple[str, bytes, str]:
    """(how, bytes, extension) of one input."""
    how = str(rng.choice(list(HOW), p=list(HOW.values())))
    if how == "random":
        return how, rng.bytes(int(rng.integers(1, 20_000))), str(rng.choice(sorted(AUDIO_EXTENSIONS)))
    extension, data = pick(rng, seeds)
    if how in ("flipped", "all"):
        data = flip(rng, data)
    if how in ("field", "all"):
        data = overwrite(rng, data)
    if how in ("spliced", "all"):
        data = splice(rng, data, pick(rng, seeds)[1])
    if how in ("cut", "all"):
        data = data[: rng.integers(1, len(data) + 1)]
    return how, data, extension if rng.random() < 0.5 else ".bin"


def pick(rng: Rng, seeds: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A whole file: in half of the draws of a common kind, else of any kind."""
    kinds = sorted({extension for extension, _ in seeds})
    kind = rng.choice([kind for kind in kinds if kind in COMMON] if rng.random() < 0.5 else kinds)
    files = [seed for seed in seeds if seed[0] == kind]
    return files[rng.integers(len(files))]


def place(rng: Rng, data: bytes) -> int:
    """A byte's place: in half of the draws within the header."""
    return int(rng.integers(min(len(data), 128) if rng.random() < 0.5 else len(data)))


def flip(rng: Rng, data: bytes) -> bytes:
    """1 to 64 bits turned."""
    flipped = bytearray(data)
    for _ in range(int(2 ** rng.uniform(0, 6))):
        flipped[place(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def overwrite(rng: Rng, data: bytes) -> bytes:
    """A field of 1 to 8 bytes set to an extreme value, in either byte order."""
    size, order = int(rng.choice([1, 2, 4, 8])), "little" if rng.random() < 0.5 else "big"
    value = EXTREMES[rng.integers(len(EXTREMES))] % 2 ** (8 * size)
    at = place(rng, data)
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def splice(rng: Rng, data: bytes, other: bytes) -> bytes:
    """The beginning of one file and the rest of another, from anywhere."""
    return data[: place(rng, data)] + other[place(rng, other) :]


if __name__ == "__main__":
    sys.exit(main())
