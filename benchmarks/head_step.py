"""Training heads as the demo does, on kept features: the time of a step beside another commit's, and what it goes to.

    python benchmarks/head_step.py [--against COMMIT] [--rounds 10] [--kinds cgp protobin linear]

Recipe `demo_probe`, and features of the shape that `bat_nano` gives of the demo's scenes. A step is all that a head
costs once features are kept: gathering a batch, forward, backward, AdamW. Ours and the other commit's are processes
that make some steps in turns; the least CPU time of a turn counts, which other load changes least. Shares are of the
time that operations take by themselves, without what Python does between them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import targets
import torch
from step import ROOT, checkout
from torch.profiler import ProfilerActivity, profile

from audiobat.config import ProbeConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.evaluation.labels import Task
from audiobat.models.features import LayerFeatures
from audiobat.probing.cache import FeatureSource
from audiobat.probing.feature_store import FeatureStore, pack
from audiobat.probing.jobs import HeadJob
from audiobat.probing.training import train_heads

CLIPS, CLASSES = 1_200, 37
DEPTH, GRID, DIM = 6, (13, 4), 128
STEPS = 50  # a turn
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::matmul", "mkldnn::_linear_pointwise")


class Training:
    """A process that trains heads of one kind with the code of a tree."""

    def __init__(self, kind: str, tree: Path = ROOT) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--turns", kind], env=environment, text=True, **pipes
        )
        self.least = float("inf")  # milliseconds of CPU time a step

    def turn(self) -> None:
        """Let it make STEPS steps."""
        print(file=self.process.stdin, flush=True)
        self.least = min(self.least, float(self.process.stdout.readline()) / STEPS * 1e3)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def training(kind: str):
    """A function that trains a head for STEPS steps."""
    torch.manual_seed(0)
    patches = GRID[0] * GRID[1]
    store = FeatureStore(CLIPS)
    for first in range(0, CLIPS, 100):
        tokens, cls = torch.randn(DEPTH, 100, patches, DIM), torch.randn(DEPTH, 100, DIM)
        valid, times = torch.ones(100, patches, dtype=torch.bool), torch.arange(GRID[0]) * 0.32
        store.add(pack(LayerFeatures(tokens, cls, GRID, valid, times), np.arange(first, first + 100)))
    clip_ids, encoder = np.arange(CLIPS), SimpleNamespace(depth=DEPTH, dim=DIM, sample_rate=16_000)
    source = FeatureSource(encoder, clip_ids, clip_ids, {}, store, torch.device("cpu"), GRID[1])
    task = Task.of_matrix(torch.rand(CLIPS, CLASSES) < 0.05, single_label=False)
    settings = {"head": {"kind": kind}, "train": {"steps": STEPS, "warmup_steps": 1}}
    config = from_dict(ProbeConfig, merge(load_recipe("demo_probe"), settings))
    source.pooled  # noqa: B018  made once for heads that read means
    return lambda: train_heads(source, clip_ids, task, [HeadJob(kind, config.head, config.train)])


def take_turns(kind: str) -> None:
    """STEPS steps for each line of stdin: their CPU seconds as a line of stdout."""
    train = training(kind)
    for _ in sys.stdin:
        start = time.process_time()
        train()
        print(time.process_time() - start, flush=True)


def show_shares(kind: str) -> float:
    """Print what takes 2% or more; the largest share of an operation that is no matrix product."""
    train = training(kind)
    train()
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        train()
    found = watched.key_averages()
    whole = sum(event.self_cpu_time_total for event in found)
    shares = {event.key: event.self_cpu_time_total / whole for event in found}
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        if share >= 0.02:
            print(f"| {kind} | {name} | {share:.1%} |")
    return max(share for name, share in shares.items() if name not in PRODUCTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", default="a4e5865")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=["cgp", "protobin", "linear_cgp"])
    parser.add_argument("--turns", metavar="KIND", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turns:
        take_turns(options.turns)
        return
    ratios = {}
    print(
        f"| head | {options.against}, ms of CPU a step | ours | times as fast |", "| --- | --- | --- | --- |", sep="\n"
    )
    with checkout(options.against) as tree:
        for kind in options.kinds:
            with ExitStack() as closing:
                both = [Training(kind, tree), Training(kind)]
                for way in both:
                    closing.callback(way.close)
                for _ in range(1 + options.rounds):
                    for way in both:
                        way.turn()
                before, ours = (way.least for way in both)
                ratios[kind] = before / ours
                print(f"| {kind} | {before:.2f} | {ours:.2f} | {ratios[kind]:.2f} |", flush=True)
    print("\n| head | operation | share |", "| --- | --- | --- |", sep="\n")
    shares = {kind: show_shares(kind) for kind in options.kinds}
    if "cgp" in options.kinds:
        name, (ratio, share) = "CGP in the demo, steps/s", (ratios["cgp"], shares["cgp"])
        targets.say(f"{name} of {options.against}'s", f"{ratio:.2f}", "at least 1.5", ratio >= 1.5)
        targets.say(f"{name}: largest operation but products", f"{share:.1%}", "at most 10%", share <= 0.1)


if __name__ == "__main__":
    main()
