"""The scores of a run of `predict` in one compressed file: its form, and its recordings, one at a time or in chunks.

Labels and events are made of it again without a pass over the audio; `inference/scores.py` writes it.

The file's arrays, of R recordings, C classes, and the N windows or frames of all recordings, one after another:

    keys [R]         names of the recordings that could be read, as in the tables of predictions
    counts [R]       windows or frames of each
    rates [R]        Hz: their own sample rates
    classes [C]      names
    kind             `windows`, each labelled as a whole, or `frames`, of which events are made
    multi_label      whether several classes may be there at once: then scores are of each by itself, else they sum to 1
    thresholds [C]   of the model; [0]: it has none
    median           frames of the filter over time that the model's events are found with; 0: it says none
    nyquist          Hz: half the model's sample rate, above which it hears nothing
    model            SHA-256 of its weights
    starts, ends [N] seconds into the recording
    scores [N, C]    float32, as the model gave them

`np.load` reads it, too; `read_scores` takes the last three arrays piece by piece, in constant memory.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError

EVENT_MEDIAN = 3  # frames, where the model says none; as `metrics.frames_to_events` scores events
CHUNK_ROWS = 4096  # windows or frames in memory at once
LONG = {"starts": "start", "ends": "end", "scores": "scores"}  # arrays [N, ...]: the columns that they are made of
DTYPES = {"starts": "<f8", "ends": "<f8", "scores": "<f4"}
LARGEST_SHORT = 1 << 30  # bytes of an array that is read whole
SHORT = ("keys", "counts", "rates", "classes", "kind", "multi_label", "thresholds", "median", "nyquist", "model")

Array = NDArray[Any]


class Stretch(NamedTuple):
    """Consecutive windows or frames of a recording."""

    recording: int  # its place among the keys
    spans: NDArray[np.float64]  # [T, 2] seconds: start and end
    scores: NDArray[np.float32]  # [T, C]
    first: bool  # whether the recording begins with it
    last: bool  # whether the recording ends with it


@dataclass(frozen=True)
class About:
    """What scores are of; the caption of this file says what the fields are."""

    classes: tuple[str, ...]
    kind: Literal["windows", "frames"]
    multi_label: bool
    thresholds: tuple[float, ...]
    median: int
    nyquist: float
    model: str


@dataclass(frozen=True)
class Scores:
    """The scores of the recordings of a run; the caption of this file says what the fields are."""

    path: Path
    keys: tuple[str, ...]
    counts: NDArray[np.int64]
    rates: NDArray[np.int64]
    about: About

    def stretches(self, most: int | None = CHUNK_ROWS) -> Iterator[Stretch]:
        """All recordings in their order, in stretches of `most` windows or frames; None: each recording at once.

        A recording without any gives a stretch of none.

        Raises:
            AudiobatError: the file is damaged.
        """
        try:
            with zipfile.ZipFile(self.path) as archive, ExitStack() as stack:
                streams = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in LONG}
                shapes = {"starts": (), "ends": (), "scores": (len(self.about.classes),)}
                for name, stream in streams.items():
                    check_header(stream, (int(self.counts.sum()), *shapes[name]), DTYPES[name])
                for recording, count in enumerate(self.counts.tolist()):
                    cuts = range(0, count, most) if most and count else (0,)
                    for at in cuts:
                        rows = min(count - at, most or count)
                        taken = {n: take(streams[n], (rows, *shapes[n]), DTYPES[n]) for n in LONG}
                        spans = np.stack([taken["starts"], taken["ends"]], 1)
                        yield Stretch(recording, spans, taken["scores"], at == 0, at + rows == count)
                if any(stream.read(1) for stream in streams.values()):  # at its end a stream compares its checksum
                    raise ValueError("an array goes on behind its end")
        except Exception as error:  # a damaged file can fail anywhere in the readers
            raise damaged(self.path, error) from None


def check_header(stream: IO[bytes], shape: tuple[int, ...], dtype: str) -> None:
    """Read the header of an array; ValueError unless it is of this shape and type."""
    np.lib.format.read_magic(stream)
    found = np.lib.format.read_array_header_1_0(stream)
    if found != (shape, False, np.dtype(dtype)):
        raise ValueError(f"an array is {found[2]} {found[0]}, where {dtype} {shape} was expected")


def take(stream: IO[bytes], shape: tuple[int, ...], dtype: str) -> Array:
    """The next values of an array."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = stream.read(count)
    if len(data) < count:
        raise ValueError("an array ends early")
    return np.frombuffer(data, dtype).reshape(shape)


def read_scores(path: str | Path) -> Scores:
    """Open a file that `predict --scores` wrote; its scores are read later, by `Scores.stretches`.

    Raises:
        AudiobatError: no such file, another file, or a damaged one.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            missing = {f"{name}.npy" for name in (*SHORT, *LONG)} - set(archive.namelist())
            if missing:
                raise AudiobatError(
                    f"{path} is no file of scores, as it holds no {min(missing)}: give one of `predict --scores`."
                )
            found = {name: read_short(archive, name) for name in SHORT}
        about = About(
            classes=tuple(found["classes"].tolist()),
            kind=found["kind"].item(),
            multi_label=bool(found["multi_label"]),
            thresholds=tuple(found["thresholds"].tolist()),
            median=int(found["median"]),
            nyquist=float(found["nyquist"]),
            model=found["model"].item(),
        )
        keys, counts = tuple(found["keys"].tolist()), found["counts"].astype(np.int64)
        scores = Scores(path, keys, counts, found["rates"].astype(np.int64), about)
    except AudiobatError:
        raise
    except FileNotFoundError:
        raise AudiobatError(f"No such file of scores: {path}; `predict --scores` writes one.") from None
    except Exception as error:  # a damaged file can fail anywhere in the readers
        raise damaged(path, error) from None
    names = {type(name) for name in (*keys, *about.classes)}
    whole = counts.shape == scores.rates.shape == (len(keys),) and (counts >= 0).all() and names <= {str}
    if not whole or about.kind not in ("windows", "frames") or len(about.thresholds) not in (0, len(about.classes)):
        raise damaged(path, ValueError("its arrays do not fit each other"))
    return scores


def read_short(archive: zipfile.ZipFile, name: str) -> Array:
    """An array of the file, whole; its checksum is compared."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > LARGEST_SHORT:
        raise ValueError(f"{name} is larger than {LARGEST_SHORT >> 20} MiB")
    return np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)


def damaged(path: Path, error: Exception) -> AudiobatError:
    """The sentence for a file that cannot be read."""
    problem = " ".join(str(error).split()) or type(error).__name__
    return AudiobatError(f"{path} cannot be read as scores ({problem}): copy it again, or make it anew by `predict`.")
