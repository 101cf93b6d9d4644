"""ESC-50 (Piczak, 2015) as its repository holds it, to a clip table: 2,000 clips of 5 s, 50 classes, 5 folds.

`meta/esc50.csv` (filename,fold,target,category,esc10,src_file,take) names the clips, which lie in `audio/`.
"""

from __future__ import annotations

from pathlib import Path

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.public.text_files import AGAIN, check_some_there, find_folder, read_rows
from audiobat.errors import AudiobatError

META = "meta/esc50.csv"
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
COLUMNS_KEPT = {"group": "src_file", "esc10": "esc10", "take": "take"}
CLIPS, CLASSES, FOLDS, SECONDS = 2000, 50, 5, 5.0


def read_esc50(folder: Path) -> ClipTable:
    """All 2,000 clips with their folds, classes in the order of `target`, groups by source recording."""
    root = find_folder(folder, META)
    meta = root / META
    rows = read_rows(meta, COLUMNS)
    if len(rows) != CLIPS:
        raise AudiobatError(
            f"{meta} lists {len(rows):,} clips, ESC-50 has {CLIPS:,}: {AGAIN}, or use a CSV of your own."
        )
    table = clip_table(
        root,
        [f"audio/{row['filename']}" for row in rows],
        labels=[[row["category"]] for row in rows],
        classes=_classes(meta, rows),
        folds=[_number(meta, i, row, "fold", range(1, FOLDS + 1)) for i, row in enumerate(rows, start=2)],
        seconds=[SECONDS] * CLIPS,
        columns={name: [row[of] for row in rows] for name, of in COLUMNS_KEPT.items()},
    )
    return check_some_there(table, meta)


def _classes(meta: Path, rows: list[dict[str, str]]) -> list[str]:
    """Category names in the order of their targets."""
    names: dict[int, str] = {}
    for i, row in enumerate(rows, start=2):
        target = _number(meta, i, row, "target", range(CLASSES))
        if names.setdefault(target, row["category"]) != row["category"]:
            raise AudiobatError(f"{meta}, row {i}: target {target} is {row['category']} and {names[target]}: {AGAIN}.")
    if (found := len(set(names.values()))) != CLASSES:
        raise AudiobatError(f"{meta} has {found} categories, ESC-50 has {CLASSES}: {AGAIN}.")
    return [names[target] for target in range(CLASSES)]


def _number(meta: Path, i: int, row: dict[str, str], name: str, allowed: range) -> int:
    text = row[name]
    if not text.isdecimal() or int(text) not in allowed:
        raise AudiobatError(f"{meta}, row {i}: {name} is {text!r}, not one of {allowed[0]} to {allowed[-1]}: {AGAIN}.")
    return int(text)


DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        name="esc50",
        title="ESC-50: environmental sounds, 2,000 clips of 5 s, 50 classes, 5 folds",
        where="https://github.com/karolpiczak/ESC-50 (Download, or git clone)",
        licence="CC BY-NC 3.0",
        layout="meta/esc50.csv and audio/*.wav, or the folder that holds ESC-50-master",
        read=read_esc50,
    ),
)
