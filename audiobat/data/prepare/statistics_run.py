"""`audiobat prepare --stats`: clips to the mean and deviation of their log-mel, as YAML to paste and as a small file.

A part keeps its sums in a file beside the result; whoever finds that all parts are there adds them up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from audiobat.config import FrontendConfig, to_dict
from audiobat.data.clip_table import ClipTable
from audiobat.data.prepare.statistics import LogMelSums, log_mel_sums
from audiobat.data.remote import is_remote
from audiobat.data.shards import is_prepared
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError

FILE = "statistics.json"  # in a prepared folder
SAVE_SECONDS = 10.0  # between two files of a part under way
NAMED = 5  # unreadable clips that are shown; the file has all
LEFT_OUT = ("norm", "statistics", "mean", "std")  # fields of a frontend on which its log-mel does not depend


def statistics(
    table: ClipTable,
    frontend: FrontendConfig,
    file: Path | None,
    part: tuple[int, int],
    workers: int,
    overwrite: bool,
) -> None:
    """Compute, or take from `file`, the statistics of the clips, and print them.

    Args:
        table: the clips.
        frontend: whose log-mel it is.
        file: a .json to write; None: print only.
        part: (r, d): go over the r-th of d equal runs of rows, from 0.
        workers: processes that decode and transform.
        overwrite: begin anew, whatever `file` or its parts hold.

    Raises:
        AudiobatError: `file` holds those of other clips or of another frontend; too many clips cannot be read; all are
            silent.
    """
    if file is None:
        print(describe(log_mel_sums(table, frontend, workers=workers), frontend))
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "clips": len(table),
        "data_sha256": table.sha256(),
        "frontend": {name: value for name, value in to_dict(frontend).items() if name not in LEFT_OUT},
    }
    remainder, divisor = part
    if overwrite:
        file.unlink(missing_ok=True)
        part_file(file, remainder, divisor).unlink(missing_ok=True)
    whole = None if not file.exists() else load(file, about)
    if whole is None:
        sum_part(table, frontend, part_file(file, remainder, divisor), about, part, workers)
        whole, missing = merge(file, about, divisor)
        if whole is None:
            shown = ", ".join(f"{number + 1}/{divisor}" for number in missing)
            print(
                f"# --part {shown} of the statistics are missing; whoever finds all of them beside {file} adds them up."
            )
            return
    print(describe(whole, frontend))
    print(f"# written to {file}")


def part_file(file: Path, remainder: int, divisor: int) -> Path:
    """`statistics.3-of-16.json`."""
    return file.with_name(f"{file.stem}.{remainder + 1}-of-{divisor}.json")


def rows_of_part(clips: int, remainder: int, divisor: int) -> range:
    """The rows of a part: neighbours, which lie in the same shards."""
    return range(clips * remainder // divisor, clips * (remainder + 1) // divisor)


def sum_part(
    table: ClipTable,
    frontend: FrontendConfig,
    file: Path,
    about: Mapping[str, Any],
    part: tuple[int, int],
    workers: int,
) -> None:
    """Go over a part's clips, on from where its file was left, and write its sums now and then and at the end."""
    rows = rows_of_part(len(table), *part)
    begun = load(file, about) if file.exists() else LogMelSums()
    last = monotonic()

    def keep(sums: LogMelSums) -> None:
        nonlocal last
        if monotonic() - last >= SAVE_SECONDS or sums.seen == len(rows):
            save(file, about, sums)
            last = monotonic()

    if not len(rows):
        save(file, about, begun)
    elif begun.seen < len(rows):
        log_mel_sums(table.select(np.arange(rows.start, rows.stop)), frontend, workers=workers, begun=begun, keep=keep)


def merge(file: Path, about: Mapping[str, Any], divisor: int) -> tuple[LogMelSums | None, list[int]]:
    """Add up the parts if all are done, write `file` and remove them; else which are missing."""
    files = [part_file(file, number, divisor) for number in range(divisor)]
    try:
        found = [load(path, about) if path.exists() else LogMelSums() for path in files]
    except FileNotFoundError:  # another machine found all parts too, and was faster
        return load(file, about), []
    wanted = [len(rows_of_part(int(about["clips"]), number, divisor)) for number in range(divisor)]
    missing = [number for number, path in enumerate(files) if not path.exists() or found[number].seen < wanted[number]]
    if missing:
        return (load(file, about), []) if file.exists() else (None, missing)
    whole = sum(found, LogMelSums())
    whole.fields()  # raises where there are none
    save(file, about, whole, {"mean": whole.mean, "std": whole.std})
    for path in files:
        path.unlink(missing_ok=True)
    return whole, []


def save(file: Path, about: Mapping[str, Any], sums: LogMelSums, result: Mapping[str, float] | None = None) -> None:
    """Write sums, what they are of, and the result if they are of everything."""
    content = {**(result or {}), **about, "sums": asdict(sums)}
    write_atomic(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load(file: Path, about: Mapping[str, Any]) -> LogMelSums:
    """The sums that `file` holds.

    Raises:
        AudiobatError: they are of something else, or the file is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        known = {name: content[name] for name in about}
        sums = LogMelSums(**content["sums"])
    except (KeyError, TypeError, ValueError):
        raise AudiobatError(f"{file} holds no statistics: remove it, or give --overwrite.") from None
    for name, value in about.items():
        if known[name] != value:
            what = {"clips": "other clips", "data_sha256": "other clips", "frontend": "another frontend"}[name]
            raise AudiobatError(f"{file} holds statistics of {what}: give --overwrite, or another OUT.")
    return sums


def describe(sums: LogMelSums, frontend: FrontendConfig) -> str:
    """Lines of YAML to paste into a recipe; all else that is to be said, as comments.

    Raises:
        AudiobatError: as for `LogMelSums.fields`.
    """
    fields = {"statistics": "auto", **sums.fields()}
    lines = [f"# {frontend.kind} over {sums.clips:,} clips, {sums.cells:,} cells"]
    if sums.silent:
        lines.append(f"# silent: {sums.silent:,} of them hold one value throughout, and count")
    if sums.skipped:
        lines.append(f"# skipped: {len(sums.skipped):,} clips that cannot be read")
        lines += [f"#   {' '.join(f'{key}: {why}'.split())}" for key, why in [*sums.skipped.items()][:NAMED]]
        lines += ["#   ..."] if len(sums.skipped) > NAMED else []
    lines += ["frontend:", *(f"  {name}: {value}" for name, value in fields.items())]
    if frontend.norm != "global":
        lines.append("  norm: global  # its own, minmax, takes each clip's minimum and maximum, and no statistics")
    return "\n".join(lines)


def default_file(source: str | Path) -> Path | None:
    """Beside the clips of a prepared folder; nowhere for any other source."""
    return Path(source) / FILE if is_prepared(source) and not is_remote(source) else None
