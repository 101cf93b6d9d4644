"""What other positions and patches do to a small model: pre-trained alike, then probed, and read at other lengths.

    python benchmarks/grids.py OUT [STEPS]      (600 steps: half an hour of one core; a run that was stopped goes on)
    python benchmarks/grids.py cost             (what a step costs)

In: the demo's recordings of ambience and music, without those under test scenes, pieces of one recording joined to
clips of up to 30 s. Out, in OUT/grids.json: for each network of `WAYS`, of 4 blocks of width 96 and 16 clips of 4 s, or
2 of 30 s, a step

- macro mAP of CGP and of a linear probe, with 95% intervals, on the demo's scenes of 4 s, with three seeds of the
  probe, and on scenes of 10 s, with one;
- `shifted`: how alike the features of a sound stay when its clip of 40 s begins `SHIFT` columns later, and `edge`, the
  least alike column: cosines of column means, less the mean over all columns, away from the clips' ends;
- `within`: the same for a scene of 4 s alone, and inside clips of 10, 20 and 40 s.
"""

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import soundfile
import torch
from torch.nn import functional as F

import audiobat
from audiobat.audio.read import load_audio
from audiobat.config import PretrainConfig, ProbeConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.csv_text import write_csv
from audiobat.data.scenes import demo_folder, held_out_sources, write_scenes
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.pretraining.objectives.base import build_objective

RATE = 16_000
COLUMN = 0.32  # seconds, of all of these networks
SHIFT = 5  # columns
EDGE = 26  # columns at either end of a clip that are not compared: two tables of 4 s
LONG = {"data": {"clip_seconds": 30.0}, "train": {"batch_size": 2}}  # about as many patches a step


def long(**encoder):
    return {**LONG, "encoder": {"max_frames": 1504, **encoder}}


WAYS = {
    "table, 4 s": {},
    "rotary, 4 s": {"encoder": {"positions": "rotary"}},
    "patches of all bins, 4 s": {"encoder": {"patch_size": [16, 64]}},
    "table of 30 s": long(),
    "table of 10.24 s, repeated": long(position_frames=512),
    "rotary, 30 s": long(positions="rotary"),
}


def write_recordings(folder):
    """Join the pieces of each recording; returns the list of the clips."""
    listed = folder / "clips.csv"
    if listed.exists():
        return listed
    folder.mkdir(parents=True, exist_ok=True)
    clips, held_out = read_clips(demo_folder() / "unlabelled.csv"), held_out_sources()
    pieces = defaultdict(list)
    for row, source in enumerate(clips.columns["source"]):
        name = Path(clips.path(row)).stem
        if source not in held_out and not name.startswith("voice"):
            pieces[source].append((int(name.rpartition("_")[2]), clips.path(row)))
    files = []
    for found in pieces.values():
        ordered = [path for _, path in sorted(found)]
        for first in range(0, len(ordered), 3):
            file = f"{len(files):04}.wav"
            joined = [load_audio(path, RATE) for path in ordered[first : first + 3]]
            soundfile.write(folder / file, np.concatenate(joined), RATE)
            files.append((file,))
    with listed.open("w", newline="", encoding="utf-8") as out:
        write_csv(out, [("path",), *files])
    return listed


def train(name, out, clips, steps):
    """The run of one way."""
    ours = {
        "encoder": {"dim": 96, "depth": 4},
        "target": {"ema_steps": steps},
        "optim": {"warmup_steps": steps // 10},
        "data": {"path": str(clips), "balance": None},
        "train": {"steps": steps, "batch_size": 16, "log_every": 50, "save_every": 100},
    }
    fields = merge(merge(load_recipe("bat_nano"), ours), WAYS[name])
    return audiobat.pretrain(config=from_dict(PretrainConfig, fields), out=out / "runs" / name.replace(" ", "_"))


def probe(model, scenes, seed):
    """Macro mAP of each head and its interval."""
    fields = merge(
        load_recipe("demo_probe"),
        {"heads": ["cgp", "linear"], "train": {"seed": seed, "steps": 1000, "warmup_steps": 100}},
    )
    records = audiobat.probe(model, scenes, config=from_dict(ProbeConfig, fields))
    found = {record.head["kind"]: record.metrics["map"] for record in records}
    return {kind: [metric.value, metric.low, metric.high] for kind, metric in found.items()}


@torch.no_grad()
def columns(model, waveform):
    """The last block's mean patch in each column [T, D] of a clip [S]."""
    features = model(torch.from_numpy(waveform)[None], indices=1)
    return features.patch_tokens[0, 0].unflatten(0, features.grid).mean(1)


def alike(pairs):
    """Cosine of each column in two lists of features [T, D], less the mean over all: [clips, T]."""
    ours, theirs = (torch.stack(side) for side in zip(*pairs, strict=True))
    mean = torch.cat([ours, theirs]).mean((0, 1))
    return F.cosine_similarity(ours - mean, theirs - mean, dim=-1)


def read_at_lengths(model, scenes, beds):
    """`shifted`, `edge` and `within` of a model."""
    cut, pairs = round(SHIFT * COLUMN * RATE), []
    for bed in beds:
        whole, later = columns(model, bed)[SHIFT:], columns(model, bed[cut:])
        count = min(len(whole), len(later))
        pairs.append((whole[EDGE : count - EDGE], later[EDGE : count - EDGE]))
    by_column = alike(pairs)
    found = {"shifted": float(by_column.mean()), "edge": float(by_column.mean(0).min()), "within": {}}
    for seconds in (10, 20, 40):
        inside = []
        for scene, bed in zip(scenes, beds, strict=False):
            first = round((seconds - 4) / 2 / COLUMN)  # a column
            start = round(first * COLUMN * RATE)
            clip = bed[: seconds * RATE].copy()
            clip[start : start + len(scene)] = scene
            alone = columns(model, scene)[:12]
            inside.append((alone, columns(model, clip)[first : first + 12]))
        found["within"][seconds] = float(alike(inside).mean())
    return found


def cost(rounds=9):
    """CPU seconds of a step of `bat_nano` on other grids as shares of its own: medians of interleaved steps."""
    torch.set_num_threads(1)
    ways = {"table": {}, "rotary": {"positions": "rotary"}, "patches of all bins": {"patch_size": [16, 64]}}
    objectives = {}
    for name, encoder in ways.items():
        fields = merge(load_recipe("bat_nano"), {"encoder": encoder})
        objectives[name] = build_objective(from_dict(PretrainConfig, fields))
    batch, took = SimpleNamespace(waveform=0.1 * torch.randn(32, 4 * RATE), lengths=None), defaultdict(list)
    for step in range(rounds):
        for name, objective in objectives.items():
            start = time.process_time()
            objective(batch, step)[0].backward()
            took[name].append(time.process_time() - start)
            objective.zero_grad()
    for name, seconds in took.items():
        print(f"{name}: {np.median(np.array(seconds) / took['table']):.3f} of the CPU seconds")


def main(out, steps=600):
    out, steps = Path(out), int(steps)
    torch.set_num_threads(1)
    clips = write_recordings(out / "clips")
    lists = {seconds: write_scenes(out / f"scenes{seconds}", seconds=float(seconds)) for seconds in (4, 10)}
    table = read_labelled_clips(lists[4])
    scenes = [load_audio(table.path(i), RATE) for i in range(len(table.keys) - 24, len(table.keys))]  # of the test
    pieces = [load_audio(table.path(i), RATE) for i in range(10 * len(scenes))]
    beds = [np.concatenate(pieces[i : i + 10]) for i in range(0, len(pieces), 10)]  # 40 s
    results = out / "grids.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    for name in WAYS:
        run = train(name, out, clips, steps)
        if name in found:
            continue
        model = audiobat.load(run).eval()
        row = {"lengths": read_at_lengths(model, scenes, beds)}
        for seconds, scenes_list in lists.items():
            row[f"scenes{seconds}"] = [probe(run, scenes_list, seed) for seed in range(3 if seconds == 4 else 1)]
        found[name] = row
        results.write_text(json.dumps(found, indent=2))
        print(name, json.dumps(row), flush=True)


if __name__ == "__main__":
    cost() if sys.argv[1] == "cost" else main(*sys.argv[1:])
