"""Clips of different lengths: what is cut off changes no clip, and no mask hides what is not there."""

import types

import pytest
import torch

from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FrontendConfig,
    MaskConfig,
    ModelConfig,
    ObjectiveConfig,
    PretrainConfig,
)
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.layers import GatedAttention
from audiobat.pretraining.lengths import apart, together
from audiobat.pretraining.masks.base import clips_of_clones, seeded_generator, take, take_valid
from audiobat.pretraining.objectives.base import embed_clips
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression

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
    clips = together(encoder_of(), batch_of([300, 200, 250]))
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


def test_parts_are_the_clips_of_each_last_column():
    lengths = [SEVEN, FULL, 300, SEVEN + 700]
    parts = apart(encoder_of(), batch_of(lengths, clips=4))
    assert [part.places.tolist() for part in parts] == [[2], [0, 3], [1]]
    assert [part.lengths.tolist() for part in parts] == [[300], [SEVEN, SEVEN + 700], [FULL]]
    assert [part.waveform.shape[1] for part in parts] == [300, SEVEN + 700, FULL]
    assert all(part.is_even for part in parts)
    batch = batch_of(lengths, clips=4)
    for part in parts:
        assert torch.equal(part.waveform, batch.waveform[part.places, : part.waveform.shape[1]])


@pytest.mark.parametrize(("pad", "lengths"), [("grid", [FULL, 300, 500]), ("mask", None)])
def test_what_has_no_hidden_padding_stays_together(pad: str, lengths):
    batch = batch_of(lengths)
    (part,) = apart(encoder_of(pad=pad), batch)
    assert part.waveform is batch.waveform
    assert part.places is None


def objective_of(**parts) -> MaskedLatentRegression:
    torch.manual_seed(0)
    model = encoder_of().config
    fields = {
        "frontend": model.frontend,
        "encoder": model.encoder,
        "decoder": DecoderConfig(depth=2, heads=2),
        "mask": MaskConfig(clones=3, block_size=2),
        "objective": ObjectiveConfig(global_weight=0.5, apart=True),
        "data": DataConfig(clip_seconds=0.64),
    }
    return MaskedLatentRegression(PretrainConfig(**(fields | parts)))


def padded_loss(model: MaskedLatentRegression, batch, step: int) -> torch.Tensor:
    """The loss with all clips padded to the longest, and masks of attention that hide it."""
    student, clones = model.student, 3
    spectrogram, valid = student.spectrogram(batch.waveform, batch.lengths)
    tokens = student.embed_patches(spectrogram)
    targets = model.teacher(spectrogram, valid)
    clip = clips_of_clones(len(tokens), clones, tokens.device)
    squares, cells = torch.zeros(()), 0
    cls_squares = torch.zeros(())
    for row in range(len(clip)):
        one, own = clip[row : row + 1], valid[clip[row]].sum()
        grid = (int(own) // 4, 4)
        masks = model.mask.draw(len(clip), grid, seeded_generator(torch.device("cpu"), 0, step, 0))
        padding = torch.arange(int(own), valid.shape[1])[None]  # shown to attention, and hidden by its mask
        visible = torch.cat([masks.visible[row : row + 1], padding], 1)
        encoded = student.encode_tokens(take(tokens, one, visible), take_valid(valid, one, visible))
        shown = masks.visible.shape[1]
        order = torch.cat([visible, masks.masked[row : row + 1]], 1)
        x = torch.cat([encoded[:, 1:], model.decoder.mask_token.expand(1, masks.masked.shape[1], -1)], 1)
        x = x + model.decoder.pos_embed[order]
        for block in model.decoder.blocks:
            x, _ = block(x, valid[one[0]].gather(1, order))
        predicted = model.decoder.proj(x[:, shown + padding.shape[1] :])
        error = (predicted - take(targets.patch_targets, one, masks.masked[row : row + 1])).square().mean(-1)
        squares, cells = squares + error.sum(), cells + error.numel()
        cls_squares = cls_squares + (encoded[0, 0] - targets.cls_target[one[0, 0]]).square().mean()
    return squares / cells + 0.5 * cls_squares / len(clip)


def gradients(model: MaskedLatentRegression, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("lengths", [[FULL, SEVEN, 3_000], [SEVEN, SEVEN + 700, SEVEN + 5], [2_000, FULL, 2_001]])
def test_the_loss_and_its_gradient_are_those_under_masks_of_padding(lengths):
    model, batch = objective_of(), batch_of(lengths)
    loss, stats = model(batch, 9)
    found = gradients(model, loss)
    plain = padded_loss(model, batch, 9)
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, gradients(model, plain), rtol=1e-5, atol=1e-5)
    assert all(value.isfinite() for value in stats.values())


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_the_clips_of_a_batch_do_not_change_what_a_clip_is_taught(drop_path: float):
    """The clones of the first clip are the same beside clips that end with it and beside others."""
    encoder = encoder_of().config.encoder
    model = objective_of(encoder=type(encoder)(**{**vars(encoder), "drop_path": drop_path}))
    seen = {}
    for others in ([SEVEN, SEVEN], [300, FULL]):
        batch = batch_of([SEVEN, *others])
        outcomes = []
        compare = model.compare_clones
        model.compare_clones = lambda *args, outcomes=outcomes, compare=compare: (
            outcomes.append((args[2].place, compare(*args))) or outcomes[-1][1]
        )
        torch.manual_seed(3)
        model(batch, 4)
        del model.compare_clones
        seen[tuple(others)] = torch.cat([o.cls[place < 3] for place, (_, o) in outcomes if (place < 3).any()])
    one, other = seen.values()
    assert one.shape == (3, 16)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("retention_weight", [0.0, 1.0])
def test_clips_that_stay_together_are_masked_where_they_end_apart(masks, retention_weight: float):
    model = objective_of(objective=ObjectiveConfig(retention_weight=retention_weight))
    loss, stats = model(batch_of([SEVEN, FULL, 300]), 0)
    assert loss.isfinite()
    assert ("retention_loss" in stats) == (retention_weight > 0)
    assert all(mask is not None for mask in masks)
    masks.clear()
    model(batch_of([SEVEN, SEVEN + 1, SEVEN + 300]), 0)
    assert all(mask is None for mask in masks)


def test_mixtures_do_not_run_apart():
    with pytest.raises(AudiobatError, match="retention_weight mixes clips of different lengths"):
        ObjectiveConfig(retention_weight=1.0, apart=True)


def test_a_mixture_whose_partner_ends_before_the_mixed_columns_has_a_loss():
    model = objective_of(objective=ObjectiveConfig(retention_weight=1.0))
    for step in range(6):  # other columns are mixed in each
        loss, stats = model(batch_of([300, FULL, FULL]), step)
        loss.backward()
        assert all(torch.as_tensor(value).isfinite() for value in stats.values()), step
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None), step


def test_no_attention_is_masked_where_clips_run_apart(masks):
    objective_of()(batch_of([SEVEN, FULL, 300]), 0)
    assert masks
    assert all(mask is None for mask in masks)
