"""What evaluations cost beside the encoding of their clips: many heads, many data sets, many records.

python benchmarks/suite.py heads [CLIPS] [STEPS] [WIDTH] [SECONDS]: 17 heads x 12 blocks x 5 seeds in one probe;
python benchmarks/suite.py sets [CLIPS] [WIDTH]: a suite of ten data sets of so many clips in all;
python benchmarks/suite.py compare [CLIPS] [CLASSES] [RECORDS] [accuracy|map]: `compare` of records of one data set.

CPU seconds of this process, one thread, no workers, so that what else the machine does has no say. The encoder has 12
blocks of WIDTH and random weights; "encoding" is the same clips encoded by themselves, decoding included, in the same
process. The arithmetic of heads is what they take to be built, for their training steps and for their logits of test
clips, on features at hand; the rest is to make the batches, metrics with intervals, records and files.
"""

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from audiobat.config import GridConfig, ModelConfig, PretrainConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.sources.read import read_labelled_clips
from audiobat.evaluation.compare import compare
from audiobat.evaluation.labels import Task
from audiobat.evaluation.record import DataInfo, Metric, ModelInfo, ResultRecord, Scores, save_scores
from audiobat.models.encoder import AudioEncoder
from audiobat.probing.cache import cache_features
from audiobat.probing.run import probe
from audiobat.probing.training import HeadTrainer
from audiobat.studies.suite import suite
from audiobat.zoo.release import save_release

SECONDS, CLASSES, BLOCKS = 1.0, 10, 12
LARGE = 1e3  # GB of features that may be kept: clips whose features exceed it are read, and not encoded
KINDS = ("linear", "attentive", "ep", "knn", "mean_time_keep_freq", "proto_classwise", "protobin")
COUNTS = tuple(range(10, 120, 10))  # of Protobin's prototypes: with the six other kinds that makes 17 heads


def model(width: int) -> ModelConfig:
    """bat_base, as deep as it is, of another width."""
    config = PretrainConfig().model
    return replace(config, encoder=replace(config.encoder, dim=width, heads=max(1, width // 64), depth=BLOCKS))


def write_set(folder: Path, clips: int, seed: int, seconds: float = SECONDS) -> Path:
    """Noise of ten classes, half of it to train; returns the table."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    lines = ["path,label,split"]
    for i in range(clips):
        soundfile.write(folder / f"{i}.wav", rng.normal(scale=0.1, size=int(seconds * 16_000)), 16_000)
        lines.append(f"{i}.wav,{i % CLASSES},{'train' if i % 20 < CLASSES else 'test'}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds of some work, which says nothing."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.process_time() - start


@contextlib.contextmanager
def arithmetic_of_heads() -> Iterator[list[float]]:
    """Collects the CPU seconds of all heads: building, training steps, logits, stored clips."""
    spent: list[float] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent.append(time.process_time() - start)

        return inner

    places = ((HeadTrainer, "__init__"), (HeadTrainer, "train_step"), (Task, "logits"), (Task, "tokens"))
    plain = {place: getattr(*place) for place in places}
    inside = plain[Task, "logits"]  # a training step asks for logits, too, which must not count twice
    HeadTrainer.__init__ = counted(plain[HeadTrainer, "__init__"])
    HeadTrainer.train_step = counted(with_plain(plain[HeadTrainer, "train_step"], inside))
    Task.logits = counted(inside)
    Task.tokens = counted(plain[Task, "tokens"])
    try:
        yield spent
    finally:
        for (holder, name), function in plain.items():
            setattr(holder, name, function)


def with_plain(step: Callable[..., Any], logits: Callable[..., Any]) -> Callable[..., Any]:
    """A training step inside which `Task.logits` is not counted."""

    def inner(*args: Any, **kwargs: Any) -> Any:
        counted, Task.logits = Task.logits, logits  # type: ignore[method-assign]
        try:
            return step(*args, **kwargs)
        finally:
            Task.logits = counted  # type: ignore[method-assign]

    return inner


def heads(clips: int = 2_000, steps: int = 100, width: int = 192, seconds: float = SECONDS) -> None:
    """The cost of 17 heads x 12 blocks x 5 seeds beyond their own arithmetic, in encodings."""
    config = ProbeConfig(
        train=ProbeTrainConfig(steps=steps, warmup_steps=1, batch_size=48),
        heads=KINDS,
        grid=GridConfig(prototypes=COUNTS, layers=tuple(range(1, BLOCKS + 1))),
        seeds=(0, 1, 2, 3, 4),
        workers=0,
    )
    encoder = AudioEncoder(model(width)).eval()
    with tempfile.TemporaryDirectory() as folder:
        table = write_set(Path(folder) / "set", clips, 0, seconds)
        read = read_labelled_clips(table)
        encoding = cpu(lambda: cache_features(encoder, read, cache_gb=LARGE, progress=False))
        with arithmetic_of_heads() as spent:
            whole = cpu(lambda: probe(encoder, table, config, out=Path(folder) / "out"))
        written = len(list(Path(folder).rglob("results/*.json")))
    rest = whole - sum(spent)
    print(f"{written} records, {clips} clips of {seconds:g} s, width {width}, {steps} steps of 48 clips")
    print("| encoding, s | probe, s | of it heads' arithmetic, s | the rest, s | in encodings (target 1.2) |")
    print(f"| --- | --- | --- | --- | --- |\n| {encoding:.1f} | {whole:.1f} | {sum(spent):.1f} | {rest:.1f} | ", end="")
    print(f"{rest / encoding:.2f} |")


def sets(clips: int = 1_000, width: int = 768) -> None:
    """A suite of ten data sets with three heads and two tasks each, beside the sum of their encodings."""
    fields = {
        "workers": 0,
        "heads": ["linear", "knn"],
        "tasks": ["labels", "retrieval", "pairs"],
        "train": {"steps": 100, "warmup_steps": 1, "batch_size": 48},
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        encoder = AudioEncoder(model(width)).eval()
        save_release(root / "model", encoder)
        tables = {f"set{i}": write_set(root / f"set{i}", clips // 10, i) for i in range(10)}
        reads = [read_labelled_clips(table) for table in tables.values()]
        encoding = sum(
            cpu(lambda read=read: cache_features(encoder, read, cache_gb=LARGE, progress=False)) for read in reads
        )
        with arithmetic_of_heads() as spent:
            words = [f"{name}={path}" for name, path in tables.items()]
            whole = cpu(lambda: suite({"probe": fields}, out=root / "out", models=[f"m={root / 'model'}"], data=words))
    print(f"ten data sets, {clips} clips of {SECONDS:g} s in all, width {width}")
    print("| encodings, s | suite, s | of it heads' arithmetic, s | suite / encodings (target 1.1) | less heads |")
    print(f"| --- | --- | --- | --- | --- |\n| {encoding:.1f} | {whole:.1f} | {sum(spent):.1f} | ", end="")
    print(f"{whole / encoding:.2f} | {(whole - sum(spent)) / encoding:.2f} |")


def records(clips: int = 400, classes: int = 50, count: int = 50, metric: str = "map") -> None:
    """`compare` of records whose scores know the labels more or less."""
    rng = np.random.default_rng(0)
    single = metric == "accuracy"
    targets = np.eye(classes, dtype=bool)[rng.integers(classes, size=clips)]
    targets = targets if single else rng.random((clips, classes)) < 0.05
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            path = Path(folder) / "results" / f"model{i:03}.json"
            noise = rng.normal(size=targets.shape)
            scores = Scores(
                np.array([f"{k:06}" for k in range(clips)]), (i / count * targets + noise).astype("f4"), targets
            )
            ResultRecord(
                model=ModelInfo(f"model{i:03}", None, None),
                data=DataInfo("set", "0" * 64, {"test": clips}, 0, classes, classes),
                head={"kind": "linear", "loss": "ce" if single else "bce"},
                preset="custom",
                seed=0,
                metrics=dict.fromkeys(("map", metric), Metric(0.5, 0.4, 0.6, "")),
                per_class={},
                gate_weights=None,
                wall_seconds=0.0,
                clips_per_second=None,
                device="cpu",
                environment={},
                git_commit=None,
                scores=save_scores(path, scores),
            ).save(path)
        taken = cpu(lambda: compare(folder, metric=metric))
    print(f"compare, {count} records, {clips} clips, {classes} classes, {metric}: {taken:.1f} s (target 10)")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first one of a process imports PyTorch's compiler
    what = {"heads": heads, "sets": sets, "compare": records}[sys.argv[1]]
    what(*(int(word) if word.isdigit() else word for word in sys.argv[2:]))
