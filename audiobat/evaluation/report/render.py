"""A grid to Markdown, LaTeX (booktabs) and CSV, with text from records escaped; and plain lines to a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from audiobat.data.csv_text import csv_text
from audiobat.evaluation.report.paper_tables import Cell, Grid, Number

LATEX = {c: f"\\{c}" for c in "{}$&%#_"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # after a line's end, a bracket would be taken for its argument
    "]": "{]}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "ˢ": r"\textsuperscript{s}",
    "ᶠ": r"\textsuperscript{f}",
}
MARKDOWN = r"\`*_[]<>|"


def percent(value: float, digits: int = 2) -> str:
    """A fraction in percent, without the sign; n/a where undefined."""
    return "n/a" if math.isnan(value) else f"{100 * value:.{digits}f}"


def spread(number: Number) -> str:
    """`±0.21ˢ ±1.10ᶠ `: standard deviations over seeds and over folds, as far as there are any."""
    sds = ((number.summary.sd_seeds, "ˢ"), (number.summary.sd_folds, "ᶠ"))
    return "".join(f"±{percent(sd)}{letter} " for sd, letter in sds if sd is not None)


def interval(number: Number) -> str:
    """`[35.1, 39.9]`."""
    return f"[{percent(number.summary.low, 1)}, {percent(number.summary.high, 1)}]"


def tally(number: Number) -> str:
    """` 3/1/0`: won, tied, lost."""
    return "" if number.tally is None or not any(number.tally) else " " + "/".join(map(str, number.tally))


def markdown(grid: Grid) -> str:
    """A Markdown table under its caption, notes below; a section's heading is a line of its own."""
    spans = [text for text, count in grid.upper for _ in range(count)]
    lower = [f"{over}: {text}" if over else text for over, text in zip(spans, grid.lower, strict=True)]
    lines: list[list[str]] = []
    for section in grid.sections:
        if section.heading:
            lines.append([f"*{escape_markdown(section.heading)}*", *[""] * (len(lower) - 1)])
        lines += [list(map(markdown_cell, row)) for row in section.rows]
    table = pipe_table(list(map(escape_markdown, lower)), lines, grid.labels)
    return "\n".join([f"**{escape_markdown(grid.caption)}**", "", *table, "", " ".join(grid.notes), ""])


def pipe_table(headings: Sequence[str], lines: Iterable[Sequence[str]], labels: int) -> list[str]:
    """The lines of a Markdown table; its first `labels` columns are text, the others numbers, to the right."""
    rule = ["---"] * labels + ["---:"] * (len(headings) - labels)
    return [f"| {' | '.join(line)} |" for line in (headings, rule, *lines)]


def markdown_cell(cell: Cell) -> str:
    """A cell of a Markdown table."""
    if not isinstance(cell, Number):
        return "-" if cell is None else escape_markdown(cell)
    value = percent(cell.summary.value)
    return (f"**{value}** " if cell.best else f"{value} ") + spread(cell) + interval(cell) + tally(cell)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows unchanged, on one line."""
    return "".join("\\" + c if c in MARKDOWN else c for c in " ".join(text.split()))


def latex(grid: Grid) -> str:
    r"""A booktabs table; needs `\usepackage{booktabs}` and no other package."""
    columns = len(grid.lower)
    place, rules, heads = 1, [], []
    for text, count in grid.upper:
        heads.append(rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(text)}}}" if text else " & ".join([""] * count))
        if text:
            rules.append(rf"\cmidrule(lr){{{place}-{place + count - 1}}}")
        place += count
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(grid.caption)}}}",
        rf"\label{{tab:{grid.name}}}",
        rf"\begin{{tabular}}{{{'l' * grid.labels}{'r' * (columns - grid.labels)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        " ".join(rules),
        " & ".join(map(escape_latex, grid.lower)) + r" \\",
    ]
    for section in grid.sections:
        lines.append(r"\midrule")
        if section.heading:
            lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\textit{{{escape_latex(section.heading)}}}}} \\")
        lines += [" & ".join(map(latex_cell, row)) + r" \\" for row in section.rows]
    end = [r"\bottomrule", r"\end{tabular}", rf"\par\footnotesize {escape_latex(' '.join(grid.notes))}", r"\end{table}"]
    return "\n".join(filter(None, [*lines, *end])) + "\n"


def latex_cell(cell: Cell) -> str:
    """A cell of a tabular."""
    if not isinstance(cell, Number):
        return "-" if cell is None else escape_latex(cell)
    value = percent(cell.summary.value)
    value = rf"\textbf{{{value}}}" if cell.best else value
    return rf"{value} {{\scriptsize {escape_latex(spread(cell))} {interval(cell)}{tally(cell)}}}"


def escape_latex(text: str) -> str:
    """Text that LaTeX sets unchanged."""
    return "".join(LATEX.get(c, c) for c in " ".join(text.split()))


def csv_table(grid: Grid) -> str:
    """The grid as CSV: each measured column is three, the value and the ends of its interval, in percent."""
    spans = [text for text, count in grid.upper for _ in range(count)]
    names = [f"{over} {text}".strip() for over, text in zip(spans, grid.lower, strict=True)]
    header = ["section", *names[: grid.labels]]
    for name in names[grid.labels :]:
        header += [name, f"{name} low", f"{name} high"]
    lines: list[list[str]] = [header]
    for section in grid.sections:
        for row in section.rows:
            line = [section.heading, *(str(cell) for cell in row[: grid.labels])]
            for cell in row[grid.labels :]:
                n = cell.summary if isinstance(cell, Number) else None  # empty where it was not measured
                line += ["", "", ""] if n is None else [percent(x, 4) for x in (n.value, n.low, n.high)]
            lines.append(line)
    return csv_text(lines)


def csv_lines(lines: Sequence[Mapping[str, Any]]) -> str:
    """Dictionaries with the same keys as CSV; None and NaN are empty."""
    plain = [["" if v is None or v != v else str(v) for v in line.values()] for line in lines]
    return csv_text([list(lines[0]), *plain])
