"""Pre-training on 1, 2 and 4 ranks is one and the same run: losses of 30 steps, and the weights at their end.

Run as a program, with a folder of recordings, it makes the runs that the tests compare.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rank_processes import run_program, run_ranks

import audiobat
from audiobat.config import PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.pretraining.run import pretrain

STEPS, RATE = 30, 16_000
TINY = {
    "frontend": {"mel_bins": 32, "n_fft": 512, "win_length": 512},
    "encoder": {"dim": 16, "depth": 2, "heads": 2, "max_frames": 64, "patch_size": [8, 8]},
    "decoder": {"depth": 1, "heads": 2},
    "mask": {"clones": 2, "block_size": 2},
    "optim": {"warmup_steps": 5},
    "data": {"clip_seconds": 0.6, "workers": 0},
    "train": {"steps": STEPS, "batch_size": 4, "log_every": 1, "precision": "fp32", "device": "cpu", "seed": 3},
}
CONVOLUTIONS = {"groups": 4, "kernel_size": 3}
# Recipe, length of the clips, what differs from the recipe. Dropped paths and the noise of the CNN are drawn anew in
# each step; SSLAM mixes clips with their neighbours, the first of a rank with the last of the rank before.
CASES = {
    "bat": ("bat_base", "short", {"encoder": {"drop_path": 0.3}}),
    "apart": ("bat_base", "short", {"encoder": {"drop_path": 0.3}, "objective": {"apart": True}}),
    "eat": ("eat_base", "full", {"encoder": {"drop_path": 0.3}, "decoder": CONVOLUTIONS, "optim": {"grad_clip": 1.0}}),
    "sslam": ("sslam", "short", {"init": None, "decoder": CONVOLUTIONS}),
    # Divided over the ranks, in parts, and run again; one process has nothing to divide.
    "fsdp2": (
        "bat_base",
        "short",
        {
            "encoder": {"drop_path": 0.3},
            "optim": {"grad_clip": 1.0},
            "train": {"shard": "fsdp2", "accumulate": 2, "recompute": True},
        },
    ),
}

WATCHED = ("bat", "fsdp2")  # with probes of the encoder in their midst


def write_clips(folder: Path) -> None:
    """Recordings of 0.8 s, of which every crop is full, and of 0.15 to 0.8 s, one of them unreadable."""
    rng = np.random.default_rng(0)
    for kind in ("full", "short"):
        (folder / kind).mkdir(parents=True)
        for n in range(30):
            seconds = 0.8 if kind == "full" or n % 3 == 0 else rng.uniform(0.15, 0.6)
            time = np.arange(int(seconds * RATE)) / RATE
            tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * n) * time) + 0.02 * rng.standard_normal(len(time))
            soundfile.write(folder / kind / f"{n:02}.wav", tone, RATE)
    (folder / "short" / "07.wav").write_bytes(b"no audio")
    held = [f"full/{n:02}.wav,{('low', 'high')[n // 15]},{('train', 'test')[n % 2]}" for n in range(30)]
    (folder / "held.csv").write_text("\n".join(["path,label,split", *held]))


def config_of(case: str, folder: Path) -> PretrainConfig:
    recipe, clips, fields = CASES[case]
    tiny = merge(load_recipe(recipe), TINY)
    if case in WATCHED:
        online = {"data": str(folder / "held.csv"), "every": 20, "steps": 4, "prototypes": 8}
        tiny = merge(tiny, {"online": online})
    return from_dict(PretrainConfig, merge(merge(tiny, fields), {"data": {"path": str(folder / clips)}}))


def run(case: str, folder: Path, world: int) -> None:
    pretrain(config_of(case, folder), folder / f"{case}_{world}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    write_clips(folder)
    run_program(__file__, folder)
    return folder


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> np.ndarray:
    """The loss and its parts, [steps, parts]."""
    rows = [row for row in rows_of(folder) if "loss" in row]
    parts = [name for name in ("loss", "local_loss", "global_loss", "retention_loss") if name in rows[0]]
    return np.array([[row[name] for name in parts] for row in rows])


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_several_ranks_are_one_process(runs, case, world):
    alone, together = (runs / f"{case}_{n}" for n in (1, world))
    assert losses(alone).shape == (STEPS, 4 if case == "sslam" else 3)
    np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-6)
    weights = load_checkpoint(together).model
    for name, weight in load_checkpoint(alone).model.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", WATCHED)
def test_probes_of_a_run_on_several_ranks_find_what_they_find_on_one(runs, case, world):
    def found(name: str) -> list[tuple[int, float, float]]:
        return [
            (row["step"], row["online_knn"], row["online_cgp"]) for row in rows_of(runs / name) if "loss" not in row
        ]

    assert [step for step, *_ in found(f"{case}_1")] == [20, 30]
    np.testing.assert_allclose(found(f"{case}_{world}"), found(f"{case}_1"), atol=0.07)  # one of 15 clips may tie


def test_a_divided_run_is_a_model_as_any_other(runs):
    run = runs / "fsdp2_2"
    assert len(list((run / "checkpoints" / f"step_{STEPS:06d}" / "parts").iterdir())) == 2
    kept = load_checkpoint(run).model
    for place, prefix in ((run, "student."), (f"{run}:teacher", "teacher.encoder.")):
        weights = audiobat.load(place).state_dict()
        assert all(torch.equal(kept[prefix + name], weight) for name, weight in weights.items())


def test_a_step_learns_something_and_differs_from_the_others(runs):
    """The runs agree because they do the same, and not because they do nothing."""
    for case in CASES:
        of_steps = losses(runs / f"{case}_1")
        assert len(np.unique(of_steps[:, 0])) == STEPS
        assert of_steps[-1, 1] < of_steps[0, 1]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    run_ranks([partial(run, case, place) for case in CASES])
