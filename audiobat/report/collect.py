"""Result records to what tables and figures show: rows (a model, head and data set, its seeds together), layer curves.

Records of the same model, data and settings that differ in their seed alone are one row, whose numbers are their means.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from audiobat.errors import AudiobatError
from audiobat.results import ResultRecord, find_records, load_record

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
}  # kinds as tables name them, in their order
SEEDS = ("seed", "order_seed")
CHOSEN = {"lr", "weight_decay"}  # what the preset `fair` chooses for each seed
UNITS = {"prototypes": "{:,} prototypes", "layer": "block {}", "lr": "lr {:g}", "weight_decay": "weight decay {:g}"}

Loaded: TypeAlias = tuple[Path, ResultRecord]
Key: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Summary:
    """A metric of one row: means over its seeds, and what it varies by."""

    value: float
    low: float  # 95% interval over test clips, its ends averaged over seeds
    high: float
    sd_seeds: float | None  # None: one seed
    sd_folds: float | None  # None: no folds
    definition: str


@dataclass(frozen=True, eq=False)
class Row:
    """One model under one head on one data set, with a record for each seed."""

    model: str
    head: str  # its name, with what tells it from other heads of its kind
    data: str
    loaded: tuple[Loaded, ...]

    @cached_property
    def records(self) -> tuple[ResultRecord, ...]:
        """Its records, by seed."""
        return tuple(record for _, record in self.loaded)

    @property
    def first(self) -> ResultRecord:
        """The record of its lowest seed."""
        return self.records[0]

    @property
    def kind(self) -> str:
        """Of its head."""
        return str(self.first.head["kind"])

    @property
    def main_metric(self) -> str:
        """Accuracy where a clip has one label, else the records' main metric."""
        return "accuracy" if "accuracy" in self.first.metrics else self.first.main_metric

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Every metric that all of its records hold."""
        names = [name for name in self.first.metrics if all(name in record.metrics for record in self.records)]
        return {name: summarise(self.records, name) for name in names}

    @property
    def main(self) -> Summary:
        """The main metric's summary."""
        return self.summaries[self.main_metric]

    @cached_property
    def per_class(self) -> dict[str, float]:
        """Average precision by class, the mean over seeds, of the classes that test clips have."""
        values: dict[str, list[float]] = defaultdict(list)
        for record in self.records:
            for name, value in record.per_class.items():
                if value is not None:
                    values[name].append(value)
        return {name: statistics.fmean(found) for name, found in values.items()}


@dataclass(frozen=True, eq=False)
class Layers:
    """One model on one data set, block by block and seed by seed; either list may be empty."""

    model: str
    data: str
    probes: tuple[tuple[ResultRecord, ...], ...]  # for each seed: linear probes of blocks 1 to L
    gates: tuple[tuple[float, ...], ...]  # for each seed: the gate weights of blocks 1 to L


@dataclass(frozen=True)
class Collection:
    """Everything that a report shows."""

    rows: tuple[Row, ...]
    layers: tuple[Layers, ...]

    @property
    def data_sets(self) -> list[str]:
        """Names, in the order of the tables."""
        return list(dict.fromkeys(row.data for row in self.rows))


def load_all(sources: Iterable[str | Path]) -> list[Loaded]:
    """The records of files and folders, each file once, with their paths.

    Raises:
        AudiobatError: nothing there, a record that cannot be read, or two files that record the same probe.
    """
    paths = list(dict.fromkeys(path.resolve() for source in sources for path in find_records(present(source))))
    if not paths:
        raise AudiobatError("RUNS is empty: name folders that `audiobat probe` wrote, or result records.")
    loaded = [(path, load_record(path)) for path in paths]
    seen: dict[Key, Path] = {}
    for path, record in loaded:
        check_record(path, record)
        key = (*row_key(record), record.seed, record.head.get("order_seed"))
        if key in seen:
            raise AudiobatError(
                f"{seen[key]} and {path} record the same model, data, head and seed twice: leave one of them out."
            )
        seen[key] = path
    return loaded


def present(source: str | Path) -> Path:
    """A path that is there."""
    if not Path(source).exists():
        raise AudiobatError(f"{source} is not there: name folders that `audiobat probe` wrote, or result records.")
    return Path(source)


def check_record(path: Path, record: ResultRecord) -> None:
    """Raise an AudiobatError for a record that holds too little to be shown."""
    damage = None
    if not isinstance(record.metrics, dict) or not record.metrics:
        damage = "no metrics"
    elif not isinstance(record.head, dict) or not isinstance(record.head.get("kind"), str):
        damage = "no head.kind"
    elif not isinstance(record.per_class, dict):
        damage = "no per_class"
    elif not all(isinstance(x, int | float) for m in record.metrics.values() for x in (m.value, m.low, m.high)):
        damage = "a metric that is no number"
    if damage:
        raise AudiobatError(f"{path} is a damaged result record ({damage}): run the probe again.")


def collect(loaded: Sequence[Loaded]) -> Collection:
    """Rows in the order data set, head, model; linear probes of single blocks become layer curves instead."""
    models = distinct({(r.model.id, r.model.sha256) for _, r in loaded})
    data = distinct({(r.data.name, r.data.sha256) for _, r in loaded})
    groups: dict[Key, list[Loaded]] = defaultdict(list)
    for entry in sorted(loaded, key=lambda pair: pair[1].seed):
        groups[row_key(entry[1])].append(entry)
    blocks = {key for key, group in groups.items() if is_block_probe(group[0][1])}
    names = head_names({key: group[0][1] for key, group in groups.items() if key not in blocks})
    rows = [
        Row(models[model_of(r)], names[key], data[data_of(r)], tuple(group))
        for key, group in groups.items()
        if key not in blocks
        for r in (group[0][1],)
    ]
    if not rows:
        raise AudiobatError("All records are linear probes of single blocks: add the record of a head, such as cgp.")
    order = {kind: place for place, kind in enumerate(HEADS)}
    rows.sort(key=lambda row: (row.data, order.get(row.kind, len(order)), natural(row.head), row.model))
    return Collection(tuple(rows), tuple(layers_of(rows, [groups[key] for key in blocks], models, data)))


def summarise(records: Sequence[ResultRecord], name: str) -> Summary:
    """Means over records, and standard deviations over seeds and (their mean) over folds."""
    metrics = [record.metrics[name] for record in records]
    sds = [metric.sd for metric in metrics if metric.sd is not None]
    values = [metric.value for metric in metrics]
    return Summary(
        value=statistics.fmean(values),
        low=statistics.fmean(metric.low for metric in metrics),
        high=statistics.fmean(metric.high for metric in metrics),
        sd_seeds=deviation(values),
        sd_folds=statistics.fmean(sds) if sds else None,
        definition=metrics[0].definition,
    )


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample (n - 1); None of one value, nan if any is."""
    if len(values) < 2:
        return None
    return math.nan if any(map(math.isnan, values)) else statistics.stdev(values)


def settings_of(record: ResultRecord) -> dict[str, Any]:
    """What defines a row besides model and data: the head's settings but for the seed and what a seed chose."""
    left_out = {*SEEDS, "choice", *(CHOSEN if record.preset == "fair" else ())}
    return {name: value for name, value in record.head.items() if name not in left_out}


def row_key(record: ResultRecord) -> Key:
    """Equal for records that differ in their seed alone."""
    return (*model_of(record), *data_of(record), repr(sorted(settings_of(record).items())))


def model_of(record: ResultRecord) -> tuple[str, str | None]:
    """What tells models apart."""
    return record.model.id, record.model.sha256


def data_of(record: ResultRecord) -> tuple[str, str]:
    """What tells data sets apart."""
    return record.data.name, record.data.sha256


def distinct(keys: set[Any]) -> dict[Any, str]:
    """(name, sha256) to a name that no other has: equal names get the start of their sha256."""
    count = Counter(name for name, _ in keys)
    return {key: key[0] if count[key[0]] == 1 else f"{key[0]} ({str(key[1])[:6]})" for key in keys}


def head_names(records: Mapping[Key, ResultRecord]) -> dict[Key, str]:
    """Each head's name; where heads of a kind differ on one data set, with the settings in which they do."""
    kinds: dict[Key, list[Key]] = defaultdict(list)
    for key, record in records.items():
        kinds[(*data_of(record), record.head["kind"])].append(key)
    names = {}
    for keys in kinds.values():
        settings = {key: settings_of(records[key]) for key in keys}
        several = len({model_of(records[key]) for key in keys}) < len(keys)
        fields = list(dict.fromkeys(name for s in settings.values() for name in s))
        differ = [f for f in fields if len({repr(settings[key].get(f)) for key in keys}) > 1] if several else []
        for key in keys:
            kind = records[key].head["kind"]
            names[key] = ", ".join([HEADS.get(kind, kind), *(setting(f, settings[key].get(f)) for f in differ)])
    return names


def setting(name: str, value: Any) -> str:
    """A setting as a head's name shows it."""
    if name == "layer" and value == -1:
        return "last block"
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return UNITS[name].format(value) if name in UNITS and plain else f"{name} {value}"


def is_block_probe(record: ResultRecord) -> bool:
    """Whether it is a linear probe of a block that was named by its number."""
    return bool(record.head["kind"] == "linear" and record.head.get("layer", -1) != -1)


def layers_of(
    rows: Sequence[Row], blocks: Sequence[Sequence[Loaded]], models: Mapping[Any, str], data: Mapping[Any, str]
) -> list[Layers]:
    """The block probes of each model and data set, and the gate of its first CGP row."""
    probes: dict[Key, dict[int, dict[int, ResultRecord]]] = defaultdict(lambda: defaultdict(dict))
    for group in blocks:
        for _, record in group:
            place = (data[data_of(record)], models[model_of(record)])
            probes[place][record.seed][record.head["layer"]] = record
    gates: dict[Key, tuple[tuple[float, ...], ...]] = {}
    for row in rows:
        learned = tuple(tuple(r.gate_weights) for r in row.records if r.gate_weights and len(r.gate_weights) > 1)
        if row.kind == "cgp" and learned:
            gates.setdefault((row.data, row.model), learned)
    last = {(row.data, row.model, r.seed): r for row in rows if row.kind == "linear" for r in row.records}
    curves = []
    for place in sorted({*probes, *gates}):
        depth = max([*map(len, gates.get(place, ())), *map(max, probes[place].values())])
        whole = []
        for seed, found in sorted(probes[place].items()):
            if depth not in found and (*place, seed) in last:
                found[depth] = last[(*place, seed)]  # a probe of the last block is its linear probe
            if sorted(found) == list(range(1, depth + 1)):
                whole.append(tuple(found[block] for block in range(1, depth + 1)))
        curves.append(Layers(place[1], place[0], tuple(whole), gates.get(place, ())))
    return [curve for curve in curves if curve.probes or curve.gates]


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key by which `2 prototypes` comes before `1,000 prototypes`."""
    words = text.replace(",", "").split()
    return [(int(word), "") if word.isdigit() else (0, word) for word in words]
