"""What runs made of runs share: words NAME=PATH, folders, tables in a terminal, and attempts that fail alone."""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from audiobat.config.benchmark import folder_name
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError


def named_places(flag: str, words: Sequence[str]) -> dict[str, str]:
    """The paths of words NAME=PATH by their names; AudiobatError for a word without =, or a name twice."""
    places: dict[str, str] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not (name and path):
            raise AudiobatError(f"--{flag} has {word!r}: give NAME=PATH, such as --{flag} NAME=/some/where.")
        if name in places:
            raise AudiobatError(f"--{flag} names {name} twice: give it one place.")
        places[name] = path
    return places


def absolute(path: str) -> str:
    """The full path of a file or folder, so that it is the same from every working folder; a name or URL as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def folder_of(*names: str) -> Path:
    """Names as folders, one in the other."""
    return Path(*map(folder_name, names))


class Planned(Protocol):
    """One of the runs: a cell of a benchmark, a pair of a suite."""

    @property
    def missing(self) -> str:
        """What is not here that it needs, in words; "" if all is."""

    def is_done(self, out: Path) -> bool:
        """Whether it has ended."""


def check_some_run(asked: Sequence[Planned], out: Path, what: str, listed: str) -> None:
    """Raise an AudiobatError if none of the runs is done or can run; a dry run lists `listed`."""
    if not any(not one.missing or one.is_done(out) for one in asked):
        raise AudiobatError(
            f"None of the {len(asked)} {what} can run: name weights with --models and data with --data; --dry-run "
            f"lists {listed}."
        )


def print_parts(parts: Iterable[Table | Text | str], console: Console) -> None:
    """Print tables and sentences; a `Text` has no line break of ours, as an error may hold a path."""
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def attempt(work: Callable[[], object], run: Path) -> str:
    """Do the work of a run folder; returns the error's sentence if it fails. A traceback goes to RUN.error.txt."""
    log = run.with_name(f"{run.name}.error.txt")  # a name may have dots: `with_suffix` would cut it
    for path in (log, log.with_name(f"{log.name}.tmp")):  # the second: of a command killed while it wrote the first
        path.unlink(missing_ok=True)
    try:
        work()
    except AudiobatError as error:
        return str(error)
    except Exception as error:  # whatever it is, the other runs may take days and must not be lost for it
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(log, traceback.format_exc())
        line = next(iter(str(error).splitlines()), "")
        return f"{type(error).__name__}: {line} (see {log})."
    return ""


def check_none_failed(faults: Mapping[str, str], total: int, what: str) -> None:
    """Raise an AudiobatError that has each fault once, with the names of those that it befell, if there are any."""
    failed = defaultdict(list)
    for name, fault in faults.items():
        failed[fault].append(name)
    if failed:
        sentences = " ".join(f"{'; '.join(names)}: {fault}" for fault, names in failed.items())
        raise AudiobatError(f"{len(faults)} of {total} {what} failed. {sentences}")
