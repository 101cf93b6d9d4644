"""Rows of a run's log to other programs that draw them: TensorBoard's event files, a run on Weights & Biases.

A sink is a convenience: metrics.jsonl has every row, whatever becomes of a sink.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError

FOLDERS = ("tensorboard", "wandb")  # of sinks, in a run's folder
Row = Mapping[str, Any]


class Sink(Protocol):
    """What takes the rows of a run's log, one after the other."""

    def write(self, row: Row) -> None:
        """Take a row of numbers, which has a whole `step`."""

    def close(self, failed: bool) -> None:
        """Write what is left; `failed`: the run ends by an error or a signal."""


class TensorBoard:
    """Event files in FOLDER/tensorboard, written anew where a run resumes.

    A writer can withdraw values from a step on, by `purge_step`, but TensorBoard's default reader (2.21, `load_fast`)
    goes on showing those of curves that get no new value.
    """

    def __init__(self, folder: Path, start_step: int, config: Row, before: Sequence[Row]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        for old in (folder / "tensorboard").glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder / "tensorboard"))
        for row in before:
            if row["step"] <= start_step:
                self.write(row)

    def write(self, row: Row) -> None:
        """Take a row of numbers."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()  # a run that is killed has lost none

    def close(self, failed: bool) -> None:
        """Close the event file."""
        self._writer.close()


class WandB:
    """A run on Weights & Biases, whose id is kept in FOLDER/wandb, so that a run that resumes goes on in it.

    W&B cannot take rows back, and a run that resumes makes some rows again, which are the same numbers. So a row is
    known by its place among all rows of the run: those that W&B has already are not sent. Offline it has none, and each
    part of the run holds all rows up to its end, as a kill takes what a part has not yet put on the disk.
    """

    def __init__(self, folder: Path, start_step: int, config: Row, before: Sequence[Row]) -> None:
        import wandb

        name = folder / "wandb" / "run_id.txt"
        if not name.exists():
            name.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(name, secrets.token_hex(4))
        place = folder.resolve()
        self._run = wandb.init(
            project=None if "WANDB_PROJECT" in os.environ else "audiobat",
            id=name.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(folder),
            name=f"{place.parent.name}/{place.name}",
            config=dict(config),
            settings=wandb.Settings(console="off"),  # the terminal is the progress line's
        )
        # A row's own step, and not W&B's count of rows, is what curves are drawn over.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._left_out = self._run.step  # rows still to leave out
        for row in before:
            if row["step"] <= start_step:
                self.write(row)

    def write(self, row: Row) -> None:
        """Send a row of numbers, unless W&B has it."""
        if self._left_out > 0:
            self._left_out -= 1
        else:
            self._run.log(dict(row))

    def close(self, failed: bool) -> None:
        """Wait until all is sent."""
        self._run.finish(exit_code=int(failed))


SINKS: Mapping[str, Callable[[Path, int, Row, Sequence[Row]], Sink]] = {"tensorboard": TensorBoard, "wandb": WandB}


def check_sinks(names: Sequence[str]) -> None:
    """Raise an AudiobatError if the package of a sink is not installed."""
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # the second: a mere folder of that name, such as W&B leaves
            raise AudiobatError(
                f"train.log_to {name} needs the package {name}: `pip install 'audiobat[{name}]'`, or leave it out."
            )


def numbers_of(row: Row) -> dict[str, float]:
    """What of a row a sink can draw."""
    return {name: value for name, value in row.items() if isinstance(value, int | float) and type(value) is not bool}
