"""File, bytes or array to a mono float32 waveform at the model's rate; lengths of recordings; batches.

In: anything that libsndfile reads (or, with the extra `codec`, FFmpeg), or samples with their rate. Out: [S], mean over
channels, resampled by soxr. Headers are not trusted: what a file holds is looked up in it (`contents`).
"""

from __future__ import annotations

import importlib.util
import io
import math
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.audio.codec import CODEC_EXTENSIONS, CalmFile, CodecFile, UnknownFormat, reason
from audiobat.audio.contents.look import look_into
from audiobat.audio.contents.raw import RawFile
from audiobat.audio.sound_file import JoinedFile, OpenAudio, Samples, SoundFile
from audiobat.errors import AudiobatError

AudioSource: TypeAlias = str | Path | bytes | BinaryIO

AUDIO_EXTENSIONS = CODEC_EXTENSIONS | frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".nist", ".oga", ".ogg", ".opus"}
    | {".rf64", ".snd", ".sph", ".voc", ".w64", ".wav"}
)
MIN_RATE, MAX_RATE = 100, 6_144_000  # Hz: infrasound to the fastest converters; 1 Hz would grow 16,000-fold at 16 kHz
# Samples beyond this are refused; full scale is 1. Raw 32-bit integers, which some write as floats, lie below it; above
# 1e12 the power of a spectrum can overflow float32, in a frontend that makes 2**15 of full scale.
LOUDEST = 1e10
INTEGER_SCALE = {torch.int16: 2.0**15, torch.int32: 2.0**31}
MAX_CHANNELS = 64  # an array with more is surely [samples, channels], the wrong way round


def load_audio(source: AudioSource, sample_rate: int, start: float = 0.0, seconds: float | None = None) -> Samples:
    """Read a recording, or a part of it, as mono float32 [S] at `sample_rate` Hz.

    Only the part asked for is decoded, where the format can seek. A file that was cut short gives the samples it still
    holds where its format allows that (WAV, AIFF, MP3, WebM), else an error.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        sample_rate: Hz of the result.
        start: where to begin, in seconds.
        seconds: how much to read; None: to the end. A recording that ends sooner gives what it has.

    Raises:
        AudiobatError: the source is missing, may not be read, is a folder, not audio, damaged, too short, or holds NaN,
            infinity or samples beyond LOUDEST.
    """
    with open_audio(source) as file:
        return read_span(file, source_name(source), sample_rate, start, seconds)


def read_span(
    file: OpenAudio, name: str, sample_rate: int, start: float = 0.0, seconds: float | None = None
) -> Samples:
    """Read a part of an open recording, as `load_audio` does; `name` is what errors call the recording."""
    if not 0 <= start < math.inf or not (seconds is None or 0 < seconds < math.inf):
        raise AudiobatError(f"{name}: start {start} s, seconds {seconds}: give a start from 0 and more than 0 seconds.")
    first = round(start * file.rate)
    samples = file.read(first, None if seconds is None else max(1, round(seconds * file.rate)))
    if first and not len(samples):
        raise AudiobatError(f"{name} lasts {file.samples() / file.rate:g} s: it has no audio from {start:g} s on.")
    return resample(check_samples(samples, name), file.rate, sample_rate)


def to_waveform(source: AudioSource | NDArray[Any] | Tensor, sample_rate: int | None, target_rate: int) -> Tensor:
    """Turn a file or an array into a mono float32 waveform [S] on the CPU at `target_rate` Hz.

    Args:
        source: whatever `load_audio` reads, or an array or tensor, [S] or [channels, S]: floats in [-1, 1], or int16
            or int32, which are scaled to it.
        sample_rate: Hz of an array. Files carry their own.
        target_rate: Hz of the result.

    Raises:
        AudiobatError: as for `load_audio`; an array without a sample rate, empty, of another shape or type.
    """
    if not isinstance(source, np.ndarray | Tensor):
        return torch.from_numpy(load_audio(source, target_rate))
    if sample_rate is None:
        raise AudiobatError("sample_rate is required with an array: give the rate at which it was sampled, in Hz.")
    samples = check_samples(_mono(source), "The array")
    return torch.from_numpy(resample(samples, sample_rate, target_rate))


def audio_duration(source: AudioSource) -> tuple[float, int]:
    """Seconds and sample rate of a recording, from its header where that tells the length.

    FLAC from a stream is decoded to its end, and of a file that FFmpeg reads the last second is decoded, since their
    headers do not tell exactly.

    Raises:
        AudiobatError: the file is missing, a folder, or not audio.
    """
    with open_audio(source) as file:
        return file.samples() / file.rate, file.rate


def pad_batch(waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack waveforms [S_b] into waveform [B, S], with zeros after each clip's end, and lengths [B] int64."""
    if not waveforms:
        raise AudiobatError("A batch needs at least one waveform.")
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    return torch.nn.utils.rnn.pad_sequence(list(waveforms), batch_first=True), lengths


def open_audio(
    source: AudioSource, name: str | None = None, is_right: bool = False
) -> SoundFile | JoinedFile | CodecFile:
    """Open a recording for reading; raises an AudiobatError that calls it `name`, by default its path.

    `is_right`: its header is known to be right about what it holds, so that nobody looks into it.

    A file with an extension of CODEC_EXTENSIONS goes to FFmpeg; any other to libsndfile and, if libsndfile does not
    know the format, to FFmpeg, where PyAV is installed.
    """
    name = source_name(source) if name is None else name
    if isinstance(source, str | Path):
        with _refusals(name):
            _check_file(source, name)
    elif not isinstance(source, bytes) and not all(hasattr(source, method) for method in ("read", "seek", "tell")):
        raise AudiobatError(f"{name} cannot be read as audio: give a path, bytes or an open file that can seek.")
    by_ffmpeg = os.path.splitext(name)[1].lower() in CODEC_EXTENSIONS
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with _refusals(name):
        file = CodecFile(opened, name) if by_ffmpeg else _open_any(opened, name, is_right)
    if not MIN_RATE <= file.rate <= MAX_RATE:
        file.__exit__()
        raise AudiobatError(
            f"{name} claims a sample rate of {file.rate} Hz: {MIN_RATE} to {MAX_RATE} Hz can be read, check its header."
        )
    return file


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn the system's refusal to open a file into one sentence with its reason."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise AudiobatError(f"There is no file {name}: check the path.") from None
    except OSError as error:
        raise AudiobatError(
            f"{name} cannot be read ({error.strerror or error}): check the path, and who may read there."
        ) from None


def _check_file(path: str | Path, name: str) -> None:
    """Raise an AudiobatError for what is no file, and an OSError for what the system does not let us look at."""
    try:
        status = os.stat(path)
    except ValueError:  # a zero byte
        raise AudiobatError(f"There is no file {name}: check the path.") from None
    if stat.S_ISDIR(status.st_mode):
        os.scandir(path).close()  # a folder that may not be listed stands in the clip table for the clips in it
        raise AudiobatError(f"{name} is a folder: give an audio file.")
    if not stat.S_ISREG(status.st_mode):
        raise AudiobatError(f"{name} is no plain file, but a pipe, socket or device: give an audio file.")
    if status.st_size == 0:
        raise AudiobatError(f"{name} is empty (0 bytes): copy or download it again.")


def _open_any(source: str | Path | BinaryIO, name: str, is_right: bool) -> SoundFile | JoinedFile | CodecFile:
    """Open with libsndfile, else with FFmpeg, else fail with libsndfile's reason."""
    try:
        if is_right:
            return SoundFile(source if isinstance(source, str | Path) else CalmFile(source), name)
        return _open_sound(source, name)
    except UnicodeEncodeError:
        raise AudiobatError(f"{name} has a name that is not UTF-8: rename the file.") from None
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a headerless .raw file
        if isinstance(source, str | Path):
            io.FileIO(source).close()  # raises the system's reason, which libsndfile does not pass on
        hint = "give WAV, FLAC, OGG or MP3"
        if importlib.util.find_spec("av") is None:
            hint += ", or pip install audiobat[codec] for what FFmpeg reads"
        else:
            with suppress(UnknownFormat):
                return CodecFile(source, name)
        raise AudiobatError(f"{name} cannot be read as audio ({reason(error)}): {hint}.") from error


def _open_sound(source: str | Path | BinaryIO, name: str) -> SoundFile | JoinedFile:
    """Open with libsndfile: the file itself, or the recordings that are found in it."""
    with ExitStack() as closing:
        opened = CalmFile(closing.enter_context(io.FileIO(source)) if isinstance(source, str | Path) else source)
        place = opened.seek(0, os.SEEK_CUR)
        raw = RawFile(opened)
        parts, odd = look_into(raw, name)
        if len(parts) == 1 and parts[0].spans is None:
            opened.seek(place)
            return SoundFile(source if isinstance(source, str | Path) else opened, name, last_page=parts[0].last_page)
        file = JoinedFile(raw, parts, name)
        file.closing = closing.pop_all()
    if odd:
        _tell(name, odd)
    return file


def _tell(name: str, odd: str) -> None:
    """Warn of a file's header, but of one file only for each kind of fault."""
    kind = re.sub(r"\d+", "", odd)
    if kind not in _told:
        _told.add(kind)
        warnings.warn(f"{name}: {odd}; all of it is read. Other files like it are not named.", stacklevel=2)


_told: set[str] = set()


def resample(samples: Samples, rate: int, target_rate: int) -> Samples:
    """Resample [S] from `rate` to `target_rate` Hz (soxr, high quality), to at least one sample."""
    if not (MIN_RATE <= rate <= MAX_RATE and MIN_RATE <= target_rate <= MAX_RATE):
        raise AudiobatError(
            f"Cannot resample from {rate} to {target_rate} Hz: both rates must lie in {MIN_RATE} to {MAX_RATE} Hz."
        )
    if rate == target_rate:
        return samples
    resampled: Samples = soxr.resample(samples, rate, target_rate, quality="HQ")
    return resampled if len(resampled) else samples[:1]


def check_samples(samples: Samples, name: str) -> Samples:
    """Return the samples if there are any, none of them beyond LOUDEST; else raise an AudiobatError that names them."""
    if not len(samples):
        raise AudiobatError(f"{name} has no samples: give audio that is not empty.")
    low, high = float(samples.min()), float(samples.max())
    if not (low >= -LOUDEST and high <= LOUDEST):  # as is NaN, which is both then; np.isfinite needs an array
        if math.isfinite(low) and math.isfinite(high):
            raise AudiobatError(
                f"{name} holds samples of {max(-low, high):.3g}, beyond {LOUDEST:g} (full scale is 1): "
                "it is damaged or in a wrong unit, repair it or leave it out."
            )
        raise AudiobatError(f"{name} holds NaN or infinite samples: repair it or leave it out.")
    return samples


def source_name(source: object) -> str:
    """The name by which errors call a source: its path, or its type."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"Audio given as {len(source)} bytes"
    return str(getattr(source, "name", f"Audio given as {type(source).__name__}"))


def _mono(array: NDArray[Any] | Tensor) -> Samples:
    """Average an array [S] or [channels, S] to float32 [S]."""
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fi":
            raise AudiobatError(f"The array has type {array.dtype}: give floats in [-1, 1], int16 or int32.")
        array = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    samples = array.detach().cpu()
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 0 < len(samples) <= MAX_CHANNELS):
        raise AudiobatError(f"The array has shape {list(samples.shape)}: give [samples] or [channels, samples].")
    if not samples.is_floating_point() and samples.dtype not in INTEGER_SCALE:
        raise AudiobatError(f"The array has type {samples.dtype}: give floats in [-1, 1], int16 or int32.")
    mono = samples.float() / INTEGER_SCALE.get(samples.dtype, 1.0)
    return np.ascontiguousarray((mono.mean(0) if mono.ndim == 2 else mono).numpy())
