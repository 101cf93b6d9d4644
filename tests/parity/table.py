"""The tables of all rows: as text for a terminal, and as the page docs/parity.md."""

from pathlib import Path

from .rows import draws, features, finetuning, inputs, masks, pretraining, probing
from .rows.base import Row

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
KINDS = {  # by heading, in the page's order
    "Spectrograms": inputs,
    "Features": features,
    "Masks": masks,
    "Pre-training": pretraining,
    "Probes": probing,
    "Draws of augmentation": draws,
    "Fine-tuning": finetuning,
}
HEAD = ["| what | source | compared | float64 | float32 |", "| --- | --- | --- | --- | --- |"]


def number(value: float | None) -> str:
    """Two digits are enough: another processor rounds otherwise."""
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def cells(row: Row) -> list[str]:
    return [row.what, row.source, row.compared, number(row.difference), number(row.single)]


def write_page(found: dict[str, list[Row]]) -> None:
    """Put tables in place of the page's, which stand under their headings below its text."""
    parts = [PAGE.read_text("utf-8").partition("\n## ")[0].rstrip()]
    for heading, rows in found.items():
        parts += [f"## {heading}", "\n".join([*HEAD, *(f"| {' | '.join(cells(row))} |" for row in rows)])]
    PAGE.write_text("\n\n".join(parts) + "\n", "utf-8")


def cells_of_page(heading: str) -> list[list[str]]:
    """The cells of the page's table under a heading."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][len(HEAD) :]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
