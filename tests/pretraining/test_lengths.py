"""Clips of different lengths: what is cut off changes no clip, and no mask hides what is not there."""

import types

import pytest
import torch

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.models.encoder import AudioEncoder
from audiobat.models.layers import GatedAttention
from audiobat.pretraining.lengths import cut_clips
from audiobat.pretraining.objectives.base import embed_clips

COLUMN = 8 * 160  # samples
FULL = 64 * 160 - 1  # samples of a full window: 64 frames, 8 columns
SEVEN = 6 * COLUMN  # the least samples whose last frame is the first of column 7


def encoder_of(pad="mask", patch_size=(8, 8), **frontend) -> AudioEncoder:
    torch.manual_seed(0)
    model = ModelConfig(
        FrontendConfig(mel_bins=32, n_fft=512, win_length=512, **frontend),
        EncoderConfig(dim=16, depth=2, heads=2, max_frames=64, patch_size=patch_size, pad=pad),
    )
    return AudioEncoder(model).eval()


def batch_of(lengths: list[int] | None, clips: int = 3):
    torch.manual_seed(1)
    waveform = torch.randn(clips, FULL) * 0.1
    for row, length in zip(waveform, lengths or [], strict=False):
        row[length:] = 0
    return types.SimpleNamespace(waveform=waveform, lengths=None if lengths is None else torch.tensor(lengths))


@pytest.fixture
def masks(monkeypatch) -> list[torch.Tensor | None]:
    """The masks of padding that attention gets."""
    seen = []
    forward = GatedAttention.forward

    def spy(self, x, valid=None, *args):
        seen.append(valid)
        return forward(self, x, valid, *args)

    monkeypatch.setattr(GatedAttention, "forward", spy)
    return seen


@pytest.mark.parametrize(
    ("lengths", "columns", "is_even"),
    [
        (None, 8, True),
        ([FULL, FULL, FULL - 1_000], 8, True),
        ([SEVEN, SEVEN + COLUMN - 1, SEVEN + 200], 7, True),
        ([SEVEN, SEVEN + COLUMN - 1, SEVEN - 1], 7, False),
        ([300, SEVEN, FULL], 8, False),
        ([300, 1, 900], 1, True),
    ],
)
def test_a_batch_ends_with_its_longest_clip(lengths, columns, is_even):
    encoder, batch = encoder_of(), batch_of(lengths)
    clips = embed_clips(encoder, batch)
    whole, valid = encoder.spectrogram(batch.waveform, batch.lengths)  # as long as a full crop
    assert clips.grid == (columns, 4)
    torch.testing.assert_close(clips.spectrogram, whole[:, : columns * 8])
    assert (clips.valid is None) == is_even
    if not is_even:
        assert torch.equal(clips.valid, valid[:, : columns * 4])
    elif valid is not None:
        assert torch.equal(valid, torch.arange(8 * 4).expand(3, -1) < columns * 4)  # all that is cut off was padding


@pytest.mark.parametrize("frontend", [{}, {"pad_seconds": 0.5}])
@pytest.mark.parametrize("lengths", [None, [2_000, 1_900, 500], [2_000, 2_000, 2_000]])
def test_padding_that_is_seen_stays(frontend: dict, lengths):
    encoder, batch = encoder_of(pad="grid", **frontend), batch_of(lengths)
    clips = embed_clips(encoder, batch)
    whole, valid = encoder.spectrogram(batch.waveform, batch.lengths)
    assert clips.grid == (8, 4)
    assert clips.valid is None
    assert valid is None
    assert torch.equal(clips.spectrogram, whole)


def test_zeros_that_a_frontend_adds_are_no_padding():
    """Each clip here is as long as `pad_seconds` says, and a longer one ends in another column."""
    encoder = encoder_of(pad_seconds=0.4)  # 41 frames, 6 columns
    assert embed_clips(encoder, batch_of([300, 1_000, 5_000])).valid is None
    assert embed_clips(encoder, batch_of([300, 1_000, SEVEN])).valid is not None


@pytest.mark.parametrize("patch_size", [(8, 32), (8, 16)])
def test_clips_of_a_moment_keep_two_patches(patch_size):
    """One that is seen, one that is predicted."""
    encoder = encoder_of(patch_size=patch_size)
    clips = embed_clips(encoder, batch_of([200, 100, 300]))
    assert clips.tokens.shape[1] == 2
    assert (clips.valid is None) == (patch_size == (8, 16))


def test_the_lengths_of_all_ranks_decide(monkeypatch):
    longer = torch.tensor([FULL])
    monkeypatch.setattr("audiobat.pretraining.lengths.gather_rows", lambda rows: torch.cat([rows, longer]))
    clips = cut_clips(encoder_of(), batch_of([300, 200, 250]))
    assert clips.waveform.shape == (3, FULL)
    assert not clips.is_even


def test_an_encoder_masks_no_padding_where_there_is_none(masks):
    encoder = encoder_of()
    even, uneven = [SEVEN, SEVEN + 5, SEVEN + 700], [SEVEN, SEVEN - 1, SEVEN + 700]
    for lengths in (even, uneven):
        batch = batch_of(lengths)
        waveform = batch.waveform[:, : max(lengths)]
        masks.clear()
        with torch.no_grad():
            together = encoder(waveform, batch.lengths)
            unmasked = [mask is None for mask in masks]
            assert unmasked == [lengths is even] * 2
            for row, length in enumerate(lengths):
                alone = encoder(waveform[row : row + 1, :length])
                own = together.valid[row]
                torch.testing.assert_close(together.patch_tokens[:, row][:, own], alone.patch_tokens[:, 0])
                torch.testing.assert_close(together.cls_token[:, row], alone.cls_token[:, 0])


@pytest.mark.parametrize("samples", [FULL, FULL + 161, 2 * FULL + 900])
def test_windows_that_clips_do_not_fill_are_masked(masks, samples: int):
    """Clips end together, but not with their last window."""
    encoder = encoder_of()
    torch.manual_seed(2)
    waveform = torch.randn(2, samples) * 0.1
    with torch.no_grad():
        given, absent = encoder(waveform, torch.tensor([samples, samples - 10])), encoder(waveform[:1])
    assert torch.equal(given.valid[:1], absent.valid)
    torch.testing.assert_close(given.patch_tokens[:, :1], absent.patch_tokens)
