"""The step loop: a model that returns its loss, an optimizer and batches in; trained weights, rows, checkpoints out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from audiobat.config import OptimConfig, TrainConfig
from audiobat.engine.checkpoint import Checkpoint, latest, restore, save_checkpoint, tidy
from audiobat.engine.logs import Means, RunLog
from audiobat.engine.optim import lr_at, set_lr
from audiobat.engine.progress import Progress
from audiobat.engine.randomness import seed_step
from audiobat.engine.ranks import Ranks, pick_precision
from audiobat.engine.sharding import join, own_part, shard, unshard
from audiobat.engine.signals import Note, noted
from audiobat.errors import AudiobatError

Reason = Literal["done", "time", "signal"]
GO, TIME, SIGNAL = 0, 1, 2  # numbers, so that the ranks can agree on the largest
REASONS: dict[int, Reason] = {GO: "done", TIME: "time", SIGNAL: "signal"}
KEYS_SHOWN = 8  # of a batch, in an error


@dataclass(frozen=True)
class FitResult:
    """How a run ended: after `step` steps, because all were done, the time was up, or a signal came."""

    step: int
    reason: Reason

    @property
    def stopped(self) -> bool:
        """Whether a signal ended the run."""
        return self.reason == "signal"


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[Any],
    train: TrainConfig,
    optim: OptimConfig,
    *,
    log: RunLog,
    ranks: Ranks,
    until: int | None = None,
    max_seconds: float | None = None,
    resume: Checkpoint | None = None,
    extra: Mapping[str, Any] | None = None,
    after_step: Callable[[int], None] | None = None,
    before_save: Callable[[], None] | None = None,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    watch: Callable[[int], Mapping[str, float]] | None = None,
    phase: str = "pre-train",
) -> FitResult:
    """Train `model` for `train.steps` steps, from `resume` if given, and leave a checkpoint in `log.folder` at the end.

    Args:
        model: on `ranks.device`; `model(batch, step)` returns `(loss, stats)`, all scalars, as means over the batch.
        optimizer: its learning rate is set before every step; what the model moves by itself is no part of it.
        batches: yields this rank's batches, the first one for step `resume.step` (or 0); an error about a batch names
            its `keys`, a list of text, if it has them.
        train: length, batch size, seed, precision, and how often to log and save. Each step seeds what is random
            in it from (seed, step), so no random state is ever saved.
        optim: the schedule of the learning rate over `train.steps`, and `grad_clip`.
        log: writes the rows; its folder takes the checkpoints.
        ranks: of this process.
        until: end after this many steps, as a phase of the run; None: after all.
        max_seconds: no step starts later than this many seconds after the start.
        extra: plain JSON values stored in every checkpoint.
        after_step: called with the step's number once the weights are updated (say, to move a teacher).
        before_save: called on every rank before each checkpoint.
        on_log: called on every rank with every row; an error that it raises ends the run.
        watch: called on every rank with the number of steps done, after each; what it finds, if anything, is a row of
            its own, beside the seconds that it took and their share of the run so far, and stays in the progress line.
            The rates of other rows leave out that time.
        phase: what the progress line says.

    A step's number counts from 0; a row's and a checkpoint's `step` is the number of steps done. A signal (see
    `signals.py`) ends the run on all ranks after the current step, with a checkpoint; a second Ctrl-C aborts it.

    With `train.shard` fsdp2 the model and the optimizer are divided over the ranks from the start to the end, and whole
    again behind it; `after_step` finds them divided.

    Raises AudiobatError for a loss that is not finite, for data that end early, and for a checkpoint of another shape.
    """
    start = resume.step if resume is not None else 0
    steps = train.steps if until is None else until
    precision = pick_precision(train.precision, ranks.device)

    def lr(step: int) -> float:
        return lr_at(
            step,
            peak=optim.lr,
            floor=optim.min_lr,
            warmup_steps=optim.warmup_steps,
            total_steps=train.steps,
            warmup=optim.warmup,
            cosine_end=optim.cosine_end,
        )

    if resume is not None:
        restore(resume, model, optimizer)
        if ranks.is_main and resume.path == latest(log.folder):  # else a newer one is there, which could not be read
            tidy(log.folder, start, train.keep, train.keep_every)
    means = Means(resume.means if resume is not None else None)
    divided = train.shard == "fsdp2" and ranks.world_size > 1
    trained = (shard(model, optimizer) if divided else ranks.wrap(model)).train()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]  # all that it clips and updates
    # Every rank writes its part of a divided model, but where no rank is the main one, as while a run is measured.
    writes = bool(ranks.largest(ranks.is_main)) if divided else ranks.is_main
    finite = _FiniteWatch(ranks, log)
    clock = _Clock(train.batch_size)

    def write_row(partial: bool = False) -> str:
        """Write the row of the steps since the last one; a partial one goes on in the run that resumes."""
        finite.check()
        values = {"partial": True, **means.values(ranks)} if partial else means.pop(ranks)
        row = {"step": done, **values, "lr": lr(done - 1), **clock.pop()}
        log.write(row)
        if on_log is not None:
            on_log(row)
        return f"loss {row['loss']:.4g}"

    def look() -> str:
        """Let `watch` look at what is trained, and write what it finds."""
        if watch is None:
            return ""
        with clock.paused():
            found = watch(done)
        if found:
            log.write({"step": done, **found, **clock.pauses()})
        return ", ".join(f"{name} {value:.4g}" for name, value in found.items())

    def save() -> None:
        finite.check(model)
        if before_save is not None:
            before_save()
        state = means.state(ranks)
        if writes:
            save_checkpoint(
                log.folder,
                done,
                model,
                optimizer,
                means=state,
                extra=extra,
                keep=train.keep,
                keep_every=train.keep_every,
            )
        ranks.barrier()  # no rank goes on, or ends, before the checkpoint is whole

    done, saved, stop = start, start, GO
    note = seen = ""  # in the progress line: the last row, and the last that `watch` found
    progress = Progress(phase, steps, done=start, limit=max_seconds, shown=ranks.is_main)
    # Signals first: a worker process that loads data inherits them, so Ctrl-C does not kill it in the middle of a step.
    with noted() as signals, progress:
        source = iter(batches)
        while done < steps:
            batch = clock.next_batch(source, signals)
            time_is_up = max_seconds is not None and clock.elapsed >= max_seconds
            # The ranks agree before the step, so that none of them waits in it for one that has stopped.
            stop = ranks.largest(SIGNAL if signals.came else TIME if time_is_up else GO)
            if stop != GO:
                break
            if batch is None:
                raise AudiobatError(f"The data ended after step {done} of {steps}: repeat them for as long as needed.")

            seed_step(train.seed, done, ranks.device)  # so no checkpoint needs a random state
            set_lr(optimizer, lr(done))
            with torch.autocast(ranks.device.type, precision, enabled=precision is not None):
                loss, stats = trained(to_device(batch, ranks.device), done)
            loss.backward()
            loss = loss.detach()  # the graph goes with the last reference to it
            if optim.grad_clip is not None:
                stats = {**stats, "grad_norm": join(nn.utils.clip_grad_norm_(parameters, optim.grad_clip))}
            optimizer.step()
            optimizer.zero_grad()  # their memory is free before the next forward pass
            if after_step is not None:
                after_step(done)

            finite.add(loss, done, batch)  # on the device, as are the means: only a row and a save wait for it
            means.add({"loss": loss, **stats})
            done += 1
            clock.steps += 1
            # Rows before saves: a run that is killed behind a save does not make the rows before it again.
            note = write_row() if done % train.log_every == 0 or done == steps else note
            seen = look() or seen
            progress.advance(note=", ".join(filter(None, (note, seen))))
            if done % train.save_every == 0:
                save()
                saved = done
        if clock.steps and stop == TIME:  # who sets a time may look at the run now
            progress.advance(0, note=write_row(partial=True))
        if done > saved:
            save()
    if divided:
        unshard(model, optimizer)
    if stop == SIGNAL:
        log.say(f"Stopped by a signal after step {done} of {steps}. The same command goes on from here.")
    elif stop == TIME:
        log.say(f"Stopped after step {done} of {steps}, as the time of {max_seconds:g} s is up.")
    return FitResult(done, REASONS[stop])


def to_device(batch: Any, device: torch.device) -> Any:
    """`batch` with everything in its tuples, lists and mappings that has a `to`, as tensors do, on `device`."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: to_device(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [to_device(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


class _FiniteWatch:
    """Remembers on the device the first step whose loss was not finite; looking at it is left to rows and saves.

    Until then it keeps the names of what was in each batch.
    """

    def __init__(self, ranks: Ranks, log: RunLog) -> None:
        self._ranks, self._log = ranks, log
        self._never = torch.iinfo(torch.int64).max
        self._first = torch.full((), self._never, device=ranks.device)
        self._keys: dict[int, list[str]] = {}  # of each step's batch, since the last look

    def add(self, loss: Tensor, step: int, batch: Any) -> None:
        self._first = torch.where(loss.isfinite(), self._first, self._first.clamp(max=step))
        keys = getattr(batch, "keys", None)
        self._keys[step] = keys if isinstance(keys, list) else []  # the `keys` of a dictionary is a method

    def check(self, model: nn.Module | None = None) -> None:
        """Raise AudiobatError if a loss, or a weight of `model`, was not finite on any rank."""
        first = int(self._ranks.reduce(self._first, "min"))
        weights = [] if model is None else [own_part(p.detach()).isfinite().all() for p in model.parameters()]
        finite = self._ranks.reduce(torch.stack(weights).all().long(), "min") if weights else True
        if first == self._never and finite:
            self._keys.clear()
            return
        what = "The weights are not finite any more"
        if first != self._never:
            what = f"The loss of step {first} is not finite{self._batch(first)}"
        last = latest(self._log.folder)
        go_on = f"resume from {last.name}" if last is not None else "start again"
        raise AudiobatError(
            f"{what}: {go_on} with a lower optim.lr, with optim.grad_clip (say 1.0) or with --precision fp32."
        )

    def _batch(self, step: int) -> str:
        """What was in the batches of the ranks whose loss broke at `step`, in brackets; log.txt gets all of it."""
        broke = int(self._first) == step
        keys = [key for part in self._ranks.gather(self._keys[step] if broke else []) for key in part]
        if not keys:
            return ""
        self._log.note(f"The batch of step {step}: {', '.join(keys)}.")
        more = f" and {len(keys) - KEYS_SHOWN} more, see log.txt" if len(keys) > KEYS_SHOWN else ""
        return f" (its batch: {', '.join(keys[:KEYS_SHOWN])}{more})"


class _Clock:
    """Times the steps and the waiting for data since the last row."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._start = self._row_start = monotonic()
        self._waited = self._pause = self._paused = 0.0
        self.steps = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return monotonic() - self._start

    def next_batch(self, source: Iterator[Any], signals: Note) -> Any:
        """The next batch; None at the data's end and once a signal has come."""
        before = monotonic()
        try:
            return None if signals.came else next(source, None)
        except Exception:
            if signals.came:  # the signal ended the processes that load the data, too
                return None
            raise
        finally:
            self._waited += monotonic() - before

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of this block in the rates of the row to come; it is part of the run's seconds."""
        before = monotonic()
        yield
        self._pause = monotonic() - before
        self._paused += self._pause
        self._row_start += self._pause

    def pauses(self) -> dict[str, float]:
        """Seconds of the last pause, and the share of all pauses in the run so far."""
        return {"watch_seconds": self._pause, "watch_share": self._paused / max(self.elapsed, 1e-9)}

    def pop(self) -> dict[str, float]:
        """Rates since the last row, the share of the time spent waiting for data, and the seconds of the whole run."""
        now = monotonic()
        seconds = max(now - self._row_start, 1e-9)
        rate = self.steps / seconds
        row = {
            "steps_per_second": rate,
            "clips_per_second": rate * self._batch_size,
            "data_wait": self._waited / seconds,
            "seconds": now - self._start,
        }
        self._row_start, self._waited, self.steps = now, 0.0, 0
        return row
