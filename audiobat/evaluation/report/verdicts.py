"""Which rows of a data set win, tie and lose: by a paired bootstrap where scores are kept, else by intervals.

A row wins where the 95% interval of the difference in its data set's main metric is on its side of 0. Each pair is
judged alone: `audiobat compare` corrects for the number of pairs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

from audiobat.engine.progress import Progress
from audiobat.evaluation.compare import resample
from audiobat.evaluation.compare_records import Entry
from audiobat.evaluation.metrics import interval_of_difference
from audiobat.evaluation.report.rows import Row

SAMPLES = 1000  # resamples of the test clips
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

Verdict = Literal["win", "tie", "loss"]
REVERSED: dict[Verdict, Verdict] = {"win": "loss", "tie": "tie", "loss": "win"}


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on all pairs of rows that share a data set, by their places in the list of rows, both ways round."""

    of_pairs: Mapping[tuple[int, int], Verdict]
    paired: frozenset[bool]  # how pairs were judged: by paired bootstrap (True), by overlap of intervals (False)

    def tally(self, place: int) -> tuple[int, int, int]:
        """How often the row at `place` won, tied and lost."""
        counts = self._counts[place]
        return counts["win"], counts["tie"], counts["loss"]

    @cached_property
    def _counts(self) -> dict[int, Counter[Verdict]]:
        found: dict[int, Counter[Verdict]] = defaultdict(Counter)
        for (place, _), verdict in self.of_pairs.items():
            found[place][verdict] += 1
        return found

    @property
    def legend(self) -> str:
        """How the pairs were judged, as a note below a table."""
        if not self.paired:
            return "No data set has two rows to compare."
        mixed = [MIXED] if len(self.paired) == 2 else []
        return " ".join([PAIRED if True in self.paired else OVERLAP, *mixed, SINGLE])


def judge(rows: Sequence[Row], paired: Mapping[tuple[int, int], Verdict]) -> Verdicts:
    """The verdicts on all `rows`: those of `paired` as they are, the others by overlap of intervals.

    Args:
        rows: of any data sets; rows of different data sets, tasks or main metrics are not compared.
        paired: verdicts of `paired_verdicts`, by the places of the two rows, the lower first.
    """
    found: dict[tuple[int, int], Verdict] = {}
    ways = set()
    for (a, one), (b, other) in combinations(enumerate(rows), 2):
        if judged_by(one) == judged_by(other):
            above, below = one.main.low > other.main.high, one.main.high < other.main.low  # neither if undefined
            above, below = (below, above) if one.main.lower_is_better else (above, below)
            verdict: Verdict = paired.get((a, b)) or ("win" if above else "loss" if below else "tie")
            found[a, b], found[b, a] = verdict, REVERSED[verdict]
            ways.add((a, b) in paired)
    return Verdicts(found, frozenset(ways))


def judged_by(row: Row) -> tuple[str, str, str]:
    """What two rows must share to be compared: the data set, the task, and the metric."""
    return row.data, row.task, row.main_metric


def paired_verdicts(rows: Sequence[Row]) -> dict[tuple[int, int], Verdict]:
    """Verdicts on the pairs of rows whose records all keep scores of the same test clips.

    Each row's main metric is computed in the same resamples of the clips, as the mean over its seeds.

    Raises:
        AudiobatError: scores that are not the record's, or of other clips than those of the data set's first row.
    """
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if all(record.scores is not None or record.values is not None for record in row.records):
            groups[judged_by(row)].append(place)
    rivals = [places for places in groups.values() if len(places) > 1]
    verdicts: dict[tuple[int, int], Verdict] = {}
    with Progress("compare", total=sum(map(len, rivals)), unit="row", shown=bool(rivals)) as bar:
        for places in rivals:
            seeds = [[Entry(*one) for one in rows[place].loaded] for place in places]
            found = resample(seeds, rows[places[0]].main_metric, SAMPLES)
            values = {place: resampled for place, (_, resampled) in zip(places, found, strict=True)}
            bar.advance(len(places))
            for a, b in combinations(places, 2):
                difference = rows[a].main.value - rows[b].main.value
                low, high, _ = interval_of_difference(difference, values[a] - values[b])
                above: Verdict = "win" if low > 0 else "loss" if high < 0 else "tie"
                verdicts[a, b] = REVERSED[above] if rows[a].main.lower_is_better else above
    return verdicts
