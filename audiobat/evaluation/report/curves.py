"""Records to curves: linear probes of single blocks and the gate weights of CGP (Fig. 4, 6); prototypes (Fig. 2)."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiobat.evaluation.head_names import has_prototypes
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.rows import (
    Key,
    Row,
    Summary,
    data_of,
    deviation,
    model_of,
    natural,
    settings_of,
    summarise,
)


@dataclass(frozen=True, eq=False)
class Layers:
    """One model on one data set, block by block and seed by seed; probes or gates may be missing."""

    model: str
    data: str
    probes: tuple[tuple[ResultRecord, ...], ...]  # for each seed: linear probes of blocks 1 to L
    gates: tuple[tuple[float, ...], ...]  # for each seed: the gate weights of blocks 1 to L

    @property
    def depth(self) -> int:
        """The number of blocks L."""
        return len((*self.probes, *self.gates)[0])

    @property
    def metric(self) -> str:
        """The main metric of the probes; "" without probes."""
        return self.probes[0][0].main_metric if self.probes else ""

    @property
    def values(self) -> list[list[float]]:
        """The probes' metric, [seeds, L]."""
        return [[record.metrics[self.metric].value for record in blocks] for blocks in self.probes]

    @property
    def summaries(self) -> list[Summary]:
        """The probes' metric for each block, over seeds."""
        return [summarise(blocks, self.metric) for blocks in zip(*self.probes, strict=True)]


def is_block_probe(record: ResultRecord) -> bool:
    """Whether it is a linear probe of a block that was named by its number.

    `finetune --features`, which names its block so, too, fits a head that is used.
    """
    head = record.head
    return bool(head["kind"] == "linear" and head.get("layer", -1) != -1 and "fit" not in head)


def layers_of(
    rows: Sequence[Row], blocks: Sequence[ResultRecord], models: Mapping[Any, str], data: Mapping[Any, str]
) -> list[Layers]:
    """The block probes of each model and data set, and the gate of its CGP row with the most seeds and prototypes.

    Block probes of one model that differ in other settings too, such as their learning rates, are curves of their own.
    """
    gates: dict[Key, tuple[tuple[float, ...], ...]] = {}
    for row in sorted(rows, key=lambda row: (len(row.records), row.first.head.get("prototypes", 0))):
        learned = tuple(tuple(r.gate_weights) for r in row.records if r.gate_weights and len(r.gate_weights) > 1)
        if row.kind == "cgp" and learned:
            gates[row.data, row.model] = learned
    families: dict[Key, dict[str, dict[int, dict[int, ResultRecord]]]] = defaultdict(dict)
    for record in blocks:
        family = families[data[data_of(record)], models[model_of(record)]].setdefault(
            rest_of(record), defaultdict(dict)
        )
        family[record.seed][record.head["layer"]] = record
    last: dict[Key, dict[int, ResultRecord]] = defaultdict(dict)
    for row in rows:
        for record in row.records:
            if row.kind == "linear":
                last[row.data, row.model, rest_of(record)][record.seed] = record
    curves = []
    for place in sorted({*families, *gates}, key=lambda place: (place[0], natural(place[1]))):
        gate = gates.get(place, ())
        for number, (rest, found) in enumerate(families.get(place, {"": {}}).items(), start=1):
            depth = max([*map(len, gate), *map(max, found.values())])
            probes = whole_curves(found, depth, last[(*place, rest)])
            name = place[1] if len(families.get(place, ())) < 2 else f"{place[1]}, probes {number}"
            if probes or gate:
                curves.append(Layers(name, place[0], probes, gate))
    return curves


def rest_of(record: ResultRecord, but: str = "layer") -> str:
    """A key that is equal for records whose heads differ in seed and in the setting `but` alone."""
    return repr(sorted((name, value) for name, value in settings_of(record).items() if name != but))


def whole_curves(
    found: Mapping[int, dict[int, ResultRecord]], depth: int, last: Mapping[int, ResultRecord]
) -> tuple[tuple[ResultRecord, ...], ...]:
    """For each seed the probes of blocks 1 to `depth`, the last block's from `last` if need be.

    Seeds that lack a block are left out: a curve with a hole would be read as a whole one.
    """
    curves = []
    for seed, probes in sorted(found.items()):
        # `--layers` probes blocks 1 to L - 1: the probe of the last block is the linear head itself.
        whole = {depth: last[seed], **probes} if seed in last else probes
        if sorted(whole) == list(range(1, depth + 1)):
            curves.append(tuple(whole[block] for block in range(1, depth + 1)))
    return tuple(curves)


def sweeps(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups of rows that differ in their prototypes alone, by their number (Fig. 2)."""
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        if has_prototypes(row.kind) and "prototypes" in row.first.head:
            groups[row.data, row.model, row.kind, rest_of(row.first, "prototypes")].append(row)
    found = [sorted(group, key=lambda row: int(row.first.head["prototypes"])) for group in groups.values()]
    return [group for group in found if len(group) > 1]


def rho_text(curve: Layers) -> str:
    """`ρ +0.83 ± 0.05 (3 seeds)`: Spearman's correlation of probes and gate, or why there is none."""
    found = rhos(curve)
    if not found:
        return "gate weights alone" if curve.gates else "no gate weights"
    if any(map(math.isnan, found)):
        return "Spearman's ρ n/a, as a seed's probes or gates are all equal"
    if len(found) == 1:
        return f"Spearman's ρ {signed(found[0])}, one seed"
    return f"ρ {signed(statistics.fmean(found))} ± {deviation(found):.2f} ({len(found)} seeds)"


def rhos(curve: Layers) -> list[float]:
    """Spearman's correlation of probes and gate by seed; where seeds do not pair up, of each gate and the mean."""
    if not curve.probes or not curve.gates:
        return []
    values = curve.values
    if len(values) != len(curve.gates):  # probes and gates may come from runs with different seeds
        values = [np.mean(values, axis=0).tolist()] * len(curve.gates)
    return [spearman(x, y) for x, y in zip(values, curve.gates, strict=True)]


def signed(value: float) -> str:
    """`+0.83`, with a typographic minus sign; n/a where undefined."""
    return "n/a" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, ties sharing the mean of their ranks; nan if all of one are equal or one is nan."""
    if any(map(math.isnan, (*x, *y))):
        return math.nan
    ranks = []
    for values in (np.asarray(x, dtype=float), np.asarray(y, dtype=float)):
        below = (values[None, :] < values[:, None]).sum(1)
        equal = (values[None, :] == values[:, None]).sum(1)
        ranks.append(below + equal / 2)  # up to a constant
    a, b = (rank - rank.mean() for rank in ranks)
    scale = math.sqrt(float((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else math.nan
