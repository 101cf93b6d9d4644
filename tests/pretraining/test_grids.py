"""Runs on other grids: rotary positions, patches of all mel bins, and positions that repeat, from clips to features."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audiobat
from audiobat.pretraining.plan import make_plan
from audiobat.pretraining.run import pretrain
from tests.pretraining.test_begin import begun, small

RATE = 16_000
GRIDS = {
    "rotary": {"positions": "rotary"},
    "all bins": {"patch_size": (16, 128)},
    "all bins, rotary": {"patch_size": (16, 128), "positions": "rotary"},
    "repeated": {"max_frames": 192, "position_frames": 64},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Clips of four lengths, from less than a patch to more than a crop."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for seconds in (0.05, 0.3, 0.6, 2.5):
        soundfile.write(folder / f"{seconds}.wav", 0.1 * rng.standard_normal(round(seconds * RATE)), RATE)
    return folder


@pytest.mark.parametrize("name", GRIDS)
def test_a_run_learns_and_its_model_hears_clips_of_any_length(name, clips, tmp_path):
    encoder, seconds = GRIDS[name], 1.9 if name == "repeated" else 0.6
    config = small(
        encoder=encoder,
        data={"path": str(clips), "clip_seconds": seconds},
        train={"batch_size": 4},
        mask={"ratio": 0.7},
    )
    plan = make_plan(config)
    rows = 1 if "all bins" in name else 8
    assert plan.grid == (12 if name == "repeated" else 4, rows)
    assert plan.step.visible + plan.step.masked == plan.grid[0] * rows
    run = pretrain(config, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    model = audiobat.load(run)
    for samples in (1, RATE // 3, 4 * RATE):
        with torch.no_grad():
            features = model(torch.randn(1, samples))
        assert features.grid[1] == rows
        assert features.patch_tokens.isfinite().all()
        assert features.valid.all()


def test_a_run_of_short_clips_begins_one_of_long_clips_whose_positions_repeat(clips, tmp_path):
    data = {"path": str(clips)}
    first = pretrain(small(data=data), tmp_path / "first")
    longer = {"max_frames": 192, "position_frames": 64}
    config = small(init=str(first), encoder=longer, data={**data, "clip_seconds": 1.9})
    objective, beginning = begun(config)
    theirs = audiobat.load(first).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in objective.student.state_dict().items())
    assert "encoder, decoder, teacher, optimizer" in beginning.sentence
