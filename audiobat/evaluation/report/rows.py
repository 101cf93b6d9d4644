"""Rows of tables: one model under one head on one data set, and the names of models, heads and metrics in tables.

Records that differ in their seed alone are one row, whose numbers are the means over them.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from audiobat.evaluation.compare_records import SEEDS, task_of
from audiobat.evaluation.head_names import has_prototypes, head_title
from audiobat.evaluation.record import ResultRecord

METRIC_NAMES = {
    "map": "mAP",
    "map_all": "mAP, all classes",
    "cmap5": "cmAP5",
    "accuracy": "Accuracy",
    "f1": "F1",
    "f1_best": "F1, best threshold",
    "f1_top": "F1, top class",
    "auc": "AUC",
    "d_prime": "d′",
    "map_micro": "mAP, micro",
    "onset_f1": "Onset F1",
    "ndcg_at_10": "nDCG@10",
    "map_at_1000": "MAP@1000",
    "recall_at_10": "Recall@10",
    "hit_rate_at_5": "Hit rate@5",
    "hit_rate_at_1": "Hit rate@1",
    "ap": "AP of pairs",
    "accuracy_best": "Accuracy, best threshold",
    "ap_max": "AP of pairs, best similarity",
    "v_measure": "V-measure",
    "v_measure_chance": "V-measure, by chance",
    "f1_macro": "F1, macro",
    "r2": "R²",
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "kendall": "Kendall τ",
    "rmse": "RMSE",
    "wer": "WER",
    "cer": "CER",
    "wer_beam": "WER, beam",
    "cer_beam": "CER, beam",
}  # in the order of tables
NO_SHARES = (
    "d_prime",
    "r2",
    "pearson",
    "spearman",
    "kendall",
    "rmse",
)  # shown as they are; all others are shares, in percent
CHOSEN = {"lr", "weight_decay"}  # the settings that the preset `fair` chooses for each seed
UNITS = {
    "prototypes": "{:,} prototypes",
    "steps": "{:,} steps",
    "warmup_steps": "{:,} warm-up steps",
    "selection": "{} weights",
    "layer": "block {}",
    "lr": "lr {:g}",
    "weight_decay": "weight decay {:g}",
}

Loaded: TypeAlias = tuple[Path, ResultRecord]
Key: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Summary:
    """A metric of one row: means over its seeds, and its spread."""

    value: float
    low: float  # 95% interval over test clips, its ends averaged over seeds
    high: float
    sd_seeds: float | None  # None: one seed
    sd_folds: float | None  # None: no folds
    definition: str
    lower_is_better: bool = False

    def beats(self, other: float) -> bool:
        """Whether it is better than another value; of values that are undefined neither is."""
        return self.value < other if self.lower_is_better else self.value > other


@dataclass(frozen=True, eq=False)
class Row:
    """One model under one head on one data set, with a record for each seed."""

    model: str
    head: str  # its title, with the settings in which it differs from other heads of its kind
    data: str
    loaded: tuple[Loaded, ...]
    metric: str = ""  # that was asked for as the main one; "": none was

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
        """Kind of its head."""
        return str(self.first.head["kind"])

    @property
    def task(self) -> str:
        """Kind of the task; "" for a head."""
        return task_of(self.first)

    @property
    def main_metric(self) -> str:
        """The metric that it shows where there is room for one: that which was asked for, else that of its records."""
        return self.metric if self.metric in self.summaries else self.first.main_metric

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Every metric that all of its records hold, by name."""
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


def metric_title(name: str) -> str:
    """A metric as tables name it."""
    return METRIC_NAMES.get(name, name)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """The rows by their main metric, the best first, rows whose metric is undefined last."""

    def place(row: Row) -> float:
        value = row.main.value
        return math.inf if math.isnan(value) else value if row.main.lower_is_better else -value

    return sorted(rows, key=place)


def summarise(records: Sequence[ResultRecord], name: str) -> Summary:
    """Means over records, and standard deviations over seeds and (their mean) over folds."""
    # An interval over clips and a spread over seeds are two things: the one is averaged, the other stands beside it.
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
        lower_is_better=metrics[0].lower_is_better,
    )


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample (n - 1); None of one value, nan if any is."""
    if len(values) < 2:
        return None
    return math.nan if any(map(math.isnan, values)) else statistics.stdev(values)


def settings_of(record: ResultRecord) -> dict[str, Any]:
    """The settings of the head that define a row: all but its seeds, and what was chosen for each seed."""
    left_out = {*SEEDS, "name", "choice", "selected", *(CHOSEN if record.preset == "fair" else ())}
    if not has_prototypes(record.head["kind"]):  # records hold their number for every head
        left_out.add("prototypes")
    return {name: value for name, value in record.head.items() if name not in left_out}


def row_key(record: ResultRecord) -> Key:
    """A key that is equal for records that differ in their seed alone."""
    return (*model_of(record), *data_of(record), repr(sorted(settings_of(record).items())))


def model_of(record: ResultRecord) -> tuple[str, str | None]:
    """The key of a record's model: two models may have one name."""
    return record.model.id, record.model.sha256


def data_of(record: ResultRecord) -> tuple[str, str]:
    """The key of a record's data set: two tables of clips may have one name."""
    return record.data.name, record.data.sha256


def distinct(keys: set[Any]) -> dict[Any, str]:
    """(name, sha256) to a name of its own: equal names get the start of their sha256."""
    count = Counter(name for name, _ in keys)
    return {key: key[0] if count[key[0]] == 1 else f"{key[0]} ({str(key[1])[:6]})" for key in keys}


def head_names(records: Mapping[Key, ResultRecord]) -> dict[Key, str]:
    """The name of the head of each row; where heads of a kind differ on one data set, with the settings that differ.

    Presets stand for their settings, of which only those follow that differ under one preset.
    """
    kinds: dict[Key, list[Key]] = defaultdict(list)
    for key, record in records.items():
        kinds[(*data_of(record), record.head["kind"])].append(key)
    names = {}
    for keys in kinds.values():
        settings = {key: settings_of(records[key]) for key in keys}
        # Where each model has one head of the kind, its title is enough, whatever the settings.
        several = len({model_of(records[key]) for key in keys}) < len(keys)
        presets = {key: records[key].preset for key in keys}
        if "custom" in presets.values():  # which stands for no settings
            presets = dict.fromkeys(keys, "custom")
        alike = [
            [settings[key] for key in keys if presets[key] == preset] for preset in dict.fromkeys(presets.values())
        ]
        fields = list(dict.fromkeys(name for s in settings.values() for name in s))
        differ = [f for f in fields if any(len({repr(s.get(f)) for s in group}) > 1 for group in alike) and several]
        for key in keys:
            title = head_title(records[key].head["kind"])
            if several and len(alike) > 1:
                title += f", {presets[key]}"
            names[key] = ", ".join([title, *(setting(f, settings[key].get(f)) for f in differ)])
    return names


def setting(name: str, value: Any) -> str:
    """A setting as a head's name shows it."""
    if name == "layer" and value == -1:
        return "last block"
    plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    return UNITS[name].format(value) if name in UNITS and plain else f"{name} {value}"


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key by which `K = 20` comes before `K = 1,000`."""
    parts = re.split(r"(\d+)", text.replace(",", ""))
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts if part]
