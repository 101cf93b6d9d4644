"""A pre-training step beside the same step written plainly (plain.py): seconds, CPU seconds and peak memory on a CPU.

    python benchmarks/step.py [--sizes tiny nano small] [--precisions fp32 bf16] [--rounds 5] [--kernels] [--compiled]
                              [--against COMMIT]

Each way to make a step is a process of its own, which runs the package's own `fit`, or the plain loop (ways.py). All
are there at once and make a step in turns, so that other load hits every way alike; medians are shown. Memory is the
peak of the process, read from outside (/proc, Linux only), beyond that of one that only imports torch.

`--kernels` adds steps in which attention has a single kernel, beside the package's rule.
`--compiled` adds our step under torch.compile, with its graph breaks and the graphs that it makes after the first step.
`--against` adds the steps of another commit: as that commit ships them, and with the fused kernel.
The floor is the step's counted FLOPs at the rate of matrix products of 2048 x 2048, measured in turns with the steps.
`OMP_NUM_THREADS` sets the threads; with one, targets compare CPU seconds, which other load on the machine moves less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import targets
import torch
from ways import KERNELS, PRODUCT, PRODUCTS, config_of

from audiobat.engine.ranks import pick_precision
from audiobat.pretraining.objectives.base import build_objective

ROOT = Path(__file__).parents[1]
CROP = {"clip_seconds": 10.23}  # 1,024 frames: no padding
SIZES: dict[str, tuple[str, dict[str, Any]]] = {  # a recipe, and what a step of it on a CPU changes
    "tiny": ("bat_tiny", {"encoder": {"depth": 6}, "decoder": {"depth": 3}, "train": {"batch_size": 2}, "data": CROP}),
    "nano": ("bat_nano", {}),
    "small": ("bat_small", {"train": {"batch_size": 1}, "data": CROP}),
}
WARM_UP = 2  # rounds


class Turn(NamedTuple):
    """One step."""

    seconds: float
    cpu: float
    breaks: int  # of graphs, in all steps so far
    graphs: int  # made in all steps so far


class Way:
    """One way to make a step: its process, asked for a step at a time."""

    def __init__(self, order: dict[str, Any], tree: Path = ROOT) -> None:
        self._start([str(ROOT / "benchmarks" / "ways.py"), json.dumps(order)], tree)

    def _start(self, arguments: list[str], tree: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, *arguments], env=environment, text=True, **pipes)
        self.all_turns: list[Turn] = []

    def turn(self) -> None:
        """Let it make a step."""
        print(file=self.process.stdin, flush=True)
        assert self.process.stdout
        self.all_turns.append(Turn(*json.loads(self.process.stdout.readline())))

    def peak(self) -> float:
        """The most memory that it ever held, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def turns(self) -> list[Turn]:
        """The steps that count."""
        return self.all_turns[WARM_UP:]

    @property
    def seconds(self) -> float:
        return median(turn.seconds for turn in self.turns)

    @property
    def cpu(self) -> float:
        return median(turn.cpu for turn in self.turns)


class TorchAlone(Way):
    """A process that imports torch and makes no step."""

    def __init__(self) -> None:
        self._start(["-c", "import torch\nfor _ in iter(input, None): print([0] * 4, flush=True)"], ROOT)


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The tree of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def measure(ways: Sequence[Way], rounds: int) -> list[float]:
    """Make steps in turns; the peak memory of each way beyond torch, MiB."""
    alone = TorchAlone()
    try:
        alone.turn()
        for _ in range(WARM_UP + rounds):
            for way in ways:
                way.turn()
        return [way.peak() - alone.peak() for way in ways]
    finally:
        for way in (*ways, alone):
            way.close()


def compare(size: str, precision: str, rounds: int, kernels: bool, compiled: bool, commit: str) -> None:
    """The table of one size in one precision, and its targets."""
    recipe, changes = SIZES[size]
    order = {"recipe": recipe, "changes": changes, "precision": precision, "way": "ours"}
    with checkout(commit) if commit else nullcontext(ROOT) as tree:
        ways = {"plain": Way(order | {"way": "plain"}), "ours": Way(order)}
        if kernels:
            ways |= {f"ours, {kernel}": Way(order | {"kernel": kernel}) for kernel in KERNELS}
        if compiled:
            ways["ours, compiled"] = Way(order | {"compiled": True})
        if commit:
            ways[commit] = Way(order, tree)
            ways[f"{commit}, fused"] = Way(order | {"kernel": "fused"}, tree)
        products = Way(order | {"way": "products"})
        peaks = dict(zip(ways, measure([*ways.values(), products], rounds), strict=False))
    config, plain = config_of(recipe, changes), ways["plain"]
    print(f"\n{config.train.batch_size} clips x {config.mask.clones} clones of {size}, {precision}, {rounds} rounds\n")
    print("| step | seconds | plain / it | CPU seconds | plain / it | peak MiB beyond torch | of plain's |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, way in ways.items():
        print(
            f"| {name} | {way.seconds:.3f} | {plain.seconds / way.seconds:.2f} | {way.cpu:.3f} "
            f"| {plain.cpu / way.cpu:.2f} | {peaks[name]:.0f} | {peaks[name] / peaks['plain']:.2f} |"
        )
    flops, product = build_objective(config).cost().flops, 2 * PRODUCT**3 * PRODUCTS
    wall, cpu = flops * products.seconds / product, flops * products.cpu / product
    name = f"{flops / 1e9:.0f} GFLOP at {product / products.seconds / 1e9:.0f} GFLOP/s"
    print(f"| {name} | {wall:.3f} | {plain.seconds / wall:.2f} | {cpu:.3f} | {plain.cpu / cpu:.2f} | | |\n", flush=True)
    clock = "cpu" if torch.get_num_threads() == 1 else "seconds"
    say_targets(size, precision, {name: getattr(way, clock) for name, way in ways.items()}, peaks, commit)
    if compiled:
        first, *_, last = ways["ours, compiled"].all_turns
        what, new = f"step, {size}, {precision}: compiled", last.graphs - first.graphs
        targets.say(f"{what}, graph breaks", str(last.breaks), "0", last.breaks == 0)
        targets.say(f"{what}, graphs made after the first step", str(new), "0", new == 0)


def say_targets(size: str, precision: str, seconds: dict[str, float], peaks: dict[str, float], commit: str) -> None:
    what, faster = f"step, {size}, {precision}", seconds["plain"] / seconds["ours"]
    share = peaks["ours"] / peaks["plain"]
    if (size, precision) == ("tiny", "fp32"):
        targets.say(f"{what}: plain / ours", f"{faster:.2f}", "at least 1.6", faster >= 1.6)
        targets.say(f"{what}: memory of plain's", f"{share:.2f}", "at most 0.45", share <= 0.45)
    else:
        targets.say(f"{what}: plain / ours", f"{faster:.2f}, with {share:.2f} of its memory", "")
    if commit:
        gain = seconds[f"{commit}, fused"] / seconds["ours"]
        targets.say(f"{what}: {commit} with fused attention / ours", f"{gain:.2f}", "at least 1.3", gain >= 1.3)
    forced = [seconds[f"ours, {kernel}"] for kernel in KERNELS if f"ours, {kernel}" in seconds]
    if forced:
        ratio = min(forced) / seconds["ours"]
        targets.say(f"{what}: best single kernel / the rule", f"{ratio:.2f}", "at least 1 (noise 0.03)", ratio >= 0.97)


def compare_clones(size: str) -> None:
    """Peak memory of 16 clones beside 4."""
    recipe, changes = SIZES[size]
    order = {"recipe": recipe, "precision": "fp32", "way": "ours"}
    counts = (4, 16)
    few, many = measure([Way(order | {"changes": changes | {"mask": {"clones": clones}}}) for clones in counts], 1)
    print(f"\nPeak beyond torch: 16 clones {many:.0f} MiB, 4 clones {few:.0f} MiB\n")
    ratio = many / few
    targets.say(f"step, {size}, fp32: memory of 16 clones / 4", f"{ratio:.2f}", "at most 1.3", ratio <= 1.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny"])
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], help="default: fp32, and bf16 if native")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--against", metavar="COMMIT", default="")
    options = parser.parse_args()
    if options.against and subprocess.run(["git", "cat-file", "-e", options.against], cwd=ROOT).returncode:
        print(f"Commit {options.against} is not in this clone: its steps are left out.")
        options.against = ""
    is_native = pick_precision("auto", torch.device("cpu")) is not None
    for size in options.sizes:
        for precision in options.precisions or ["fp32"] + ["bf16"] * is_native:
            compare(size, precision, options.rounds, options.kernels, options.compiled, options.against)
        if config_of(*SIZES[size]).mask.clones == 16:
            compare_clones(size)


if __name__ == "__main__":
    main()
