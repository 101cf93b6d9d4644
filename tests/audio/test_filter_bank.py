"""Matrix products give the mel power that an FFT gives, for every size of FFT, and cut the same frames."""

import pytest
import torch
from torch import Tensor

from audiobat.audio.frontends.base import build_frontend
from audiobat.audio.frontends.filter_bank import FilterBank, MatrixBank
from audiobat.config import FrontendConfig

SIZES = (1, 2, 30, 225, 251, 400, 480, 512, 1000, 1024, 1920)  # of the Fourier transform: 251 is prime, 225 odd

pytestmark = pytest.mark.filterwarnings("ignore:Mel bins")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def by_matrices(config: FrontendConfig) -> FilterBank:
    frontend = build_frontend(config)
    assert isinstance(frontend, FilterBank)
    frontend.matrices = MatrixBank(frontend.filters, config.n_fft)
    return frontend


@pytest.mark.parametrize("n_fft", SIZES)
def test_products_are_the_fourier_transform_and_the_filters(n_fft: int) -> None:
    filters = noise(n_fft // 2 + 1, 7).abs()
    frames = noise(2, 3, max(1, n_fft - 9))  # as long as a window, which zeros follow
    spectrum = torch.fft.rfft(frames.double(), n=n_fft)
    wanted = spectrum.abs().square() @ filters.double()
    found = MatrixBank(filters, n_fft)(frames)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.mean()))


def test_a_bin_is_counted_once_though_its_mirror_image_is_computed_too() -> None:
    bins = 25
    frames = noise(1, 4, 2 * bins - 2)
    power = MatrixBank(torch.eye(bins), frames.shape[2])(frames)  # a filter for each bin
    torch.testing.assert_close(power, torch.fft.rfft(frames).abs().square(), rtol=1e-4, atol=1e-4)


# Kaldi's lowest bands have little power after pre-emphasis: an FFT itself is 3e-5 away from one in double precision.
@pytest.mark.parametrize(("kind", "tolerance"), [("mel_db", 1e-5), ("kaldi_fbank", 4e-5)])
def test_a_frontend_says_the_same_with_either(kind: str, tolerance: float) -> None:
    """Loud, faint and silent clips, of which one ends early and one is shorter than a window."""
    config = FrontendConfig(kind=kind)
    waveform = noise(4, 8000) * torch.tensor([0.3, 1e-4, 0.0, 0.1])[:, None]
    lengths = torch.tensor([8000, 5001, 8000, 130])
    wanted, counts = build_frontend(config)(waveform, lengths)
    found, same = by_matrices(config)(waveform, lengths)
    assert torch.equal(counts, same)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("size", "hop"), [(64, 16), (60, 16), (7, 16), (16, 16), (17, 16), (5, 1), (1, 3)])
@pytest.mark.parametrize("samples", [64, 65, 79, 80, 81, 200])
def test_blocks_make_the_same_frames(size: int, hop: int, samples: int) -> None:
    config = FrontendConfig(n_fft=64, win_length=64, hop_length=hop, mel_bins=2)
    waveform = noise(2, samples)
    frames = by_matrices(config).cut_frames(waveform, size)
    assert torch.equal(frames, build_frontend(config).cut_frames(waveform, size))
    assert torch.equal(frames, waveform.unfold(1, size, hop))
