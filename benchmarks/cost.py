"""How time and memory grow: a training step, a probe and `prepare` against their sizes; writes docs/results/cost.md.

    python benchmarks/cost.py [--quick | --words] [--out docs/results]

Each point is measured by a fork of this process, which has imported torch once: its peak less what it began with is the
memory, and its seconds are those of one core (CPU time, so that other programs hardly matter; fp32). `prepare` starts
processes of its own and is timed by the clock. Points are visited in rounds, and the least of a point's times counts.
A curve is fitted by the terms that arithmetic gives it; how far points are from the fit is in the tables. The words
below the tables are written by hand, in `WORDS`: read them again when numbers change. `--words` measures nothing and
writes the page anew from cost.json, which holds the points.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure

from audiobat.config import HeadConfig, PretrainConfig, ProbeTrainConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.build import clip_table
from audiobat.data.prepare.run import prepare
from audiobat.engine import loop
from audiobat.engine.environment import environment
from audiobat.evaluation.labels import Task
from audiobat.evaluation.report.style import BLUE, VERMILLION, WIDTH, png, styled
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.calibrate import measure, peak_memory
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.jobs import HeadJob
from audiobat.probing.training import HeadTrainer

CPU, RATE, CLASSES = torch.device("cpu"), 16_000, 50
FILES, KEPT = 800, 64  # clips of noise, and how many of them probes have features of
ROUNDS, SECONDS = 2, 2.0  # visits to each point, and the seconds of steps in each
STEP = {"clips": 2, "clones": 8, "seconds": 5.12, "dim": 192, "depth": 6}  # where the curves of a training step cross
PROBE = {"clips": 16, "prototypes": 1000, "heads": 1}  # and those of a probe's step
Sizes = dict[str, float]


@dataclass
class Curve:
    """One size that varies, while the others stay."""

    of: str  # step, probe, encode or prepare
    size: str  # what varies
    values: tuple[float, ...]
    powers: tuple[int, ...]  # of the size in the fit of its time
    memory: tuple[int, ...]  # the same for memory; empty: it bends where a chunk is full, and no line fits
    seconds: dict[float, float] = field(default_factory=dict)
    mebibytes: dict[float, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its size, for readers."""
        return {"seconds": "seconds of a clip", "dim": "width", "depth": "encoder blocks"}.get(self.size, self.size)


CURVES = [
    Curve("step", "clips", (1, 2, 4, 8, 16), (0, 1), ()),
    Curve("step", "clones", (1, 2, 4, 8, 16, 32), (0, 1), ()),
    Curve("step", "seconds", (1.28, 2.56, 5.12, 10.24, 20.48), (0, 1, 2), ()),
    Curve("step", "dim", (64, 128, 192, 256, 384, 512), (0, 1, 2), ()),
    Curve("step", "depth", (1, 2, 4, 8, 12), (0, 1), (0, 1)),
    Curve("encode", "clips", (8, 16, 32, 64, 128), (0, 1), ()),
    Curve("probe", "clips", (4, 8, 16, 32, 64), (0, 1), (0, 1)),
    Curve("probe", "prototypes", (100, 500, 1000, 2000, 4000, 8000), (0, 1), (0, 1)),
    Curve("probe", "heads", (1, 2, 4, 8), (0, 1), (0, 1)),
    Curve("prepare", "clips", (50, 100, 200, 400, 800), (0, 1), ()),
]
WORDS = {  # what the numbers of a curve say, and why it bends
    "step clips": """\
Time is straight: each clip brings its clones, and all clones cost the same. Memory bends, for chunks
of 8 clones run one after the other ([`train.accumulate`](../pretrain.md#speed-and-memory)). What still grows is what a
clip has for itself: its spectrogram, its targets, the gradient of its tokens.""",
    "step clones": """\
Time is straight from a share that a clip costs once for all its clones: spectrogram, patch embedding, the teacher.
Memory rises until the clones no longer fit one chunk, as eight of each clip do not, and hardly from there on.""",
    "step seconds": """\
Time bends upwards, as attention compares each patch with each other: in the decoder over all patches of a clone, in
the teacher over those of a clip. Memory bends where the clones no longer fit one chunk, above 2.56 s: of longer clips
fewer clones run at once, so that only the scores of attention, the square of a clone's patches, still grow.""",
    "step dim": """\
Time bends upwards: matrix products grow with the square of the width; norms, and the scores of attention for heads of
64, with the width itself. Memory rises in steps, for a chunk holds as many values whatever the width: all 16 clones up
to a width of 128, 8 up to 256, and 4 from there on. Weights and their moments grow with the square.""",
    "step depth": """\
Both are straight and rise slowly: the encoder gets the fifth of the patches that is visible, and its teacher each
clip once. What is there at no blocks is the decoder, three blocks over all patches of every clone.""",
    "encode clips": """\
Time is straight. Memory bends at 16 clips, as many as are read at once: from there on only the kept features grow,
1.1 MiB a clip.""",
    "probe clips": """\
Both are straight: a clip's features, 1.1 MiB, are read once, and what is kept of them for the gradient is as large
again.""",
    "probe prototypes": """\
Time is straight, from a share that needs no prototypes: the mix of the layers and its gradient. Memory is flat, as
similarities are made in chunks and never held, until prototypes, their gradients and moments outweigh the features.""",
    "probe heads": """\
Time is straight through nearly zero: heads share the features of a batch, which cost little here, being kept. Memory
grows by the weights of a head alone, since in each step one head is computed after the other.""",
    "prepare clips": """\
Time is straight.""",
}
TITLES = {
    "step": "A step of pre-training",
    "encode": "Encoding clips once, for a probe",
    "probe": "A step of CGP probes on kept features",
    "prepare": "`prepare`",
}
SHORT = {"step": "step", "encode": "encoding", "probe": "probe", "prepare": "prepare"}  # in figures


INTRODUCTION = """# What training, probing and packing cost

How time and memory grow with each size, so that what a small run takes tells what a larger one will. One size varies
in each curve, the others stay: a step of pre-training has 2 clips x 8 clones of 5.12 s (256 patches), width 192, 6
encoder and 3 decoder blocks; a step of a probe has 16 clips and one CGP head of 1,000 prototypes, for 50 classes, on
kept features of 6 layers x 256 patches. n is the size that varies, and "off the fit" how far a point is from the line.

Seconds are CPU time of one core ({cpu}; fp32, torch {torch}, commit `{commit}`), but for `prepare`, which is
timed by the clock with one process. Memory is the peak of a process above what it held with torch imported. `python
benchmarks/cost.py` measures all of it anew, in some ten minutes; for your machine and your sizes, ask `audiobat
pretrain --dry-run --calibrate` ([pre-train](../pretrain.md)).
"""


def training_step(sizes: Sizes, seconds: float) -> float:
    """Seconds of a step of pre-training."""
    dim, depth = int(sizes["dim"]), int(sizes["depth"])
    heads = dim // 64
    fields = {
        "encoder": {"dim": dim, "depth": depth, "heads": heads, "max_frames": round(100 * sizes["seconds"])},
        "decoder": {"depth": 3, "heads": heads},
        "mask": {"clones": int(sizes["clones"])},
        "data": {"clip_seconds": sizes["seconds"]},
        "train": {"batch_size": int(sizes["clips"]), "precision": "fp32", "device": "cpu"},
    }
    loop.monotonic = time.process_time  # type: ignore[assignment]  # the loop's clock
    return measure(from_dict(PretrainConfig, merge(load_recipe("bat_base"), fields)), seconds).seconds


def probe_step(source: FeatureSource, sizes: Sizes, seconds: float) -> float:
    """Seconds of a training step of CGP heads beside each other."""
    task = Task.of_matrix(torch.rand(KEPT, CLASSES) < 0.05, False)
    head = HeadConfig("cgp", prototypes=int(sizes["prototypes"]))
    trainers = [
        HeadTrainer(HeadJob(f"cgp{n}", head, ProbeTrainConfig()), source, task) for n in range(int(sizes["heads"]))
    ]
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.process_time()
        rows = np.arange(int(sizes["clips"]))
        [(clip_ids, inputs)] = source.inputs({trainers[0].reads}, [rows])
        labels = task.labels(clip_ids, inputs[trainers[0].reads])
        for trainer in trainers:
            trainer.train_step(len(times), inputs[trainer.reads], labels)
        times.append(time.process_time() - start)
    return median(times[1:])


def encode(source: FeatureSource, folder: Path, sizes: Sizes, seconds: float) -> float:
    """Seconds of encoding clips once and keeping their features."""
    table = clip_table(folder, [f"{n}.wav" for n in range(int(sizes["clips"]))])
    start = time.process_time()
    cache_features(source.encoder, table, progress=False)
    return time.process_time() - start


def packing(folder: Path, sizes: Sizes) -> float:
    """Seconds, by the clock, of `prepare` with one process."""
    with tempfile.TemporaryDirectory() as out:
        source = Path(out) / "clips"
        source.mkdir()
        for n in range(int(sizes["clips"])):
            (source / f"{n}.wav").hardlink_to(folder / f"{n}.wav")
        start = time.perf_counter()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            prepare(source, Path(out) / "shards", sample_rate=RATE // 2, workers=1)
        return time.perf_counter() - start


def forked(task: Callable[[], float]) -> tuple[float, float]:
    """The seconds that a task finds, and its peak memory in MiB above what its process began with."""
    status = Path("/proc/self/status").read_text()
    start = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]
    seconds = task()
    return seconds, (peak_memory(CPU) or 0) / 2**20 - start


def fit(sizes: list[float], found: list[float], powers: tuple[int, ...]) -> np.ndarray:
    """The factors of the powers of a size whose largest relative errors are small: least squares of those."""
    terms = np.array([[size**power for power in powers] for size in sizes]) / np.array(found)[:, None]
    return np.linalg.lstsq(terms, np.ones(len(found)), rcond=None)[0]


def value(factors: np.ndarray, powers: tuple[int, ...], size: float) -> float:
    """The fit at a size."""
    return float(sum(factor * size**power for factor, power in zip(factors, powers, strict=True)))


def formula(factors: np.ndarray, powers: tuple[int, ...]) -> str:
    """A fit in words; n is the size."""
    names = ("", " n", " n²")
    parts = [f"{factor:.3g}{names[power]}" for factor, power in zip(factors, powers, strict=True)]
    return " + ".join(parts).replace("+ -", "- ")


def table_of(curve: Curve) -> str:
    """Its points and fits as Markdown, and the words below."""
    sizes = sorted(curve.seconds)
    headings, cells = [curve.name], [[f"{size:g}"] for size in sizes]
    fits = []
    for unit, found, powers in (("s", curve.seconds, curve.powers), ("MiB", curve.mebibytes, curve.memory)):
        if not found:
            continue
        headings += [unit, "off the fit"] if powers else [unit]
        for row, size in zip(cells, sizes, strict=True):
            row.append(f"{found[size]:.3g}" if found[size] < 1000 else f"{found[size]:,.0f}")
        if powers:
            factors = fit(sizes, [found[size] for size in sizes], powers)
            fits.append(f"{formula(factors, powers)} {unit}")
            for row, size in zip(cells, sizes, strict=True):
                row.append(f"{found[size] / value(factors, powers, size) - 1:+.0%}")
    lines = [f"### {TITLES[curve.of]} against {curve.name}", ""]
    lines += [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *cells)]
    return "\n".join([*lines, "", f"Fit: {'; '.join(fits)}.", "", WORDS[f"{curve.of} {curve.size}"], ""])


@styled
def figure_of(curves: list[Curve], memory: bool) -> Figure:
    """Points and fits of some curves, a panel each."""
    columns = 3
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(WIDTH, 0.2 + 2.1 * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[len(curves) :]:
        ax.set_visible(False)
    for ax, curve in zip(axes, curves, strict=False):
        found, powers = (curve.mebibytes, curve.memory) if memory else (curve.seconds, curve.powers)
        sizes = sorted(found)
        if powers:
            factors = fit(sizes, [found[size] for size in sizes], powers)
            line = np.linspace(0, sizes[-1], 100)
            ax.plot(line, [value(factors, powers, size) for size in line], color=VERMILLION, label="fit")
        ax.plot(sizes, [found[size] for size in sizes], "o", color=BLUE, label="measured")
        ax.set(xlabel=curve.name, ylabel="MiB" if memory else "s", xlim=(0, 1.05 * sizes[-1]))
        ax.set(title=f"{SHORT[curve.of]}: {curve.name}", ylim=(0, 1.08 * max(found.values())))
        ax.grid(True)
    figure.legend(*axes[len(curves) - 1].get_legend_handles_labels(), loc="lower right")
    return figure


def measure_all(quick: bool) -> None:
    """Visit the points of all curves."""
    torch.set_num_threads(1)
    rounds, seconds = (1, 0.0) if quick else (ROUNDS, SECONDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        for n in range(FILES):
            soundfile.write(folder / f"{n}.wav", rng.normal(scale=0.1, size=round(5.12 * RATE)), RATE)
        torch.manual_seed(0)
        recipe = {"encoder": {"dim": 192, "depth": 6, "heads": 3, "max_frames": 512}, "decoder": {"heads": 3}}
        recipe["data"] = {"clip_seconds": 5.12}
        encoder = AudioEncoder(from_dict(PretrainConfig, merge(load_recipe("bat_base"), recipe)).model).eval()
        table = clip_table(folder, [f"{n}.wav" for n in range(KEPT)])
        source = cache_features(encoder, table, progress=False)
        tasks = {
            "step": (training_step, STEP),
            "probe": (partial(probe_step, source), PROBE),
            "encode": (partial(encode, source, folder), {}),
        }
        fork = multiprocessing.get_context("fork")
        for turn in range(rounds):
            for curve in CURVES:
                for size in curve.values[:3] if quick else curve.values:
                    if curve.of == "prepare":
                        found = packing(folder, {curve.size: size})
                    else:
                        task, others = tasks[curve.of]
                        with fork.Pool(1) as pool:
                            found, memory = pool.apply(forked, [partial(task, {**others, curve.size: size}, seconds)])
                        curve.mebibytes[size] = min(memory, curve.mebibytes.get(size, memory))
                    curve.seconds[size] = min(found, curve.seconds.get(size, found))
                    print(turn, curve.of, curve.size, size, f"{found:.3g} s", flush=True)


def keep(out: Path) -> None:
    """Write all points, and on what they were measured, to cost.json."""
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    about = environment()
    where = {"cpu": found[1] if found else "unnamed", "torch": about["torch"], "commit": str(about["git_commit"])[:7]}
    points = {f"{curve.of} {curve.size}": {"s": curve.seconds, "MiB": curve.mebibytes} for curve in CURVES}
    out.mkdir(parents=True, exist_ok=True)
    (out / "cost.json").write_text(json.dumps({"where": where, "points": points}, indent=1) + "\n", encoding="utf-8")


def write(out: Path) -> None:
    """Write the page and its figures from cost.json."""
    kept = json.loads((out / "cost.json").read_text(encoding="utf-8"))
    for curve in CURVES:
        points = kept["points"][f"{curve.of} {curve.size}"]
        curve.seconds, curve.mebibytes = ({float(n): x for n, x in points[unit].items()} for unit in ("s", "MiB"))
    steps, others = [c for c in CURVES if c.of == "step"], [c for c in CURVES if c.of != "step"]
    (out / "cost_seconds.png").write_bytes(png(figure_of(steps, False)))
    (out / "cost_memory.png").write_bytes(png(figure_of(steps, True)))
    (out / "cost_others.png").write_bytes(png(figure_of(others, False)))
    parts = [
        INTRODUCTION.format(**kept["where"]),
        "![Seconds of a training step against its sizes](cost_seconds.png)\n",
        "![Peak memory of a training step against its sizes](cost_memory.png)\n",
        *map(table_of, steps),
        "![Seconds of probes and of prepare against their sizes](cost_others.png)\n",
        *map(table_of, others),
    ]
    (out / "cost.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of the smaller sizes")
    parser.add_argument("--words", action="store_true", help="measure nothing, write the page anew")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    if not options.words:
        measure_all(options.quick)
        keep(options.out)
    write(options.out)


if __name__ == "__main__":
    main()
