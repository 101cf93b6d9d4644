"""Every figure of the project that takes a GPU, in one run of at most eight minutes: gpu.md and gpu.json in a folder.

    python benchmarks/gpu.py --out FOLDER [--minutes 6] [--tiny --device cpu]

`bat_base` with 12 clips x 16 clones in bf16: our step, eager and compiled, beside the plain one (plain.py), eager and
compiled; both as a share of the rate of bf16 matrix products, and in peak memory. Then: host synchronisations of our
step and its kernels, runs of `pretrain` on full, 10-s and mixed clips, CGP's similarities beside the plain formula, and
the tests that are marked `gpu`. What was measured is written after every part, so that a run that is cut off leaves it;
parts that would begin after `--minutes` are left out. Without a GPU every row says "not measured".

`--tiny` makes each part small, so that its code can be tried on any machine; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import targets
import torch
from torch.profiler import ProfilerActivity, profile
from ways import compiled_so_far, config_of, noise, run_ours, run_plain

from audiobat.config import PretrainConfig, from_dict, to_dict
from audiobat.config.recipes import merge
from audiobat.models.heads.pooling import extremes
from audiobat.pretraining.objectives.base import build_objective
from audiobat.pretraining.run import pretrain

STEP = "bat_base, 12 clips x 16 clones, bf16"
ROWS = {  # what is measured, its target, and whether a value reaches it
    "speed": (f"{STEP}: plain compiled / ours", "at least 1.5", lambda x: x >= 1.5),
    "rate": (f"{STEP}: share of the rate of bf16 matrix products", "at least 0.55", lambda x: x >= 0.55),
    "memory": (f"{STEP}: peak memory of plain compiled's", "at most 0.5", lambda x: x <= 0.5),
    "syncs": (f"{STEP}: host synchronisations in a step", "0", lambda x: x == 0),
    "breaks": (f"{STEP}: graph breaks of the compiled step", "0", lambda x: x == 0),
    "graphs": (f"{STEP}: graphs made after its first step", "0", lambda x: x == 0),
    "wait": ("pretrain: share of the time spent waiting for data", "under 0.02", lambda x: x < 0.02),
    "ten": ("pretrain: time of 10-s clips / full clips", "at most 1.02", lambda x: x <= 1.02),
    "mixed": ("pretrain: time of a patch of mixed clips / full clips", "at most 1.1", lambda x: x <= 1.1),
    "cgp_time": ("CGP, K 10,000: time of the plain formula's", "at most 0.33", lambda x: x <= 1 / 3),
    "cgp_memory": ("CGP, K 10,000: memory of the plain formula's", "at most 0.1", lambda x: x <= 0.1),
    "tests": ("tests marked gpu that fail", "0", lambda x: x == 0),
}
BASE = {"train": {"batch_size": 12, "precision": "bf16"}, "data": {"clip_seconds": 10.24}}
TINY = {
    "encoder": {"dim": 32, "depth": 2, "heads": 2, "max_frames": 64},
    "decoder": {"depth": 1, "heads": 2},
    "mask": {"clones": 2, "block_size": 2},
    "train": {"batch_size": 2},
    "data": {"clip_seconds": 0.64},
}
RUNS = {  # least and greatest length of the clips, in crops; whether the step is compiled, which takes a minute
    "full": (1.0, 1.0, "off"),
    "ten": (10 / 10.24, 10 / 10.24, "off"),
    "mixed": (0.2, 1.0, "off"),
    "full, compiled": (1.0, 1.0, "on"),
}


class Enough(Exception):
    """All steps are made."""


class Steps(NamedTuple):
    """What was found of one way to make a step."""

    seconds: float
    peak: float | None  # GiB
    breaks: int = 0  # of graphs
    graphs: int = 0  # made after the first step


class Bench:
    """The parts of the run, and what they found."""

    def __init__(self, device: str, tiny: bool, out: Path) -> None:
        self.device, self.tiny, self.out = torch.device(device), tiny, out
        self.config = config_of("bat_base", merge(merge(BASE, {"train": {"device": device}}), TINY if tiny else {}))
        self.warm_up, self.steps = (1, 2) if tiny else (5, 15)
        self.found: dict[str, float] = {}
        self.tables: dict[str, list[list[str]]] = {}  # by title, their heads first
        self.failed: dict[str, str] = {}

    # Parts, in the order of the run

    def rate(self) -> None:
        """The rate of bf16 matrix products, FLOP/s: the best of some."""
        side = 256 if self.tiny else 8192
        a, b = torch.randn(2, side, side, device=self.device, dtype=torch.bfloat16)
        seconds = min(self.seconds_of(lambda: a @ b, 3 if self.tiny else 30) for _ in range(3))
        self.flop_rate = 2 * side**3 / seconds
        self.machine["bf16 TFLOP/s"] = f"{self.flop_rate / 1e12:.2f}"

    def step(self) -> None:
        """Our step and the plain one, eager and compiled."""
        flops = build_objective(self.config).cost().flops
        ways = {
            "plain": lambda turns: run_plain(self.config, turns),
            "ours": lambda turns: run_ours(self.config, noise(self.config), turns),
            "ours, compiled": lambda turns: run_ours(self.config, noise(self.config), turns, compiled=True),
            "plain, compiled": lambda turns: run_plain(self.config, turns, compiled=True),
        }
        title = f"Steps ({flops / 1e12:.2f} TFLOP)"
        head = ["step", "seconds", "share of the rate", "peak GiB", "graph breaks", "graphs after the first step"]
        table = self.tables[title] = [head]
        measured = {}
        for name, run in ways.items():
            torch.compiler.reset()
            try:
                measured[name] = found = self.measure(run)
            except torch.OutOfMemoryError:
                table.append([name, "out of memory", *[""] * 4])
                continue
            share = flops / found.seconds / self.flop_rate
            table.append(
                [name, f"{found.seconds:.4f}", f"{share:.3f}", shown(found.peak), str(found.breaks), str(found.graphs)]
            )
            self.write()
        ours = min((steps for name, steps in measured.items() if "ours" in name), key=lambda steps: steps.seconds)
        self.found["rate"] = flops / ours.seconds / self.flop_rate
        compiled = measured["ours, compiled"]
        self.found |= {"breaks": compiled.breaks, "graphs": compiled.graphs}
        plain = measured["plain, compiled"]
        self.found["speed"] = plain.seconds / ours.seconds
        if ours.peak is not None and plain.peak is not None:
            self.found["memory"] = ours.peak / plain.peak

    def syncs(self) -> None:
        """Where a step waits for the device, as CUDA's debug mode sees it; and its most expensive kernels."""
        places: list[str] = []
        activities = [ProfilerActivity.CUDA if self.device.type == "cuda" else ProfilerActivity.CPU]

        def turns(batch: Any) -> Iterator[Any]:
            for _ in range(self.warm_up):
                yield batch
            with self.sync_warnings(places):
                yield batch
            with profile(activities=activities) as self.trace:
                yield batch
                self.synchronise()
            raise Enough

        self.run(lambda: run_ours(self.config, noise(self.config), turns))
        if self.device.type == "cuda":
            self.found["syncs"] = len(places)
        self.tables["Host synchronisations"] = [["place"], *([place] for place in places)]
        key = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        taken, calls = Counter[str](), Counter[str]()
        for event in self.trace.key_averages():
            taken[event.key[:90]] += getattr(event, key)  # microseconds
            calls[event.key[:90]] += event.count
        total = sum(taken.values())
        rows = [[name, str(calls[name]), f"{us / 1e3:.2f}", f"{us / total:.3f}"] for name, us in taken.most_common(20)]
        self.tables["Kernels of our step"] = [["kernel", "calls", "ms", "share"], *rows]

    def runs(self) -> None:
        """`pretrain` on clips of several lengths."""
        steps = 4 if self.tiny else 60
        table = self.tables["Runs of pretrain"] = [["clips", "steps/s", "share of data wait", "share of patches"]]
        rates, shares = {}, {}
        for name, (least, most, compiled) in RUNS.items():
            with tempfile.TemporaryDirectory() as folder:
                shares[name] = self.write_clips(Path(folder) / "clips", least, most)
                changes = {
                    "train": {"steps": steps, "log_every": steps // 2, "save_every": steps, "compile": compiled},
                    "optim": {"warmup_steps": 1},
                    "data": {"path": str(Path(folder) / "clips")},
                }
                config = from_dict(PretrainConfig, merge(to_dict(self.config), changes))
                lines = (pretrain(config, Path(folder) / "run") / "metrics.jsonl").read_text().splitlines()
            row = json.loads(lines[-1])  # the second half: the first one holds the start
            rates[name] = row["steps_per_second"]
            table.append([name, f"{rates[name]:.3f}", f"{row['data_wait']:.4f}", f"{shares[name]:.3f}"])
            self.found["wait"] = row["data_wait"]  # of the last, which is the fastest
        self.found["ten"] = rates["full"] / rates["ten"]
        self.found["mixed"] = rates["full"] / rates["mixed"] * shares["full"] / shares["mixed"]

    def cgp(self) -> None:
        """The least and greatest similarities of 48 clips, forward and backward, beside the plain formula."""
        clips, patches, dim, prototypes = (2, 10, 8, 30) if self.tiny else (48, 512, 768, 10_000)
        torch.manual_seed(0)
        tokens = torch.randn(clips, patches, dim, device=self.device)
        heads = torch.randn(prototypes, dim, device=self.device)
        tokens, heads = (torch.nn.functional.normalize(x, dim=-1).requires_grad_() for x in (tokens, heads))
        weights = torch.randn(2, clips, prototypes, device=self.device)

        def plain(tokens: torch.Tensor, prototypes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            similarity = tokens @ prototypes.T
            return similarity.min(1).values, similarity.max(1).values

        def gradients(formula: Callable[..., Any]) -> Any:
            return torch.autograd.grad((torch.stack(formula(tokens, heads)) * weights).sum(), (tokens, heads))

        table = self.tables["CGP's similarities"] = [["formula", "seconds", "peak GiB"]]
        measured = {}
        for name, formula in {"plain": plain, "ours": extremes}.items():
            gradients(formula)
            self.synchronise()
            before = self.reset_peak()
            seconds = self.seconds_of(lambda formula=formula: gradients(formula), 2 if self.tiny else 10)
            measured[name] = Steps(seconds, None if before is None else self.peak() - before)
            table.append([name, f"{seconds:.4f}", shown(measured[name].peak)])
        pairs = zip(gradients(plain), gradients(extremes), strict=True)
        apart = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
        table.append(["largest relative difference of gradients", f"{apart:.1e}", ""])
        self.found["cgp_time"] = measured["ours"].seconds / measured["plain"].seconds
        if measured["plain"].peak:
            self.found["cgp_memory"] = measured["ours"].peak / measured["plain"].peak

    def tests(self) -> None:
        """The tests that take a GPU."""
        if self.tiny:
            return
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines = done.stdout.strip().splitlines()
        self.tables["Tests marked gpu"] = [["last lines"], *([line] for line in lines[-10:])]
        if done.returncode != 5:  # there are some
            self.found["tests"] = sum(line.startswith(("FAILED", "ERROR")) for line in lines) or done.returncode

    # What the parts use

    def run(self, way: Callable[[], None]) -> None:
        """Let a way make its steps, and forget what it held."""
        try:
            way()
        except Enough:
            pass
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def measure(self, way: Callable[[Callable[[Any], Iterator[Any]]], None]) -> Steps:
        """Seconds of a step, without waiting between steps, and the peak memory of them."""
        result: list[Steps] = []

        def turns(batch: Any) -> Iterator[Any]:
            broken, _ = compiled_so_far()
            yield batch
            _, made = compiled_so_far()
            for _ in range(self.warm_up):
                yield batch
            self.synchronise()
            self.reset_peak()
            start = time.perf_counter()
            for _ in range(self.steps):
                yield batch
            self.synchronise()
            seconds, (breaks, graphs) = (time.perf_counter() - start) / self.steps, compiled_so_far()
            result.append(Steps(seconds, self.peak(), breaks - broken, graphs - made))
            raise Enough

        self.run(lambda: way(turns))
        return result[0]

    def seconds_of(self, work: Callable[[], object], times: int) -> float:
        work()
        self.synchronise()
        start = time.perf_counter()
        for _ in range(times):
            work()
        self.synchronise()
        return (time.perf_counter() - start) / times

    @contextmanager
    def sync_warnings(self, places: list[str]) -> Iterator[None]:
        """Note where Python stood when CUDA waited."""
        if self.device.type != "cuda":
            yield
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")
        places += [f"{w.filename}:{w.lineno}: {w.message}" for w in caught if "synchroniz" in str(w.message)]

    def write_clips(self, folder: Path, least: float, most: float) -> float:
        """Clips of noise, as long as `least` to `most` crops; the share of a crop's patch columns that they fill."""
        folder.mkdir()
        rng, f, e = np.random.default_rng(0), self.config.frontend, self.config.encoder
        crop, columns = self.config.data.clip_seconds * f.sample_rate, []
        for clip in range(8 if self.tiny else 240):
            samples = round(crop * rng.uniform(least, most))
            soundfile.write(folder / f"{clip}.wav", rng.normal(size=samples) * 0.1, f.sample_rate, "PCM_16")
            columns.append(-(-(samples // f.hop_length + 1) // e.patch_size[0]))
        return float(np.minimum(columns, self.config.crop_grid[0]).mean()) / self.config.crop_grid[0]

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def reset_peak(self) -> float | None:
        """Forget the peak so far; what is held now, GiB."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**30

    def peak(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None

    # The whole

    @property
    def parts(self) -> list[Callable[[], None]]:
        return [self.rate, self.step, self.syncs, self.runs, self.cgp, self.tests]

    def measure_all(self, minutes: float) -> None:
        """All parts; what fails is written down, and the next part goes on."""
        self.machine = {
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU",
            "torch": torch.__version__,
            "CUDA": torch.version.cuda or "none",
            "seconds": "",
        }
        start = time.monotonic()
        for part in self.parts:
            name = part.__name__
            if time.monotonic() - start > 60 * minutes:
                self.failed[name] = "left out: the time was up"
                continue
            try:
                part()
            except Exception:
                self.failed[name] = traceback.format_exc()
            self.machine["seconds"] += f"{name} {time.monotonic() - start:.0f} "
            self.write()

    def lines(self) -> Iterator[tuple[str, str, str, bool | None]]:
        """The rows: what, found, target, met."""
        for key, (what, target, reached) in ROWS.items():
            value = self.found.get(key)
            yield (
                what,
                "not measured" if value is None else f"{value:.3g}",
                target,
                None if value is None else reached(value),
            )

    def write(self) -> None:
        """gpu.md and gpu.json, of what is known so far."""
        self.out.mkdir(parents=True, exist_ok=True)
        pages = [", ".join(f"{key}: {value}" for key, value in self.machine.items())]
        rows = [[*row[:3], {True: "met", False: "missed"}.get(row[3], "")] for row in self.lines()]
        for title, table in {"Targets": [["what", "found", "target", ""], *rows], **self.tables}.items():
            lines = [f"| {' | '.join(cells)} |" for cells in table]
            pages.append("\n".join([f"## {title}", "", lines[0], "| --- " * len(table[0]) + "|", *lines[1:]]))
        pages += [f"## {name} failed\n\n```\n{error}\n```" for name, error in self.failed.items()]
        (self.out / "gpu.md").write_text("\n\n".join(pages) + "\n")
        record = {"machine": self.machine, "found": self.found, "tables": self.tables, "failed": self.failed}
        (self.out / "gpu.json").write_text(json.dumps(record, indent=1))


def shown(peak: float | None) -> str:
    return "" if peak is None else f"{peak:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.tiny:  # graphs are traced, not built: that takes minutes
        torch.compile = partial(torch.compile, backend="eager")
    bench = Bench(options.device, options.tiny, options.out)
    if options.device == "cpu" or torch.cuda.is_available():
        bench.measure_all(options.minutes)
    for row in bench.lines():
        targets.say(*row)
    if bench.failed:
        print(*(f"{name}: {error}" for name, error in bench.failed.items()), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
