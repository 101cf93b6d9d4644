"""Tars of recordings, as WebDataset has them, to a clip table: patterns, folders, lists and URLs of tars.

Each tar is listed once, from its headers. The table is kept in the user's cache folder, where it is found again as long
as no tar has another size or time; clips are then read from the tars by their offsets, in any order.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

from audiobat.data.clip_table import ClipTable, join, open_table
from audiobat.data.columns import Strings
from audiobat.data.remote import is_remote, read_range, size_and_version
from audiobat.data.shards import cache_folder, filling
from audiobat.data.sources.tar_clips import TarFile, TarListing, distinct, list_tar
from audiobat.data.sources.tar_members import Notes
from audiobat.data.sources.tar_table import TableOfTars
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError

FORMAT = "audiobat-tars-1"  # another one where the rules of listing have changed: tables of older ones are made anew
TAR = re.compile(r"\.tar([?#].*)?$", re.IGNORECASE)  # also with what a URL has behind its path
PACKED = re.compile(r"\.(tgz|tbz2?|txz|tar\.\w{1,4})([?#].*)?$", re.IGNORECASE)
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
MOST_TARS = 1_000_000  # that a pattern may stand for
READERS = 4  # tars that are listed, and held, at the same time: a far disk or a server makes each of them wait
MEGABYTE = 1_000_000
SHOWN_BYTES = 100 * MEGABYTE  # of tars: fewer are listed at once
OTHERS_SHOWN = 5  # extensions of what is no audio
NOTES = "notes.json"  # beside the columns of a kept table


def find_tars(source: str | Path) -> list[str] | None:
    """The tars that `source` names: a .tar, a pattern, several joined by `::`, or a .txt that lists them; else None.

    Raises:
        AudiobatError: a command (`pipe:`), compressed tars, a pattern that is none, a list that mixes tars and others.
    """
    text = os.fspath(source)
    if text.startswith("pipe:"):
        raise AudiobatError(f"{text} is a command, and none is run to get data: download the tars, or name their URLs.")
    if text.lower().endswith(".txt"):
        return _listed(text)
    if os.path.isdir(text):
        return None
    parts = re.split(r"(?<=\.tar)::", text, flags=re.IGNORECASE)  # `simplecache::s3://...` is one address
    for part in parts:
        if PACKED.search(part):
            raise AudiobatError(
                f"{part} is compressed, so that no clip in it can be read alone: unpack it once, and give the .tar, or "
                "the folder that was in it."
            )
    if not all(TAR.search(part) for part in parts):
        return None
    return [path for part in parts for path in expand(part)]


def tars_below(folder: Path, files: Sequence[str]) -> list[str]:
    """The tars among the files of a folder."""
    return [os.path.join(folder, name) for name in files if TAR.search(name)]


def expand(pattern: str) -> list[str]:
    """`{000..012}` and `{a,b}` to all that they stand for, as a shell does; a file of that very name is itself."""
    if os.path.exists(pattern):
        return [pattern]
    done: list[str] = []
    waiting = [pattern]
    while waiting:
        name = waiting.pop()
        if "{" not in name:
            done.append(name)
            if len(done) > MOST_TARS:
                raise AudiobatError(f"{pattern} stands for more than {MOST_TARS:,} tars: check its numbers.")
            continue
        waiting += reversed(_expand_one(name, pattern))
    return list(dict.fromkeys(done))


def _expand_one(name: str, pattern: str) -> list[str]:
    """All that the first braces that hold no others stand for."""
    braces = BRACES.search(name)
    if braces is None:
        raise AudiobatError(f"{pattern}: its braces do not match: write {{000..012}} or {{a,b}}.")
    if numbers := RANGE.fullmatch(braces[1]):
        ends = numbers.groups()
        first, last = map(int, ends)
        if abs(last - first) >= MOST_TARS:
            raise AudiobatError(f"{pattern} stands for more than {MOST_TARS:,} tars: check its numbers.")
        width = max(map(len, ends)) if any(len(end) > 1 and end.startswith("0") for end in ends) else 0
        step = 1 if first <= last else -1
        values = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    elif "," in braces[1]:
        values = braces[1].split(",")
    else:
        raise AudiobatError(f"{pattern}: {braces[0]} is no range and no choice: write {{000..012}} or {{a,b}}.")
    return [name[: braces.start()] + value + name[braces.end() :] for value in values]


def _listed(source: str) -> list[str] | None:
    """The tars that a text file lists, a path, pattern or URL on each line; None if it lists none."""
    try:
        data = read_range(source) if is_remote(source) else Path(source).read_bytes()
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):  # whoever reads lists of recordings says what is wrong
        return None
    if not any(TAR.search(line) or PACKED.search(line) or line.startswith("pipe:") for line in lines):
        return None
    folder = source.rpartition("/")[0] if is_remote(source) else os.path.dirname(source)
    found: list[str] = []
    for line in lines:
        tars = None if line.lower().endswith(".txt") else find_tars(join(folder, line) if ":" not in line else line)
        if tars is None:
            raise AudiobatError(f"{source} lists tars and {line}: list tars alone.")
        found += tars
    return found


def read_tars(source: str, paths: Sequence[str]) -> ClipTable:
    """The clips of all recordings in some tars, in the order of the tars and of their members.

    A clip's key is the name of its member; where two tars have members of one name, the tar's name stands before it.
    What was passed over is told in warnings.

    Args:
        source: what the user named, for messages.
        paths: local files and URLs.

    Raises:
        AudiobatError: a tar is not there or cannot be read, none is a tar, none holds a recording.
    """
    with ThreadPoolExecutor(READERS) as pool:
        places = dict.fromkeys(path if is_remote(path) else os.path.abspath(path) for path in paths)
        files = list(pool.map(_stat, places))
    root = _common_root([file.path for file in files])
    names = [os.path.relpath(file.path, root) if root else file.path for file in files]
    folder = cache_folder("tars", json.dumps([FORMAT, files]).encode())
    table, lines = _open_kept(folder)
    if table is None:
        table, lines = _list_all(source, files)
        with suppress(OSError), filling(folder) as own:  # where nothing can be kept, the tars are listed each time
            table.save(own)
            (own / NOTES).write_text(json.dumps(lines), encoding="utf-8")
        table = _open_kept(folder)[0] or table
    for line in lines:
        warnings.warn(f"{source}: {line}.", stacklevel=3)
    return replace(table, root=root, files=Strings.of_texts(names))


def _stat(path: str) -> TarFile:
    if is_remote(path):
        return TarFile(path, *size_and_version(path))
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = getattr(error, "strerror", None) or error
        raise AudiobatError(f"There is no tar {path} ({why}): check the path, or the numbers of the pattern.") from None
    return TarFile(path, status.st_size, str(status.st_mtime_ns))


def _common_root(paths: Sequence[str]) -> str:
    """The folder that holds all tars; none if some are behind URLs, which are then named in full."""
    return "" if any(map(is_remote, paths)) else os.path.commonpath([os.path.dirname(path) for path in paths])


def _open_kept(folder: Path) -> tuple[ClipTable | None, list[str]]:
    """The table that an earlier run has kept, and what it had to tell; None if there is none, or a damaged one."""
    try:
        return open_table(folder, ""), [str(line) for line in json.loads((folder / NOTES).read_text(encoding="utf-8"))]
    except (AudiobatError, OSError, ValueError):
        return None, []


def short_names(paths: Sequence[str]) -> list[str]:
    """Names of tars, all different, without the folders that they share and what a URL has behind its path."""
    parts = [(re.sub(r"[?#].*", "", path) if is_remote(path) else path).split("/") for path in paths]
    shared = 0
    while min(map(len, parts)) > shared + 1 and len({part[shared] for part in parts}) == 1:
        shared += 1
    return distinct(["/".join(part[shared:]) for part in parts])


def _list_all(source: str, files: Sequence[TarFile]) -> tuple[ClipTable, list[str]]:
    """List all tars to one table, and say what was passed over."""
    gathered, notes, others = TableOfTars(), Notes(), set[str]()
    broken: list[str] = []
    lock = Lock()
    size = sum(file.size for file in files)
    progress = Progress("list tars", size // MEGABYTE, "megabyte", shown=size >= SHOWN_BYTES)
    with progress as bar, ThreadPoolExecutor(READERS) as pool:
        passed = 0

        def advance(count: int) -> None:
            nonlocal passed
            with lock:
                passed += count
                bar.advance(passed // MEGABYTE - bar.done)

        def listing(file: TarFile) -> TarListing | AudiobatError:
            try:
                return list_tar(file, advance)
            except AudiobatError as error:
                return error

        for first in range(0, len(files), READERS):
            for i, found in enumerate(pool.map(listing, files[first : first + READERS]), start=first):
                if isinstance(found, AudiobatError):
                    broken.append(str(found).rstrip("."))
                    continue
                gathered.add(i, found.clips)
                notes.join(found.notes)
                others |= found.others
    if not len(gathered):
        if broken:
            raise AudiobatError(f"{broken[0]}.")
        inside = f" (what they hold ends in {', '.join(sorted(others)[:OTHERS_SHOWN])})" if others else ""
        raise AudiobatError(
            f"{source}: its {len(files)} tars hold no audio files{inside}: give tars of recordings, or for shards of "
            "`audiobat prepare` the folder of their prepared.json."
        )
    for why in broken:
        notes.add("tars are left out", f"one of which the reader says: {why}")
    table = gathered.table(short_names([file.path for file in files]), notes)
    return table, notes.lines()
