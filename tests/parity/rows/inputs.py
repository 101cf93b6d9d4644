"""Spectrograms of BAT's frontend and of EAT's."""

from collections.abc import Callable, Iterator

import torch

from audiobat.audio.frontends.base import build_frontend
from audiobat.config import FrontendConfig

from ..plain import frontends
from ..precision import precision
from .base import Row, difference
from .material import batch_of, sounds

LENGTHS = (16_000, 1_123, 4_801)  # samples of the clips of one batch


def spectrograms(config: FrontendConfig, plain: Callable[[frontends.Array], frontends.Array]) -> tuple[float, float]:
    """Differences in float64 and in float32; what lies behind a clip's own frames has no say."""
    found = []
    for dtype in (torch.float64, torch.float32):
        with precision(dtype), torch.no_grad():
            batch = batch_of(sounds(LENGTHS))
            spectrogram, _ = build_frontend(config)(batch.waveform, batch.lengths)
        wanted = [torch.from_numpy(plain(waveform)) for waveform in sounds(LENGTHS)]
        clips = zip(spectrogram, wanted, strict=True)
        found.append(max(difference(ours[: len(theirs)], theirs) for ours, theirs in clips))
    return found[0], found[1]


def rows() -> Iterator[Row]:
    both = spectrograms(FrontendConfig("mel_db"), frontends.mel_db_minmax)
    yield Row("BAT's frontend", "BAT, Section 5.1; its release for windows and floors", "spectrograms", *both)
    both = spectrograms(
        FrontendConfig("kaldi_fbank", statistics="audioset_eat"),
        lambda x: (frontends.kaldi_fbank(x) + 4.268) / (2 * 4.569),
    )
    yield Row("EAT's frontend", "EAT, its data loader; Kaldi", "spectrograms", *both)
