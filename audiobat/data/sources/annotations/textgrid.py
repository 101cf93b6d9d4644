"""Praat's TextGrids: the intervals of a tier that have a text, from the long and from the short form.

As Praat does, this reads the numbers and the quoted texts that stand free, in their order, and no word between them: so
both forms are the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from audiobat.data.sources.annotations.rows import Annotations, Row, check_span
from audiobat.errors import AudiobatError, did_you_mean

FREE = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)([-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)(?!\S)')
INTERVALS, POINTS = "IntervalTier", "TextTier"

Tier = list[tuple[float, float, str]]


def is_textgrid(text: str) -> bool:
    """Whether a text begins as Praat's objects do, and is a TextGrid."""
    return [found[1] for found in FREE.finditer(text[:200])][:2] == ["ooTextFile", "TextGrid"]


def read_textgrid(path: Path, text: str, tier: str | None = None) -> Annotations:
    """The labelled intervals of the tier that is named, or of the only one that has any; points have no length.

    Raises:
        AudiobatError: no tier of that name, several with labels and none named, a file that ends early.
    """
    tokens = (found[1] if found[1] is not None else float(found[2]) for found in FREE.finditer(text))
    try:
        tiers = _tiers(tokens)
    except (StopIteration, ValueError):
        raise AudiobatError(f"{path} is no whole TextGrid: save it again with Praat.") from None
    filled = {name: rows for name, rows in tiers.items() if rows}
    if tier is not None:
        if tier not in tiers:
            listed = ", ".join(tiers) or "none"
            raise AudiobatError(
                f"{path} has no tier {tier!r} of intervals{did_you_mean(tier, tiers)}: it has {listed}."
            )
        filled = {tier: tiers[tier]}
    if len(filled) > 1:
        raise AudiobatError(f"{path} has labels in the tiers {', '.join(filled)}: choose one with --label-column.")
    intervals = next(iter(filled.values()), [])
    rows: list[Row] = []
    for number, (onset, offset, label) in enumerate(intervals, start=1):
        check_span(path, number, onset, offset)
        rows.append(Row("", onset, offset, label, line=number))
    return Annotations(path, "Praat", rows)


def _tiers(tokens: Iterator[str | float]) -> dict[str, Tier]:
    """The intervals with a text, by the name of their tier; a StopIteration or ValueError if it ends early."""
    next(tokens), next(tokens)  # what the file is
    start, _, count = _number(tokens), _number(tokens), int(_number(tokens))
    tiers: dict[str, Tier] = {}
    for _ in range(count):
        kind, name = next(tokens), str(next(tokens))
        _number(tokens), _number(tokens)
        rows: Tier = tiers.setdefault(name, []) if kind == INTERVALS else []
        for _ in range(int(_number(tokens))):
            times = [_number(tokens) - start for _ in range(2 if kind == INTERVALS else 1)]
            text = " ".join(str(next(tokens)).replace('""', '"').split())
            if text:
                rows.append((times[0], times[-1], text))
    return tiers


def _number(tokens: Iterator[str | float]) -> float:
    token = next(tokens)
    if isinstance(token, str) or not math.isfinite(token):
        raise ValueError
    return token
