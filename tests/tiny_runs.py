"""The config of a pre-training that takes a second, and 40 labelled clips for it."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16_000
TINY: dict[str, Any] = {
    "frontend": {"mel_bins": 32, "n_fft": 512, "win_length": 512},
    "encoder": {"dim": 16, "depth": 2, "heads": 2, "max_frames": 64, "patch_size": [8, 8]},
    "decoder": {"depth": 1, "heads": 2},
    "mask": {"clones": 2, "block_size": 2},
    "optim": {"warmup_steps": 2},
    "data": {"clip_seconds": 0.5, "workers": 0},
    "train": {"steps": 5, "batch_size": 4, "log_every": 1, "save_every": 2, "precision": "fp32", "device": "cpu"},
}


def write_clips(folder: Path) -> Path:
    """A CSV of 40 tones of two pitches in noise; half of them test."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for n in range(40):
        time = np.arange(int(rng.uniform(0.2, 0.6) * RATE)) / RATE
        tone = np.sin(2 * np.pi * (300, 2500)[n % 2] * time) + rng.standard_normal(len(time))
        soundfile.write(folder / f"{n}.wav", 0.1 * tone, RATE)
        lines.append(f"{n}.wav,{('low', 'high')[n % 2]},{('train', 'test')[n % 4 // 2]}")
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder / "clips.csv"


def fields_of(source: Path, **online: Any) -> dict[str, Any]:
    """The fields of such a run on these clips; with `online`, one that is probed at every second step on them."""
    watched = {"online": {"data": str(source), "every": 2, "steps": 4, "prototypes": 8} | online} if online else {}
    return {**TINY, "data": {**TINY["data"], "path": str(source.parent)}, **watched}
