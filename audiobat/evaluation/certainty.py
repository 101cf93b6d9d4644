"""Result records to what readers should know of their numbers: how sure intervals are, which classes are rare.

Coverage is how often an interval holds what endless test clips would give. It was measured on simulated test sets
(`benchmarks/coverage.py`); `benchmarks/README.md` has the tables.
"""

from __future__ import annotations

from collections.abc import Iterable

from audiobat.evaluation.record import ResultRecord

FEW = 5  # test clips; the precision of a class that fewer have depends much on chance
RARE_MARK = "†"
COVERAGE = {  # by `Metric.interval`
    "wilson": "Accuracy has Wilson's interval, which held the truth in 93 to 97% of simulated test sets of 60 clips or "
    "more.",
    "halves": "Intervals from halves of the test clips held the true mAP in 92 to 98% of simulated test sets; where "
    "classes had few positives, mAP in 92 to 97% and AUC in 83 to 94%.",
    "units": "Intervals of tasks, from halves of their queries, pairs or clips, held the truth in 93 to 98% of "
    "simulated test sets of 30 or more (of pairs in 92% for 200 clips and 79% for 40); that of V-measure, which few "
    "clips lift, is about other clips of the same number.",
    "bootstrap": "Basic bootstrap intervals, of older records, held the true mAP in 80 to 94% of simulated test sets; "
    "where classes had few positives, in 68 to 88%.",
}


def interval_note(records: Iterable[ResultRecord]) -> str:
    """Sentences for below a table: how the 95% intervals of these records were made, and how often such ones hold."""
    kinds = {metric.interval for record in records for metric in record.metrics.values()}
    return " ".join(sentence for kind, sentence in COVERAGE.items() if kind in kinds)


def rare_classes(record: ResultRecord) -> list[str]:
    """Classes that some test clips have, but fewer than `FEW`; none where an older record does not count them."""
    return [label for label, clips in (record.positives or {}).items() if 0 < clips < FEW]


def rare_note(records: Iterable[ResultRecord]) -> str:
    """Sentences for below a table: how many classes of each data set are rare in its test clips; "" if none is."""
    counts = {record.data.name: (len(rare_classes(record)), record.data.classes_present) for record in records}
    return " ".join(
        f"{data}: {rare} of {present} classes have fewer than {FEW} positive test clips, and mAP counts them in full."
        for data, (rare, present) in counts.items()
        if rare
    )
