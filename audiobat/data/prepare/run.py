"""`audiobat prepare`: any source of clips to shards of mono clips at one rate, and the clip table that opens them.

Finished shards are kept: the same command goes on after whatever stopped it, and parts made elsewhere count. With
`--stats`, the mean and deviation of the clips' log-mel in place of shards.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import numpy as np

from audiobat.audio.read import MIN_RATE
from audiobat.config import PrepareConfig, check
from audiobat.config.recipes import Recipe, make_config
from audiobat.data.clip_table import ClipTable
from audiobat.data.prepare.merge import finish, remove
from audiobat.data.prepare.pack import Job, cut_table
from audiobat.data.prepare.pool import pack_shards
from audiobat.data.prepare.shard import ShardIndex, load_index
from audiobat.data.prepare.shard_plan import make_plan, shard_keys
from audiobat.data.prepare.statistics import statistics
from audiobat.data.remote import is_remote
from audiobat.data.shards import (
    CLIPS,
    DUPLICATES,
    SHARDS,
    SKIPPED,
    WIDS,
    PackSettings,
    ShardPlan,
    is_prepared,
    is_unfinished,
    open_prepared,
    remove_unfinished,
)
from audiobat.data.sources.catalog import ambiguous_names, data_sets, find_data_set
from audiobat.data.sources.read import read_clips
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError, did_you_mean

MAX_RATE = 655_350  # Hz: FLAC's
ANY_RATE = 65_535  # Hz up to which FLAC has every rate, and above it multiples of 10
FLAC_RATIO = 0.5  # of PCM's size, roughly
PARTS_SHOWN = 8
STATISTICS = "statistics.json"  # in a prepared folder


def prepare(
    source: str | Path,
    out: str | Path | None = None,
    config: PrepareConfig | Recipe | None = None,
    *,
    sample_rate: int = 16_000,
    encoding: Literal["flac", "pcm"] = "flac",
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    part: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    stats: bool = False,
) -> Path | None:
    """Decode, mix to mono, resample and pack every clip of `source` into shards below `out`; returns `out`.

    Clips that cannot be read go to skipped.csv with the reason; copies of earlier clips are kept, and listed in
    duplicates.csv. Run again, it goes on where it stopped, and yields the same bytes.

    Args:
        source: a folder, a CSV or Parquet file with a path column, prepared shards, tars of recordings, or
            NAME:FOLDER of a public data set; NAME alone prints where to get it, and that is all.
        out: folder to write; not needed for a dry run. With `stats` a .json file; None: statistics.json in `source` if
            that is a prepared folder, else they are printed only.
        config: the frontend of `stats`.
        sample_rate: sample rate of the shards, Hz.
        encoding: `flac`, 16 bit; or `pcm`, headerless 16-bit samples, twice as large and far faster to read.
        window_seconds: cut every clip into windows of this length, of which the last may be shorter, but not below
            0.16 s; None: leave it whole.
        hop_seconds: step between windows; None: the window.
        part: `3/16`: do the third of sixteen parts; the one that finds all parts there writes the table.
        workers: processes; None: one for each core.
        overwrite: begin anew, whatever `out` holds of an earlier preparation.
        dry_run: print what there is and the plan, and write nothing.
        stats: pack nothing; print the mean and deviation of the clips' log-mel, for a frontend with `norm: global`.

    Raises:
        AudiobatError: a bad argument or source, `out` was begun with other settings or holds something else, no clip
            can be read, the disk is full.
    """
    chosen = parse_part(part)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    config = make_config(PrepareConfig, config)
    check(workers is None or workers > 0, "--workers", workers, "it must be positive")
    if stats:
        packing = (sample_rate, encoding, window_seconds, hop_seconds, dry_run)
        alone = "it packs nothing, so it goes with --part, --workers, --overwrite and --frontend only"
        check(packing == (16_000, "flac", None, None, False), "--stats", True, alone)
        file = None if out is None else Path(out)
        if out is None and not is_remote(source) and is_prepared(source):
            file = Path(source) / STATISTICS
        valid = file is None or (file.suffix == ".json" and not file.is_dir())
        check(valid, "OUT", str(out), "statistics go to a .json file; shards, to a folder, are another command")
        check(part is None or file is not None, "--part", part, "name a .json file as OUT, to add up the parts")
        frontend = config.frontend
        with nullcontext() if file is None else writing(file):
            statistics(read_clips(source), frontend, file, chosen, workers or count, overwrite)
        return file
    check(config == PrepareConfig(), "--frontend", "set", "shards hold waveforms; give --stats too")
    if out is None and not dry_run:
        print(about_data_set(str(source)))
        return None
    settings = check_settings(sample_rate, encoding, window_seconds, hop_seconds)
    table = read_clips(source)
    if leaves_annotations(source, table):
        warnings.warn(
            f"{source} has annotations beside its recordings, which prepare leaves behind: to keep them, make a list "
            "with columns path, onset, offset, label of them and prepare that.",
            stacklevel=2,
        )
    plan = make_plan(table, settings)
    if dry_run or out is None:
        print(table.describe())
        named = find_data_set(str(source))
        if named is not None and named[0].report is not None:
            print(named[0].report(named[1]))
        print(describe_plan(plan, table, chosen))
        return None if out is None else Path(out)
    folder = Path(out).absolute()
    with writing(folder):
        claim(folder, table, plan, str(source), overwrite)
        pack(folder, table, plan, chosen, workers or count)
        indexes = [load_index(folder, number, plan) for number in range(len(plan))]
        done = [index for index in indexes if index is not None]
        if len(done) == len(plan):
            finish(folder, table, plan, done)
    missing = [number for number, index in enumerate(indexes) if index is None]
    if not missing:
        print(summary(folder, done, table, sample_rate))
        return folder
    parts = [f"{part}/{chosen[1]}" for part in sorted({number % chosen[1] + 1 for number in missing})]
    shown = ", ".join(parts[:PARTS_SHOWN]) + (", ..." if parts[PARTS_SHOWN:] else "")
    print(
        f"{folder} has {len(done)} of {len(plan)} shards; those of --part {shown} are missing. "
        "Once they are there, the same command without --part writes the table."
    )
    return folder


def leaves_annotations(source: str | Path, table: ClipTable) -> bool:
    """Whether `source` is a folder with annotations that its clips, `table`, are read without."""
    in_files = table.events is None and table.offsets is None  # not in tars, where clips have offsets
    if not in_files or is_remote(source) or not Path(source).is_dir():
        return False
    with warnings.catch_warnings(action="ignore"):
        try:
            return read_clips(source, annotated=True).events is not None
        except AudiobatError:  # so there are some, with a mistake in them
            return True


def about_data_set(name: str) -> str:
    """Where to get a public data set, its licence and layout; raises an AudiobatError if there is none of that name."""
    known, ambiguous = data_sets(), ambiguous_names()
    is_path = os.path.exists(name)
    if name in ambiguous and not is_path:
        raise AudiobatError(ambiguous[name])
    if name not in known or is_path:
        hint = "" if is_path else did_you_mean(name, known)
        raise AudiobatError(
            f"audiobat prepare {name} needs OUT, the folder to write, or the name of a data set alone{hint}."
        )
    return known[name].about()


def check_settings(
    sample_rate: int, encoding: str, window_seconds: float | None, hop_seconds: float | None
) -> PackSettings:
    """The settings; raises an AudiobatError that names a flag whose value cannot be used."""
    check(MIN_RATE <= sample_rate <= MAX_RATE, "--sample-rate", sample_rate, f"use {MIN_RATE} to {MAX_RATE} Hz")
    check(encoding in ("flac", "pcm"), "--encoding", encoding, "use flac or pcm")
    in_flac = sample_rate <= ANY_RATE or sample_rate % 10 == 0
    check(encoding == "pcm" or in_flac, "--sample-rate", sample_rate, "FLAC takes multiples of 10 here; or use pcm")
    if window_seconds is None:
        check(hop_seconds is None, "--hop-seconds", hop_seconds, "give --window-seconds too")
        return PackSettings(sample_rate, encoding, None, None)
    check(window_seconds * sample_rate >= 1, "--window-seconds", window_seconds, "it must hold a sample")
    hop = window_seconds if hop_seconds is None else hop_seconds
    check(1 <= hop * sample_rate <= window_seconds * sample_rate, "--hop-seconds", hop, "use up to --window-seconds")
    return PackSettings(sample_rate, encoding, float(window_seconds), float(hop))


def parse_part(part: str | None) -> tuple[int, int]:
    """`3/16` to (2, 16): the remainder and the divisor of this part's shards."""
    if part is None:
        return 0, 1
    number, _, count = part.partition("/")
    valid = number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)
    check(valid, "--part", part, "give it as 3/16, the third of sixteen parts")
    return int(number) - 1, int(count)


def claim(folder: Path, table: ClipTable, plan: ShardPlan, source: str, overwrite: bool) -> None:
    """Make `folder`, or check that it was begun with this plan; `overwrite` clears one that was begun with another."""
    root = Path(table.root).resolve() if table.root and "://" not in table.root else None
    if root is not None and folder.resolve() in (root, *root.parents) and is_prepared(folder):
        raise AudiobatError(f"{folder} is the source itself: name another folder for OUT.")
    if folder.exists() and not folder.is_dir():
        raise AudiobatError(f"{folder} is a file: name a new folder for OUT.")
    found = list(folder.iterdir()) if folder.exists() else []
    begun = is_prepared(folder)  # looked up last: another part may begin at this moment
    if not begun and not all(map(is_unfinished, found)):
        raise AudiobatError(f"{folder} holds something other than prepared data: name a new folder for OUT.")
    if begun and not overwrite:
        plan.check_begun(folder)
    elif begun:
        for name in (CLIPS, SHARDS, SKIPPED, DUPLICATES, WIDS):  # the table first: it says that the folder is finished
            remove(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite or not begun:
        plan.save(folder, source)  # before any shard: without it, the folder would be taken for another's
    (folder / SHARDS).mkdir(exist_ok=True)


def pack(folder: Path, table: ClipTable, plan: ShardPlan, chosen: tuple[int, int], workers: int) -> None:
    """Write the shards of this part that are not there yet."""
    remainder, divisor = chosen
    own = range(remainder, len(plan), divisor)
    todo = [number for number in own if load_index(folder, number, plan) is None]
    if not todo:
        return
    keys = shard_keys(table.keys)

    def jobs() -> Iterator[Job]:
        for number in todo:
            own = plan.clip_ids(number)
            yield Job(folder, number, plan, cut_table(table, own), keys[own.start : own.stop])

    remove_unfinished(folder, todo)
    total, left = (sum(len(plan.clip_ids(number)) for number in numbers) for numbers in (own, todo))
    try:
        with Progress("prepare", total, "clip", done=total - left) as bar:
            pack_shards(jobs(), workers, bar.advance)
    finally:
        remove_unfinished(folder, todo)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError into one sentence: `folder` cannot be written, and why."""
    try:
        yield
    except OSError as error:
        hint = "make room or fix that, and run the same command again: it goes on"
        raise AudiobatError(f"{folder} cannot be written ({error.strerror or error}): {hint}.") from error


def describe_plan(plan: ShardPlan, table: ClipTable, chosen: tuple[int, int]) -> str:
    """The plan in a line or two: shards, settings, and their size if the clips' lengths are known."""
    settings = plan.settings
    window, hop = settings.window_seconds, settings.hop_seconds
    cut = "" if window is None else f", windows of {window:g} s every {hop:g} s"
    lines = [f"plan: {len(plan):,} shards of {settings.encoding} at {settings.sample_rate} Hz{cut}"]
    if chosen[1] > 1:
        lines[0] += f"; {len(range(chosen[0], len(plan), chosen[1])):,} of them in this part"
    known = np.zeros(0) if table.seconds is None else table.seconds[~np.isnan(table.seconds)]
    if len(known):
        samples = float(known.mean()) * len(table) * settings.sample_rate
        overlap = 1.0 if window is None or hop is None else window / hop
        size = samples * overlap * 2 * (FLAC_RATIO if settings.encoding == "flac" else 1.0)
        lines.append(f"they will take about {show_bytes(size)}")
    return "\n".join(lines)


def summary(folder: Path, indexes: Sequence[ShardIndex], source: ClipTable, sample_rate: int) -> str:
    """The clips of a finished folder, how many were skipped or not as long as `source` says, and its size."""
    files = (path for name in (SHARDS, CLIPS) for path in (folder / name).iterdir() if not is_unfinished(path))
    size = sum(path.stat().st_size for path in files)
    skipped, loud = sum(len(index.skipped) for index in indexes), sum(int(index.loud.sum()) for index in indexes)
    lines = [open_prepared(folder).describe()]
    if skipped:
        lines.append(f"skipped: {skipped:,} clips that cannot be read; {folder / SKIPPED} says why")
    ends = {} if source.seconds is None else {clip: end for index in indexes for clip, end in index.ends().items()}
    misjudged = sum(source.misjudges(clip_id, end / sample_rate) for clip_id, end in ends.items())
    if misjudged:
        lines.append(f"length: {misjudged:,} clips had another one than the list's `seconds`, and were read to the end")
    if loud:
        lines.append(f"loud: {loud:,} clips had samples beyond full scale, which were cut off there")
    return "\n".join([*lines, f"{folder}: {show_bytes(size)}"])


def show_bytes(size: float) -> str:
    """A size in the unit that fits."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
