"""Which rows of a data set win, tie and lose against which: paired outcomes where there are any, else by intervals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

from audiobat.evaluation.report.rows import Row

SYMBOLS = {"win": "▲", "tie": "=", "loss": "▼"}
PAIRED = (
    "Won, tied and lost against the other rows of the data set, by main metric: paired bootstrap over the same test "
    "clips; a row wins where the 95% interval of the difference leaves out 0."
)
OVERLAP = (
    "Won, tied and lost against the other rows of the data set, by main metric: as no scores of the same clips lie "
    "beside the records, a row wins where the two 95% intervals do not overlap; a paired test would see more."
)
MIXED = "Some pairs of rows have no scores of the same clips: these are judged by whether their 95% intervals overlap."
SINGLE = "Each pair is judged for itself: audiobat compare corrects for their number."

Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True)
class Duel:
    """What a row does against another one."""

    outcome: Outcome
    paired: bool  # else by overlap of intervals


@dataclass(frozen=True)
class Marks:
    """The duels of all pairs of rows that share a data set, by their places in the list of rows, both ways round."""

    duels: Mapping[tuple[int, int], Duel]

    def tally(self, place: int) -> tuple[int, int, int]:
        """How often the row at `place` won, tied and lost."""
        outcomes = self._outcomes[place]
        return outcomes["win"], outcomes["tie"], outcomes["loss"]

    @cached_property
    def _outcomes(self) -> dict[int, Counter[Outcome]]:
        """How often each row had each."""
        found: dict[int, Counter[Outcome]] = defaultdict(Counter)
        for (place, _), duel in self.duels.items():
            found[place][duel.outcome] += 1
        return found

    @property
    def legend(self) -> str:
        """How they were judged, in words."""
        paired = {duel.paired for duel in self.duels.values()}
        if not paired:
            return "No data set has two rows to compare."
        words = [PAIRED if True in paired else OVERLAP, MIXED if len(paired) == 2 else "", SINGLE]
        return " ".join(filter(None, words))


def mark(rows: Sequence[Row], paired: Mapping[tuple[int, int], Outcome]) -> Marks:
    """The duels of all `rows`; those of `paired` (first row's place below the second's) are taken as they are."""
    duels = {}
    for a, b in pairs(rows):
        outcome = paired.get((a, b)) or by_overlap(rows[a], rows[b])
        duels[a, b] = Duel(outcome, (a, b) in paired)
        duels[b, a] = Duel(turned(outcome), (a, b) in paired)
    return Marks(duels)


def pairs(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Places of two rows of one data set, measured by one metric."""
    for a, b in combinations(range(len(rows)), 2):
        if rows[a].data == rows[b].data and rows[a].main_metric == rows[b].main_metric:
            yield a, b


def by_overlap(a: Row, b: Row) -> Outcome:
    """A win or a loss where the intervals do not touch; an undefined one ties."""
    if a.main.low > b.main.high:
        return "win"
    return "loss" if a.main.high < b.main.low else "tie"


def turned(outcome: Outcome) -> Outcome:
    """As the other row sees it."""
    return {"win": "loss", "tie": "tie", "loss": "win"}[outcome]  # type: ignore[return-value]
