"""Rotary positions against complex numbers, chosen patches against hidden ones, and features of clips of any length."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import audiobat
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.errors import AudiobatError
from audiobat.models.attention import attend, attend_near
from audiobat.models.encoder import AudioEncoder, pool_features
from audiobat.models.features import LayerFeatures
from audiobat.models.layers import GatedAttention
from audiobat.models.rotary import places_of, turned

HOP, PATCH, TABLE, ROWS, DIM = 80, 8, 4, 2, 16
WINDOW = TABLE * PATCH  # frames
MEL = FrontendConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=HOP, mel_bins=PATCH * ROWS)


def make(positions="rotary", **fields) -> AudioEncoder:
    """A model whose tokens say what they hear: its weights are larger than those of a new one."""
    torch.manual_seed(0)
    sizes = {"dim": DIM, "depth": 2, "heads": 2, "patch_size": (PATCH, PATCH), "max_frames": WINDOW, **fields}
    model = AudioEncoder(ModelConfig(MEL, EncoderConfig(positions=positions, **sizes))).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(2)
            block.attn.proj.weight.mul_(3)
    return model


def sound(frames: int) -> torch.Tensor:
    """Samples of so many frames: noise whose level changes slowly, with a beginning that is its loudest and softest.

    So that the range of a longer clip's spectrogram is the same.
    """
    samples = (frames - 1) * HOP + 1
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(1))
    level = 0.05 + 0.03 * torch.sin(torch.arange(samples) / 3000)
    level[: 4 * HOP], level[4 * HOP : 8 * HOP] = 0.5, 0.0
    return noise * level


def test_queries_and_keys_are_turned_as_complex_numbers_are():
    rows, d = 3, 8
    patches = torch.tensor([[0, 5, 16, 100], [2, 3, 4, 1]])
    x = torch.randn(2, 2, 5, d)
    found = turned(x, places_of(patches, rows, d)).numpy()
    pairs = x.numpy()[..., : d // 2] + 1j * x.numpy()[..., d // 2 :]
    for clip, numbers in enumerate(patches.tolist()):
        for token, number in enumerate([None, *numbers], start=0):
            t, f = (0, 0) if number is None else divmod(number, rows)
            angles = np.array([f * 100.0 ** (-k / 2) for k in range(2)] + [t * 100.0 ** (-k / 2) for k in range(2)])
            wanted = pairs[clip, :, token] * np.exp(1j * angles)
            if number is None:
                wanted[:, 2:] = 0  # cls has no time
            assert np.abs(found[clip, :, token, : d // 2] - wanted.real).max() < 1e-5
            assert np.abs(found[clip, :, token, d // 2 :] - wanted.imag).max() < 1e-5


def test_scores_of_patches_tell_their_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 16).unbind()

    def score(asking: tuple[int, int], asked: tuple[int, int]) -> float:
        place = [places_of(torch.tensor([[t * 4 + f]]), 4, 16) for t, f in (asking, asked)]
        turned_q, turned_k = (turned(F.pad(x, (0, 0, 1, 0)), p)[..., 1:, :] for x, p in zip((q, k), place, strict=True))
        return float((turned_q * turned_k).sum())

    assert score((3, 1), (1, 2)) == pytest.approx(score((1003, 2), (1001, 3)), abs=1e-3)
    assert score((3, 1), (1, 2)) != pytest.approx(score((3, 1), (2, 2)), abs=1e-3)
    assert score((3, 1), (1, 2)) != pytest.approx(score((3, 1), (1, 3)), abs=1e-3)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("columns", [1, 4, 5, 13])
def test_near_patches_are_attended_to_as_under_a_mask_of_all(columns, padded):
    rows, reach = 2, 8
    n = rows * columns
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 2, 2, 1 + n, 4).unbind())
    valid = torch.arange(1 + n) < torch.tensor([[1 + n], [1 + n // 2]]) if padded else None
    column = torch.arange(n) // rows
    seen = torch.ones(1 + n, 1 + n, dtype=torch.bool)
    seen[1:, 1:] = (column[:, None] - column).abs() < reach // rows
    mask = seen.expand(2, -1, -1) if valid is None else seen & valid[:, None]
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    found = attend_near(q, k, v, reach, rows, valid)
    torch.testing.assert_close(found, wanted)
    grad = torch.randn(wanted.shape)
    for ours, theirs in zip(*(torch.autograd.grad(x, (q, k, v), grad) for x in (found, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs)
    if columns <= reach // rows:
        torch.testing.assert_close(found, attend(q, k, v, valid))


@torch.no_grad()
def test_chosen_patches_have_the_places_that_they_have_in_the_clip():
    """Visible patches by their numbers, in any order, are the whole clip with all others hidden from attention."""
    model = make()
    tokens = model.embed_patches(torch.rand(2, WINDOW, PATCH * ROWS))
    visible = torch.tensor([[6, 1, 2], [0, 7, 4]])
    shown = torch.zeros(2, TABLE * ROWS, dtype=torch.bool).scatter(1, visible, True)
    chosen = tokens.gather(1, visible[..., None].expand(-1, -1, DIM))
    some, whole = list(model.run_blocks(chosen, None, visible)), list(model.run_blocks(tokens, shown))
    for (ours, _), (theirs, _) in zip(some, whole, strict=True):
        torch.testing.assert_close(ours[:, 0], theirs[:, 0])
        torch.testing.assert_close(ours[:, 1:], theirs[:, 1:].gather(1, visible[..., None].expand(-1, -1, DIM)))
    assert torch.equal(model.encode_tokens(chosen, None, visible), some[-1][0])
    with pytest.raises(AudiobatError, match=r"encode_tokens does not know which patches .* masks\.visible"):
        model.encode_tokens(chosen)


@torch.no_grad()
def test_attention_maps_are_those_of_the_forward_pass():
    model = make()
    module, x = model.attention_input(sound(WINDOW)[None])
    assert isinstance(module, GatedAttention)
    places = model.places(x.shape[1] - 1)
    v = module._project(x)[2]
    attended = (module.attention_map(x, places=places) @ v).transpose(1, 2).flatten(2)
    out = module.proj(torch.sigmoid(module.gate(x)) * attended)
    torch.testing.assert_close(out, module(x, None, 0, places))


@torch.no_grad()
@pytest.mark.parametrize("frames", [3, WINDOW, WINDOW + 1, 3 * WINDOW + 5])
def test_a_clip_is_the_same_alone_and_beside_a_longer_one(frames):
    model = make()
    clip, other = sound(frames), sound(5 * WINDOW)
    batch = torch.stack([F.pad(clip, (0, len(other) - len(clip)), value=0.3), other])
    beside, alone = model(batch, torch.tensor([len(clip), len(other)])), model(clip[None])
    assert alone.grid == (math.ceil(frames / PATCH), ROWS)
    assert alone.valid.all()
    assert beside.valid[0].sum() == alone.valid.sum()
    torch.testing.assert_close(beside.patch_tokens[:, 0][:, beside.valid[0]], alone.patch_tokens[:, 0])
    torch.testing.assert_close(beside.cls_token[:, 0], alone.cls_token[:, 0])


def moved(before: LayerFeatures, after: LayerFeatures) -> float:
    """How far the features of patches that both have are apart, and cls, as shares of a token's norm: the greatest."""
    count = before.patch_tokens.shape[2]
    patches = (after.patch_tokens[-1, 0, :count] - before.patch_tokens[-1, 0]).norm(dim=-1)
    return float(max(patches.max(), (after.cls_token[-1] - before.cls_token[-1]).norm())) / math.sqrt(DIM)


@torch.no_grad()
def test_features_of_a_clip_that_grows_move_as_little_at_a_windows_end_as_anywhere():
    model, clip = make(), sound(3 * WINDOW + 2 * PATCH)
    columns = range(TABLE - 1, 3 * TABLE + 3)
    features = [model(clip[None, : (PATCH * n - 1) * HOP + 1]) for n in columns]
    assert [f.grid[0] for f in features] == list(columns)
    steps = torch.tensor([moved(*pair) for pair in itertools.pairwise(features)])
    ends = torch.arange(len(steps)) % TABLE == 1  # the step from TABLE columns to the next, from twice as many, ...
    assert int(ends.sum()) == 3
    assert steps[ends].max() <= steps[~ends].max()


@torch.no_grad()
def test_a_sound_has_the_same_features_wherever_windows_of_a_long_clip_would_end():
    """The clip from its second column on: every patch has another number, and the same features, away from the ends."""
    apart = {}
    for positions in ("rotary", "paper"):
        model = make(positions)
        spectrogram = model.frontend(sound(8 * WINDOW)[None])[0]
        whole = model.forward_spectrogram(spectrogram).patch_tokens[-1, 0].unflatten(0, (-1, ROWS))[1:]
        later = model.forward_spectrogram(spectrogram[:, PATCH:]).patch_tokens[-1, 0].unflatten(0, (-1, ROWS))
        inner = slice(2 * TABLE, -2 * TABLE)  # two blocks reach two tables
        apart[positions] = (whole - later)[inner].norm(dim=-1).max() / math.sqrt(DIM)
    assert apart["rotary"] < 0.001
    assert apart["paper"] > 0.1


def test_a_release_with_rotary_positions_comes_back_whole(tmp_path):
    model = make()
    model.save_pretrained(tmp_path / "release")
    loaded = audiobat.load(tmp_path / "release").eval()
    assert loaded.config == model.config
    clip = sound(3 * WINDOW)[None]
    with torch.no_grad():
        assert torch.equal(loaded(clip).patch_tokens, model(clip).patch_tokens)
    assert pool_features(loaded(clip)).shape == (1, DIM)
    assert loaded.pos_embed.shape == (1, ROWS, DIM)  # of one column


@torch.no_grad()
def test_positions_repeat_and_the_table_is_that_of_a_short_model():
    short, long = make("paper"), make("paper", max_frames=3 * WINDOW, position_frames=WINDOW)
    long.load_state_dict(short.state_dict())  # so weights of short clips serve
    spectrogram = torch.rand(1, 3 * WINDOW, PATCH * ROWS)
    parts = [short.embed_patches(part) for part in spectrogram.split(WINDOW, dim=1)]
    assert torch.equal(long.embed_patches(spectrogram), torch.cat(parts, dim=1))
    begun = spectrogram[:, : 2 * WINDOW - PATCH]
    assert torch.equal(long.embed_patches(begun), torch.cat(parts, dim=1)[:, : (2 * TABLE - 1) * ROWS])
    assert long(sound(3 * WINDOW)[None]).grid == (3 * TABLE, ROWS)
    cut = dataclasses.replace(long.config, encoder=dataclasses.replace(long.config.encoder, max_frames=PATCH))
    assert cut.position_grid == (1, ROWS)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"heads": 8}, r"encoder\.heads is 8: rotary positions need"),
        ({"position_frames": 32}, r"encoder\.position_frames is 32: .* use null"),
        ({"pad": "grid"}, r"encoder\.pad is 'grid': .* use mask"),
        ({"positions": "paper", "position_frames": 20}, r"encoder\.position_frames is 20: use a positive multiple"),
        ({"positions": "paper", "position_frames": 0}, r"encoder\.position_frames is 0: use a positive multiple"),
        ({"positions": "sincos"}, r"positions is 'sincos': choose one of paper, released, rotary"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields, said):
    with pytest.raises(AudiobatError, match=said):
        EncoderConfig(**{"dim": 16, "heads": 2, "positions": "rotary", **fields})
