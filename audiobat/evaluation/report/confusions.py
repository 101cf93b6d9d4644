"""The confusion matrix of a row: its figure, and a table of what each class is taken for."""

from __future__ import annotations

import math
from html import escape

import numpy as np
from matplotlib.figure import Figure

from audiobat.evaluation.confusion import Confusion, confusion_of, plain
from audiobat.evaluation.metrics import wilson
from audiobat.evaluation.record import load_scores
from audiobat.evaluation.report.rows import Row
from audiobat.evaluation.report.style import WIDTH, folded, headline, styled
from audiobat.evaluation.report.web.html import readable, table_html, text_cell

DRAWN = 30  # classes in the figure, at most
NUMBERED = 20  # up to so many lines the cells hold their counts
MISTAKES = 3  # classes that a class is most often taken for, in the table
HEADINGS = ("Class", "Recall, %", "Precision, %", "Clips", "Predicted", "Right", "Most often taken for")
SHARED = (
    "Where clips may have several classes or none, those with a probability above 0.5 are predicted. A missed class "
    "counts, in equal shares, for the classes predicted wrongly for the same clip; where there are none, for no class."
)


def confusion_of_row(row: Row) -> Confusion | None:
    """The matrix of a row's first seed; None where its scores are not kept, or are not of named classes."""
    path, record = row.loaded[0]
    if record.scores is None or not record.per_class:
        return None
    scores = load_scores(path, record)
    return confusion_of(scores, record) if scores.scores.shape[1] == len(record.per_class) else None


@styled
def confusion_figure(title: str, found: Confusion, unit: str = "clips") -> Figure:
    """The matrix, each cell coloured by its share of the row's clips; of many classes those in the most mistakes."""
    classes, wrong = len(found.classes), found.counts.copy()
    np.fill_diagonal(wrong, 0)
    mistaken = (wrong.sum(0) + wrong.sum(1))[:classes]
    chosen = np.sort(np.argsort(-mistaken, kind="stable")[:DRAWN])
    places = chosen if found.exclusive else np.append(chosen, classes)
    counts = found.counts[np.ix_(places, places)]
    totals = found.counts.sum(1)[places]
    names = [folded(readable(found.names[place]), 24, 1) for place in places]
    size = len(places)
    figure = Figure(figsize=(max(WIDTH, 2.6 + 0.3 * size), 2.4 + 0.3 * size))
    ax = figure.subplots()
    shares = counts / np.maximum(totals, 1)[:, None]
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    ax.set_xticks(range(size), names, rotation=90, fontsize=8.5)
    ax.set_yticks(range(size), [f"{name} ({plain(n)})" for name, n in zip(names, totals, strict=True)], fontsize=8.5)
    ax.set(xlabel="predicted", ylabel=f"true ({unit})")
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    ax.grid(True, which="minor", color="#e4e7ea", linewidth=0.6)
    ax.tick_params(which="both", length=0)
    for true, predicted in np.argwhere(counts) if size <= NUMBERED else ():
        ink = "white" if shares[true, predicted] > 0.55 else "black"
        count = counts[true, predicted]
        text = plain(count) if count == round(count) else f"{count:.1f}"
        ax.text(predicted, true, text, ha="center", va="center", fontsize=7.5, color=ink)
    part = "" if classes <= DRAWN else f", the {DRAWN} of {classes} classes with the most mistakes"
    headline(figure, f"{title}: true classes (rows) and predicted ones (columns){part}")
    return figure


def class_lines(found: Confusion) -> list[tuple[str, list[tuple[str, float]], int, int, int]]:
    """Of each class: its name, what it is most often taken for and how often, its clips, predictions and hits."""
    others: dict[int, list[tuple[str, float]]] = {}
    for true, predicted in found.mistakes():
        others.setdefault(true, []).append((found.names[predicted], float(found.counts[true, predicted])))
    numbers = zip(found.classes, found.clips.tolist(), found.predicted.tolist(), found.hits.tolist(), strict=True)
    return [(name, others.get(place, [])[:MISTAKES], *rest) for place, (name, *rest) in enumerate(numbers)]


def classes_html(found: Confusion) -> str:
    """The table of classes, the worst recall first, with Wilson's 95% intervals."""
    lines = sorted(class_lines(found), key=lambda line: (line[4] / line[2] if line[2] else math.inf, -line[2]))
    body = ""
    for name, others, clips, predicted, hits in lines:
        taken = ", ".join(f"{readable(other)} ({plain(count)})" for other, count in others)
        counts = "".join(f'<td data-value="{n}">{n:,}</td>' for n in (clips, predicted, hits))
        shares = share_html(hits, clips) + share_html(hits, predicted)
        body += f"<tr>{text_cell(name)}{shares}{counts}{text_cell(taken)}</tr>"
    return (
        f"{'' if found.exclusive else f'<p class=note>{SHARED}</p>'}"
        "<details><summary>Recall and precision of each class, and what it is taken for</summary>"
        f"{table_html(HEADINGS, body, (HEADINGS[0], HEADINGS[-1]))}"
        f"<p class=note>{escape('In brackets: Wilson’s 95% intervals, as if clips were independent.')}</p></details>"
    )


def share_html(part: int, whole: int) -> str:
    """A share in percent with its interval; empty where it is of nothing."""
    if not whole:
        return '<td data-value="">-</td>'
    low, high = wilson(part / whole, whole)
    share = 100 * part / whole
    return f'<td data-value="{share!r}">{share:.1f} <small>[{100 * low:.1f}, {100 * high:.1f}]</small></td>'
