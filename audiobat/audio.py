"""File, bytes or array to a mono float32 waveform at the model's rate; lengths of recordings, windows and batches.

In: anything that libsndfile reads, or samples with their rate. Out: [S], mean over channels, resampled by soxr.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.errors import AudiobatError

AudioSource: TypeAlias = str | Path | bytes | BinaryIO
Samples: TypeAlias = NDArray[np.float32]

AUDIO_EXTENSIONS = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".nist", ".oga", ".ogg", ".opus"}
    | {".rf64", ".snd", ".sph", ".voc", ".w64", ".wav"}
)
INTEGER_SCALE = {torch.int16: 2.0**15, torch.int32: 2.0**31}
UNKNOWN = 2**63 - 1  # frames, in libsndfile's words for a header without a length
MAX_CHANNELS = 64  # an array with more is surely [samples, channels]


def load_audio(source: AudioSource, sample_rate: int, start: float = 0.0, seconds: float | None = None) -> Samples:
    """Read a recording, or a part of it, as mono float32 [S] at `sample_rate` Hz.

    Only the part asked for is decoded. A file that was cut short gives the samples it still holds where its format
    allows that (WAV, AIFF, MP3), else an error.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        sample_rate: Hz of the result.
        start: where to begin, in seconds.
        seconds: how much to read; None: to the end. A recording that ends sooner gives what it has.

    Raises:
        AudiobatError: the source is missing, a folder, not audio, damaged, without samples from `start` on, or holds
            NaN or infinity.
    """
    name = source_name(source)
    if start < 0 or (seconds is not None and seconds <= 0):
        raise AudiobatError(f"{name}: start {start} s, seconds {seconds}: give a start from 0 and more than 0 seconds.")
    with open_audio(source) as file:
        rate, total = file.samplerate, file.frames
        first = round(start * rate)
        count = -1 if seconds is None else max(1, round(seconds * rate))
        if total and first >= total:
            raise AudiobatError(f"{name} lasts {total / rate:g} s: it has no audio from {start:g} s on.")
        try:
            file.seek(first)
            samples = file.read(count, dtype="float32", always_2d=True).mean(axis=1)
        except soundfile.SoundFileError as error:
            raise AudiobatError(f"{name} is damaged ({_reason(error)}): copy or encode it again.") from error
    return resample(check_samples(samples, name), rate, sample_rate)


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


def audio_duration(path: str | Path) -> tuple[float, int]:
    """Seconds and sample rate of a file, from its header alone.

    Raises:
        AudiobatError: the file is missing, a folder, or not audio.
    """
    with open_audio(path) as file:
        return file.frames / file.samplerate, file.samplerate


def decode_pcm(data: bytes | memoryview, start: int = 0, count: int | None = None) -> Samples:
    """Headerless little-endian 16-bit mono samples to float32 [S]: `count` of them from sample `start` on (all)."""
    if len(data) % 2:
        raise AudiobatError(f"16-bit samples take an even number of bytes, not {len(data)}: the clip was cut short.")
    stored = np.frombuffer(data, "<i2")[start:] if count is None else np.frombuffer(data, "<i2")[start : start + count]
    return np.multiply(stored, np.float32(1 / 2**15), dtype=np.float32)


def pad_batch(waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack waveforms [S_b] into waveform [B, S], zeros after each one's end, and lengths [B] int64."""
    if not waveforms:
        raise AudiobatError("A batch needs at least one waveform.")
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    return torch.nn.utils.rnn.pad_sequence(list(waveforms), batch_first=True), lengths


def windows(samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Cut `samples` into windows every `hop`, as (start, end): together they cover everything, the last may be short.

    A recording no longer than a window gives one window.
    """
    if samples < 1 or not 0 < hop <= window:
        raise AudiobatError(f"No windows of {window} every {hop} cover {samples} samples: use 0 < hop <= window.")
    count = 1 + -(-max(0, samples - window) // hop)
    return [(i * hop, min(i * hop + window, samples)) for i in range(count)]


def open_audio(source: AudioSource) -> soundfile.SoundFile:
    """Open a recording for reading; raises an AudiobatError that names it."""
    name = source_name(source)
    if isinstance(source, str | Path):
        if not Path(source).exists():
            raise AudiobatError(f"There is no file {name}: check the path.")
        if Path(source).is_dir():
            raise AudiobatError(f"{name} is a folder: give an audio file.")
        if Path(source).stat().st_size == 0:
            raise AudiobatError(f"{name} is empty (0 bytes): copy or download it again.")
    elif not isinstance(source, bytes) and not hasattr(source, "read"):
        raise AudiobatError(f"{name} cannot be read as audio: give a path, bytes or an open file.")
    try:
        file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except UnicodeEncodeError:
        raise AudiobatError(f"{name} has a name that is not UTF-8: rename the file.") from None
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a headerless .raw file
        reason = _reason(error)
        raise AudiobatError(f"{name} cannot be read as audio ({reason}): give WAV, FLAC, OGG or MP3.") from error
    if file.frames == UNKNOWN:
        file.close()
        raise AudiobatError(f"{name} does not say how long it is, as FLAC from a stream does: encode it again.")
    return file


def resample(samples: Samples, rate: int, target_rate: int) -> Samples:
    """Resample [S] from `rate` to `target_rate` Hz (soxr, high quality), to at least one sample."""
    if rate <= 0 or target_rate <= 0:
        raise AudiobatError(f"Cannot resample from {rate} to {target_rate} Hz: both rates must be positive.")
    if rate == target_rate:
        return samples
    resampled: Samples = soxr.resample(samples, rate, target_rate, quality="HQ")
    return resampled if len(resampled) else samples[:1]


def check_samples(samples: Samples, name: str) -> Samples:
    """Return the samples if there are any and all are finite; raises an AudiobatError that names their origin."""
    if not len(samples):
        raise AudiobatError(f"{name} has no samples: give audio that is not empty.")
    if not np.isfinite(samples).all():
        raise AudiobatError(f"{name} holds NaN or infinite samples: repair it or leave it out.")
    return samples


def source_name(source: object) -> str:
    """What errors call a source: its path, or what it is."""
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


def _reason(error: Exception) -> str:
    """A decoder's own words, without the file's name in front."""
    words = getattr(error, "error_string", str(error))
    return str(words).strip().rstrip(".")
