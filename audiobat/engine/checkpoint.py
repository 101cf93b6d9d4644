"""What resuming a run needs: checkpoints/step_000123/state.pt, written so that a kill at any instant is safe.

A model that is divided over ranks leaves a file of each rank in the folder `parts` beside state.pt, which has their
digests. Both kinds are read as the same whole tensors, so that a run goes on by any number of ranks, divided or not.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from audiobat.engine.files import check_zip, clear_leftovers, remove, replacing, write_atomic
from audiobat.engine.ranks import place
from audiobat.engine.sharding import digests, is_divided, read_parts, write_parts
from audiobat.errors import AudiobatError

logger = logging.getLogger(__name__)

SHOWN = 8  # steps at either end of a list of them
PARTS = "parts"  # the folder with the files of the ranks


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps. No random state: each step seeds itself from (seed, step)."""

    step: int
    model: dict[str, Any]  # tensors, and what a module keeps by `get_extra_state`
    optimizer: dict[str, Any]
    means: dict[str, tuple[float, int]] = field(default_factory=dict)  # of the rows not yet logged
    extra: dict[str, Any] = field(default_factory=dict)  # plain JSON values, the caller's own
    path: Path = Path()


def save_checkpoint(
    run_folder: str | Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    means: Mapping[str, tuple[float, int]] | None = None,
    extra: Mapping[str, Any] | None = None,
    keep: int = 2,
    keep_every: int | None = None,
) -> Path:
    """Write the checkpoint of `step`, then remove all but the `keep` newest; returns its folder.

    Those of steps that are multiples of `keep_every` stay for ever, whatever `keep` is.

    Every rank must call it for a model that is divided over them, one alone for any other.

    Checkpoints of later steps are removed too: the run came back to an earlier one because they could not be read.
    """
    folder = Path(run_folder) / "checkpoints"
    final = folder / f"step_{step:06d}"
    moments = optimizer.state_dict()
    moments["state"] = {number: dict(values) for number, values in moments["state"].items()}
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": moments,
        "means": dict(means or {}),
        "extra": json.dumps(extra or {}),
    }
    divided = _take_divided(state)
    if divided and place()[0]:
        dist.barrier()  # until rank 0 has made the folder
        write_parts(final.with_name(final.name + ".tmp") / PARTS, divided)
        return final
    clear_leftovers(folder)  # of a run that was killed while it wrote or removed a checkpoint
    with replacing(final) as beside:
        beside.mkdir()
        if divided:
            dist.barrier()
            write_parts(beside / PARTS, divided)
            state["parts"] = digests(beside / PARTS)
        with (beside / "state.pt").open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch's own words hide why a write failed
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            file.flush()
            os.fsync(file.fileno())
    tidy(run_folder, step, keep, keep_every)
    return final


def tidy(run_folder: str | Path, step: int, keep: int = 2, keep_every: int | None = None) -> None:
    """Leave what `save_checkpoint` leaves once that of `step` is there: a run that was killed before may have more."""
    folder = Path(run_folder) / "checkpoints"
    clear_leftovers(folder)
    steps = _steps(folder)
    write_atomic(folder / "last", steps[step].name + "\n")  # for people; the folders' names alone decide what is newest
    before = [s for s in steps if s <= step]
    kept = {*before[-keep:], *(s for s in before if keep_every is not None and s % keep_every == 0)}
    for old in steps:
        if old not in kept:
            doomed = steps[old].with_name(steps[old].name + ".tmp")
            steps[old].rename(doomed)  # first, so that a kill half-way leaves no checkpoint with a hole
            remove(doomed)


def latest(run_folder: str | Path) -> Path | None:
    """The folder of the newest checkpoint of a run, or None; half-written ones do not count."""
    return next(reversed(_steps(Path(run_folder) / "checkpoints").values()), None)


def goes_on_from(run_folder: str | Path) -> str:
    """Where the same command goes on after a run has broken off."""
    folders = [Path(run_folder), *Path(run_folder).glob("folds/*")]  # one training for each fold has its own
    newest = max((path for folder in folders if (path := latest(folder))), key=os.path.getmtime, default=None)
    return (
        f"The same command goes on from {newest}."
        if newest
        else "No checkpoint is there: the same command starts again."
    )


def load_checkpoint(run_folder: str | Path, warn: Callable[[str], object] = logger.warning) -> Checkpoint | None:
    """The newest checkpoint of a run that can be read, on the CPU; None if the run has none.

    A damaged one is passed over with a sentence to `warn`. Raises AudiobatError if all are damaged.
    """
    folder = Path(run_folder) / "checkpoints"
    steps = _steps(folder)
    for path in reversed(steps.values()):
        try:
            return read_checkpoint(path)
        except AudiobatError as error:
            warn(f"{error} Going back to the checkpoint before it.")
    if steps:
        raise AudiobatError(f"No checkpoint in {folder} can be read: start again with --overwrite or another --out.")
    return None


def checkpoint_of_step(run_folder: str | Path, step: int) -> Checkpoint:
    """The checkpoint of a step, on the CPU; AudiobatError if it is damaged, or not there, with the steps that are."""
    steps = _steps(Path(run_folder) / "checkpoints")
    if step not in steps:
        there = [str(s) for s in steps]
        shown = there if len(there) <= 2 * SHOWN else [*there[:SHOWN], "...", *there[-SHOWN:]]
        what = f"it has those of {', '.join(shown)}" if shown else "it has none yet"
        raise AudiobatError(f"{run_folder} has no checkpoint of step {step}: {what}.")
    return read_checkpoint(steps[step])


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read one checkpoint folder without running code from it; AudiobatError if it is damaged."""
    path = Path(path)
    try:
        check_zip(path / "state.pt")
        state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        if "parts" in state:
            if digests(path / PARTS) != state["parts"]:
                raise AudiobatError(f"the files in {PARTS} do not match their digests")
            _put_back(state, read_parts(path / PARTS))
        extra = json.loads(state["extra"])
        return Checkpoint(state["step"], state["model"], state["optimizer"], state["means"], extra, path)
    except Exception as error:  # a damaged file can fail anywhere in the readers
        raise AudiobatError(f"Checkpoint {path} cannot be read ({_first_line(error)}).") from error


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer) -> None:
    """Put the checkpoint's weights and moments into `model` and `optimizer`, whose own lr, decay and betas stay.

    Raises AudiobatError that names the first tensor that differs.
    """
    # Only tensors are compared: extra state, such as that of an optimizer of the module's own, is for the module.
    states = (checkpoint.model, model.state_dict())
    theirs, ours = ({name: list(t.shape) for name, t in s.items() if isinstance(t, Tensor)} for s in states)
    for name in ours | theirs:
        if theirs.get(name) != ours.get(name):
            raise AudiobatError(
                f"Checkpoint {checkpoint.path} does not fit this model: {name} is {theirs.get(name, 'absent')} there "
                f"and {ours.get(name, 'absent')} here. Use the run's own config.yaml, or start another --out."
            )
    model.load_state_dict(checkpoint.model)
    try:
        restore_moments(checkpoint.optimizer, optimizer)
    except ValueError as error:
        raise AudiobatError(
            f"Checkpoint {checkpoint.path} groups its parameters in another way ({_first_line(error)}): "
            "resume with the run's own optim.decay_1d, or start another --out."
        ) from error


def restore_moments(state: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Put the moments of an optimizer's `state` into `optimizer`, whose own lr, decay and betas stay.

    A parameter of another shape, such as a table of positions for longer clips, begins without. Raises ValueError
    unless both have the same groups of parameters.
    """
    own = [{name: value for name, value in g.items() if name != "params"} for g in optimizer.param_groups]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    moments = dict(state["state"])
    for number, parameter in zip(numbers, parameters, strict=False):
        shapes = [m.shape for m in moments.get(number, {}).values() if isinstance(m, Tensor) and m.ndim]
        if any(shape != parameter.shape for shape in shapes):
            del moments[number]
    optimizer.load_state_dict({**state, "state": moments})
    for group, options in zip(optimizer.param_groups, own, strict=True):
        group.update(options)


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Where tensors are in the state of a model and an optimizer: a name of its own, the dictionary, the name in it."""
    for name in state["model"]:
        yield f"model.{name}", state["model"], name
    for number, moments in state["optimizer"]["state"].items():
        for name in moments:
            yield f"optimizer.{number}.{name}", moments, name


def _take_divided(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of `state` that are divided over the ranks, of which it keeps the places."""
    taken = {}
    for full, values, name in _tensors(state):
        if is_divided(values[name]):
            taken[full], values[name] = values[name], None
    return taken


def _put_back(state: dict[str, Any], taken: Mapping[str, Tensor]) -> None:
    for full, values, name in _tensors(state):
        if full in taken:
            values[name] = taken[full]


def _steps(folder: Path) -> dict[int, Path]:
    """The whole checkpoints in `folder` by step, oldest first."""
    found = [(re.fullmatch(r"step_(\d+)", path.name), path) for path in folder.glob("step_*")]
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
