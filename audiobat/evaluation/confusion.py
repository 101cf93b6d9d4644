"""A head's scores of test clips to the confusion matrix: which class is taken for which.

Where each clip has one class, a line counts its clips by the class that the head finds likeliest. Where clips may have
several classes or none, those with a probability above 0.5 are predicted, and a right one counts on the diagonal. A
missed class counts as taken for the classes that the head predicts wrongly for the same clip, in equal shares; where
there are none, for no class. A wrong class of a clip of which no class is missed is taken from no class. So a class's
line adds up to its clips, and "no class" is the last line and the last column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiobat.data.csv_text import csv_text
from audiobat.evaluation.record import ResultRecord, Scores

CONFUSION = ".confusion.csv"  # ending of the matrix's file, beside the record's .json
NONE = "(no class)"
ROWS = 1 << 16  # of scores at once, so that millions of patch columns fit memory


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of clips, or of patch columns, by their classes and by the predicted ones."""

    classes: tuple[str, ...]
    counts: NDArray[np.float64]  # [C, C], or [C + 1, C + 1] with no class last; a line is a true class
    predicted: NDArray[np.int64]  # [C] clips of which the class is predicted
    exclusive: bool  # each clip has one class, and one is predicted
    none: str = NONE  # what no class is called

    @property
    def names(self) -> tuple[str, ...]:
        """Of the lines and columns of `counts`."""
        return self.classes if self.exclusive else (*self.classes, self.none)

    @property
    def clips(self) -> NDArray[np.int64]:
        """Clips of each class [C]."""
        clips: NDArray[np.int64] = self.counts[: len(self.classes)].sum(1).round().astype(np.int64)
        return clips

    @property
    def hits(self) -> NDArray[np.int64]:
        """Clips of each class of which it is predicted [C]."""
        return self.counts.diagonal()[: len(self.classes)].round().astype(np.int64)

    def mistakes(self) -> list[tuple[int, int]]:
        """The places (true, predicted) off the diagonal that hold something, the fullest first."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        true, predicted = np.nonzero(wrong)
        order = np.argsort(-wrong[true, predicted], kind="stable")
        return list(zip(true[order].tolist(), predicted[order].tolist(), strict=True))

    def csv(self) -> str:
        """The matrix as CSV: a line for each true class, a column for each predicted one."""
        lines = [[name, *map(plain, row)] for name, row in zip(self.names, self.counts.tolist(), strict=True)]
        return csv_text([["true class", *self.names], *lines])


def plain(count: float) -> str:
    """A count without a point where it is whole: `3`, `1.5`, `0.33`."""
    return f"{round(count, 2):g}"


def confusion(scores: Scores, classes: Sequence[str], exclusive: bool) -> Confusion:
    """The confusion matrix of a head's scores (log-odds, or log-probabilities where classes exclude each other).

    Args:
        scores: of the test clips; a clip scored by patch columns counts once for each.
        classes: [C] their names.
        exclusive: whether each clip has one class.
    """
    true, size = scores.targets, len(classes)
    if exclusive:
        labels, guesses = true.argmax(1), scores.scores.argmax(1)
        pairs = np.bincount(labels * size + guesses, minlength=size * size).reshape(size, size)
        return Confusion(tuple(classes), pairs.astype(np.float64), np.bincount(guesses, minlength=size), True)
    counts, predicted = np.zeros((size + 1, size + 1)), np.zeros(size, np.int64)
    for first in range(0, len(true), ROWS):
        rows = slice(first, first + ROWS)
        found = scores.scores[rows] > 0
        missed, wrong = (true[rows] & ~found).astype(np.float64), (found & ~true[rows]).astype(np.float64)
        misses, mistakes = missed.sum(1), wrong.sum(1)
        counts[:size, :size] += missed.T @ (wrong / np.maximum(mistakes, 1)[:, None])
        counts[:size, :size] += np.diag((true[rows] & found).sum(0))
        counts[:size, size] += missed[mistakes == 0].sum(0)
        counts[size, :size] += wrong[misses == 0].sum(0)
        predicted += found.sum(0)
    return Confusion(tuple(classes), counts, predicted, False)


def confusion_of(scores: Scores, record: ResultRecord) -> Confusion:
    """The confusion matrix of a record's scores; classes exclude each other where the record has an accuracy."""
    return confusion(scores, list(record.per_class), exclusive="accuracy" in record.metrics)
