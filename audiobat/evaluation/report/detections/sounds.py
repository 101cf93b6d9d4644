"""Recordings to what a page plays and shows: an MP3 file, and spectrograms in strips, which a browser loads as needed.

Any browser plays MP3; at a constant bit rate it finds each second of it at once.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib import image
from numpy.typing import NDArray

from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.audio.read import open_audio, read_span, source_name
from audiobat.config import FrontendConfig
from audiobat.engine.files import write_atomic

HIGHEST_RATE = 32_000  # Hz, of sounds on a page
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000)
STRIP = 60.0  # seconds
COLUMN = 0.02  # seconds
BANDS = 96
QUIET, LOUD = 0.1, 0.999  # quantiles of the levels that are shown black and white
TICKS_KHZ = (0.5, 1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Sound:
    """A stretch of a recording, as files beside the page."""

    audio: str
    strips: tuple[tuple[str, float, float], ...]  # file, start and end in seconds
    ticks: tuple[tuple[float, str], ...]  # height from 0 to 1, and the frequency there
    seconds: float


def write_sound(source: Path, folder: Path, name: str, start: float = 0.0, seconds: float | None = None) -> Sound:
    """Write a stretch of a recording into `folder` as NAME.mp3 and NAME_0.webp, NAME_1.webp and so on.

    Raises:
        AudiobatError: a recording that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples, rate = read_stretch(source, start, seconds)
    packed = io.BytesIO()  # as libsndfile does not say why a file cannot be written
    soundfile.write(packed, samples, rate, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT")
    write_atomic(folder / f"{name}.mp3", packed.getvalue())
    mel = frontend(rate)
    length = round(STRIP * rate)
    parts = [samples[first : first + length] for first in range(0, len(samples), length)]
    levels = [decibels(part, mel) for part in parts]
    low, high = np.quantile(np.concatenate(levels), (QUIET, LOUD))
    strips = []
    for number, (part, level) in enumerate(zip(parts, levels, strict=True)):
        file_name = f"{name}_{number}.webp"
        write_atomic(folder / file_name, picture(level, low, high))
        strips.append((file_name, number * STRIP, number * STRIP + len(part) / rate))
    return Sound(f"{name}.mp3", tuple(strips), frequencies(mel), len(samples) / rate)


def read_stretch(source: Path, start: float, seconds: float | None) -> tuple[NDArray[np.float32], int]:
    """Samples [S] of a stretch, and their rate: the recording's own or less, one that MP3 knows."""
    with open_audio(source) as file:
        rate = max((rate for rate in MP3_RATES if rate <= min(file.rate, HIGHEST_RATE)), default=MP3_RATES[0])
        return read_span(file, source_name(source), rate, start, seconds), rate


def frontend(rate: int) -> MelFrontend:
    """Mel bands in dB, of a column each 20 ms."""
    window = 1 << (round(0.032 * rate).bit_length() - 1)  # 16 to 32 ms
    settings = FrontendConfig(
        sample_rate=rate, n_fft=2 * window, win_length=window, hop_length=round(COLUMN * rate), mel_bins=BANDS
    )
    return MelFrontend(settings)


def decibels(samples: NDArray[np.float32], mel: MelFrontend) -> NDArray[np.float32]:
    """The levels [T, F] of samples [S], T = S over the hop."""
    waveform = torch.from_numpy(samples)[None]
    with torch.no_grad():
        power = mel.mel_power(waveform, torch.tensor([len(samples)]))[0]
    columns = max(1, len(samples) // mel.config.hop_length)
    levels: NDArray[np.float32] = (10 * torch.log10(power.clamp(min=1e-10)))[:columns].numpy()
    return levels


def picture(levels: NDArray[np.float32], low: float, high: float) -> bytes:
    """Levels [T, F] as an image: time to the right, the highest band on top."""
    packed = io.BytesIO()
    shades = np.clip((levels.T[::-1] - low) / max(high - low, 1e-6), 0, 1)
    image.imsave(packed, shades, vmin=0, vmax=1, cmap="magma", format="webp", pil_kwargs={"quality": 70})
    return packed.getvalue()


def frequencies(mel: MelFrontend) -> tuple[tuple[float, str], ...]:
    """Where the frequencies of TICKS_KHZ lie in the picture, as far as it reaches."""
    top = mel_of(mel.config.sample_rate / 2)
    heights = [(mel_of(1000 * khz) / top, f"{khz:g} kHz") for khz in TICKS_KHZ]
    return tuple((height, name) for height, name in heights if height < 0.97)


def mel_of(hertz: float) -> float:
    """HTK's mel scale, that of the frontend."""
    return float(2595 * np.log10(1 + hertz / 700))
