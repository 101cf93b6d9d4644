"""The result record: what was measured, on what, with which model, head and code. In and out: one JSON file each.

Tables, figures and pages are made from records alone. Beside a record lies what the head said to every test clip, for
paired comparisons.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError

FORMAT = "audiobat-result-1"
HEADS = {
    "finetune": "Fine-tuning",
    "cgp": "CGP",
    "protobin": "Protobin",
    "linear": "Linear",
    "linear_cgp": "Linear CGP",
    "attentive": "Attentive",
    "ep": "EP",
    "head2toe": "Head2Toe",
    "vqt": "VQT",
    "proto_classwise": "Class-wise prototypes",
    "knn": "k-NN",
    "mean_time_keep_freq": "Mean over time",
}  # kinds of heads as tables name them, in the order of tables
LAYER_NAME = "linear_block_"  # name of a head that probes a single block, before the block's number


@dataclass(frozen=True)
class Metric:
    """A value with its 95% (basic) bootstrap interval over test clips, and what it is, in words."""

    value: float
    low: float
    high: float
    definition: str
    sd: float | None = None  # over folds, where there are folds


@dataclass(frozen=True)
class ModelInfo:
    """Which weights were probed."""

    id: str
    sha256: str | None  # of the weights; None: the encoder is no torch module
    parameters: int | None


@dataclass(frozen=True)
class DataInfo:
    """Which clips trained and tested the head."""

    name: str
    sha256: str  # of the clip table
    clips: dict[str, int]  # readable clips: {"train": n, "test": n}, or the test clips of each fold {"1": n, ...}
    unreadable: int  # clips left out: missing or unreadable
    classes: int
    classes_present: int  # in the test clips
    untaught: dict[str, int] = field(default_factory=dict)  # those that no training clip has: how many test clips have


@dataclass(frozen=True)
class ScoresFile:
    """Which file beside the record holds its `Scores`."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Scores:
    """What a head said to each test clip, and what is true of it."""

    keys: NDArray[np.str_]  # [n] of the clips
    scores: NDArray[np.float32]  # [n, C]
    targets: NDArray[np.bool_]  # [n, C]
    folds: NDArray[np.str_] | None = None  # [n] the fold that each clip tested

    def __post_init__(self) -> None:
        shape = self.scores.shape
        wanted = {"scores": (np.floating, 2), "targets": (np.bool_, 2), "keys": (np.str_, 1), "folds": (np.str_, 1)}
        for name, (kind, axes) in wanted.items():
            array = getattr(self, name)
            if array is None and name == "folds":
                continue
            if (
                not np.issubdtype(array.dtype, kind)
                or array.shape != shape[:axes]
                or array.ndim != axes
                or not array.size
            ):
                form = f"{array.dtype} {list(array.shape)}"
                raise AudiobatError(
                    f"Scores.{name} is {form}: give {kind.__name__} {list(shape[:axes])} of {axes} axes."
                )


@dataclass(frozen=True)
class ResultRecord:
    """One head on one model's frozen features of one data set."""

    model: ModelInfo
    data: DataInfo
    head: dict[str, Any]  # kind, its hyper-parameters and those of its training, as they were used
    preset: str
    seed: int
    metrics: dict[str, Metric]  # the first one is the main one, unless there is accuracy
    per_class: dict[str, float | None]  # average precision by label; None: no test clip has it
    gate_weights: list[float] | None  # [L], where the head mixes layers (the mean over folds)
    wall_seconds: float  # training and testing the head, features aside
    clips_per_second: float | None  # clips (with repeats) that training took in per second; None: nothing was trained
    device: str
    environment: dict[str, Any]  # of `environment()`
    git_commit: str | None  # of the code
    folds: dict[str, dict[str, float]] | None = None  # test fold -> metric -> value
    scores: ScoresFile | None = None  # None: nothing to compare it clip by clip

    @property
    def main_metric(self) -> str:
        """Name of the one to show where there is room for one: accuracy where a clip has one label, as in Table 5."""
        return "accuracy" if "accuracy" in self.metrics else next(iter(self.metrics))

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, whole or not at all; makes the folder."""
        plain = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(_without_nan(plain), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        _write(Path(path), text.encode("utf-8"))


def load_record(path: str | Path) -> ResultRecord:
    """Read a record back.

    Raises:
        AudiobatError: not there, no JSON, no result record, or a field that is missing or unknown.
    """
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AudiobatError(f"{path} cannot be read as JSON ({error}): give a result record.") from None
    if not isinstance(plain, dict) or plain.pop("format", None) != FORMAT:
        raise AudiobatError(f"{path} is no result record of format {FORMAT}: give a file that `audiobat probe` wrote.")
    try:
        plain["model"] = ModelInfo(**plain["model"])
        plain["data"] = DataInfo(**plain["data"])
        plain["metrics"] = {name: Metric(**_with_nan(metric)) for name, metric in plain["metrics"].items()}
        if plain.get("scores") is not None:
            plain["scores"] = ScoresFile(**plain["scores"])
        return ResultRecord(**plain)
    except (TypeError, KeyError, AttributeError) as error:
        raise AudiobatError(f"{path} is a damaged result record ({error}): run the probe again.") from None


def load_records(source: str | Path | Iterable[str | Path]) -> list[ResultRecord]:
    """Read the records of a list of files, or of a folder: of its `results` folders at any depth, else its own.

    Raises:
        AudiobatError: as for `load_record`, or nothing there.
    """
    paths = find_records(source) if isinstance(source, str | Path) else source
    return [load_record(path) for path in paths]


def find_records(source: str | Path) -> list[Path]:
    """The record files that a file or a folder stands for, as `load_records` reads them; AudiobatError if none."""
    source = Path(source)
    if source.is_file():
        return [source]
    files = sorted(source.rglob("results/*.json"))
    if not files and (source / "config.yaml").exists():  # what else lies there is the run's own
        raise AudiobatError(f"{source} is a run that has no result record yet: let it end, or probe it.")
    files = files or sorted(source.glob("*.json"))
    if not files:
        raise AudiobatError(f"{source} holds no result record: give a folder that `audiobat probe` wrote to.")
    return files


def save_scores(record_path: str | Path, scores: Scores) -> ScoresFile:
    """Write the scores beside where the record lies or will lie, NAME.scores.npz for NAME.json, whole or not at all.

    Returns what the record must hold as its `scores`. Save them first: a record names only what is there.
    """
    arrays = {name: array for name, array in vars(scores).items() if array is not None}
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    path = Path(record_path).with_suffix(".scores.npz")
    _write(path, packed.getvalue())
    return ScoresFile(path.name, hashlib.sha256(packed.getvalue()).hexdigest())


def load_scores(record_path: str | Path, record: ResultRecord) -> Scores:
    """Read the scores of the record that lies at `record_path`.

    Raises:
        AudiobatError: the record has none, or their file is not there, is another one, or is no file of scores.
    """
    if record.scores is None:
        raise AudiobatError(f"{record_path} has no scores of single clips: probe again with this version.")
    name = record.scores.file
    if not isinstance(name, str) or Path(name).name != name:
        raise AudiobatError(f"{record_path}: scores.file is {name!r}: it must name a file of the record's own folder.")
    path = Path(record_path).with_name(name)
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise AudiobatError(f"{path} cannot be read ({error.strerror}): keep it beside its record.") from None
    if hashlib.sha256(packed).hexdigest() != record.scores.sha256:
        raise AudiobatError(f"{path} is not the file that {record_path} names (sha256 differs): run the probe again.")
    try:
        if any(member.compress_type != zipfile.ZIP_STORED for member in zipfile.ZipFile(io.BytesIO(packed)).filelist):
            raise ValueError("its arrays are compressed")  # a small file may not become a large one
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            return Scores(**arrays)
    except Exception as error:  # numpy's parser throws what it likes at a hostile file
        raise AudiobatError(f"{path} is no file of scores ({error}): run the probe again.") from None


def head_title(kind: str) -> str:
    """A kind of head as tables name it."""
    return HEADS.get(kind, kind)


def head_order(kind: str) -> int:
    """Sort key that puts kinds of heads in the order of tables, unknown ones last."""
    return list(HEADS).index(kind) if kind in HEADS else len(HEADS)


def head_label(record: ResultRecord) -> str:
    """`CGP`, or `Linear, block 3` where it is not the last; heads that are not in Table 1 by their kind."""
    kind, layer = record.head["kind"], record.head.get("layer", -1)
    name = head_title(kind) if kind in ("cgp", "protobin", "linear") else str(kind)
    return name if kind == "cgp" or layer == -1 else f"{name}, block {layer}"


def _write(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(content)
    os.replace(beside, path)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {name: _without_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(metric: dict[str, Any]) -> dict[str, Any]:
    """NaN again for a metric's numbers that were undefined."""
    return {name: math.nan if v is None and name in ("value", "low", "high") else v for name, v in metric.items()}
