"""Sizes of a pre-training run, held against the machine before anything is built: none that is absurd is allocated."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiobat.cli import command as cli
from audiobat.config import PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe, merge, recipe_names
from audiobat.data.loader import ring_needs
from audiobat.engine import memory
from audiobat.engine.memory import Room
from audiobat.engine.ranks import Ranks
from audiobat.pretraining import run
from audiobat.pretraining.objectives.base import build_objective
from audiobat.pretraining.plan import needs_of, shortage_of

CPU = torch.device("cpu")
GIB = 2**30
ABSURD = {  # a flag, and the setting that the sentence has to name
    "--encoder.dim 1048576": "encoder.dim",
    "--encoder.mlp_ratio 1e9": "encoder.mlp_ratio",
    "--encoder.max_frames 1000000000": "encoder.max_frames",
    "--encoder.depth 1000000000": "encoder.depth",
    "--decoder.mlp_ratio 1e9": "decoder.mlp_ratio",
    "--decoder.depth 1000000000": "decoder.depth",
    "--mask.clones 100000000": "mask.clones",
    "--mask.adjust 1e12": "mask.adjust",
    "--frontend.mel_bins 10000000": "frontend.mel_bins",
    "--train.batch_size 100000000": "train.batch_size",
    "--data.workers 100000": "data.workers",
}


def of_machine(monkeypatch, size: float) -> None:
    monkeypatch.setattr(memory, "limits_of_machine", lambda: iter([Room(size, "this machine has as much")]))
    monkeypatch.setattr(memory, "limits_of_process", lambda: iter([]))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for n in range(4):
        soundfile.write(folder / f"{n}.wav", np.random.default_rng(n).normal(scale=0.1, size=16_000), 16_000)
    return folder


@pytest.mark.parametrize("flag", ABSURD)
def test_a_size_that_no_machine_has_room_for_is_refused_before_anything_is_built(
    flag, clips, tmp_path, monkeypatch, capsys
):
    of_machine(monkeypatch, 64 * GIB)
    monkeypatch.setattr(run, "build_objective", lambda config: pytest.fail("it was built"))
    rc = cli.main(f"pretrain --config bat_nano --data {clips} --out {tmp_path / 'r'} --encoder.heads 4 {flag}".split())
    said = capsys.readouterr().err
    assert rc == 2
    assert said.count("\n") == 1
    assert ABSURD[flag] in said
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "flag", ["--encoder.dim 1048576", "--train.batch_size 100000000", "--encoder.max_frames 2000000"]
)
def test_a_dry_run_prints_the_plan_of_a_run_for_a_larger_machine_with_a_warning(flag, monkeypatch, capsys):
    of_machine(monkeypatch, GIB)
    assert cli.main(f"pretrain --config bat_nano --encoder.heads 4 --dry-run {flag}".split()) == 0
    said = capsys.readouterr().out
    assert "visible and" in said
    assert "warning  A step takes" in said


def recipes() -> list[str]:
    others = ("finetune/", "probe/", "benchmark/", "suite/", "demo_probe", "tuned_probe")
    return [name for name in recipe_names() if not name.startswith(others)]


@pytest.mark.parametrize("name", recipes())
def test_no_recipe_is_refused_by_a_machine_of_24_gib(name, monkeypatch):
    of_machine(monkeypatch, 24 * GIB)
    config = from_dict(PretrainConfig, load_recipe(name))
    with torch.device("meta"):
        objective = build_objective(config)
    assert shortage_of(config, Ranks(CPU), objective) is None


@pytest.mark.parametrize("name", recipes())
def test_weights_are_counted_before_they_are_built_and_never_too_high(name):
    config = from_dict(PretrainConfig, load_recipe(name))
    with torch.device("meta"):
        objective = build_objective(config)
    real = sum(p.numel() * (16 if p.requires_grad else 4) for p in objective.parameters())
    real += sum(buffer.numel() * 4 for buffer in objective.buffers())
    counted = sum(need.bytes for need in needs_of(config, 1)[:4])  # encoder, positions, filters, decoder
    assert 0.95 * real < counted <= real


def test_masks_are_counted_no_higher_than_what_drawing_them_takes():
    for kind in ("inverse_block", "random"):
        mask = from_dict(PretrainConfig, merge(load_recipe("bat_tiny"), {"mask": {"kind": kind}}))
        objective = build_objective(mask)
        with torch.profiler.profile(profile_memory=True) as profile:
            objective.mask.draw(64, mask.crop_grid, torch.Generator())
        taken = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
        assert 0 < objective.mask.memory(64, mask.crop_grid) <= taken


def test_activations_count_once_the_objective_is_there(monkeypatch):
    config = from_dict(PretrainConfig, merge(load_recipe("bat_tiny"), {"data": {"workers": 0}}))
    samples = round(config.data.clip_seconds * config.frontend.sample_rate)
    loading = ring_needs(0, config.train.batch_size, samples)
    of_machine(monkeypatch, sum(need.bytes for need in [*needs_of(config, 1), *loading]))  # and no byte for them
    assert shortage_of(config, Ranks(CPU)) is None
    assert shortage_of(config, Ranks(CPU), build_objective(config)) is not None


def test_what_runs_out_all_the_same_is_a_sentence_with_the_sizes_of_the_verb(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "train_run", lambda *rest: torch.empty(2**58))
    assert cli.main(f"pretrain --config bat_nano --data {clips} --out {tmp_path / 'r'}".split()) == 2
    said = capsys.readouterr().err
    assert said.endswith(
        "Memory ran out where 1,024 PiB more were wanted: lower train.batch_size, mask.clones or "
        "data.workers, raise train.accumulate or set train.recompute.\n"
    )
