"""Rows of models on several data sets, and the verdicts on them, to the models' standings over all data sets.

A column is one head on one data set. Ranks count the columns that all models have, and each data set once: where it has
several columns, models are ranked by the mean of their ranks in these. So the ranks of data sets are independent of one
another, as Friedman's test asks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.evaluation.metrics import Friedman, critical_difference, friedman, groups_alike, ranks_of
from audiobat.evaluation.report.rows import Row, Summary, natural, settings_of
from audiobat.evaluation.report.verdicts import Verdicts


@dataclass(frozen=True, order=True)
class Column:
    """One head on one data set, by the metric that the data set's rows are judged by."""

    data: str
    head: str
    metric: str


@dataclass(frozen=True)
class Duel:
    """One model against another, over the columns that both have."""

    won: int = 0  # by the verdicts on their rows
    tied: int = 0
    lost: int = 0
    higher: float = 0.0  # columns in which its value is the better one; equal values count half

    @property
    def columns(self) -> int:
        """How many both have."""
        return self.won + self.tied + self.lost

    def __add__(self, other: Duel) -> Duel:
        return Duel(self.won + other.won, self.tied + other.tied, self.lost + other.lost, self.higher + other.higher)


@dataclass(frozen=True, eq=False)
class Standings:
    """The models, the best mean rank first, with their values in every column, and their duels."""

    models: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[str, Column], Summary]
    duels: Mapping[tuple[str, str], Duel]  # of every two models, both ways round
    verdicts: Verdicts
    mean_ranks: Mapping[str, float]  # empty where no column is there for all models
    ranked: tuple[str, ...]  # the data sets that the ranks are over
    left_out: tuple[Column, ...]  # columns that a model lacks
    unlike: Mapping[Column, tuple[str, ...]]  # the settings in which models were not measured alike
    test: Friedman | None  # None: fewer than three models or two data sets
    difference: float | None  # of two mean ranks, that is more than chance; None: fewer than two data sets

    def total(self, model: str) -> Duel:
        """All of a model's duels together."""
        return sum((duel for (one, _), duel in self.duels.items() if one == model), Duel())

    @property
    def alike(self) -> list[tuple[int, int]]:
        """The places in `models` of the first and last of those whose mean ranks do not differ by more than chance."""
        ranks = list(self.mean_ranks.values())
        return groups_alike(ranks, self.difference) if self.difference is not None else []


def standings_of(rows: Sequence[Row], verdicts: Verdicts) -> Standings | None:
    """The standings of the models of rows; None for a single model or a single data set, which need none."""
    models = sorted({row.model for row in rows}, key=natural)
    if len(models) < 2 or len({row.data for row in rows}) < 2:
        return None
    cells: dict[tuple[str, Column], Summary] = {}
    places: dict[tuple[str, Column], int] = {}
    settings: dict[Column, list[dict[str, Any]]] = defaultdict(list)
    for place, row in enumerate(rows):
        key = row.model, column_of(row)
        cells[key], places[key] = row.main, place
        settings[key[1]].append(settings_of(row.first))
    columns = tuple(dict.fromkeys(column for _, column in cells))
    complete = [c for c in columns if all(is_known(cells.get((model, c))) for model in models)]
    ranks = ranks_by_data(models, complete, cells)
    table = np.array(list(ranks.values())) if ranks else np.zeros((0, len(models)))  # [n, k]
    mean_ranks = dict(zip(models, table.mean(0).tolist(), strict=True)) if ranks else {}
    enough = len(ranks) > 1
    return Standings(
        models=tuple(sorted(models, key=lambda model: mean_ranks.get(model, math.inf))),
        columns=columns,
        cells=cells,
        duels=duels_of(models, columns, cells, places, verdicts),
        verdicts=verdicts,
        mean_ranks=dict(sorted(mean_ranks.items(), key=lambda pair: pair[1])),
        ranked=tuple(ranks),
        left_out=tuple(c for c in columns if c not in complete),
        unlike={column: names for column, some in settings.items() if (names := differing(some))},
        test=friedman(table) if enough and len(models) > 2 else None,
        difference=critical_difference(len(models), len(ranks)) if enough else None,
    )


def column_of(row: Row) -> Column:
    """The column that a row's value stands in."""
    return Column(row.data, row.head, row.main_metric)


def differing(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of the settings that are not the same everywhere."""
    names = dict.fromkeys(name for some in settings for name in some)
    return tuple(name for name in names if len({repr(some.get(name)) for some in settings}) > 1)


def is_known(summary: Summary | None) -> bool:
    """Whether a cell was measured, and its value is defined."""
    return summary is not None and not math.isnan(summary.value)


def ranks_by_data(
    models: Sequence[str], columns: Sequence[Column], cells: Mapping[tuple[str, Column], Summary]
) -> dict[str, NDArray[np.float64]]:
    """The ranks of all models [k] on each data set, 1 for the best."""
    by_data: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for column in columns:
        found = [cells[model, column] for model in models]
        values = np.array([-s.value if s.lower_is_better else s.value for s in found])
        by_data[column.data].append(ranks_of(values[None])[0])
    return {data: ranks_of(-np.mean(ranks, axis=0, keepdims=True))[0] for data, ranks in by_data.items()}


def duels_of(
    models: Sequence[str],
    columns: Sequence[Column],
    cells: Mapping[tuple[str, Column], Summary],
    places: Mapping[tuple[str, Column], int],
    verdicts: Verdicts,
) -> dict[tuple[str, str], Duel]:
    """Every two models over the columns that both have, both ways round."""
    found: dict[tuple[str, str], Duel] = {}
    for a, b in combinations(models, 2):
        ours = theirs = Duel()
        for column in columns:
            one, other = cells.get((a, column)), cells.get((b, column))
            if one is None or other is None:
                continue
            verdict = verdicts.of_pairs[places[a, column], places[b, column]]
            won, lost = int(verdict == "win"), int(verdict == "loss")
            above, below = float(one.beats(other.value)), float(other.beats(one.value))
            above, below = (above, below) if above + below else (0.5, 0.5)
            ours += Duel(won, 1 - won - lost, lost, above)
            theirs += Duel(lost, 1 - won - lost, won, below)
        found[a, b], found[b, a] = ours, theirs
    return found
