"""Rows to CSV that a spreadsheet can open without running what a name or a label holds, and such cells back.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, which may send data away or start a
program. Such text gets an apostrophe before it, and is text there; numbers stay as they are. Every CSV that is written
goes through here, and the reader of lists takes the apostrophe off again, so that names come back as they were.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import TextIO

# Spreadsheets drop space before a formula, and some take the wide signs of Chinese and Japanese keyboards for the plain
# ones. Apostrophes before it count too: else a name that has one of its own would not come back.
FORMULA = re.compile(r"'*([\t\r\n]|\s*[-=+@＝＋－＠])")
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def write_csv(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Write rows of cells to a file that was opened with `newline=""`."""
    csv.writer(file).writerows([escape(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows of cells as the text of a CSV."""
    file = io.StringIO(newline="")
    write_csv(file, rows)
    return file.getvalue()


def escape(text: str) -> str:
    """The text as a cell: after an apostrophe if a spreadsheet could take it for a formula."""
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def unescape(cell: str) -> str:
    """The text of a cell that `escape` made."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
