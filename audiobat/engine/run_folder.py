"""A run folder: made, held by one process, kept to one config, overwritten only when asked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from audiobat.config import from_dict, to_dict
from audiobat.config.user_files import CODE, files_used, hashes_of, user_classes
from audiobat.engine.environment import environment
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

RUN_FILES = (
    *("env.json", "metrics.jsonl", "log.txt", "skipped.csv", "checkpoints", "results", "figures", "folds", "release"),
    "code",
    "config.yaml",
)
FREE_FIELDS = (
    "data.workers",
    "train.device",
    "train.log_every",
    "train.save_every",
    "train.keep",
    *("cache_gb", "cache_dir", "workers"),  # of a probe
)  # may change mid-run


_held: set[int] = set()  # descriptors of folders that this process has locked


def _let_go() -> None:
    """A forked process, such as one that decodes, holds no lock: it outlives a killed parent by seconds."""
    while _held:
        os.close(_held.pop())


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def sole_use(out: Path) -> Iterator[None]:
    """Hold the lock of a run's folder: two processes in one would mix rows and remove each other's checkpoints."""
    out.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise AudiobatError(f"Another process is at work in {out}: wait for it, or give another --out.") from None
    _held.add(folder)
    try:
        yield
    finally:
        _held.discard(folder)
        os.close(folder)


def prepare_run(
    out: Path, config: object, resume: str, overwrite: bool, about: Mapping[str, str | int | None] | None = None
) -> None:
    """Make `out` a run folder of `config`, or check that it is one already; `about` is what else defines the run."""
    record = out / "config.yaml"
    if out.exists() and not record.exists() and any(path.name != "config.yaml.tmp" for path in out.iterdir()):
        raise AudiobatError(f"{out} holds other files and no run: give a new --out.")
    if record.exists() and overwrite:
        for name in RUN_FILES:  # config.yaml last: a kill in between leaves a run, which can be overwritten again
            remove(out / name)
    elif record.exists() and resume == "never":
        raise AudiobatError(f"{out} holds a run: give --resume auto, --overwrite or a new --out.")
    elif record.exists():
        check_same(record, config, about or {})
    out.mkdir(parents=True, exist_ok=True)
    fields = to_dict(config)
    if files := files_used(fields):  # the user's own: kept, so that the run can be understood and loaded later
        fields["files"] = hashes_of(files)
        (out / CODE).mkdir(exist_ok=True)
        for name, content in files.items():
            write_atomic(out / CODE / Path(name).name, content)
    write_atomic(record, yaml.safe_dump({**(about or {}), **fields}, sort_keys=False))
    write_atomic(out / "env.json", json.dumps(environment(), indent=2) + "\n")


def check_same(
    record: Path, config: object, about: Mapping[str, str | int | None], hint: str = "a new --out, or --overwrite"
) -> None:
    """Raise an AudiobatError that names the first field in which `about` or `config` differs from the run's own."""
    try:
        fields = dict(yaml.safe_load(record.read_text(encoding="utf-8")))
        check_same_files(record, fields, to_dict(config), hint)
        known = {name: fields.pop(name, None) for name in about}
        before = known | dict(flat(to_dict(from_dict(type(config), fields))))
    except (ValueError, TypeError, yaml.YAMLError) as error:  # among them AudiobatError, and bytes that are no UTF-8
        raise AudiobatError(f"{record}: {error}") from None
    for name, value in (*about.items(), *flat(to_dict(config))):
        if name not in FREE_FIELDS and value != before.get(name):
            raise AudiobatError(
                f"{record.parent} holds a run with {name} {before.get(name)!r}, not {value!r}: "
                f"use the run's own value, {hint}."
            )


def check_same_files(record: Path, fields: dict[str, Any], config: dict[str, Any], hint: str) -> None:
    """Take `files` out of a run's recorded fields; AudiobatError if `config` uses other files, or changed ones.

    What the run used is not run again to find out: a class that `config` does not name may be anything.
    """
    recorded = fields.pop("files", None) or {}
    now = hashes_of(files_used(config))
    for name, sha256 in recorded.items():
        if name not in now:
            raise AudiobatError(f"the run uses {name}, and this config does not: use the run's own config, {hint}.")
        if now[name] != sha256:
            copy = record.parent / CODE / Path(name).name
            raise AudiobatError(f"{name} has changed since the run began: put back {copy}, {hint}.")
    for kind in user_classes(fields):
        if kind not in user_classes(config):
            raise AudiobatError(f"the run uses {kind}, and this config does not: use the run's own config, {hint}.")


def flat(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested fields as (`encoder.depth`, value) pairs."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
