"""The variants in examples/ are trained, killed, resumed, released, loaded and probed with no change to the package."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import audiobat
from audiobat.audio.frontends.base import build_frontend
from audiobat.cli.command import main
from audiobat.config import FrontendConfig, MaskConfig, PretrainConfig, from_dict, recipes
from audiobat.data.scenes import demo_folder, write_scenes
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.errors import AudiobatError
from audiobat.inference.export_source import settings_changed
from audiobat.pretraining.objectives.base import build_objective
from audiobat.pretraining.plan import make_plan
from audiobat.zoo.release import load, load_tagger

EXAMPLES = Path(__file__).parents[1] / "examples/variants"
TINY = {
    "encoder": {"dim": 32, "depth": 2, "heads": 2},
    "decoder": {"depth": 1, "heads": 2},
    "mask": {"clones": 2, "block_size": 2},
    "data": {"clip_seconds": 2.0, "workers": 0, "balance": None},
    "optim": {"warmup_steps": 1},
    "train": {"steps": 4, "batch_size": 4, "save_every": 2, "log_every": 1, "precision": "fp32", "device": "cpu"},
}
VARIANTS = {
    "jepa": {
        "objective": {"kind": "jepa.py:JEPA"},
        "mask": {"kind": "jepa.py:TargetBlocks", "clones": 3},
        "decoder": {"kind": "jepa.py:Predictor", "dim": 16},
        "target": {"layers": 1},
    },
    "pcen": {"frontend": {"kind": "pcen.py:PCEN", "smoothing": 0.04}},
    "clusters": {"objective": {"kind": "clusters.py:Clusters", "clusters": 8}, "target": {"layers": 1}},
}
TIMING = ("seconds", "steps_per_second", "clips_per_second", "data_wait")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Eight recordings of the demo, of different lengths."""
    folder = tmp_path_factory.mktemp("sounds")
    for path in sorted((demo_folder() / "events").glob("*.ogg"))[::40][:8]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder of one's own, with copies of the examples."""
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(name: str, sounds: Path, **train) -> PretrainConfig:
    fields = recipes.merge(recipes.load_recipe("bat_nano"), TINY)
    fields = recipes.merge(fields, {"data": {"path": str(sounds)}, "train": train})
    return from_dict(PretrainConfig, recipes.merge(fields, VARIANTS.get(name, {})))


def rows(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMING} for row in lines]


def same(ours: object, theirs: object) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_variant_is_one_short_file_that_is_tested(path):
    assert len(path.read_text().splitlines()) <= 120
    assert path.stem in {*VARIANTS, "gated_mean"}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_trains_resumes_and_is_released_with_its_code(name, here, sounds, monkeypatch):
    config = config_of(name, sounds)
    whole = audiobat.pretrain(config, "whole")
    objective = type(build_objective(config))
    after_step = objective.after_step

    def killed(self, step):
        after_step(self, step)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(objective, "after_step", killed)
        with pytest.raises(KeyboardInterrupt):
            audiobat.pretrain(config, "cut")
    assert load_checkpoint("cut").step == 2
    audiobat.pretrain(config, "cut")
    assert rows(Path("cut")) == rows(whole)
    assert same(load_checkpoint("cut").model, load_checkpoint(whole).model)
    assert len({row["loss"] for row in rows(whole)}) == 4

    file = f"{name}.py"
    recorded = yaml.safe_load((whole / "config.yaml").read_text())
    assert list(recorded["files"]) == [file]
    assert (whole / "code" / file).read_bytes() == (here / file).read_bytes()
    with pytest.raises(AudiobatError, match=rf"{file}.*--trust-remote-code"):
        load("whole")
    encoder = audiobat.load("whole", trust_remote_code=True)
    encoder.save_pretrained("release")
    (here / file).unlink()  # a release needs nothing outside
    kept = name == "pcen"  # of a release: what the encoder runs through, not what trained it
    assert (here / "release/code").exists() == kept
    if kept:
        with pytest.raises(AudiobatError, match=r"release/code/pcen\.py.*--trust-remote-code"):
            audiobat.load("release")
    again = audiobat.load("release", trust_remote_code=kept)
    waveform = torch.randn(1, 16_000) / 10
    assert torch.equal(again(waveform).patch_tokens, encoder(waveform).patch_tokens)


def test_pcen_is_its_recursion_and_padding_changes_nothing(here):
    config = from_dict(FrontendConfig, {"kind": "pcen.py:PCEN", "smoothing": 0.1, "norm": "global", "mel_bins": 16})
    frontend = build_frontend(config)
    waveform, lengths = (
        torch.randn(2, 6_000, generator=torch.Generator().manual_seed(0)) / 10,
        torch.tensor([6_000, 3_000]),
    )
    waveform[1, 3_000:] = 9.0
    power = frontend.mel_power(waveform[:1], lengths[:1])[0] * 2.0**31
    smoothed, wanted = power[0], []
    for frame in power:
        smoothed = 0.9 * smoothed + 0.1 * frame
        wanted.append((frame / (1e-6 + smoothed) ** 0.98 + 2.0) ** 0.5 - 2.0**0.5)
    raw = frontend.raw_spectrogram(waveform, lengths)
    torch.testing.assert_close(raw[0], torch.stack(wanted), rtol=1e-3, atol=1e-3)
    alone, _ = frontend(waveform[1:, :3_000])
    torch.testing.assert_close(frontend(waveform, lengths)[0][1, : alone.shape[1]], alone[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_the_plan_counts_a_variant(name, here, sounds, capsys, monkeypatch):
    from types import SimpleNamespace

    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr("audiobat.engine.linear._product", None)  # the counter knows PyTorch's own operators
    config = config_of(name, sounds)
    audiobat.pretrain(config, "nowhere", dry_run=True)
    assert "TFLOP a step" in capsys.readouterr().out
    assert not Path("nowhere").exists()
    objective = build_objective(config)
    batch = SimpleNamespace(waveform=torch.randn(4, 32_000) / 10, lengths=None)
    spectrogram = objective.encoder.spectrogram(batch.waveform)
    objective.encoder.spectrogram = lambda *_: spectrogram  # the frontend is not in the plan
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        objective(batch, 0)[0].backward()
    assert make_plan(config).step.flops == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_changed_or_broken_files_are_one_sentence_and_lose_nothing(here, sounds, capsys, monkeypatch):
    Path("mine.py").write_text(
        "from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression\n\n"
        "class Mine(MaskedLatentRegression):\n"
        "    def after_step(self, step):\n"
        "        super().after_step(step)\n"
        "        if step == 2:\n"
        "            raise ValueError('three is enough')\n"
    )
    fields = recipes.merge(TINY, {"data": {"path": str(sounds)}, "objective": {"kind": "mine.py:Mine"}})
    Path("recipe.yaml").write_text(yaml.safe_dump(recipes.merge(recipes.load_recipe("bat_nano"), fields)))
    command = ["pretrain", "--config", "recipe.yaml", "--out", "run"]
    assert main(command) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed == "audiobat: mine.py line 7: Mine.after_step fails (ValueError: three is enough): fix it."
    assert load_checkpoint("run").step == 2

    Path("mine.py").write_text(Path("mine.py").read_text().replace("step == 2", "step == 9"))
    assert main(command) == 2
    assert (
        "mine.py has changed since the run began: use run/code/mine.py in its place, a new --out, or --overwrite."
        in capsys.readouterr().err
    )
    assert main([*command, "--objective.kind", "masked_latent_regression"]) == 2
    assert "the run uses mine.py, and this config does not" in capsys.readouterr().err
    shutil.copy("run/code/mine.py", "mine.py")
    Path("mine.py").write_text(Path("mine.py").read_text())
    Path("elsewhere").mkdir()
    with monkeypatch.context() as patch:  # the same file by another path is the same
        patch.chdir("elsewhere")
        moved = [word.replace("recipe.yaml", "../recipe.yaml").replace("run", "../run") for word in command]
        assert main([*moved, "--objective.kind", "../mine.py:Mine"]) == 2
    assert "mine.py line 7: Mine.after_step fails (ValueError: three is enough)" in capsys.readouterr().err  # it ran
    assert main(["doctor", "run"]) == 0
    assert "mine.py:Mine: Python of its own" in capsys.readouterr().out

    assert main([*command[:-1], "other", "--objective.kind", "mine.py:Mien"]) == 2
    assert "mine.py defines no Mien (did you mean Mine?)" in capsys.readouterr().err
    assert main([*command[:-1], "other", "--decoder.kind", "vitt"]) == 2
    assert "decoder.kind is 'vitt': choose one of cnn, vit (did you mean vit?)" in capsys.readouterr().err
    assert not Path("other").exists()


def test_a_card_names_a_users_class_and_the_defaults_of_its_fields(here, sounds):
    changed = {name: (value, default) for name, value, default in settings_changed(config_of("pcen", sounds))}
    assert changed["frontend.kind"] == ("pcen.py:PCEN", "mel_db")
    assert changed["frontend.smoothing"] == ("0.04", "0.025")
    assert "frontend.gain" not in changed  # as its Config has it


def test_a_config_that_yaml_does_not_give_back_starts_no_run(sounds, tmp_path):
    config = config_of("plain", sounds)
    for ratio, sentence in (
        (np.float64(0.8), r"cannot be written to config\.yaml"),
        ("0.8", "it must be of type float"),
    ):
        mask = MaskConfig(clones=2)
        object.__setattr__(mask, "ratio", ratio)  # as a class that checks less would let it pass
        with pytest.raises(AudiobatError, match=sentence):
            audiobat.pretrain(dataclasses.replace(config, mask=mask), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("clips"), clips_train=160, clips_test=16, seconds=1.0)


def test_a_variants_encoder_is_probed_beside_a_head_of_ones_own(here, sounds, clips, capsys):
    run = audiobat.pretrain(config_of("pcen", sounds, steps=2), "run")
    short = ["--train.steps", "2", "--train.warmup_steps", "1", "--train.batch_size", "8", "--workers", "0"]
    command = ["probe", "--model", str(run), "--data", str(clips), "--out", "probed", *short, "--device", "cpu"]
    command += ["--heads", "gated_mean.py:GatedMean,linear"]
    assert main(command) == 2
    assert "needs Python code that came with it" in capsys.readouterr().err
    assert main([*command, "--trust-remote-code"]) == 0, capsys.readouterr().err
    found = [json.loads(path.read_text()) for path in Path("probed/results").glob("*.json")]
    assert {record["head"]["kind"] for record in found} == {"gated_mean.py:GatedMean", "linear"}
    (files,) = [record["head"]["files"] for record in found if "files" in record["head"]]
    assert files == {"gated_mean.py": hashlib.sha256(Path("gated_mean.py").read_bytes()).hexdigest()}


def test_a_head_of_ones_own_is_fine_tuned_released_and_predicts(here, sounds, clips, capsys):
    fields = {
        "head": {"kind": "gated_mean.py:GatedMean", "hidden": 4},
        "train": {"steps": 2, "batch_size": 8, "device": "cpu", "precision": "fp32"},
        "optim": {"warmup_steps": 1},
        "data": {"workers": 0},
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(fields))
    command = ["finetune", "--model", "bat_nano", "--data", str(clips), "--out", "tagger", "--config", "recipe.yaml"]
    assert main(command) == 0, capsys.readouterr().err
    Path("gated_mean.py").unlink()
    predict = ["predict", "--model", "tagger", "--data", str(sounds), "--out", "labels.csv", "--device", "cpu"]
    assert main(predict) == 2
    assert "release/code/gated_mean.py" in capsys.readouterr().err
    # After two steps no class is likelier than its prior.
    assert main([*predict, "--trust-remote-code", "--threshold", "0"]) == 0, capsys.readouterr().err
    assert len(Path("labels.csv").read_text().splitlines()) >= 8
    assert load_tagger("tagger", trust_remote_code=True).config.head.hidden == 4
    assert main(["export", "--model", "tagger", "--to", "release", "--out", "shared", "--trust-remote-code"]) == 0
    assert "trust_remote_code=True" in Path("shared/README.md").read_text()
    assert main(["doctor", "shared"]) == 0
    assert "gated_mean.py:GatedMean: Python of its own" in capsys.readouterr().out
