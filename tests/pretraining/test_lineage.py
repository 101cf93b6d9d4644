"""BAT's ancestors as recipes: losses, targets, masks and mixtures against plain formulas; the ladder's rungs."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FinetuneConfig,
    FrontendConfig,
    MaskConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    PretrainConfig,
    ProbeConfig,
    StatisticsConfig,
    TargetConfig,
    TrainConfig,
    from_dict,
)
from audiobat.config.recipes import load_recipe, recipe_names
from audiobat.config.registry import class_for
from audiobat.config.rungs import changes, describe_rung, rung_of, rungs
from audiobat.data.scenes import demo_folder
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.input_stats import with_input_stats
from audiobat.pretraining.masks.base import Masks, seeded_generator, take, take_valid
from audiobat.pretraining.masks.inverse_block import block_count
from audiobat.pretraining.mixing import draw_mixed_columns, mix
from audiobat.pretraining.objectives.base import Clips, build_objective
from audiobat.pretraining.objectives.masked_latent_regression import (
    Clones,
    MaskedLatentRegression,
    share_of_cell,
    squared_error,
)
from audiobat.pretraining.run import pretrain
from audiobat.pretraining.targets.base import Targets
from audiobat.pretraining.targets.spectrogram import SpectrogramTargets
from audiobat.pretraining.targets.teacher import Teacher
from audiobat.probing import one_pass as probe_module
from audiobat.probing.run import probe

SMALL = {
    "encoder": {"dim": 32, "depth": 3, "heads": 2, "max_frames": 208},
    "decoder": {"depth": 1, "heads": 2, "groups": 2},
    "mask": {"clones": 3, "block_size": 2},
    "data": {"clip_seconds": 2.0},
}


def recipe(name: str) -> PretrainConfig:
    return from_dict(PretrainConfig, load_recipe(name))


def shrunk(name: str, **groups) -> PretrainConfig:
    """A recipe with a network, masks and crops that a test can afford."""
    config = recipe(name)
    changed = {group: dataclasses.replace(getattr(config, group), **f) for group, f in {**SMALL, **groups}.items()}
    return dataclasses.replace(config, **changed)


def clips(lengths=(32_000, 32_000, 32_000, 32_000)):
    waveform = 0.1 * torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor(lengths)
    return SimpleNamespace(waveform=waveform, lengths=None if bool((lengths == lengths[0]).all()) else lengths)


def objective(config: PretrainConfig) -> MaskedLatentRegression:
    torch.manual_seed(0)
    return MaskedLatentRegression(config)


def draw_masks(count: int, grid: tuple[int, int], config: MaskConfig, generator: torch.Generator) -> Masks:
    return class_for(config).build(config, ModelConfig()).draw(count, grid, generator)


# -- EAT's loss --


def plain_mlp_targets(teacher: Teacher, tokens: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """data2vec 2.0's normalisation, clip by clip: the targets [B, N, D], and each layer's standardised output."""
    layers = []
    for _, mlp in teacher.encoder.run_blocks(tokens):
        output = mlp[:, 1:].double()
        mean = output.mean(1, keepdim=True)
        variance = ((output - mean) ** 2).mean(1, keepdim=True)
        layers.append((output - mean) / (variance + 1e-5).sqrt())
    mean = torch.stack(layers).mean(0)
    centred = mean - mean.mean(2, keepdim=True)
    return centred / ((centred**2).mean(2, keepdim=True) + 1e-5).sqrt(), layers


def test_eats_loss_is_its_sums_over_its_sample_size():
    """EAT sums squared errors over features, rows and cells; cls times the sample size, then all divided by it."""
    dim, rows = SMALL["encoder"]["dim"], 4 * SMALL["mask"]["clones"]
    config = shrunk("eat_base", objective={"global_weight": rows, "scale": dim**0.5})
    model = objective(config)
    batch = clips()
    seen = {}
    model.decoder.register_forward_hook(lambda _, args, out: seen.update(predicted=out, masks=args[1]))
    encode = model.student.encode_tokens
    model.student.encode_tokens = lambda *args: seen.setdefault("encoded", encode(*args))
    torch.manual_seed(1)  # the decoder's noise
    loss, _ = model(batch, 0)

    spectrogram, _ = model.student.spectrogram(batch.waveform)
    wanted, _ = plain_mlp_targets(model.teacher, model.teacher.encoder.embed_patches(spectrogram))
    local = cls = 0.0
    cells = 0
    for row in range(rows):
        clip = row // config.mask.clones
        for place, cell in enumerate(seen["masks"].masked[row].tolist()):
            local += ((seen["predicted"][row, place] - wanted[clip, cell]) ** 2).sum() / dim**0.5
            cells += 1
        cls += ((seen["encoded"][row, 0] - wanted[clip].mean(0)) ** 2).sum() / dim**0.5
    sample_size = cells
    total = (local + cls * sample_size) / sample_size
    torch.testing.assert_close(loss.double(), total.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "rows", "dim"), [("eat_base", 192, 768), ("eat_large", 192, 1024), ("sslam", 192, 768)]
)
def test_a_recipes_weights_are_the_sums_of_one_gpu(name, rows, dim):
    """EAT's sums over clips and features, for errors of one size in all features of cells, and of another in cls."""
    config = recipe(name)
    versions = 2 if config.objective.retention_weight else 1  # of SSLAM, clips and mixtures
    assert 12 * versions * config.mask.clones == rows  # of a GPU
    masked = draw_masks(1, (64, 8), config.mask, seeded_generator(torch.device("cpu"), 0)).masked.shape[1]
    sample_size = rows * masked
    if name == "eat_base":
        assert sample_size == 78_720
    cell, cls = 0.3, 0.7  # squared errors of single features
    local_sum = sample_size * dim * cell / dim**0.5
    cls_sum = rows * dim * cls / dim**0.5 * sample_size
    weights = config.objective
    ours = weights.scale * (cell + weights.global_weight * cls)
    assert ours == pytest.approx((local_sum + cls_sum) / sample_size, rel=1e-12)


def test_data2vecs_weight_is_its_own_of_256_rows():
    assert recipe("data2vec2").objective.global_weight == pytest.approx(0.01 * 16 * 16)


def test_eat_base_writes_its_ratio_out():
    eat = recipe("eat_base")
    assert eat.objective.global_weight == 12 * 16
    assert eat.objective.scale == pytest.approx(eat.encoder.dim**0.5)
    large = recipe("eat_large")
    assert large.objective.scale == large.encoder.dim**0.5


def test_parameter_counts_are_eats():
    """Those of EAT's released weights, the fixed positions left out."""
    model = MaskedLatentRegression(recipe("eat_base"))
    assert sum(p.numel() for p in model.student.parameters()) == 85_254_144
    assert sum(p.numel() for p in model.decoder.parameters()) == 2_585_856


# -- initialisation --


def moments(values: torch.Tensor) -> tuple[float, float, float]:
    """Standard deviation, kurtosis (normal: 3, uniform: 1.8), and the largest in standard deviations."""
    x = values.detach().double().flatten()
    std = x.square().mean().sqrt()
    return float(std), float(x.pow(4).mean() / std**4), float(x.abs().max() / std)


def linear_layers(model: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


@pytest.mark.parametrize("name", ["eat_base", "eat_large", "data2vec2", "sslam"])
def test_eat_begins_with_normal_weights_that_are_not_truncated(name):
    model = objective(shrunk(name, encoder={"dim": 128, "depth": 2, "heads": 2, "max_frames": 208}))
    student = model.student
    for layer in linear_layers(student.blocks).values():
        std, kurtosis, largest = moments(layer.weight)
        assert std == pytest.approx(0.02, rel=0.03)
        assert kurtosis == pytest.approx(3, abs=0.15)
        assert largest > 3.3  # truncation at two deviations would show
        assert not layer.bias.any()
    std, kurtosis, _ = moments(student.cls_token)
    assert std == pytest.approx(1, abs=0.2)
    assert kurtosis > 2.2
    assert_xavier(student.patch_embed.proj.weight.flatten(1))
    assert not student.patch_embed.proj.bias.any()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 2 * (2 * 2 + 1)  # of student and teacher
    assert all(bool((norm.weight == 1).all()) and not norm.bias.any() for norm in norms)
    for module in (*model.decoder.convs, model.decoder.proj):  # torch's own: uniform within 1 / sqrt(inputs)
        bound = module.weight[0].numel() ** -0.5
        for values in (module.weight.detach(), module.bias.detach()):
            assert 0.95 * bound < float(values.abs().max()) <= bound
        assert moments(module.weight)[0] == pytest.approx(bound / 3**0.5, rel=0.05)


def assert_xavier(weight: torch.Tensor) -> None:
    weight = weight.detach()
    outputs, inputs = weight.shape
    bound = (6 / (inputs + outputs)) ** 0.5
    std, kurtosis, _ = moments(weight)
    assert float(weight.abs().max()) <= bound
    assert std == pytest.approx(bound / 3**0.5, rel=0.05)
    assert kurtosis == pytest.approx(1.8, abs=0.1)


@pytest.mark.parametrize("name", ["bat_base", "audio_mae", *rungs()])
def test_others_begin_with_uniform_weights(name):
    """The rungs are BAT's training; its authors climbed them with their own initialisation."""
    decoder = {"depth": 1, "heads": 4, "groups": 4}
    model = objective(shrunk(name, encoder={"dim": 128, "depth": 2, "heads": 4, "max_frames": 208}, decoder=decoder))
    layers = linear_layers(model.student) | (linear_layers(model.decoder) if recipe(name).decoder.kind == "vit" else {})
    for layer in layers.values():
        assert_xavier(layer.weight)
        assert layer.bias is None or not layer.bias.any()
    assert_xavier(model.student.patch_embed.proj.weight.flatten(1))
    assert moments(model.student.cls_token)[0] == pytest.approx(0.02, rel=0.2)


def test_the_teacher_begins_as_the_students_copy():
    model = objective(shrunk("eat_base"))
    for name, value in model.student.state_dict().items():
        assert torch.equal(model.teacher.encoder.state_dict()[name], value)


# -- masks --


PRETRAINED = recipe_names("pretrain")
MASKS = {  # visible patches, clones, blocks; all others as the paper: 102, 16, 5
    "eat_large": (128, 16, 7),
    "data2vec2": (102, 16, 15),
    "sslam": (102, 8, 5),
    "sslam_from_bat": (102, 8, 5),
    "audio_mae": (102, 1, None),
}
OWN_GRIDS = ("bat_nano", "bats_250khz", "birds_32khz", "demo")  # other patches than 64 x 8


@pytest.mark.parametrize("name", [name for name in PRETRAINED if name not in OWN_GRIDS])
def test_masks_of_a_recipe(name):
    config = recipe(name)
    visible, clones, blocks = MASKS.get(name, (102, 16, 5))
    assert config.model.grid == (64, 8)
    assert blocks is None or block_count((64, 8), config.mask) == blocks
    assert (config.mask.kind == "random") == (blocks is None)
    masks = draw_masks(500, (64, 8), config.mask, seeded_generator(torch.device("cpu"), 0))
    assert masks.visible.shape == (500, visible)
    assert config.mask.clones == clones
    trimmed_at_random = {"bat_base_released", "eat_base", "eat_large", "data2vec2", "sslam"}
    assert (config.mask.trim == "random") == (name in trimmed_at_random)
    together = torch.cat([masks.visible, masks.masked], 1).sort(1).values
    assert bool((together == torch.arange(512)).all())
    grid = torch.zeros(500, 512).scatter_(1, masks.visible, 1.0).view(500, 1, 64, 8)
    neighbours = F.conv2d(F.pad(grid, (1, 1, 1, 1)), torch.ones(1, 1, 3, 3))[:, 0] - grid[:, 0]
    clumped = float((neighbours * grid[:, 0]).sum() / grid.sum() / 8)
    if name == "audio_mae":
        assert clumped < 0.22  # as rare as anywhere: a fifth of the cells, fewer at the edges
    else:
        assert clumped > 0.4


@pytest.mark.parametrize("name", OWN_GRIDS)
def test_masks_of_recipes_with_a_grid_of_their_own(name):
    """As large a share is visible, and every mask is made of whole blocks but for the last."""
    config = recipe(name)
    columns, rows = config.crop_grid
    masks = draw_masks(200, (columns, rows), config.mask, seeded_generator(torch.device("cpu"), 0))
    share = masks.visible.shape[1] / (columns * rows)
    assert share == pytest.approx(1 - config.mask.ratio, abs=0.02)
    together = torch.cat([masks.visible, masks.masked], 1).sort(1).values
    assert bool((together == torch.arange(columns * rows)).all())
    grid = torch.zeros(200, columns * rows).scatter_(1, masks.visible, 1.0).view(200, 1, columns, rows)
    pairs = (grid[:, :, 1:] * grid[:, :, :-1]).sum() / grid.sum()
    assert float(pairs) > 1.5 * share  # neighbours in time are visible together more often than by chance


# -- SSLAM --


def test_two_windows_of_fifteen_columns_stay_unmixed():
    firsts, seconds = set(), set()
    for seed in range(3_000):
        mixed = draw_mixed_columns(64, torch.Generator().manual_seed(seed))
        assert int(mixed.sum()) == 34
        runs = mixed.logical_not().int().diff(prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1))
        begins, ends = (runs == 1).nonzero().flatten().tolist(), (runs == -1).nonzero().flatten().tolist()
        first, second = (begins[0], begins[-1]) if len(begins) == 2 else (begins[0], begins[0] + 15)
        assert ends[-1] == second + 15
        assert first + 15 <= second
        firsts.add(first)
        seconds.add(second)
    assert (min(firsts), max(firsts)) == (0, 31)
    assert (min(seconds), max(seconds)) == (15, 48)


@pytest.mark.parametrize("columns", range(1, 30))
def test_any_number_of_columns_can_be_mixed(columns):
    for seed in range(20):
        mixed = draw_mixed_columns(columns, torch.Generator().manual_seed(seed))
        assert len(mixed) == columns
        assert bool(mixed.any())


def test_a_mixture_is_the_maximum_in_mixed_columns():
    spectrogram = torch.tensor([[[1.0, 5.0], [2.0, 2.0]], [[3.0, 4.0], [9.0, 0.0]], [[0.0, 6.0], [1.0, 1.0]]])
    mixed = mix(spectrogram, torch.tensor([True, False]), patch_frames=1)
    assert mixed.tolist() == [[[1.0, 6.0], [2.0, 2.0]], [[3.0, 5.0], [9.0, 0.0]], [[3.0, 6.0], [1.0, 1.0]]]


@pytest.mark.parametrize("cells", ["all", "mixed"])
def test_source_retention_of_numbers_made_by_hand(monkeypatch, cells):
    """Two clips of three columns and one row; the teacher, the mixed columns and the masks are given.

    Clip 0 hears clip 1 in columns 1 and 2, and clip 1 hears clip 0: the mean of clip 0's own (1, 3, 5) and what the
    teacher says of clip 1 alone there, (20, 40), is (11.5, 22.5); of clip 1, (9, 11) and (60, 80), (34.5, 45.5).
    """
    model = objective(shrunk("sslam", objective={"retention_cells": cells}))
    mixed = torch.tensor([False, True, True])
    heard = []

    def alone(tokens, valid, patches):
        heard.append(tokens)
        assert patches.tolist() == [[1, 2]]  # their numbers in the clip's grid
        return Targets(torch.tensor([[[20.0], [40.0]], [[60.0], [80.0]]]), None, torch.zeros(()))

    monkeypatch.setattr(model.teacher, "of_tokens", alone)
    tokens = torch.arange(6.0).view(2, 3, 1)
    monkeypatch.setattr(model.teacher.encoder, "embed_patches", lambda spectrogram: tokens)
    spectrogram = torch.tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 9.0]]).repeat_interleave(16, 1)[:, :, None]
    monkeypatch.setattr(model.student, "embed_patches", lambda spectrogram: tokens)
    masks = Masks(visible=torch.tensor([[0], [2]]), masked=torch.tensor([[1, 2], [0, 1]]))
    predicted = torch.tensor([[[10.0], [20.0]], [[0.0], [30.0]]])
    clones = Clones(torch.tensor([[0], [1]]), masks, torch.arange(2))
    own = Targets(torch.tensor([[[1.0], [3.0], [5.0]], [[7.0], [9.0], [11.0]]]), None, torch.zeros(()))
    clips = Clips(spectrogram, None, tokens, (3, 1))
    # masked and mixed: clip 0's columns 1 and 2, clip 1's column 1; its column 0 is masked and not mixed
    errors = [(10 - 11.5) ** 2, (20 - 22.5) ** 2, (30 - 34.5) ** 2, (0 - 7) ** 2]
    counted = errors if cells == "all" else errors[:3]
    wanted, scored = model.retention_targets(clips, own, mixed)
    share = share_of_cell([(scored, clones)])
    wanted, scored = take(wanted, clones.clip, masks.masked), take_valid(scored, clones.clip, masks.masked)
    error = share * squared_error(predicted, wanted, scored)
    assert float(error) == pytest.approx(sum(counted) / len(counted))
    assert heard[0].flatten().tolist() == [4.0, 5.0, 1.0, 2.0]  # the partner's tokens, with the places of its columns
    found = model.mix_clips(clips, mixed)
    assert found.spectrogram[:, ::16, 0].tolist() == [[1.0, 5.0, 9.0], [3.0, 5.0, 9.0]]


@pytest.mark.parametrize("name", ["sslam", "sslam_from_bat"])
@pytest.mark.parametrize("cells", ["all", "mixed"])
@pytest.mark.parametrize("lengths", [(32_000, 32_000, 32_000), (32_000, 20_000, 9_000)])
def test_sslams_losses_by_hand(lengths, cells, name):
    """Clip by clip and cell by cell: both sets of rows against targets of their own, and mixtures against both sources.

    In SSLAM's code they are sums over a GPU's rows, with errors of retention, which half of the rows have, counted
    twice, and cls times the number of masked cells, by which all is divided.
    """
    dim, clones = SMALL["encoder"]["dim"], SMALL["mask"]["clones"]
    rows = 2 * len(lengths) * clones
    weights = {"global_weight": float(rows), "scale": dim**0.5} if name == "sslam" else {}
    config = shrunk(name, objective={"retention_cells": cells, **weights})
    model = objective(config).eval()
    batch = clips(lengths)
    decoded, encoded = [], []
    model.decoder.register_forward_hook(lambda _, args, out: decoded.append((args[1], out)))
    encode = model.student.encode_tokens
    model.student.encode_tokens = lambda *args: encoded.append(encode(*args)) or encoded[-1]
    loss, stats = model(batch, 3)
    masks = decoded[0][0]
    assert torch.equal(masks.masked, decoded[1][0].masked)  # the same for clean and mixed

    spectrogram, valid = model.student.spectrogram(batch.waveform, batch.lengths)
    freq_patches = config.model.grid[1]
    columns = spectrogram.shape[1] // 16
    generator = seeded_generator(spectrogram.device, config.train.seed, 3, 0)
    draw_masks(len(lengths) * clones, (columns, freq_patches), config.mask, generator)
    mixed = draw_mixed_columns(columns, generator)
    mixture = spectrogram.clone()
    for clip in range(len(lengths)):
        for column in mixed.nonzero().flatten().tolist():
            here = slice(16 * column, 16 * column + 16)
            mixture[clip, here] = torch.maximum(spectrogram[clip, here], spectrogram[clip - 1, here])
    is_mixed = mixed.repeat_interleave(freq_patches)
    valid = torch.ones(len(lengths), len(is_mixed), dtype=torch.bool) if valid is None else valid
    eps, source = config.target.norm_eps, config.target.source

    def targets(x, keep):
        layers = []
        for block, mlp in model.teacher.encoder.run_blocks(x[None], keep[None]):
            own = (mlp if source == "mlp" else block)[0, 1:][keep].double()
            layers.append((own - own.mean(0)) / (own.var(0, unbiased=False) + eps).sqrt())
        found = torch.zeros(len(x), dim, dtype=torch.float64)
        found[keep] = F.layer_norm(torch.stack(layers).mean(0), (dim,), eps=eps)
        top = torch.stack(layers[-1:] if name == "sslam" else layers).mean(0)
        return found, F.layer_norm(top, (dim,), eps=eps).mean(0)

    clean, both = (model.teacher.encoder.embed_patches(x) for x in (spectrogram, mixture))
    local, cls, retention = [], [], []
    for tokens, (_, predicted), seen in zip((clean, both), decoded, encoded, strict=True):
        for row in range(len(lengths) * clones):
            clip = row // clones
            own, own_cls = targets(tokens[clip], valid[clip])
            source_own, _ = targets(clean[clip], valid[clip])
            theirs = torch.zeros_like(own)
            theirs[is_mixed] = targets(clean[clip - 1][is_mixed], valid[clip - 1][is_mixed])[0]
            cls.append((seen[row, 0] - own_cls) ** 2)
            for place, cell in enumerate(masks.masked[row].tolist()):
                if not valid[clip, cell]:
                    continue
                local.append((predicted[row, place] - own[cell]) ** 2)
                wanted = (source_own[cell] + theirs[cell]) / 2 if is_mixed[cell] else source_own[cell]
                counts = valid[clip - 1, cell] if is_mixed[cell] else cells == "all"
                if tokens is both and counts:
                    retention.append((predicted[row, place] - wanted) ** 2)
    local, cls, retention = (torch.stack(errors) for errors in (local, cls, retention))
    near = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(stats["local_loss"].double(), local.mean(), **near)
    torch.testing.assert_close(stats["global_loss"].double(), cls.mean(), **near)
    torch.testing.assert_close(stats["retention_loss"].double(), retention.mean(), **near)
    if name == "sslam_from_bat":  # BAT's losses, of means
        total = local.mean() + cls.mean() + retention.mean()
    else:
        total = local.sum() / dim**0.5 / len(local) + cls.sum() / dim**0.5 + retention.mean() * dim**0.5
        if cells == "all" and batch.lengths is None:  # where nothing is left out: the same in SSLAM's sums
            assert 2 * len(retention) == len(local)
            sums = local.sum() + cls.sum() * len(local) + 2 * retention.sum()
            torch.testing.assert_close(total, sums / dim**0.5 / len(local))
    torch.testing.assert_close(loss.double(), total, **near)


def test_sslams_cls_target_is_of_the_last_block():
    config = shrunk("sslam")
    model = objective(config)
    spectrogram, _ = model.student.spectrogram(clips().waveform)
    tokens = model.teacher.encoder.embed_patches(spectrogram)
    wanted, layers = plain_mlp_targets(model.teacher, tokens)
    targets = model.teacher(spectrogram)
    torch.testing.assert_close(targets.patch_targets.double(), wanted, rtol=1e-4, atol=1e-4)
    last = F.layer_norm(layers[-1], (config.encoder.dim,), eps=1e-5).mean(1)
    torch.testing.assert_close(targets.cls_target.double(), last, rtol=1e-4, atol=1e-4)


# -- Audio-MAE --


def test_spectrogram_targets_are_standardised_patches():
    spectrogram = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    model = ModelConfig(FrontendConfig(mel_bins=8), EncoderConfig(patch_size=(2, 4)))
    found = SpectrogramTargets(TargetConfig(source="spectrogram"), model, None)(spectrogram)
    assert found.cls_target is None
    for t in range(3):
        for f in range(2):
            patch = spectrogram[:, 2 * t : 2 * t + 2, 4 * f : 4 * f + 4].flatten(1)
            wanted = (patch - patch.mean(1, keepdim=True)) / (patch.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
            torch.testing.assert_close(found.patch_targets[:, t * 2 + f], wanted)


def test_audio_mae_needs_no_teacher():
    model = objective(shrunk("audio_mae", decoder={"depth": 1, "heads": 2}))
    loss, stats = model(clips(), 0)
    loss.backward()
    assert not list(model.teacher.parameters())
    assert model.decoder.proj.out_features == 16 * 16
    assert float(stats["global_loss"]) == 0
    assert all(p.grad is not None for name, p in model.named_parameters() if "cls" not in name)


@pytest.mark.parametrize("name", ["global_weight", "retention_weight"])
def test_without_a_teacher_nothing_else_can_be_asked_for(name):
    weights = {"global_weight": 0.0, "retention_weight": 0.0, name: 1.0}
    with pytest.raises(AudiobatError, match=f"objective.{name} is 1.0: target.source spectrogram has no teacher"):
        build_objective(dataclasses.replace(shrunk("audio_mae"), objective=ObjectiveConfig(**weights)))


# -- fine-tuning on other data sets --


def kaldi_encoder() -> AudioEncoder:
    encoder = EncoderConfig(dim=16, depth=2, heads=2, gated_attention=False, pad="grid")
    return AudioEncoder(ModelConfig(FrontendConfig(kind="kaldi_fbank"), encoder)).eval()


@pytest.mark.parametrize(
    ("name", "mean", "std", "frames"),
    [
        ("eat_as20k", -4.268, 4.569, 1024),
        ("eat_as2m", -4.268, 4.569, 1024),
        ("eat_esc50", -6.627, 5.359, 512),
        ("eat_spc2-35", -6.846, 5.565, 128),
        ("sslam_as20k", -4.2677393, 4.5689974, 1024),
        ("sslam_as2m", -4.2677393, 4.5689974, 1024),
        ("sslam_esc50", -6.6268077, 5.358466, 512),
        ("sslam_spc2-35", -6.845978, 5.5654526, 128),
    ],
)
def test_eat_is_fine_tuned_with_the_statistics_and_the_length_of_each_data_set(name, mean, std, frames):
    encoder = kaldi_encoder()
    config = from_dict(FinetuneConfig, load_recipe(f"finetune/{name}"))
    found = with_input_stats(encoder, config.frontend, config.max_frames)
    assert found.config.frontend.moments == (mean, std)
    assert found.config.encoder.max_frames == frames
    waveform = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    log_mel = encoder.frontend.raw_spectrogram(waveform, torch.tensor([16_000]))
    spectrogram, _ = found.spectrogram(waveform)
    wanted = F.pad(log_mel, (0, 0, 0, frames - log_mel.shape[1]))  # zeros, and then the scale
    torch.testing.assert_close(spectrogram, (wanted - mean) / (2 * std))
    assert torch.equal(found.pos_embed, encoder.pos_embed[:, : frames // 16 * 8])
    for key, value in encoder.named_parameters():
        assert torch.equal(found.state_dict()[key], value)


def test_a_models_own_statistics_stay_unless_others_are_asked_for():
    encoder = kaldi_encoder()
    assert with_input_stats(encoder, StatisticsConfig(), None) is encoder
    assert with_input_stats(encoder, StatisticsConfig(), 2048) is encoder
    mine = StatisticsConfig(mean=-5.0)
    assert with_input_stats(encoder, mine, None).config.frontend.moments == (-5.0, 4.569)
    minmax = AudioEncoder(ModelConfig(encoder=EncoderConfig(dim=16, depth=1, heads=2)))
    assert with_input_stats(minmax, mine, None) is minmax
    with pytest.raises(AudiobatError, match=r"encoder.max_frames is 100: it must be a positive multiple"):
        with_input_stats(encoder, mine, 100)


@pytest.mark.parametrize("name", ["esc50", "esc50_released", "spc2-12-tfds", "spc2-12-folder_released", "spc2-35"])
def test_shorter_windows_are_not_padded_to_audiosets_length(name):
    """A model of BAT's release pads waveforms to 10.23 s, but only where it is trained or tested on AudioSet."""
    frontend = from_dict(PretrainConfig, load_recipe("bat_base_released")).frontend
    encoder = AudioEncoder(ModelConfig(frontend, EncoderConfig(dim=16, depth=1, heads=2, pad="grid")))
    config = from_dict(FinetuneConfig, load_recipe(f"finetune/{name}"))
    found = with_input_stats(encoder, config.frontend, config.max_frames)
    seconds = {512: 5, 112: 1}[config.max_frames]
    assert found(torch.zeros(1, 16_000 * seconds)).grid == (config.max_frames // 16, 8), "one window"
    with pytest.raises(
        AudiobatError, match=r"frontend.pad_seconds is 10.23: the model's window has .* frames, .*: use 0"
    ):
        with_input_stats(encoder, StatisticsConfig(), config.max_frames)


def test_a_probe_hears_through_the_statistics_of_its_task(tmp_path, monkeypatch):
    """Its features, and so its record, are those of a model that has them of its own."""
    encoder = kaldi_encoder()
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", rng.standard_normal(8_000) * (0.01 + 0.1 * (i % 2)), 16_000)
        lines.append(f"{i}.wav,{'ab'[i % 2]},{'train' if i < 4 else 'test'}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    heard = []
    really = probe_module.cache_features
    monkeypatch.setattr(
        probe_module,
        "cache_features",
        lambda encoder, *args, **kw: heard.append(encoder) or really(encoder, *args, **kw),
    )
    asked = {"frontend": {"statistics": "esc50_released"}, "max_frames": 512}
    small = {"head": {"kind": "linear"}, "train": {"steps": 3, "warmup_steps": 1, "batch_size": 2}, "workers": 0}
    (found,) = probe(encoder, tmp_path / "clips.csv", from_dict(ProbeConfig, {**small, **asked}), device="cpu")
    theirs = FrontendConfig(kind="kaldi_fbank", statistics="esc50_released")
    own = AudioEncoder(ModelConfig(theirs, dataclasses.replace(encoder.config.encoder, max_frames=512)))
    own.load_state_dict(encoder.state_dict() | {"pos_embed": encoder.pos_embed[:, :256]})
    (wanted,) = probe(own.eval(), tmp_path / "clips.csv", from_dict(ProbeConfig, small), device="cpu")
    (plain,) = probe(encoder, tmp_path / "clips.csv", from_dict(ProbeConfig, small), device="cpu")
    assert found.metrics == wanted.metrics
    asked["frontend"] |= {"mean": -6.8541, "std": 5.3977, "pad_seconds": None}
    assert found.head["frontend"] == asked["frontend"]
    assert found.head["max_frames"] == 512
    assert found.model.sha256 == plain.model.sha256  # the same weights
    models = [one.encoder for one in heard]  # of which a linear probe keeps the means alone
    assert [(one.config.frontend.moments, one.max_samples) for one in models] == [
        ((-6.8541, 5.3977), 512 * 160 - 1),
        ((-6.8541, 5.3977), 512 * 160 - 1),
        ((-4.268, 4.569), 1024 * 160 - 1),
    ]
    assert "frontend" not in plain.head


# -- runs --


@pytest.mark.parametrize("name", ["eat_base", "data2vec2", "sslam", "sslam_from_bat", "audio_mae", *rungs()])
def test_a_step_of_every_recipe_trains(name):
    model = objective(shrunk(name, decoder={"depth": 1, "heads": 2}))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    before = {n: p.detach().clone() for n, p in model.student.named_parameters()}
    loss, stats = model(clips((32_000, 32_000, 20_000)), 0)
    loss.backward()
    optimizer.step()
    model.after_step(1)
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(v)) for v in stats.values())
    assert any(not torch.equal(before[n], p) for n, p in model.student.named_parameters())


def tiny(**fields) -> PretrainConfig:
    return PretrainConfig(
        encoder=EncoderConfig(dim=16, depth=2, heads=2, max_frames=64),
        decoder=DecoderConfig(depth=1, heads=2),
        mask=MaskConfig(clones=2, block_size=2),
        optim=OptimConfig(warmup_steps=0),
        data=DataConfig(path=str(demo_folder()), clip_seconds=0.6, workers=0),
        **fields,
    )


# -- the ladder --


def test_rungs_are_one_field_apart():
    """One field of the recipe, where the paper's own table changes one: Table 4 changes the ViT's size as a whole."""
    apart = {name: set(changes(name)) for name in rungs()[1:]}
    assert apart == {
        "ladder/2_mel_db": {"frontend.kind"},
        "ladder/3_eob": {"target.source"},
        "ladder/4_gates": {"encoder.gated_attention"},
        "ladder/5_gates_eob": {"target.source"},
        "ladder/6_vit": {"decoder.kind"},
        "ladder/7_bat": {"decoder.heads", "decoder.mlp_ratio"},
    }


def test_the_ladder_ends_at_bat():
    top, bat = recipe("ladder/7_bat"), recipe("bat_base")
    assert top == bat
    assert rung_of(bat) == "ladder/7_bat"
    assert rung_of(recipe("eat_base")) is None
    longer = dataclasses.replace(recipe("ladder/4_gates"), train=TrainConfig(steps=400_000, seed=5))
    assert rung_of(longer) == "ladder/4_gates"
    assert describe_rung("ladder/4_gates").endswith("ladder/2_mel_db with encoder.gated_attention True for False")
    assert recipe("ladder/3_eob") != recipe("ladder/4_gates")


def test_a_dry_run_names_the_rung(tmp_path, capsys):
    pretrain(shrunk("ladder/6_vit", encoder={}, decoder={}, mask={}), tmp_path / "run", dry_run=True)
    assert "ladder/6_vit: ladder/5_gates_eob with decoder.kind vit for cnn" in capsys.readouterr().out


def test_a_kind_of_frontend_brings_its_own_settings():
    kaldi = FrontendConfig(kind="kaldi_fbank")
    assert kaldi == FrontendConfig(kind="kaldi_fbank", n_fft=512, win_length=400, f_min=20.0, norm="global")
    assert FrontendConfig() == FrontendConfig(n_fft=1024, win_length=1024, f_min=0.0, norm="minmax")
    assert FrontendConfig(kind="kaldi_fbank", norm="minmax", f_min=0.0).norm == "minmax"
    assert FrontendConfig(kind="kaldi_fbank", norm="minmax", f_min=0.0).f_min == 0.0
