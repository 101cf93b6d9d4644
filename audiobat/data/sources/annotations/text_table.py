"""Text with a header to columns: separated by tabs as Raven writes it, by commas or by semicolons."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiobat.data.csv_text import unescape
from audiobat.errors import AudiobatError

SEPARATORS = "\t,;"
QUOTE = '"'
NEEDS_QUOTES = re.compile('.(,|"").*.')  # inside quotes
LINE_END = re.compile(r"\r\n|\r|\n")  # and no other: a label may hold U+2028


@dataclass(frozen=True)
class TextTable:
    """The cells of a table."""

    path: Path
    names: tuple[str, ...]  # the columns, as the header writes them
    columns: dict[str, list[str]]  # by their names in lower case
    lines: list[int]  # of the rows in the file, from 1

    def find(self, name: str) -> list[str] | None:
        """The cells of a column, whose name may be in any case; None if there is none."""
        return self.columns.get(plain_name(name))


def plain_name(name: str) -> str:
    """The name of a column as names are compared: in lower case, without Kaleidoscope's asterisk."""
    return name.strip().strip("*").strip().lower()


def read_text(path: Path, most: int = -1) -> str:
    """The text of a file's first `most` bytes (-1: all), in UTF-8, or in UTF-16 with a mark that says so.

    Bytes that are neither come as surrogates, which `check_text` refuses.
    """
    with path.open("rb") as file:
        data = file.read(most)
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(encoding, errors="surrogateescape" if encoding == "utf-8-sig" else "replace")


def check_text(path: Path, text: str) -> None:
    """Raise an AudiobatError if a text that `read_text` gave is not all UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n") + 1
        raise AudiobatError(f"{path}, row {line}: it is not text in UTF-8: save the file in that encoding.") from None


def header_of(text: str, separator: str) -> list[str]:
    """The names in the first line of a table that holds anything."""
    first = LINE_END.split(text.lstrip("\r\n"), maxsplit=1)[0]
    return [_unquote(name.strip()) for name in first.split(separator)]


def separator_of(text: str, fits: Callable[[Sequence[str]], object]) -> str | None:
    """What separates the cells of a table whose header, in lower case, fits; None if it does not, whatever does."""
    return next((mark for mark in SEPARATORS if fits([plain_name(name) for name in header_of(text, mark)])), None)


def parse_table(path: Path, text: str, separator: str) -> TextTable:
    """The columns of a table; cells that are missing at the end of a row are empty.

    Raises:
        AudiobatError: a row with more cells than the header has names, two columns of one name, quotes without an end,
            a text that is not UTF-8.
    """
    check_text(path, text)
    names = header_of(text, separator)
    if twice := [name for name, count in Counter(map(plain_name, names)).items() if count > 1 and name]:
        raise AudiobatError(f"{path} has several columns `{twice[0]}`: rename all but one of them.")
    cells: list[list[str]] = [[] for _ in names]
    lines: list[int] = []
    for line, row in _rows(path, text, separator):
        if not any(cell.strip() for cell in row):
            continue
        if any(cell.strip() for cell in row[len(names) :]):
            raise AudiobatError(
                f"{path}, row {line}, has {len(row)} cells for {len(names)} columns: quote what holds the separator."
            )
        lines.append(line)
        for place, column in enumerate(cells):
            column.append(row[place].strip() if place < len(row) else "")
    return TextTable(path, tuple(names), dict(zip(map(plain_name, names), cells, strict=True)), lines)


def _rows(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """The cells of each row below the header, with its line.

    Where tabs separate, quotes are letters, as Raven writes them: one in a label must not swallow the rows behind it.
    But R quotes every text, the header too, and pandas and Excel what holds a quote or a comma.
    """
    table = text.lstrip("\r\n")
    above = len(LINE_END.findall(text[: len(text) - len(table)]))  # empty lines before the header
    if separator == "\t":
        all_quoted = table.startswith(QUOTE)
        split = (line.split("\t") for line in LINE_END.split(table))
        rows = ([_unquote(cell) if all_quoted or NEEDS_QUOTES.search(cell) else cell for cell in row] for row in split)
        return list(enumerate(rows, start=above + 1))[1:]
    reader = csv.reader(io.StringIO(table, newline=""), delimiter=separator, strict=True)
    try:
        return [(above + reader.line_num, list(map(unescape, row))) for row in reader][1:]
    except csv.Error as error:
        line = above + reader.line_num
        raise AudiobatError(f"{path} is no valid CSV after line {line} ({error}): fix its quotes.") from None


def _unquote(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == QUOTE else cell
