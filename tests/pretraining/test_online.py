"""Probes of a run in its midst: they change nothing of it, resume with it, and find what `probe` finds at its end."""

import json

import pytest
import torch
from tiny_runs import fields_of, write_clips

from audiobat.config import PretrainConfig, from_dict
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.errors import AudiobatError
from audiobat.pretraining.run import pretrain
from audiobat.probing.run import probe


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("tones"))


def config_of(source, **online) -> PretrainConfig:
    return from_dict(PretrainConfig, fields_of(source, **online))


def found(run):
    """The steps at which a run was probed, and what was found there."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: [row["online_knn"], row["online_cgp"]] for row in rows if "online_knn" in row}


def weights(run):
    return load_checkpoint(run).model


def test_probes_change_nothing_of_a_run_and_resume_with_it(clips, tmp_path, capsys):
    plain = pretrain(config_of(clips), tmp_path / "plain")
    watched = pretrain(config_of(clips, clips=15), tmp_path / "watched")
    assert "accuracy of knn, cgp on 15 clips" in capsys.readouterr().err
    assert list(found(watched)) == [2, 4, 5]
    assert all(torch.equal(weight, weights(watched)[name]) for name, weight in weights(plain).items())
    cut = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:  # it ends in the second look, behind the checkpoint of step 2
        patch.setattr("audiobat.probing.online.predict_heads", end_at_second(patch))
        with pytest.raises(InterruptedError):
            pretrain(config_of(clips, clips=15), cut)
    assert list(found(cut)) == [2]
    pretrain(config_of(clips, clips=15), cut)
    assert found(cut) == found(watched)
    assert all(torch.equal(weight, weights(cut)[name]) for name, weight in weights(plain).items())


def end_at_second(patch):
    from audiobat.probing.training import predict_heads

    calls = []

    def predict(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise InterruptedError
        return predict_heads(*arguments)

    return predict


def test_the_last_look_is_what_a_probe_of_the_run_finds(clips, tmp_path):
    """The same weights, clips and labels by another path; CGP's settings are those of the look."""
    run = pretrain(config_of(clips, clips=100), tmp_path / "run")
    head = {"prototypes": 8}
    train = {"steps": 4, "warmup_steps": 0, "batch_size": 20, "lr": 5e-3, "weight_decay": 0.05}
    records = probe(run, clips, {"heads": ["knn", "cgp"], "head": head, "train": train}, device="cpu")
    assert found(run)[5] == [record.metrics["accuracy"].value for record in records]
    assert found(run)[5][0] > 0.5  # nearest neighbours tell the pitches apart better than a guess


def test_held_clips_without_labels_are_refused_before_anything_is_written(clips, tmp_path):
    with pytest.raises(AudiobatError, match="label"):
        pretrain(config_of(clips, data=str(clips.parent)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_held_set_that_exceeds_the_memory_is_refused(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("audiobat.probing.online.room_in_ram", lambda: 1e6)
    with pytest.raises(AudiobatError, match=r"online.clips is 20, .*lower online.clips"):
        pretrain(config_of(clips, clips=20), tmp_path / "run")
