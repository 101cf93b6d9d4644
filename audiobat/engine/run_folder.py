"""A run folder: made for one config, locked by one process, resumed with the same config, overwritten only when asked.

In: a folder, a config, and the arguments of the command that are no fields of it. Out: config.yaml and env.json there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from audiobat.config import check, flatten, from_dict, to_dict
from audiobat.config.recipes import parse_yaml, read_fields, write_yaml
from audiobat.config.user_files import CODE, files_used, hashes_of, split_name, user_classes, with_kinds, without_files
from audiobat.engine.environment import environment
from audiobat.engine.files import clear_leftovers, remove, write_atomic
from audiobat.engine.logs.sinks import FOLDERS
from audiobat.errors import AudiobatError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

RUN_FILES = (  # what --overwrite removes, in this order
    *("env.json", "metrics.jsonl", "log.txt", "skipped.csv", "checkpoints", "results", "figures", "folds", "release"),
    *FOLDERS,
    CODE,
    "config.yaml",  # last: after a kill in between, the folder is still a run, which can be overwritten again
)
FREE_FIELDS = (  # may have other values when a run is resumed, as they change no result
    *("data.workers", "train.device", "train.log_every", "train.save_every", "train.keep", "train.keep_every"),
    *("train.accumulate", "train.recompute", "train.shard", "train.compile", "train.timeout", "train.log_to"),
    *("online.data", "online.every", "online.heads", "online.clips", "online.prototypes", "online.steps"),
    *("cache_gb", "cache_dir", "workers"),  # of a probe
)

UNFINISHED = "unfinished.yaml"  # in the folder of a command that has not ended

_locked: set[int] = set()  # descriptors of the folders that this process has locked


def _unlock_in_child() -> None:
    """Close the locks that a forked process inherits: a worker that decodes outlives a killed parent by seconds."""
    while _locked:
        os.close(_locked.pop())


if fcntl is not None:
    os.register_at_fork(after_in_child=_unlock_in_child)


@contextmanager
def sole_use(out: Path) -> Iterator[None]:
    """Lock a run's folder: two processes in it would mix their rows and remove each other's checkpoints.

    The operating system frees the lock when the process dies. Raises AudiobatError where another process has it.
    """
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
    _locked.add(folder)
    try:
        yield
    finally:
        _locked.discard(folder)
        os.close(folder)


def prepare_run(
    out: Path, config: object, resume: str, overwrite: bool, arguments: Mapping[str, str | int | None] | None = None
) -> None:
    """Make `out` a run folder of `config`, or check that it is one already.

    Args:
        out: the folder, new, empty or of a run.
        config: a dataclass; its fields go into config.yaml.
        resume: `auto` goes on with a run that is there; `never` refuses it.
        overwrite: remove the run that is there.
        arguments: of the command, that are no fields of the config and define the run as well, such as a model.

    Raises:
        AudiobatError: other files in `out`, a run that may not be resumed, or one of another config that has a
            checkpoint or a result.
    """
    check_kept(config)
    record = out / "config.yaml"
    if out.exists() and not record.exists() and any(path.name != "config.yaml.tmp" for path in out.iterdir()):
        raise AudiobatError(f"{out} holds other files and no run: give a new --out.")
    if record.exists() and overwrite:
        remove_run(out)
    elif record.exists() and resume == "never":
        raise AudiobatError(f"{out} holds a run: give --resume auto, --overwrite or a new --out.")
    elif record.exists():
        for name in RUN_FILES:
            clear_leftovers(out / name)
        try:
            check_same(record, config, arguments or {})
        except AudiobatError:
            if has_work(out):
                raise
            print(f"{out} holds a run of another config that made nothing: it begins anew.", file=sys.stderr)
            remove_run(out)
    out.mkdir(parents=True, exist_ok=True)
    fields = to_dict(config)
    if files := files_used(fields):  # a copy, so that the run can be loaded when the user has changed his own
        fields["files"] = hashes_of(files)
        (out / CODE).mkdir(exist_ok=True)
        for name, content in files.items():
            write_atomic(out / CODE / Path(name).name, content)
    write_atomic(record, write_yaml({**(arguments or {}), **fields}))
    write_atomic(out / "env.json", json.dumps(environment(), indent=2) + "\n")


def remove_run(out: Path) -> None:
    """Remove all that a run has written to its folder."""
    for name in RUN_FILES:
        remove(out / name)


def has_work(out: Path) -> bool:
    """Whether a run, or one of its folds, has a checkpoint or a result: one that failed in its first step has none."""
    return any(any(out.glob(made)) for made in ("checkpoints/step_*", "folds/*/checkpoints/step_*", "results/*"))


def began(out: Path, command: Mapping[str, Any]) -> bool:
    """Whether `command`, as `note_begun` wrote it down, began in `out` and did not end."""
    return bool(unfinished(out) == parse_yaml(write_yaml(command), ""))


def unfinished(out: Path) -> dict[str, Any]:
    """The command that began in `out` and did not end, as `note_begun` wrote it down; empty if there is none."""
    note = out / UNFINISHED
    return read_fields(note, "remove it") if note.exists() else {}


def note_begun(out: Path, command: Mapping[str, Any]) -> None:
    """Note that a command which is no run has begun in `out`, so that the same one goes on there; makes the folder."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / UNFINISHED, write_yaml(command))


def note_ended(out: Path) -> None:
    """Take the note of `note_begun` away."""
    remove(out / UNFINISHED)


def check_kept(config: object) -> None:
    """Raise an AudiobatError unless YAML gives `config` back, so that a run of it can be resumed and loaded."""
    fields = to_dict(config)
    try:
        again = to_dict(from_dict(type(config), parse_yaml(write_yaml(fields), "config.yaml")))
    except yaml.YAMLError as error:  # an object that is no plain value, such as a numpy number
        raise AudiobatError(f"The config cannot be written to config.yaml ({error}): use plain values.") from None
    for name, value in flatten(fields).items():
        kept = flatten(again).get(name)
        check(kept == value, name, value, f"config.yaml would give back {kept!r}")


def check_same(
    record: Path, config: object, arguments: Mapping[str, str | int | None], hint: str = "a new --out, or --overwrite"
) -> None:
    """Raise an AudiobatError that names the first field in which a run's config.yaml, `record`, differs."""
    try:
        fields = read_fields(record, f"give {hint}")
        fields = check_same_files(record, fields, to_dict(config), hint)
        known = {name: fields.pop(name, None) for name in arguments}
        before = known | flatten(to_dict(from_dict(type(config), fields)))
    except AudiobatError as error:
        raise AudiobatError(str(error) if str(record) in str(error) else f"{record}: {error}") from None
    for name, value in {**arguments, **flatten(to_dict(config))}.items():
        if name not in FREE_FIELDS and value != before.get(name):
            raise AudiobatError(
                f"{record.parent} holds a run with {name} {before.get(name)!r}, not {value!r}: "
                f"use the run's own value, {hint}."
            )


def check_same_files(record: Path, fields: dict[str, Any], config: dict[str, Any], hint: str) -> dict[str, Any]:
    """A run's recorded fields without `files`, their classes by the paths of `config`, which may start elsewhere.

    What the run used is not run again to find out: a class that `config` does not name may be anything.

    Raises:
        AudiobatError: `config` uses other files, or changed ones.
    """
    fields, recorded = without_files(fields)
    now = {Path(name).name: sha256 for name, sha256 in hashes_of(files_used(config)).items()}
    for name, sha256 in recorded.items():
        file = Path(name).name  # two files of one name are refused, so that this tells them apart
        if file not in now:
            raise AudiobatError(f"the run uses {name}, and this config does not: use the run's own config, {hint}.")
        if now[file] != sha256:
            copy = record.parent / CODE / file
            raise AudiobatError(f"{name} has changed since the run began: use {copy} in its place, {hint}.")
    by_name = {(split_name(kind)[0].name, split_name(kind)[1]): kind for kind in user_classes(config)}
    renamed = {}
    for kind in user_classes(fields):
        path, class_name = split_name(kind)
        if (path.name, class_name) not in by_name:
            raise AudiobatError(f"the run uses {kind}, and this config does not: use the run's own config, {hint}.")
        renamed[kind] = by_name[path.name, class_name]
    return with_kinds(fields, renamed)
