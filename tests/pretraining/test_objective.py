"""Targets, decoders and the loss against slow formulas written clip by clip, and that training learns."""

import dataclasses
import types

import pytest
import torch
from torch.nn import functional as F

from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FrontendConfig,
    MaskConfig,
    ObjectiveConfig,
    PretrainConfig,
    TargetConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from audiobat.config.recipes import merge
from audiobat.errors import AudiobatError
from audiobat.models.layers import recompute_blocks
from audiobat.pretraining.masks.base import seeded_generator, take, visible_count
from audiobat.pretraining.objectives.base import build_objective
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression
from audiobat.pretraining.objectives.statistics import participation_ratio, pooled_variance, spread
from audiobat.pretraining.targets.teacher import Teacher

DEEP = EncoderConfig(dim=16, depth=8, heads=2, max_frames=64, patch_size=(8, 8), drop_path=0.2)


def tiny(**parts) -> PretrainConfig:
    fields = {
        "frontend": FrontendConfig(mel_bins=32, n_fft=512, win_length=512),
        "encoder": EncoderConfig(dim=16, depth=3, heads=2, max_frames=64, patch_size=(8, 8)),
        "decoder": DecoderConfig(depth=2, heads=2),
        "mask": MaskConfig(clones=3, block_size=2),
        "data": DataConfig(clip_seconds=0.64),
        "target": TargetConfig(ema_start=0.9, ema_end=0.99, ema_steps=50),
    }
    return PretrainConfig(**(fields | parts))


def model_of(**parts) -> MaskedLatentRegression:
    torch.manual_seed(0)
    return MaskedLatentRegression(tiny(**parts))


def batch_of(clips: int, samples: int = 10_000, lengths=None):
    torch.manual_seed(1)
    return types.SimpleNamespace(waveform=torch.randn(clips, samples) * 0.1, lengths=lengths)


def slow_targets(teacher: Teacher, spectrogram, valid, source, layers):
    """Section 3, one clip after the other with its padding cut off after the blocks."""
    encoder, wanted = teacher.encoder, []
    outputs = [o[0 if source == "block" else 1] for o in encoder.run_blocks(encoder.embed_patches(spectrogram), valid)]
    for clip in range(len(spectrogram)):
        own = valid[clip] if valid is not None else torch.ones(outputs[0].shape[1] - 1, dtype=torch.bool)
        normed = []
        for out in outputs[-layers:]:
            x = out[clip, 1:][own]
            normed.append((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-6).sqrt())
        mean = torch.stack(normed).mean(0)
        z = (mean - mean.mean(-1, keepdim=True)) / (mean.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        wanted.append(z)
    return wanted


@pytest.mark.parametrize("source", ["block", "mlp"])
@pytest.mark.parametrize(("layers", "padded"), [(None, False), (2, True)])
def test_targets_match_the_plain_formula(source, layers, padded):
    model = model_of(target=TargetConfig(source=source, layers=layers))
    lengths = torch.tensor([10_000, 4_000]) if padded else None
    spectrogram, valid = model.student.spectrogram(batch_of(2).waveform, lengths)
    targets = model.teacher(spectrogram, valid)
    for clip, wanted in enumerate(slow_targets(model.teacher, spectrogram, valid, source, layers or 3)):
        own = valid[clip] if valid is not None else slice(None)
        torch.testing.assert_close(targets.patch_targets[clip][own], wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(targets.cls_target[clip], wanted.mean(0), atol=1e-4, rtol=1e-4)


def test_the_teacher_builds_no_graph_and_never_trains():
    model = model_of()
    model.train()
    spectrogram, valid = model.student.spectrogram(batch_of(2).waveform)
    assert not model.teacher.training
    assert not model.teacher(spectrogram, valid).patch_targets.requires_grad
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_ema_decay_and_update_follow_the_formula():
    model = model_of()
    assert [model.teacher.decay_at(s) for s in (0, 25, 50, 500)] == pytest.approx([0.9, 0.945, 0.99, 0.99])
    before = {n: p.clone() for n, p in model.teacher.encoder.named_parameters()}
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(torch.randn_like(p))
    model.after_step(25)
    student = dict(model.student.named_parameters())
    for name, p in model.teacher.encoder.named_parameters():
        torch.testing.assert_close(p, 0.945 * before[name] + 0.055 * student[name])


@pytest.mark.parametrize("kind", ["vit", "cnn"])
@pytest.mark.parametrize("lengths", [None, torch.tensor([10_000, 3_000])])
def test_the_loss_matches_a_loop_over_clips_and_clones(kind, lengths):
    config = {
        "decoder": DecoderConfig(kind=kind, depth=2, heads=2, groups=4),
        "objective": ObjectiveConfig(global_weight=0.5),
    }
    model = model_of(**config)
    batch = batch_of(2, lengths=lengths)
    torch.manual_seed(5)
    loss, stats = model(batch, 9)
    if kind == "cnn":
        model.decoder.eval()
    spectrogram, valid = model.student.spectrogram(batch.waveform, lengths)
    targets = model.teacher(spectrogram, valid)
    tokens = model.student.embed_patches(spectrogram)
    grid = (tokens.shape[1] // 4, 4)
    masks = model.mask.draw(6, grid, seeded_generator(torch.device("cpu"), 0, 9, 0))
    torch.manual_seed(5)  # the CNN's filler
    noise = torch.randn(6, tokens.shape[1], 16) * 0.01
    local_sum, local_count, global_sum = 0.0, 0, 0.0
    for row in range(6):
        clip, shown, hidden = row // 3, masks.visible[row], masks.masked[row]
        keep = None if valid is None else valid[clip][None]
        out = model.student.encode_tokens(tokens[clip, shown][None], None if keep is None else keep[:, shown])
        if kind == "vit":
            full = model.decoder.mask_token.expand(tokens.shape[1], -1).clone()
            full[shown] = out[0, 1:]
            x = (full + model.decoder.pos_embed[: len(full)])[None]
            for block in model.decoder.blocks:
                x, _ = block(x, keep)
            predicted = model.decoder.proj(x)[0]
        else:
            full = noise[row].clone()
            full[shown] = out[0, 1:]
            x = full.T.reshape(1, 16, *grid)
            for conv in model.decoder.convs:
                y = F.layer_norm(conv(x).permute(0, 2, 3, 1), (16,)).permute(0, 3, 1, 2)
                x = x + F.gelu(y)
            predicted = model.decoder.proj(x.reshape(16, -1).T)
        for patch in hidden.tolist():
            if valid is None or valid[clip, patch]:
                local_sum += (predicted[patch] - targets.patch_targets[clip, patch]).square().mean().item()
                local_count += 1
        global_sum += (out[0, 0] - targets.cls_target[clip]).square().mean().item()
    assert stats["local_loss"].item() == pytest.approx(local_sum / local_count, rel=1e-4)
    assert stats["global_loss"].item() == pytest.approx(global_sum / 6, rel=1e-4)
    assert loss.item() == pytest.approx(local_sum / local_count + 0.5 * global_sum / 6, rel=1e-4)


@pytest.mark.parametrize("lengths", [None, torch.tensor([10_000, 3_000])], ids=["full", "padded"])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"decoder": DecoderConfig(kind="cnn", depth=2, groups=4)},  # which draws noise for every clone
        {"objective": {"retention_weight": 0.7, "global_weight": 0.3}},
        {"encoder": {"drop_path": 0.5}},
    ],
    ids=["vit", "cnn", "mixtures", "drop path"],
)
def test_chunks_of_clones_change_neither_loss_nor_gradient_nor_statistics(parts, lengths):
    def step(accumulate, recompute=False):
        config = merge(
            to_dict(tiny()), {name: part if isinstance(part, dict) else to_dict(part) for name, part in parts.items()}
        )
        torch.manual_seed(0)
        model = MaskedLatentRegression(from_dict(PretrainConfig, merge(config, {"train": {"accumulate": accumulate}})))
        recompute_blocks(model, recompute)
        batch = batch_of(2, lengths=lengths)
        torch.manual_seed(5)
        loss, stats = model(batch, 9)
        (3 * loss).backward()
        return {
            "loss": loss.detach(),
            **stats,
            **{name: p.grad for name, p in model.named_parameters() if p.requires_grad},
        }

    whole = step(None)
    for accumulate in (2, 3, 4, 100):  # 100: of 6 clones each is a part
        torch.testing.assert_close(step(accumulate), whole, rtol=1e-5, atol=1e-6)
    for accumulate in (None, 3):
        torch.testing.assert_close(step(accumulate, recompute=True), step(accumulate), rtol=0, atol=0)


def test_a_block_that_is_run_again_keeps_its_input_alone():
    """Values that the backward pass is given, and how often blocks run."""
    torch.manual_seed(0)
    kept, runs = {}, {}
    for recompute in (False, True):
        model = build_objective(tiny(train=TrainConfig(recompute=recompute), encoder=DEEP))
        sizes, calls = [], []
        for block in (*model.student.blocks, *model.decoder.blocks):
            block.attn.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            loss, _ = model(batch_of(2), 0)
        loss.backward()
        kept[recompute], runs[recompute] = sum(sizes), len(calls)
    assert runs[True] == 2 * runs[False] == 2 * (8 + 2)
    assert kept[True] < 0.4 * kept[False]


def test_an_objective_that_runs_its_batch_at_once_refuses_parts(tmp_path):
    class Whole(MaskedLatentRegression):
        in_parts = False

    config = tiny(train=TrainConfig(accumulate=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiobat.pretraining.objectives.base.class_for", lambda _: Whole)
        with pytest.raises(AudiobatError, match=r"train.accumulate is 2.*Whole.*sum_in_chunks"):
            build_objective(config)
        assert isinstance(build_objective(tiny(train=TrainConfig(accumulate=1))), Whole)


def test_what_a_layer_draws_by_itself_is_not_the_same_in_each_chunk():
    """Of the rows of a batch, a plain dropout draws for a chunk alone."""
    model, kept = model_of(train=TrainConfig(accumulate=3), decoder=DecoderConfig(kind="cnn", depth=1, groups=4)), []
    dropout = torch.nn.Dropout(0.5)
    decode = model.decoder.forward

    def with_dropout(tokens, *args):
        kept.append(dropout(torch.ones(2, 50)))
        return decode(tokens, *args)

    model.decoder.forward = with_dropout
    model(batch_of(2), 0)
    assert len(kept) == 3
    assert not any(torch.equal(kept[0], other) for other in kept[1:])
    assert not torch.equal(kept[1], kept[2])


@pytest.mark.parametrize("counts", [[5, 5], [4, 1, 7], [1], [1, 1]])
def test_variances_of_parts_make_that_of_all(counts):
    torch.manual_seed(0)
    parts = [torch.randn(count, 3) * count for count in counts]
    means, variances = (torch.stack(x) for x in zip(*((p.mean(0), p.var(0, correction=0)) for p in parts), strict=True))
    wanted = torch.cat(parts).var(0).mean() if sum(counts) > 1 else torch.tensor(0.0)
    torch.testing.assert_close(pooled_variance(means, variances, counts), wanted)


def test_a_chunk_is_what_is_in_memory(monkeypatch):
    sizes = []
    model = model_of(train=TrainConfig(accumulate=3))
    compare = model.compare_clones
    monkeypatch.setattr(model, "compare_clones", lambda *args: sizes.append(len(args[2].clip)) or compare(*args))
    model(batch_of(2), 0)
    assert sizes == [2, 2, 2]


def test_the_last_decoder_block_leaves_out_visible_cells_alone():
    model, masks = model_of(decoder=DecoderConfig(depth=1, heads=2)), []
    block = model.decoder.blocks[0]
    x, valid = torch.randn(3, 9, 16), torch.rand(3, 9) > 0.3
    for keep in (None, valid):
        for found, whole in zip(block(x, keep, 4), block(x, keep), strict=True):
            torch.testing.assert_close(found, whole[:, 4:])
    block.attn.register_forward_pre_hook(lambda _, args: masks.append(args[2]))
    model(batch_of(2), 0)
    assert set(masks) == {visible_count(7 * 4 + 4, 0.8)}


def test_gradients_reach_every_trained_parameter():
    model = model_of()
    model(batch_of(2), 0)[0].backward()
    dead = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not dead


def test_padding_of_a_clip_does_not_move_the_loss():
    model = model_of()
    lengths = torch.tensor([10_000, 3_000])
    clean, dirty = batch_of(2, lengths=lengths), batch_of(2, lengths=lengths)
    dirty.waveform[1, 3_000:] = 7.0
    clean.waveform[1, 3_000:] = 0.0
    assert model(clean, 4)[0].item() == pytest.approx(model(dirty, 4)[0].item(), abs=1e-6)


def test_take_gathers_rows_of_clips():
    tokens = torch.randn(2, 5, 3)
    clip, patch = torch.tensor([[0], [1], [1]]), torch.tensor([[0, 4], [2, 2], [1, 0]])
    taken = take(tokens, clip, patch)
    assert torch.equal(taken[1, 0], tokens[1, 2])
    assert torch.equal(taken[0, 1], tokens[0, 4])


def test_training_lowers_the_loss_and_keeps_its_spread():
    model, batch = model_of(), batch_of(4)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(60):
        loss, stats = model(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step(step + 1)
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert stats["target_variance"] > 0.01


def test_collapse_statistics_tell_one_token_from_many():
    assert participation_ratio(torch.randn(4_000, 8)).item() == pytest.approx(8, rel=0.05)
    line = torch.randn(400, 1) * torch.randn(1, 8)
    assert participation_ratio(line).item() == pytest.approx(1, rel=1e-3)
    model = model_of()
    with torch.no_grad():
        for block in model.teacher.encoder.blocks:
            block.norm2.weight.zero_()
    _, stats = model(batch_of(2), 0)
    assert stats["target_variance"].item() == pytest.approx(0, abs=1e-6)


def test_position_share_is_one_for_pure_positions_and_zero_for_noise():
    cls = torch.randn(6, 4)
    positions = torch.randn(1, 200, 4).expand(6, -1, -1)
    assert spread(positions, None, cls)["position_share"].item() == pytest.approx(1, abs=1e-5)
    noise = torch.randn(64, 200, 4)
    assert spread(noise, None, cls)["position_share"].item() == pytest.approx(0, abs=0.01)


def test_no_target_layers_beyond_the_depth():
    with pytest.raises(ValueError, match="has 3 blocks"):
        dataclasses.replace(tiny(), target=TargetConfig(layers=4))
