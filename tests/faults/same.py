"""Whether two folders hold the same results: every file, byte for byte, but for times and the machine's description."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

TIMES = ("seconds", "steps_per_second", "clips_per_second", "data_wait", "wall_seconds", "created")
CLOCKED = ("live.svg", "live.png")  # of the demo, whose training is looked at after some seconds
PRESENT = (*CLOCKED, "log.txt", "env.json", "demo.json", "index.html")  # tell of the process, and repeat results


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> digest of each file below `folder`, and `folder` for each folder that holds nothing.

    Of the checkpoints behind the newest their number counts: a signal saves one at the step at which it comes.
    """
    found = {}
    older = {step: f"older {n}" for steps in checkpoints_in(folder) for n, step in enumerate(steps[:-1])}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.parent in older:
            found[name.replace(path.parent.name, older[path.parent])] = "there"
        elif path.is_file():
            found[name] = "there" if path.name in PRESENT else digest(path, folder)
        elif not any(path.iterdir()):
            found[name] = "an empty folder"
    return found


def checkpoints_in(folder: Path) -> list[list[Path]]:
    """The checkpoints of each run below `folder`, the newest last."""
    return [sorted(place.glob("step_*")) for place in folder.rglob("checkpoints")]


def digest(path: Path, folder: Path) -> str:
    """A digest of a file without times, and without the name of the folder that it lies in."""
    data = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
    if path.name == "state.pt":
        state = torch.load(path, weights_only=True)
        data = repr(without_times(_plain(state))).encode()
    elif path.suffix in (".json", ".jsonl"):
        parts = data.decode().splitlines() if path.suffix == ".jsonl" or "features" in path.parts else [data.decode()]
        data = repr([_json(part) for part in parts]).encode()
    return hashlib.sha256(data).hexdigest()


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """The files that differ, or that only one of two folders has, in words."""
    words = []
    for name in sorted(ours | theirs):
        if name not in ours or name not in theirs:
            words.append(f"{name} is {'missing' if name not in ours else 'too many'}")
        elif ours[name] != theirs[name]:
            words.append(f"{name} differs")
    return words


def _json(text: str) -> Any:
    """A JSON document without times; a line that is none, such as a checksum before one, as it is."""
    try:
        return without_times(json.loads(text))
    except ValueError:
        return text


def without_times(value: Any) -> Any:
    """Nested lists and mappings without the fields that hold times."""
    if isinstance(value, dict):
        return {name: without_times(v) for name, v in value.items() if name not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return (str(value.dtype), list(value.shape), hashlib.sha256(content).hexdigest())
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
