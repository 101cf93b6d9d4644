"""The result record: one JSON file for each measured number, with the model, data, head, settings and code behind it.

Tables, figures and pages are made from records alone. Beside a record lie the head's scores of every test clip, or a
task's values of every query, pair or clip, for paired comparisons.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from audiobat.config.checks import is_union, shortened
from audiobat.engine.files import read_json, write_atomic
from audiobat.errors import AudiobatError

FORMAT = "audiobat-result-1"
A = TypeVar("A", "Scores", "Values")
LAYER_NAME = "linear_block_"  # name of a head that probes a single block, before the block's number


@dataclass(frozen=True)
class Metric:
    """A value with its 95% interval over test clips, and its definition in words."""

    value: float
    low: float
    high: float
    definition: str
    sd: float | None = None  # over folds, where there are folds
    interval: str = "bootstrap"  # how it was made: a key of `certainty.COVERAGE`; older records are of this kind
    lower_is_better: bool = False  # as of errors


@dataclass(frozen=True)
class ModelInfo:
    """The weights that were probed or fine-tuned."""

    id: str
    sha256: str | None  # of the weights; None: the encoder is no torch module
    parameters: int | None


@dataclass(frozen=True)
class DataInfo:
    """The clips that trained and tested the head."""

    name: str
    sha256: str  # of the clip table
    clips: dict[str, int]  # readable clips: {"train": n, "test": n}, or the test clips of each fold {"1": n, ...}
    unreadable: int  # clips left out because they are missing or damaged
    classes: int
    classes_present: int  # in the test clips
    untaught: dict[str, int] = field(default_factory=dict)  # class that no training clip has -> test clips that have it


@dataclass(frozen=True)
class ScoresFile:
    """The file beside the record that holds its `Scores` or `Values`."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Scores:
    """A head's scores of every test clip, beside the true labels."""

    keys: NDArray[np.str_]  # [n] of the clips; a clip scored by patch columns has one row for each
    scores: NDArray[np.float32]  # [n, C]
    targets: NDArray[np.bool_]  # [n, C]
    folds: NDArray[np.str_] | None = None  # [n] the fold in which each clip was tested

    def __post_init__(self) -> None:
        shape = self.scores.shape
        wanted = {"scores": (np.floating, 2), "targets": (np.bool_, 2), "keys": (np.str_, 1), "folds": (np.str_, 1)}
        for name, (kind, axes) in wanted.items():
            array = getattr(self, name)
            if array is None and name == "folds":
                continue
            fits = array.ndim == axes and array.shape == shape[:axes] and array.size > 0
            if not (fits and np.issubdtype(array.dtype, kind)):
                form = f"{array.dtype} {list(array.shape)}"
                raise AudiobatError(
                    f"Scores.{name} is {form}: give {kind.__name__} {list(shape[:axes])} of {axes} axes."
                )

    @property
    def size(self) -> int:
        """How many numbers it holds besides the labels."""
        return self.scores.size


@dataclass(frozen=True)
class Values:
    """What a task without class scores measured of every test unit: a query, a pair of clips or a clip."""

    keys: NDArray[np.str_]  # [n] unique in a fold
    values: NDArray[np.float64]  # [n]; their mean is the main metric, unless there are targets
    targets: NDArray[np.float64] | None = None  # [n] what the values should be: the main metric is made from both
    groups: NDArray[np.str_] | None = None  # [n], or [n, 2] of pairs: as those of `UnitOutputs`; None: each alone
    folds: NDArray[np.str_] | None = None  # [n] the fold in which each was tested

    def __post_init__(self) -> None:
        kinds = {"values": np.floating, "keys": np.str_, "targets": np.floating, "groups": np.str_, "folds": np.str_}
        for name, kind in kinds.items():
            array = getattr(self, name)
            if array is None and name not in ("keys", "values"):
                continue
            shape = self.keys.shape
            shapes = [shape, (*shape, 2)] if name == "groups" else [shape]
            if not (array.shape in shapes and len(shape) == 1 and array.size and np.issubdtype(array.dtype, kind)):
                form = f"{array.dtype} {list(array.shape)}"
                raise AudiobatError(f"Values.{name} is {form}: give {kind.__name__} [{self.keys.size}], at least one.")

    @property
    def size(self) -> int:
        """How many numbers it holds besides the targets."""
        return self.values.size


@dataclass(frozen=True)
class ResultRecord:
    """One head or task on one model and data set: on frozen features, or fine-tuned together with the model."""

    model: ModelInfo
    data: DataInfo
    head: dict[str, Any]  # kind (of a head, or a task), hyper-parameters and training settings, as they were used
    # (`auto` and null replaced by what they meant)
    preset: str  # whose settings these are; custom: nobody's
    seed: int
    metrics: dict[str, Metric]  # the first one is the main one, unless there is accuracy
    per_class: dict[str, float | None]  # average precision by label; None: no test clip has it; of a task: empty
    gate_weights: list[float] | None  # [L], mean over folds, of a head that mixes layers
    wall_seconds: float  # of training and testing the head, without the features that a probe caches
    clips_per_second: float | None  # training clips, with repeats, per second; None: nothing was trained
    device: str
    environment: dict[str, Any]  # of `environment()`
    git_commit: str | None  # of the code
    positives: dict[str, int] | None = None  # test clips by label; None: an older record
    folds: dict[str, dict[str, float]] | None = None  # test fold -> metric -> value
    scores: ScoresFile | None = None  # of a head; None: the record cannot be compared clip by clip
    values: ScoresFile | None = None  # of a task, in place of scores

    @property
    def main_metric(self) -> str:
        """The metric to show where only one fits: accuracy where clips have one label each, as in Table 5, else mAP."""
        return "accuracy" if "accuracy" in self.metrics else next(iter(self.metrics))

    def plain(self) -> dict[str, Any]:
        """Its fields as JSON has them, in a form that older versions read, too, where nothing in it is new to them."""
        fields: dict[str, Any] = without_nan(dataclasses.asdict(self))
        if self.values is None:
            del fields["values"]
        for metric in fields["metrics"].values():
            if not metric["lower_is_better"]:
                del metric["lower_is_better"]
        return fields

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, whole or not at all; makes the folder."""
        text = json.dumps({"format": FORMAT, **self.plain()}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)


def load_record(path: str | Path) -> ResultRecord:
    """Read a record back.

    Raises:
        AudiobatError: no such file, no JSON, no result record, or a field that is missing or unknown.
    """
    plain = read_json(Path(path), "give a result record")
    if plain.pop("format", None) != FORMAT:
        raise AudiobatError(f"{path} is no result record of format {FORMAT}: give a file that `audiobat probe` wrote.")
    return record_from(plain, str(path))


def record_from(plain: Any, where: str) -> ResultRecord:
    """A record from its fields as JSON has them; AudiobatError, with `where` they stand, for one missing or unknown."""
    try:
        plain["model"] = ModelInfo(**plain["model"])
        plain["data"] = DataInfo(**plain["data"])
        for metric in plain["metrics"].values():  # JSON has no NaN: null stands for it
            metric.update({name: math.nan for name in ("value", "low", "high") if metric.get(name, "") is None})
        plain["metrics"] = {name: Metric(**metric) for name, metric in plain["metrics"].items()}
        for name in ("scores", "values"):
            if plain.get(name) is not None:
                plain[name] = ScoresFile(**plain[name])
        record = ResultRecord(**plain)
        for part in (record, record.model, record.data, *record.metrics.values(), record.scores, record.values):
            check_types(part)
        if not record.metrics:
            raise TypeError("no metrics")
        if not isinstance(record.head.get("kind"), str):
            raise TypeError("no head.kind")
        return record
    except (TypeError, KeyError, AttributeError) as error:
        raise AudiobatError(f"{where} is a damaged result record ({error}): run the probe again.") from None


def check_types(part: object) -> None:
    """Raise a TypeError for a field of a record, or of a part of it, that holds another type than its hint says."""
    for name, hint in get_type_hints(type(part)).items() if dataclasses.is_dataclass(part) else ():
        if not fits(hint, getattr(part, name)):
            raise TypeError(f"{name} is {shortened(repr(getattr(part, name)))}")


def fits(hint: Any, value: Any) -> bool:
    """Whether a value is of the type of a field; null stands for a number that is none."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or dataclasses.is_dataclass(hint):
        return True  # a dataclass is looked at by itself
    if is_union(hint):
        return value is None or all(fits(arg, value) for arg in args if arg is not NoneType)
    if origin is dict:
        return isinstance(value, dict) and all(fits(args[1], inner) for inner in value.values())
    if origin is list:
        return isinstance(value, list) and all(fits(args[0], inner) for inner in value)
    if hint is float:
        return value is None or type(value) in (int, float)
    return type(value) is hint


def find_records(source: str | Path) -> list[Path]:
    """A file, or the record files of a folder: those of `results` folders at any depth, else its own.

    Raises:
        AudiobatError: there is none.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    files = sorted(source.rglob("results/*.json"))
    if not files and (source / "config.yaml").exists():  # a run: JSON files at its top are no records
        raise AudiobatError(f"{source} is a run that has no result record yet: let it end, or probe it.")
    files = files or sorted(source.glob("*.json"))
    if not files:
        raise AudiobatError(
            f"{source} holds no result record: give a folder that `audiobat probe`, `finetune` or `suite` wrote to."
        )
    return files


def save_scores(record_path: str | Path, scores: Scores) -> ScoresFile:
    """Write the scores of the record NAME.json to NAME.scores.npz beside it, whole or not at all.

    Returns the record's `scores` field. Save the scores before the record, so that a record names only existing files.
    """
    return _save_arrays(Path(record_path).with_suffix(".scores.npz"), scores)


def save_values(record_path: str | Path, values: Values) -> ScoresFile:
    """Write the values of the record NAME.json to NAME.values.npz beside it, as `save_scores` does scores."""
    return _save_arrays(Path(record_path).with_suffix(".values.npz"), values)


def _save_arrays(path: Path, arrays: Scores | Values) -> ScoresFile:
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **{name: array for name, array in vars(arrays).items() if array is not None})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, packed.getvalue())
    return ScoresFile(path.name, hashlib.sha256(packed.getvalue()).hexdigest())


def load_scores(record_path: str | Path, record: ResultRecord) -> Scores:
    """Read the scores of the record that lies at `record_path`.

    Raises:
        AudiobatError: the record has none, or their file is missing, was changed, or is no file of scores.
    """
    return _load_arrays(record_path, record.scores, Scores)


def load_values(record_path: str | Path, record: ResultRecord) -> Values:
    """Read the values of a task's record; errors as of `load_scores`."""
    return _load_arrays(record_path, record.values, Values)


def _load_arrays(record_path: str | Path, named: ScoresFile | None, kind: type[A]) -> A:
    word = kind.__name__.lower()
    if named is None:
        raise AudiobatError(f"{record_path} has no {word} of single clips: probe again with this version.")
    name = named.file
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise AudiobatError(f"{record_path}: {word}.file is {name!r}: it must name a file of the record's own folder.")
    path = Path(record_path).with_name(name)
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise AudiobatError(f"{path} cannot be read ({error.strerror}): keep it beside its record.") from None
    if hashlib.sha256(packed).hexdigest() != named.sha256:
        raise AudiobatError(f"{path} is not the file that {record_path} names (sha256 differs): run the probe again.")
    try:
        if any(member.compress_type != zipfile.ZIP_STORED for member in zipfile.ZipFile(io.BytesIO(packed)).filelist):
            raise ValueError("its arrays are compressed")  # a small file could unpack to a huge one
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            return kind(**arrays)
    except Exception as error:  # numpy's parser raises errors of many kinds for a damaged file
        raise AudiobatError(f"{path} is no file of {word} ({error}): run the probe again.") from None


def without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {name: without_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
