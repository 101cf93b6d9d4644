"""Audacity's label tracks: a line for each label, `onset TAB offset TAB text`, and lines of frequencies below some.

BirdNET-Analyzer's tracks have the score as a fourth cell. A line that begins with a backslash holds the lowest and the
highest frequency of the label above it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from audiobat.data.sources.annotations.rows import Annotations, Row, check_span, parse_seconds
from audiobat.data.sources.annotations.text_table import LINE_END, check_text
from audiobat.errors import AudiobatError

FREQUENCIES = "\\"
TIME = re.compile(r"\s*-?[0-9]+([.,][0-9]*)?([eE][-+]?[0-9]+)?\s*")  # decimal commas too: they are refused, with a hint


def is_track(text: str) -> bool:
    """Whether the first line that holds anything has two times and a tab between them."""
    first = next((line for line in LINE_END.split(text) if line.strip()), "")
    cells = first.split("\t")
    return len(cells) > 1 and all(TIME.fullmatch(cell) for cell in cells[:2])


def read_track(path: Path, text: str) -> Annotations:
    """The labels of a track.

    Raises:
        AudiobatError: a line without two times and a label, a label that spans nothing.
    """
    check_text(path, text)
    rows: list[Row] = []
    for line, content in enumerate(LINE_END.split(text), start=1):
        cells = content.split("\t")
        if not content.strip() or cells[0].strip() == FREQUENCIES:
            continue
        if len(cells) < 2:
            raise AudiobatError(
                f"{path}, row {line}: it is no label, onset, offset and text with tabs between: remove it."
            )
        onset, offset = (
            parse_seconds(path, line, name, cell) for name, cell in zip(("onset", "offset"), cells, strict=False)
        )
        check_span(path, line, onset, offset)
        score = math.nan
        if len(cells) > 3 and TIME.fullmatch(cells[-1]):
            score = parse_seconds(path, line, "score", cells.pop())
        label = " ".join(cells[2:]).strip()
        if not label:
            raise AudiobatError(f"{path}, row {line}: the label has no text: name its class, or remove it.")
        rows.append(Row("", onset, offset, label, score, line))
    return Annotations(path, "Audacity", rows)
