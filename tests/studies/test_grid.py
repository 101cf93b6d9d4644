"""Grids of runs: one for each combination, in folders named by what varies; killed, failed and done ones; compared."""

import pytest
from tiny_encoder import write_encoder
from tiny_runs import fields_of, write_clips

import audiobat
from audiobat.cli.command import main
from audiobat.cli.parse import parse
from audiobat.config import PretrainConfig, from_dict, to_dict
from audiobat.config.recipes import write_yaml
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.errors import AudiobatError
from audiobat.evaluation.run_logs import find_runs, load_logs
from audiobat.pretraining.run import pretrain
from audiobat.studies import grid as module
from audiobat.studies.grid import combinations


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("tones"))


def named(values, fields=None):
    return combinations(values, fields or to_dict(PretrainConfig()), PretrainConfig)


def test_each_combination_is_a_config_under_the_name_of_what_varies():
    found = named({"optim.lr": [1e-3, 5e-4], "mask.ratio": [0.7, 0.8]})
    assert {name: (config.optim.lr, config.mask.ratio) for name, config in found.items()} == {
        "lr_0.001-ratio_0.7": (1e-3, 0.7),
        "lr_0.001-ratio_0.8": (1e-3, 0.8),
        "lr_0.0005-ratio_0.7": (5e-4, 0.7),
        "lr_0.0005-ratio_0.8": (5e-4, 0.8),
    }
    assert list(named({"encoder.depth": [6], "decoder.depth": [1, 2]})) == [
        "encoder.depth_6-decoder.depth_1",
        "encoder.depth_6-decoder.depth_2",
    ]
    assert list(named({"optim.betas": [[0.9, 0.95]], "optim.grad_clip": [None, 1.0]})) == [
        "betas_0.9x0.95-grad_clip_null",
        "betas_0.9x0.95-grad_clip_1.0",
    ]
    assert list(named({"data.path": ["../a b/c", "as2m:/data"]})) == ["path_..-a-b-c", "path_as2m-data"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "name a field and its values"),
        ({"optim.lr": []}, "grid.optim.lr is \\[\\]: name each value once"),
        ({"optim.lr": [1e-3, 1e-3]}, "name each value once"),
        ({"optim.rate": [1e-3]}, "Unknown field optim.rate"),
        ({"optim.lr": [1e-3, -1.0]}, "optim.lr is -1.0: it must be positive"),
        ({"train.steps": [10]}, "optim.warmup_steps"),
        ({"data.path": ["a/b", "a b"]}, "two combinations would have this name"),
    ],
)
def test_what_is_wrong_is_told_before_any_run(values, sentence):
    with pytest.raises(AudiobatError, match=sentence):
        named(values)


def test_flags_become_values_of_the_fields_types():
    flags = "--grid.optim.lr 1e-3,5e-4 --grid.optim.grad-clip null,1 --grid.decoder.kind vit,cnn"
    lists = ["--grid.train.compile", "on,off", "--grid.encoder.patch_size", "[[8, 8], [16, 16]]"]
    found = parse("pretrain", [*flags.split(), *lists])["grid"]
    assert found == {
        "optim.lr": [1e-3, 5e-4],
        "optim.grad_clip": [None, 1],
        "decoder.kind": ["vit", "cnn"],
        "train.compile": ["on", "off"],
        "encoder.patch_size": [[8, 8], [16, 16]],
    }
    with pytest.raises(AudiobatError, match=r"no flag --grid.optim.lrs \(did you mean --grid.optim.lr\?\)"):
        parse("pretrain", ["--grid.optim.lrs", "1,2"])
    with pytest.raises(AudiobatError, match=r"no flag --grid\.train\.warmup"):  # `probe` has a grid of its own
        parse("probe", ["--model", "m", "--data", "d", "--out", "o", "--grid.train.warmup", "linear"])


def test_a_grid_that_was_killed_goes_on_and_is_compared(clips, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(write_yaml(fields_of(clips, heads=["knn"])))
    command = [
        "pretrain",
        "--config",
        str(recipe),
        "--out",
        str(tmp_path / "grid"),
        "--grid.optim.lr",
        "1e-3,5e-4,2e-4",
    ]
    begun = []

    def stopped_in_the_second(config, out, **_):
        begun.append(out.name)
        stops = len(begun) == 2
        pretrain(config, out, max_seconds=0 if stops else None)
        if stops:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "pretrain", stopped_in_the_second)
    assert main(command) == 130
    assert main(command) == 0
    names = ["lr_0.001", "lr_0.0005", "lr_0.0002"]
    assert begun == names[:2] + names[1:]  # what was done was not begun again
    for name, lr in zip(names, (1e-3, 5e-4, 2e-4), strict=True):
        config = from_dict(PretrainConfig, fields_of(clips) | {"optim": {"warmup_steps": 2, "lr": lr}})
        alone = pretrain(config, tmp_path / name)
        ours, theirs = load_checkpoint(tmp_path / "grid" / name).model, load_checkpoint(alone).model
        assert all(bool((ours[key] == theirs[key]).all()) for key in ours)
    shown = capsys.readouterr().out
    for log in load_logs(find_runs(tmp_path / "grid")):
        assert f"{log.last('loss'):#.4g}" in shown
        assert f"{log.last('online_knn'):.3f}" in shown
    page = (tmp_path / "grid" / "report" / "index.html").read_text()
    assert all(name in page for name in names)


def test_a_run_that_fails_is_told_and_the_others_go_on(clips, tmp_path, capsys):
    values = {"optim.lr": [1e30, 1e-3]}  # behind the first step, no loss is finite any more
    config = fields_of(clips) | {"optim": {"warmup_steps": 0}}
    with pytest.raises(AudiobatError, match=r"1 run of 2 failed: lr_1e\+30\. The others are done"):
        audiobat.grid("pretrain", values, config=config, out=tmp_path / "grid")
    assert "run lr_1e+30 failed: The loss of step 1 is not finite" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "grid" / "lr_0.001").step == 5


def test_a_run_of_another_config_is_not_taken_for_done(clips, tmp_path):
    run = pretrain(from_dict(PretrainConfig, fields_of(clips)), tmp_path / "grid" / "lr_0.001")
    values, config = {"optim.lr": [1e-3]}, fields_of(clips)
    with pytest.raises(AudiobatError, match=r"holds a run with optim\.lr 0\.0005, not 0\.001"):
        audiobat.grid("pretrain", values, config=config, out=tmp_path / "grid")
    with pytest.raises(AudiobatError, match="holds a run, and a grid makes one for each"):
        audiobat.grid("pretrain", values, config=config, out=run)


def test_fine_tunings_are_compared_clip_by_clip(clips, tmp_path, capsys):
    model = write_encoder(tmp_path / "model")
    train = {"steps": 3, "batch_size": 4, "precision": "fp32", "device": "cpu", "log_every": 1}
    config = {"train": train, "optim": {"warmup_steps": 1}, "data": {"workers": 0, "clip_seconds": 0.5}}
    values, out = {"optim.lr": [1e-2, 1e-3]}, tmp_path / "grid"
    done = audiobat.grid("finetune", values, model=model, data=clips, config=config, out=out)
    assert [run.name for run in done] == ["lr_0.01", "lr_0.001"]
    assert all((run / "release").is_dir() for run in done)
    shown = capsys.readouterr().out
    assert "A - B" in shown
    assert "paired bootstrap" in shown
    page = (tmp_path / "grid" / "report" / "index.html").read_text()
    assert "<h2>Results</h2>" in page
    assert "<h2>Training runs</h2>" in page
