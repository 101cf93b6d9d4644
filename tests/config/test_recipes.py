"""Every recipe in the box trains: one step each, with the network and the batch cut down; and says what it should.

What is cut: width, depth and heads of networks, prototypes, clones, steps, batches, and draws an epoch. Frontends, clip
lengths, augmentation, losses, layer decay and all else are the recipe's own.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audiobat
from audiobat.audio.frontends.base import build_frontend
from audiobat.config import (
    EncoderConfig,
    FinetuneConfig,
    FrontendConfig,
    HeadConfig,
    ModelConfig,
    PretrainConfig,
    ProbeConfig,
    from_dict,
    to_dict,
)
from audiobat.config.recipes import load_recipe, make_config, merge, recipe_names
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.errors import AudiobatError
from audiobat.finetuning.run import finetune
from audiobat.finetuning.testing import preset_of
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.run import pretrain
from audiobat.probing.run import probe
from audiobat.zoo import release as release_io

FINETUNES = [name for name in recipe_names() if name.startswith("finetune/")]
PROBES = [name for name in recipe_names() if name not in FINETUNES and "head" in load_recipe(name)]
PRETRAINS = [name for name in recipe_names("pretrain") if name not in PROBES]
TRAIN = {"steps": 1, "batch_size": 2, "device": "cpu", "precision": "fp32", "log_every": 1}
ONE_LABEL = ("esc50", "spc2")


def write_clips(folder: Path, seconds: float, rate: int, one_label: bool) -> Path:
    """Noise of three classes, one label each or, of some, two."""
    rng = np.random.default_rng(0)
    with (folder / "clips.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "label", "split"])
        for i in range(9):
            soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(round(seconds * rate)), rate)
            label = "abc"[i % 3] if one_label or i % 3 else "a;b"
            lines.writerow([f"{i}.wav", label, ("train", "valid", "test")[i // 3]])
    return folder / "clips.csv"


@pytest.mark.parametrize("name", PRETRAINS)
def test_one_step_of_pretraining(name: str, tmp_path: Path):
    config = from_dict(PretrainConfig, load_recipe(name))
    small = {
        "encoder": {"dim": 16, "depth": 2, "heads": 2},
        "decoder": {"depth": 1, "heads": 2},
        "mask": {"clones": 2},
        "target": {"layers": None},
        "optim": {"warmup_steps": 0},
        "data": {"workers": 0, "balance": None},
        "train": TRAIN,
    }
    tiny = from_dict(PretrainConfig, merge(to_dict(config), small))
    rate = config.frontend.sample_rate
    write_clips(tmp_path, config.data.clip_seconds, rate, one_label=True)
    run = pretrain(replace(tiny, data=replace(tiny.data, path=str(tmp_path / "clips.csv"))), tmp_path / "run")
    checkpoint = load_checkpoint(run)
    assert checkpoint is not None
    assert checkpoint.step == 1
    encoder = release_io.load(run)
    assert (encoder.sample_rate, encoder.config.frontend) == (rate, config.frontend)
    samples = min(round(config.data.clip_seconds * rate), encoder.max_samples)  # one frame less than what training cuts
    assert encoder.forward_intermediates(torch.randn(1, samples)).grid == config.crop_grid


@pytest.mark.parametrize("name", PRETRAINS)
def test_no_mel_band_is_empty(name: str, recwarn):
    build_frontend(from_dict(PretrainConfig, load_recipe(name)).frontend)
    assert not recwarn.list


@pytest.mark.parametrize("name", PROBES)
def test_one_step_of_probing(name: str, tmp_path: Path, encoder: AudioEncoder):
    small = {"head": {"prototypes": 8}, "train": {**TRAIN, "warmup_steps": 0, "loss": "auto"}, "workers": 0}
    small |= {"grid": {"choose": False, "weight_decay": []}, "seeds": [0]}  # so few clips leave none to choose rates on
    fields = merge(load_recipe(name), small)
    fields["train"] = {
        key: value for key, value in fields["train"].items() if key not in ("device", "precision", "log_every")
    }
    [record] = probe(encoder, write_clips(tmp_path, 0.5, 16_000, False), from_dict(ProbeConfig, fields), device="cpu")
    assert 0 < record.metrics["map"].value <= 1


KALDI = FrontendConfig(kind="kaldi_fbank", win_length=400, n_fft=512, f_min=20.0, norm="global")  # EAT's and SSLAM's


@pytest.fixture
def encoder(name: str) -> AudioEncoder:
    """A small network with the frontend of the recipe's model."""
    frontend = KALDI if name.startswith(("finetune/eat", "finetune/sslam", "probe/released")) else FrontendConfig()
    torch.manual_seed(0)
    return AudioEncoder(ModelConfig(frontend, EncoderConfig(dim=16, depth=2, heads=2))).eval()


@pytest.mark.parametrize("name", FINETUNES)
def test_one_step_of_finetuning(name: str, tmp_path: Path, encoder: AudioEncoder):
    config = from_dict(FinetuneConfig, load_recipe(name))
    assert config.recipe == name
    small = {
        "head": {"prototypes": 8},
        "optim": {"warmup_steps": 0},
        "data": {"workers": 0, "epoch_clips": None if config.data.epoch_clips is None else 3},
        "train": {**TRAIN, "freeze_steps": 0},
    }
    release_io.save_release(tmp_path / "model", encoder)
    seconds = min(config.data.clip_seconds, 1.0)  # shorter clips are padded
    clips = write_clips(tmp_path, seconds, 16_000, any(task in name for task in ONE_LABEL))
    records = finetune(
        tmp_path / "model", clips, tmp_path / "run", from_dict(FinetuneConfig, merge(to_dict(config), small))
    )
    assert records[0].head["selection"] == config.select.which
    moved = release_io.load_tagger(tmp_path / "run").encoder.state_dict()
    still = [key for key, tensor in encoder.state_dict().items() if torch.equal(tensor, moved[key])]
    assert "blocks.1.mlp.fc1.weight" not in still


def settings(name: str) -> FinetuneConfig:
    return from_dict(FinetuneConfig, load_recipe(f"finetune/{name}"))


# Table 6, fine-tuning: steps, warm-up, batch, learning rate, mixup, SpecAug, noise, loss, layer decay
TABLE_6 = {
    "as2m": (400_000, 40_000, 96, 5e-5, 0.9, 0.2, False, "bce", 0.75),
    "as20k": (40_000, 4_000, 48, 5e-5, 0.9, 0.2, False, "bce", 0.75),
    "esc50": (4_000, 400, 48, 5e-5, 0.0, 0.2, False, "ce", 0.75),
    "spc2-12-tfds": (40_000, 4_000, 256, 5e-5, 0.9, 0.1, True, "bce", 0.75),
}
# What EAT's and SSLAM's code does
EAT = {
    "eat_as2m": (300_000, 30_000, 96, 5e-5, 0.9, 0.2, False, "bce", 0.65),
    "eat_as20k": (40_000, 4_000, 48, 5e-5, 0.9, 0.2, False, "bce", 0.65),
    "eat_esc50": (4_000, 400, 48, 5e-5, 0.0, 0.4, False, "ce", 0.65),
    "eat_spc2-35": (40_000, 4_000, 256, 2e-4, 0.9, 0.2, False, "bce", 0.65),
    "sslam_as2m": (400_000, 40_000, 96, 5e-5, 0.9, 0.2, False, "bce", 0.65),
    "sslam_as20k": (40_000, 4_000, 48, 5e-5, 0.9, 0.2, False, "bce", 0.65),
    "sslam_esc50": (4_000, 400, 48, 5e-5, 0.0, 0.4, False, "ce", 0.65),
    "sslam_spc2-35": (40_000, 4_000, 256, 2e-4, 0.9, 0.2, False, "bce", 0.65),
}


@pytest.mark.parametrize(("name", "row"), [*TABLE_6.items(), *EAT.items()])
def test_recipes_are_the_published_settings(name: str, row: tuple):
    config = settings(name)
    train, optim, augment = config.train, config.optim, config.augment
    mask = augment.spec_augment
    assert mask.time_width == mask.frequency_width
    found = (train.steps, optim.warmup_steps, train.batch_size, optim.lr, augment.mixup.probability, mask.time_width)
    assert (*found, augment.noise.probability > 0, train.loss, optim.layer_decay) == row
    assert (optim.betas, optim.weight_decay, optim.min_lr, train.drop_path) == ((0.9, 0.95), 0.05, 1e-6, 0.1)
    weighted = ("labels" if name == "as2m" else "labels_sum", 200_000, False) if "as2m" in name else (None, None, True)
    assert (config.data.balance, config.data.epoch_clips, config.data.replacement) == weighted
    head = config.head
    found = (optim.layer_map, optim.decay_1d, optim.decay_head_1d, head.norm, head.init)
    assert found == (
        ("standard", True, False, "layer", "torch") if name in TABLE_6 else ("eat", True, True, "scaled_layer", "eat")
    )
    assert (mask.unit, mask.time_masks, mask.frequency_masks) == ("window", 1, 1)
    assert train.label_smoothing == (0.1 if name in ("eat_esc50", "sslam_esc50") else 0.0)
    assert train.ema_decay is None


# Seconds of a crop, frames of a window (None: the model's own), statistics, seed
WINDOWS = {
    **dict.fromkeys(("as20k", "as2m"), (10.24, None, "auto", 0)),
    **dict.fromkeys(("as20k_released", "as2m_released"), (10.23, None, "audioset_released", 0)),
    **{"esc50": (5.12, 512, "auto", 0), "esc50_released": (5.12, 512, "esc50_released", 0)},
    **{f"spc2-{task}": (1.0, 112, "auto", 0) for task in ("12-tfds", "12-folder", "35")},
    **{f"spc2-{task}_released": (1.0, 112, "speech_commands_released", 0) for task in ("12-tfds", "12-folder", "35")},
    **{f"{who}_as20k": (10.24, None, f"audioset_{whose}", 0) for who, whose in (("eat", "eat"), ("sslam", "mae"))},
    **{f"{who}_as2m": (10.24, None, f"audioset_{whose}", 0) for who, whose in (("eat", "eat"), ("sslam", "mae"))},
    **{f"{who}_esc50": (5.12, 512, f"esc50_{whose}", 0) for who, whose in (("eat", "eat"), ("sslam", "mae"))},
    "eat_spc2-35": (1.0, 128, "speech_commands_eat", 42),
    "sslam_spc2-35": (1.0, 128, "speech_commands_mae", 42),
    **dict.fromkeys(("demo", "detector"), (4.0, None, "auto", 0)),
}


@pytest.mark.parametrize("name", [name.removeprefix("finetune/") for name in FINETUNES])
def test_recipes_have_the_windows_and_statistics_of_their_data(name: str):
    config = settings(name)
    found = (config.data.clip_seconds, config.max_frames, config.frontend.statistics, config.train.seed)
    assert found == WINDOWS[name]


@pytest.mark.parametrize(
    ("name", "rate", "band", "seconds", "hop_ms"),
    [
        ("birds_32khz", 32_000, (150.0, 16_000.0), 5.12, 10.0),
        ("bats_250khz", 250_000, (5_000.0, 125_000.0), 0.512, 1.0),
    ],
)
def test_recipes_of_other_ranges_hear_them(name: str, rate: int, band: tuple, seconds: float, hop_ms: float):
    config = from_dict(PretrainConfig, load_recipe(name))
    frontend = config.frontend
    top = frontend.f_max or frontend.sample_rate / 2
    assert (frontend.sample_rate, (frontend.f_min, top), config.data.clip_seconds) == (rate, band, seconds)
    assert 1000 * frontend.hop_length / rate == hop_ms
    assert config.encoder.max_frames * frontend.hop_length == seconds * rate, "a crop fills the window"


# What the release does on each data set: loss, steps, batch, mixup, dropout of the head, which weights, widest stripes
# of frames and bins, their number, rolls of the waveform and of frames, noise, length that waveforms are padded to
RELEASED = {
    "as20k": ("asl", 40_000, 48, 0.9, 0.2, "last", (63, 15), 2, (True, None), 0.0, 10.23),
    "as2m": ("asl", 400_000, 96, 0.9, 0.2, "last", (63, 15), 2, (True, None), 0.0, 10.23),
    "esc50": ("ce", 4_000, 48, 0.0, 0.2, "last", (31, 15), 1, (False, "released"), 0.3, 0),
    **dict.fromkeys(
        ("spc2-12-folder", "spc2-12-tfds", "spc2-35"),
        ("ce", 10_000, 256, 0.0, 0.0, "best", (31, 15), 1, (False, "released"), 0.3, 0),
    ),
}


@pytest.mark.parametrize(("name", "row"), RELEASED.items())
def test_the_release_differs_where_its_code_does(name: str, row: tuple):
    config = settings(f"{name}_released")
    train, optim, augment, mask = config.train, config.optim, config.augment, config.augment.spec_augment
    found = (train.loss, train.steps, train.batch_size, augment.mixup.probability, config.head.dropout)
    stripes = ((mask.time_width, mask.frequency_width), mask.time_masks, (augment.roll, augment.time_roll))
    ends = (augment.noise.probability, config.frontend.pad_seconds)
    assert (*found, config.select.which, *stripes, *ends) == row
    assert (mask.unit, mask.frequency_masks, augment.mixup.per) == ("absolute", mask.time_masks, "sample")
    assert (optim.layer_decay, optim.layer_map, optim.decay_1d, optim.warmup) == (0.75, "released", False, "floored")
    assert optim.warmup_steps == train.steps // 10
    assert (optim.decay_head_1d, config.head.norm, config.head.init) == (False, "scaled_layer", "torch")


def test_eats_recipes_are_of_its_augmentation_and_loss():
    for name in EAT:
        config = settings(name)
        augment = config.augment
        assert (augment.roll, augment.gain_beta) == ((False, None) if "esc50" in name else (True, 10.0))
        assert (augment.cell_noise, augment.time_roll) == ((0.1, "eat") if "spc2" in name else (0.0, None))
        assert augment.mixup.per == "batch" or augment.mixup.probability == 0
        assert config.train.bce_per == "label" or config.train.loss == "ce"
        assert config.optim.warmup == "linear"


@pytest.mark.parametrize(
    ("name", "millions", "shape"),
    [
        ("tiny", 5.833, (192, 12, 3)),
        ("small", 23.17, (384, 12, 6)),
        ("base", 92.34, (768, 12, 12)),
        ("large", 327.8, (1024, 24, 16)),
    ],
)
def test_sizes_of_the_family(name: str, millions: float, shape: tuple):
    config = from_dict(PretrainConfig, load_recipe(f"bat_{name}")).model
    one, two = (
        sum(p.numel() for p in AudioEncoder(replace(config, encoder=replace(config.encoder, depth=depth))).parameters())
        for depth in (1, 2)
    )
    count = one + (config.encoder.depth - 1) * (two - one)
    assert (config.encoder.dim, config.encoder.depth, config.encoder.heads) == shape
    assert count / 1e6 == pytest.approx(millions, rel=3e-4)


def test_a_record_says_which_recipe_it_followed(tmp_path: Path):
    config = settings("as20k_released")
    assert preset_of(config) == "finetune/as20k_released"
    elsewhere = merge(to_dict(config), {"data": {"path": "x", "workers": 9}, "train": {"seed": 7, "precision": "fp32"}})
    assert preset_of(from_dict(FinetuneConfig, elsewhere)) == "finetune/as20k_released"
    other = merge(to_dict(config), {"optim": {"lr": 1e-4}})
    assert preset_of(from_dict(FinetuneConfig, other)) == "custom"
    assert preset_of(replace(config, recipe=None)) == "custom"
    assert preset_of(replace(config, recipe="gone")) == "custom"


def test_a_function_takes_a_config_a_recipe_or_fields(tmp_path):
    wanted = from_dict(ProbeConfig, load_recipe("demo_probe"))
    (tmp_path / "mine.yaml").write_text("base: demo_probe\n")
    for given in (wanted, "demo_probe", tmp_path / "mine.yaml", load_recipe("demo_probe")):
        assert make_config(ProbeConfig, given) == wanted
    assert make_config(ProbeConfig, None) == ProbeConfig()
    assert make_config(ProbeConfig, {"seeds": [3]}, {"train": {"steps": 7_000}, "seeds": [1]}).seeds == (3,)
    with pytest.raises(AudiobatError, match="did you mean demo_probe"):
        make_config(ProbeConfig, "demo_prob")
    with pytest.raises(AudiobatError, match="Unknown field hed"):
        make_config(ProbeConfig, {"hed": {}})


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("pretrain", {"out": "out"}),
        ("probe", {"model": "bat_nano", "data": "clips.csv"}),
        ("finetune", {"model": "bat_nano", "data": "clips.csv", "out": "out"}),
        ("analyze", {"model": "bat_nano", "data": "clips.csv", "out": "out"}),
        ("ladder", {"data": "clips.csv", "probe_data": "clips.csv", "out": "out"}),
        ("benchmark", {"out": "out"}),
        ("prepare", {"source": "clips.csv", "out": "out"}),
    ],
)
def test_every_verb_with_settings_takes_a_recipe_by_name(verb, arguments):
    with pytest.raises(AudiobatError, match="no_such_recipe"):
        getattr(audiobat, verb)(**arguments, config="no_such_recipe")


def test_a_group_given_in_part_keeps_the_rest_of_its_own_default():
    changed = from_dict(FinetuneConfig, {"head": {"dropout": 0.2}, "augment": {"roll": True, "mixup": {"beta": 0.5}}})
    default = FinetuneConfig()
    assert changed.head == replace(default.head, dropout=0.2)  # a linear head with its norm
    assert changed.augment.spec_augment == default.augment.spec_augment
    assert changed.augment.mixup == replace(default.augment.mixup, beta=0.5)
    other = from_dict(FinetuneConfig, {"head": {"kind": "cgp", "dropout": 0.2}})
    assert other.head == HeadConfig(kind="cgp", dropout=0.2)  # another kind begins with its own defaults


def test_fields_that_changed_no_result_may_stand_in_the_config_of_an_older_run():
    for name, value, new in (("chunk", 2, "accumulate"), ("compile", "off", "compile")):  # no setting is passed over
        with pytest.raises(AudiobatError, match=rf"objective\.{name} is .*: it is train\.{new} now"):
            from_dict(PretrainConfig, {"objective": {name: value}})
    older = {"objective": {"chunk": None, "compile": "auto", "scale": 2.0}}
    assert from_dict(PretrainConfig, older) == from_dict(PretrainConfig, {"objective": {"scale": 2.0}})
    with pytest.raises(AudiobatError, match=r"Unknown field objective\.chunks"):
        from_dict(PretrainConfig, {"objective": {"chunks": 2}})
