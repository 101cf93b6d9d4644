"""Files of result records to all that a report shows: rows for tables, and curves over blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from audiobat.errors import AudiobatError
from audiobat.evaluation.head_names import head_order
from audiobat.evaluation.record import find_records, load_record
from audiobat.evaluation.report.curves import Layers, is_block_probe, layers_of
from audiobat.evaluation.report.rows import (
    Key,
    Loaded,
    Row,
    data_of,
    distinct,
    head_names,
    model_of,
    natural,
    row_key,
)

NONE_ASKED: Mapping[tuple[str, str], str] = MappingProxyType({})
NAMED = "name folders that `probe`, `finetune`, `pretrain` or `suite` wrote, or result records"


@dataclass(frozen=True)
class Collection:
    """All that a report shows."""

    rows: tuple[Row, ...]
    layers: tuple[Layers, ...]

    @property
    def data_sets(self) -> list[str]:
        """Names of data sets, in the order of the tables."""
        return list(dict.fromkeys(row.data for row in self.rows))


def load_all(sources: Iterable[str | Path]) -> list[Loaded]:
    """The records of files and folders with their paths, each file once.

    Raises:
        AudiobatError: nothing there, a record that cannot be read, or two files that record the same probe.
    """
    paths: dict[Path, None] = {}  # resolved, as a folder and a file in it may both be named
    for source in sources:
        if not Path(source).exists():
            raise AudiobatError(f"{source} is not there: {NAMED}.")
        paths |= dict.fromkeys(path.resolve() for path in find_records(source))
    if not paths:
        raise AudiobatError(f"RUNS is empty: {NAMED}.")
    loaded = [(path, load_record(path)) for path in paths]
    seen: dict[Key, Path] = {}
    for path, record in loaded:
        key = (*row_key(record), record.seed, record.head.get("order_seed"))
        if key in seen:
            raise AudiobatError(
                f"{seen[key]} and {path} record the same model, data, head and seed twice: leave one of them out."
            )
        seen[key] = path
    return loaded


def collect(loaded: Sequence[Loaded], metrics: Mapping[tuple[str, str], str] = NONE_ASKED) -> Collection:
    """Rows in the order data set, head, model; linear probes of single blocks become curves, no rows.

    `metrics` has the main metric of rows by the name of their data set and the kind of their head, where it is not that
    of their records.

    Raises:
        AudiobatError: nothing but linear probes of single blocks.
    """
    models = distinct({(r.model.id, r.model.sha256) for _, r in loaded})
    data = distinct({(r.data.name, r.data.sha256) for _, r in loaded})
    groups: dict[Key, list[Loaded]] = defaultdict(list)
    for entry in sorted(loaded, key=lambda pair: pair[1].seed):
        groups[row_key(entry[1])].append(entry)
    blocks = {key for key, group in groups.items() if is_block_probe(group[0][1])}
    names = head_names({key: group[0][1] for key, group in groups.items() if key not in blocks})
    rows = [
        Row(
            models[model_of(r)],
            names[key],
            data[data_of(r)],
            tuple(group),
            metrics.get((r.data.name, r.head["kind"]), ""),
        )
        for key, group in groups.items()
        if key not in blocks
        for r in (group[0][1],)
    ]
    if not rows:
        raise AudiobatError("All records are linear probes of single blocks: add the record of a head, such as cgp.")
    rows.sort(key=lambda row: (row.data, head_order(row.kind), natural(row.head), natural(row.model)))
    probes = [record for key in blocks for _, record in groups[key]]
    return Collection(tuple(rows), tuple(layers_of(rows, probes, models, data)))
