"""Every file that this package writes and reads again, as a function that makes it and one that tells what it holds.

In: a folder. Out: a digest of what a reader gets from the file; `AudiobatError` where it is refused.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from audiobat import embed, load, predict, prepare, probe
from audiobat.config import ProbeConfig, from_dict
from audiobat.config.recipes import load_recipe
from audiobat.data.clip import read_clip
from audiobat.data.sources.read import read_clips
from audiobat.engine.checkpoint import read_checkpoint
from audiobat.engine.tensors import sha256_of
from audiobat.evaluation.record import find_records, load_record, load_scores
from audiobat.evaluation.score_file import read_scores
from audiobat.inference.journal import Journal
from audiobat.zoo.release import load_tagger

from .verbs import RATE, pretrain


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: writes the files below a folder.
        files: the pattern of those that are hurt.
        read: what the files below a folder hold.
        again: whether a damaged file is made again, so that what is read stays the same.
        checked: whether a wrong bit is noticed; headerless samples, as those of a WAV file, have no checksum.
    """

    make: Callable[[Path, Path], object]
    files: str
    read: Callable[[Path, Path], str]
    again: bool = False
    checked: bool = True


def digest(parts: Iterable[object]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else repr(part).encode())
    return found.hexdigest()


def make_checkpoint(world: Path, folder: Path) -> None:
    assert pretrain(world, folder) == 0


def hear_checkpoint(world: Path, folder: Path) -> str:
    [path] = (folder / "run" / "checkpoints").glob("step_000024")
    kept = read_checkpoint(path)
    return digest([sha256_of({n: t for n, t in kept.model.items() if isinstance(t, Tensor)}), kept.step, kept.extra])


def pack(world: Path, folder: Path, encoding: str) -> None:
    prepare(world / "splits.csv", folder / "shards", sample_rate=RATE, encoding=encoding, workers=1)


def hear_shards(world: Path, folder: Path) -> str:
    table = read_clips(folder / "shards")
    clips = range(len(table))
    columns = (list(table.keys), table.targets().tobytes(), table.splits)
    return digest([*columns, *(read_clip(table, clip_id, RATE).tobytes() for clip_id in clips)])


def prepare_again(world: Path, folder: Path) -> str:
    shutil.rmtree(folder / "shards" / "clips")
    pack(world, folder, "flac")
    return hear_shards(world, folder)


def begin_table(world: Path, folder: Path) -> None:
    """The parts of a run that was killed before it wrote its table."""

    class Killed(BaseException):
        pass

    def killed(self: Journal) -> None:
        raise Killed

    read, Journal.read = Journal.read, killed  # type: ignore[method-assign, assignment]
    try:
        write_table(world, folder)
    except Killed:
        pass
    finally:
        Journal.read = read  # type: ignore[method-assign]


def write_table(world: Path, folder: Path) -> str:
    embed(world / "encoder", world / "audio", folder / "table.npz", batch_size=2, workers=0, device="cpu")
    with np.load(folder / "table.npz") as table:
        return digest(table[name].tobytes() for name in table.files)


def run_probe(world: Path, folder: Path) -> str:
    config = from_dict(ProbeConfig, load_recipe(world / "probe.yaml") | {"cache_dir": str(folder), "cache_gb": 1e-5})
    records = probe(world / "encoder", world / "splits.csv", config, device="cpu")
    return digest((record.metrics, record.per_class) for record in records)


def make_release(world: Path, folder: Path) -> None:
    shutil.copytree(world / "tagger", folder / "tagger")


def hear_release(world: Path, folder: Path) -> str:
    return sha256_of(load(folder / "tagger").state_dict())


def hear_head(world: Path, folder: Path) -> str:
    return sha256_of(load_tagger(folder / "tagger").state_dict())


def make_scores(world: Path, folder: Path) -> None:
    config = from_dict(ProbeConfig, load_recipe(world / "probe.yaml"))
    probe(world / "encoder", world / "splits.csv", config, out=folder / "run", device="cpu")


def hear_scores(world: Path, folder: Path) -> str:
    paths = find_records(folder / "run")
    return digest(load_scores(path, load_record(path)).scores.tobytes() for path in paths)


def keep_scores(world: Path, folder: Path) -> None:
    predict(world / "tagger", world / "audio", folder / "out.csv", scores=folder / "kept.npz", workers=0, device="cpu")


def hear_kept_scores(world: Path, folder: Path) -> str:
    scores = read_scores(folder / "kept.npz")
    stretches = [part.tobytes() for stretch in scores.stretches() for part in (stretch.spans, stretch.scores)]
    return digest([scores.keys, scores.rates.tolist(), scores.about, *stretches])


KINDS = {
    "checkpoint": Kind(make_checkpoint, "run/checkpoints/step_000024/state.pt", hear_checkpoint),
    "release, weights": Kind(make_release, "tagger/model.safetensors", hear_release),
    "release, head": Kind(make_release, "tagger/head.safetensors", hear_head),
    "scores beside a record": Kind(make_scores, "run/results/*.npz", hear_scores),
    "scores of a run": Kind(keep_scores, "kept.npz", hear_kept_scores),
    "shard, FLAC": Kind(partial(pack, encoding="flac"), "shards/shards/*.tar", hear_shards),
    "shard, PCM": Kind(partial(pack, encoding="pcm"), "shards/shards/*.tar", hear_shards, checked=False),
    "clip table of shards": Kind(partial(pack, encoding="flac"), "shards/clips/*.npy", hear_shards),
    "index of a shard": Kind(partial(pack, encoding="flac"), "shards/shards/*.npz", prepare_again, again=True),
    "part of a table": Kind(begin_table, "table.npz.parts/*.npz", write_table, again=True),
    "features on disk": Kind(run_probe, "*/*", run_probe, again=True),
}
