"""Fine-tuning on 1, 2 and 4 ranks is one and the same run: losses of 20 steps, and the weights at their end.

Run as a program, with a folder of recordings and a model, it makes the runs that the tests compare.
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
from tiny_encoder import RATE, write_encoder

import audiobat
from audiobat.config import FinetuneConfig, from_dict
from audiobat.config.recipes import merge
from audiobat.data.build import clip_table
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.finetuning import run as finetune_run

STEPS = 20
CLASSES = ("low", "mid", "top")
TINY = {
    "optim": {"lr": 1e-3, "warmup_steps": 2},
    "data": {"clip_seconds": 0.4, "workers": 0},
    "train": {"steps": STEPS, "batch_size": 8, "log_every": 1, "precision": "fp32", "device": "cpu", "drop_path": 0.3},
}
CASES = {
    "clip": {  # everything that is drawn for a clip, or for the batch; a mean over the labels of the batch
        "task": "clip",
        "head": {"kind": "linear", "norm": "scaled_layer", "dropout": 0.2},
        "augment": {
            **{"roll": True, "gain_beta": 10.0, "cell_noise": 0.1, "time_roll": "released"},
            "noise": {"probability": 0.5},
            "mixup": {"probability": 0.7},
            "spec_augment": {"time_width": 0.2, "frequency_width": 0.2},
        },
        "train": {"loss": "bce", "bce_per": "label", "ema_decay": 0.9, "freeze_steps": 3},
    },
    "fsdp2": {  # divided, in parts of unequal columns, validated; one process has nothing to divide
        "task": "frame",
        "head": {"kind": "linear", "norm": "scaled_layer", "dropout": 0.2},
        "optim": {"grad_clip": 0.5},
        "train": {
            **{"loss": "bce", "ema_decay": 0.5, "freeze_steps": 3},
            **{"shard": "fsdp2", "accumulate": 2, "recompute": True},
        },
        "select": {"which": "best", "every": 4, "held_out": 0.3},
    },
    "frame": {  # ranks have unequal numbers of patch columns
        "task": "frame",
        "head": {"kind": "linear", "norm": "batch", "dropout": 0.3},
        "augment": {"mixup": {"probability": 0.5, "per": "batch"}},
        "train": {"loss": "asl"},
    },
}

# A batch norm takes back what the layer norm before it does to each feature. The layer norm's gradients are rounding
# noise, which AdamW scales up, and the batch norm's averages follow it. (tests/engine/test_rows.py checks these.)
IDLE = {"clip": (), "fsdp2": (), "frame": ("blocks.1.norm2.", "head.norm.")}


def clips(folder: Path):
    """A table of 24 clips of 0.1 to 0.6 s with one or two events each; written if they are not there."""
    rng = np.random.default_rng(0)
    events, splits = [], []
    for n in range(24):
        time = np.arange(int(rng.uniform(0.1, 0.6) * RATE)) / RATE
        if not (folder / f"{n}.wav").exists():
            soundfile.write(folder / f"{n}.wav", rng.normal(scale=0.1, size=len(time)), RATE)
        names = rng.choice(CLASSES, size=rng.integers(1, 3), replace=False)
        events.append([(name, 0.0, time[-1] / 2) for name in names])
        splits.append("test" if n % 4 == 0 else "train")
    return clip_table(folder, [f"{n}.wav" for n in range(24)], events=events, splits=splits, classes=CLASSES)


def run(case: str, folder: Path, world: int) -> None:
    finetune_run.read_labelled_clips = lambda *source: clips(folder)  # there is no list of events on disk
    settings = from_dict(FinetuneConfig, merge(TINY, CASES[case]))
    audiobat.finetune(folder / "model", "noise", folder / f"{case}_{world}", settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    clips(folder)
    write_encoder(folder / "model")
    run_program(__file__, folder)
    return folder


def losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_several_ranks_are_one_process(runs, case, world):
    alone, together = (runs / f"{case}_{n}" for n in (1, world))
    assert len(set(losses(alone))) == STEPS
    np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-6)
    weights = load_checkpoint(together).model
    for name, weight in load_checkpoint(alone).model.items():
        if not any(part in name for part in IDLE[case]):
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-5, msg=name)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    run_ranks([partial(run, case, place) for case in CASES])
