"""Every verb that goes on after it was stopped, as a function of a folder to write into; and the models and clips.

In: a folder with what `make_world` wrote. Out: an exit code, and whatever the verb leaves in its folder.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from audiobat.cli.command import main
from audiobat.config import (
    EncoderConfig,
    FrontendConfig,
    HeadConfig,
    ModelConfig,
    PretrainConfig,
    ProbeConfig,
    ProbeTrainConfig,
    TaggerConfig,
    from_dict,
)
from audiobat.config.recipes import load_recipe
from audiobat.inference import window_pass
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.studies import demo, ladder
from audiobat.studies.demo import DemoSettings
from audiobat.zoo.release import save_release

RATE = 8_000
CLASSES = ("low", "mid", "top")
MODEL = ModelConfig(
    FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16),
    EncoderConfig(dim=16, depth=2, heads=2, patch_size=(8, 8), max_frames=64),
)
PRETRAIN = """
frontend: {sample_rate: 8000, n_fft: 256, win_length: 256, hop_length: 80, mel_bins: 16}
encoder: {dim: 16, depth: 2, heads: 2, patch_size: [8, 8], max_frames: 64}
decoder: {depth: 1, heads: 2}
mask: {clones: 2, block_size: 2}
optim: {warmup_steps: 2}
data: {clip_seconds: 0.4, workers: WORKERS}
train: {steps: 24, batch_size: 4, log_every: 2, save_every: 5, precision: fp32, device: cpu}
"""
LADDER = PRETRAIN.replace("steps: 24", "steps: 4").replace("WORKERS", "0")
FINETUNE = """
optim: {lr: 1e-2, warmup_steps: 2, layer_decay: 0.9}
augment: {mixup: {probability: 0.5}, spec_augment: {time_width: 0.1}}
data: {clip_seconds: 0.4, workers: 0}
train: {steps: STEPS, batch_size: 8, log_every: 2, save_every: 5, precision: fp32, device: cpu}
select: {which: best, every: 4}
"""
PROBE = """
head: {prototypes: 8}
heads: [cgp, linear]
train: {steps: 6, warmup_steps: 1, batch_size: 8}
workers: 0
"""


BENCHMARK = """
base: benchmark/table5
probe:
  train: {steps: 6, warmup_steps: 1, batch_size: 8}
  head: {prototypes: 8}
  workers: 0
finetune:
  train: {steps: 6, batch_size: 8, log_every: 2, save_every: 2, precision: fp32}
  optim: {warmup_steps: 1, lr: 0.01}
  data: {workers: 0, clip_seconds: 0.4}
  select: {every: 6}
  max_frames: null
"""


def make_world(folder: Path) -> Path:
    """Write clips, among them a broken one, lists of them, recipes, and an encoder and a tagger; returns `folder`."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True)
    names = [f"{i:02d}.wav" for i in range(40)]
    for i, name in enumerate(names):
        time = np.arange(int(rng.uniform(0.3, 1.6) * RATE)) / RATE
        tone = 0.2 * np.sin(2 * np.pi * (300, 1_000, 2_500)[i % 3] * time)
        soundfile.write(folder / "audio" / name, tone + rng.normal(scale=0.02, size=len(time)), RATE)
    (folder / "audio" / names[7]).write_text("no audio")
    labels = [CLASSES[i % 3] for i in range(40)]
    splits = 24 * ["train"] + 8 * ["valid"] + 8 * ["test"]
    write_list(folder / "splits.csv", names, label=labels, split=splits)
    write_list(folder / "folds.csv", names, label=labels, fold=[str(1 + i % 2) for i in range(40)])
    for name, text in {
        "pretrain": PRETRAIN.replace("WORKERS", "0"),
        "pretrain_workers": PRETRAIN.replace("WORKERS", "2"),
        "ladder": LADDER,
        "finetune": FINETUNE.replace("STEPS", "22"),
        "finetune_folds": FINETUNE.replace("STEPS", "8").replace("which: best", "which: last"),
        "probe": PROBE,
        "benchmark": BENCHMARK,
    }.items():
        (folder / f"{name}.yaml").write_text(text)
    torch.manual_seed(0)
    save_release(folder / "encoder", AudioEncoder(MODEL))
    save_release(folder / "tagger", Tagger(AudioEncoder(MODEL), TaggerConfig(HeadConfig("linear"), CLASSES, "frame")))
    return folder


def write_list(path: Path, names: list[str], **columns: list[str]) -> None:
    with path.open("w", newline="") as file:
        rows = [[f"audio/{name}", *more] for name, *more in zip(names, *columns.values(), strict=True)]
        csv.writer(file).writerows([["path", *columns], *rows])


def audiobat(*words: object) -> int:
    return main([str(word) for word in words])


def pretrain(world: Path, out: Path, recipe: str = "pretrain") -> int:
    return audiobat("pretrain", "--config", world / f"{recipe}.yaml", "--data", world / "audio", "--out", out / "run")


def finetune(world: Path, out: Path, recipe: str = "finetune", clips: str = "splits") -> int:
    words = ["--model", world / "encoder", "--data", world / f"{clips}.csv", "--config", world / f"{recipe}.yaml"]
    return audiobat("finetune", *words, "--out", out / "run")


def embed(world: Path, out: Path) -> int:
    words = ["--model", world / "encoder", "--data", world / "audio", "--batch-size", 2, "--window-seconds", 0.32]
    return audiobat("embed", *words, "--device", "cpu", "--out", out / "table.npz")


def predict(world: Path, out: Path) -> int:
    words = ["--model", world / "tagger", "--data", world / "audio", "--batch-size", 2, "--window-seconds", 0.32]
    return audiobat("predict", *words, "--threshold", 0.4, "--device", "cpu", "--out", out / "table.csv")


def probe(world: Path, out: Path) -> int:
    words = ["--model", world / "encoder", "--data", world / "splits.csv", "--config", world / "probe.yaml"]
    words += ["--cache-gb", 1e-5, "--overwrite"]  # too little: features go to files
    return audiobat("probe", *words, "--device", "cpu", "--out", out / "run")


def prepare(world: Path, out: Path) -> int:
    return audiobat("prepare", world / "splits.csv", out / "shards", "--workers", 2)


def run_ladder(world: Path, out: Path) -> int:
    words = ["--probe-data", world / "splits.csv", "--config", world / "probe.yaml", "--device", "cpu"]
    return audiobat("ladder", "--data", world / "audio", *words, "--out", out / "ladder")


def benchmark(world: Path, out: Path) -> int:
    words = ["--models", f"BAT={world / 'encoder'}", "--data", f"ESC-50={world / 'folds.csv'}", "--device", "cpu"]
    return audiobat("benchmark", "--config", world / "benchmark.yaml", *words, "--out", out / "benchmark")


def run_demo(world: Path, out: Path) -> int:
    return audiobat("demo", "--seconds", 600, "--out", out / "demo")


VERBS: dict[str, Callable[[Path, Path], int]] = {
    "pretrain": pretrain,
    "pretrain, two workers": lambda world, out: pretrain(world, out, "pretrain_workers"),
    "finetune": finetune,
    "finetune, folds": lambda world, out: finetune(world, out, "finetune_folds", "folds"),
    "embed": embed,
    "predict": predict,
    "probe": probe,
    "prepare": prepare,
    "ladder": run_ladder,
    "benchmark": benchmark,
    "demo": run_demo,
}


def make_small(world: Path) -> None:
    """Let this process work in small pieces: a part for every batch, ladders and demos of tiny networks."""
    window_pass.PART_SECONDS, window_pass.POOL_BATCHES = 0.0, 1
    ladder.SCALES["nano"] = str(world / "ladder.yaml")
    small = DemoSettings(
        model=world / "encoder",
        pretrain=from_dict(PretrainConfig, load_recipe(world / "ladder.yaml")),
        probe=ProbeConfig(
            head=HeadConfig(prototypes=8, pool="mean", norm="batch"),
            train=ProbeTrainConfig(steps=6, warmup_steps=1, batch_size=8),
        ),
        clips_train=24,
        clips_test=12,
        playable=2,
    )
    demo.DemoSettings = lambda: small  # type: ignore[assignment, misc]
