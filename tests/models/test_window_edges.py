"""Features as a function of a clip's length: what a sample, a frame or a patch more than a window may change."""

import math

import pytest
import torch
from torch.nn import functional as F

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.data.windows import cut_windows
from audiobat.models.encoder import AudioEncoder, pool_features

HOP, PATCH, TABLE, BINS, DIM = 80, 16, 4, 16, 16
WINDOW = TABLE * PATCH  # frames
SILENT = pytest.mark.filterwarnings("ignore:Mel bins")
FRONTENDS = {
    "mel_db": FrontendConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=HOP, mel_bins=BINS),
    "kaldi_fbank": FrontendConfig("kaldi_fbank", 8000, 256, 200, HOP, BINS),
}
LAYOUTS = pytest.mark.parametrize(("kind", "pad"), [(kind, pad) for kind in FRONTENDS for pad in ("mask", "grid")])
pytestmark = SILENT


def make(kind, pad, **frontend):
    """A model whose cls and tokens say what they hear: its weights are larger than those of a new one."""
    torch.manual_seed(0)
    encoder = EncoderConfig(dim=DIM, depth=2, heads=2, patch_size=(PATCH, BINS // 2), max_frames=WINDOW, pad=pad)
    model = AudioEncoder(ModelConfig(FRONTENDS[kind], encoder)).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(2)
            block.attn.proj.weight.mul_(3)
    return model


def samples_of(kind, frames):
    """The fewest samples that make so many frames."""
    return (frames - 1) * HOP + (200 if kind == "kaldi_fbank" else 0) or 1


def sound(samples):
    """Noise whose level and colour change along the clip."""
    noise = torch.randn(samples + 1, generator=torch.Generator().manual_seed(1))
    time = torch.arange(samples) / 8000
    level = 0.05 + 0.04 * torch.sin(2 * math.pi * 0.7 * time)
    return level * (noise[1:] + torch.sin(0.5 * time) * noise[:-1]) + 0.02 * torch.sin(900 * (1 + time) * time)


def columns_of(frames):
    """The rule in words: a patch that is begun counts within a window, and a whole one behind it."""
    return math.ceil(frames / PATCH) if frames <= WINDOW else frames // PATCH


def plain_features(model, clip):
    """Tokens of the last block [N, D] and cls [D] of a clip alone, each window run by itself and without a mask."""
    (spectrogram,), _ = model.frontend(clip[None])
    count = columns_of(len(spectrogram))
    least = TABLE if model.config.encoder.pad == "grid" else count
    spectrogram = spectrogram[: max(count, least) * PATCH]
    spectrogram = F.pad(
        spectrogram, (0, 0, 0, max(count, least) * PATCH - len(spectrogram)), value=model.frontend.floor
    )
    windows = [model.encode_tokens(model.embed_patches(part[None]))[0] for part in spectrogram.split(WINDOW)]
    weights = [1 if model.config.encoder.pad == "grid" else len(window) - 1 for window in windows]
    cls = sum(window[0] * weight for window, weight in zip(windows, weights, strict=True)) / sum(weights)
    return torch.cat([window[1:] for window in windows])[: 2 * count], cls


def lengths_around(kind):
    """Samples of clips around a patch, a window and two: a sample, a frame and a patch less and more."""
    edges = [samples_of(kind, frames + 1) for frames in (PATCH, WINDOW, WINDOW + PATCH, 2 * WINDOW)]
    steps = (-PATCH * HOP, -HOP, -1, 0, 1, HOP, PATCH * HOP - 1, PATCH * HOP)
    return sorted({max(1, edge + step) for edge in edges for step in steps})


@torch.no_grad()
@LAYOUTS
def test_a_clip_runs_in_windows_of_its_own_alone_and_beside_others(kind, pad):
    model, lengths = make(kind, pad), lengths_around(kind)
    clip = sound(lengths[-1])
    batch = torch.stack([F.pad(clip[:n], (0, len(clip) - n), value=0.3) for n in lengths])
    beside = model(batch, torch.tensor(lengths))
    for i, n in enumerate(lengths):
        tokens, cls = plain_features(model, clip[:n])
        alone = model(clip[None, :n])
        assert alone.grid == ((max(TABLE, len(tokens) // 2) if pad == "grid" else len(tokens) // 2), 2)
        for features, row in ((alone, 0), (beside, i)):
            assert features.valid[row].sum() == len(tokens)
            torch.testing.assert_close(features.patch_tokens[-1, row][features.valid[row]], tokens, atol=1e-4, rtol=0)
            torch.testing.assert_close(features.cls_token[-1, row], cls, atol=1e-4, rtol=0)


@torch.no_grad()
@LAYOUTS
def test_a_sample_more_moves_features_little_unless_it_completes_a_patch(kind, pad):
    """A new column has its share of the mean, and in our layout of cls; in the released one a new window has its."""
    model = make(kind, pad)
    edges = [
        samples_of(kind, frames) for frames in (WINDOW, WINDOW + 1, WINDOW + PATCH, 2 * WINDOW, 2 * WINDOW + PATCH)
    ]
    clip, new_columns = sound(edges[-1] + 2), []
    for n in [edge + step for edge in edges for step in (-2, -1, 0, 1)]:
        before, after = model(clip[None, :n]), model(clip[None, : n + 1])
        columns = [int(features.valid.sum()) // 2 for features in (before, after)]
        grown = columns[1] - columns[0]
        assert grown in (0, 1)
        new_columns += [columns[1]] * grown
        limit = 0.03 + 2 * grown / columns[1]  # of the norm: two tokens of one norm are no further apart than twice it
        opens_window = grown and columns[0] % TABLE == 0
        for pool in ("mean", "cls"):
            old, new = pool_features(before, pool)[0], pool_features(after, pool)[0]
            moved = float((new - old).norm() / math.sqrt(DIM))
            if pool == "cls" and pad == "grid" and opens_window:
                windows = columns[1] // TABLE + 1
                last = plain_features(model, clip[: n + 1])[1] * windows - old * (windows - 1)  # the new window's cls
                assert moved == pytest.approx(float((last - old).norm() / windows / math.sqrt(DIM)), abs=0.01)
            else:
                assert moved < limit, (n, pool, columns)
    assert new_columns == [TABLE + 1, 2 * TABLE, 2 * TABLE + 1]


@torch.no_grad()
@LAYOUTS
def test_padding_to_a_length_makes_every_shorter_clip_one_of_that_length(kind, pad):
    model = make(kind, pad)
    seconds = samples_of(kind, WINDOW) / 8000
    config = ModelConfig(FrontendConfig(**{**vars(FRONTENDS[kind]), "pad_seconds": seconds}), model.config.encoder)
    padding = AudioEncoder(config).eval()
    padding.load_state_dict(model.state_dict())
    clip = sound(3000)
    by_hand = F.pad(clip, (0, round(seconds * 8000) - 3000))
    found, wanted = padding(clip[None]), model(by_hand[None])
    assert found.valid.all()
    torch.testing.assert_close(found.patch_tokens, wanted.patch_tokens, atol=1e-5, rtol=0)


@torch.no_grad()
@LAYOUTS
def test_a_stream_of_windows_has_no_row_for_a_rest_that_fills_no_patch(kind, pad):
    """The rows of a recording as it grows: those that are there stay, the last one changes little, and none is tiny."""
    model = make(kind, pad)
    window, least = model.max_samples, model.column_samples
    clip, rows = sound(2 * window + least + 2), {}
    edges = [window, window + least, 2 * window, 2 * window + least]
    for n in [edge + step for edge in edges for step in (-1, 0, 1)]:
        spans = list(cut_windows([clip[:n].numpy()], window, window, least))
        assert [len(part) for _, part in spans[:-1]] == [window] * (len(spans) - 1)
        assert least <= len(spans[-1][1]) <= window
        assert n - (spans[-1][0] + len(spans[-1][1])) < least
        rows[n] = [pool_features(model(torch.from_numpy(part)[None]), "mean")[0] for _, part in spans]
    assert [len(rows[edge]) for edge in edges] == [1, 2, 2, 3]
    assert [len(rows[edge - 1]) for edge in edges] == [1, 1, 2, 2]
    for edge in edges:
        for n in (edge - 1, edge):
            for old, new in zip(rows[n], rows[n + 1], strict=False):
                assert (new - old).norm() / math.sqrt(DIM) < 0.1  # of a row of 17 frames, whose range moves
