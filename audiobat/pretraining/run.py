"""`audiobat pretrain`: a config and clips in, a run folder out; resumes, stops cleanly, watches for collapse."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from audiobat.config import PretrainConfig, to_dict
from audiobat.config.recipes import Recipe, make_config
from audiobat.config.rungs import describe_rung, rung_of
from audiobat.config.user_files import errors_of_user_code
from audiobat.data.clip_table import ClipTable
from audiobat.data.sampler import ClipOrder, clip_order
from audiobat.data.skipped import SkippedList
from audiobat.data.sources.read import read_clips
from audiobat.engine.checkpoint import goes_on_from, latest, load_checkpoint, restore_moments
from audiobat.engine.logs import RunLog, check_sinks
from audiobat.engine.loop import fit
from audiobat.engine.ranks import Ranks, check_batch, launch, pick_device, pick_precision
from audiobat.engine.run_folder import check_kept, prepare_run, sole_use
from audiobat.errors import AudiobatError, Stopped
from audiobat.pretraining.begin import Beginning, begin
from audiobat.pretraining.calibrate import calibrate_run
from audiobat.pretraining.first_step import try_step
from audiobat.pretraining.objectives.base import Objective, build_objective, encoder_prefix
from audiobat.pretraining.parts import crops_of, set_up
from audiobat.pretraining.plan import make_plan, shortage_of

if TYPE_CHECKING:
    from audiobat.probing.online import OnlineProbe

LARGEST_TRIED = 20_000_000  # parameters, of an objective that `--dry-run` tries: about a second on a CPU


def pretrain(
    config: PretrainConfig | Recipe,
    out: str | Path,
    *,
    resume: Literal["auto", "never"] = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    calibrate: bool = False,
    max_seconds: float | None = None,
) -> Path:
    """Pre-train an encoder by masked latent regression and return its run folder.

    Args:
        config: what to train, on what, for how long; `config.data.path` is a folder of audio or a CSV.
        out: run folder: config.yaml, env.json, metrics.jsonl, log.txt, skipped.csv, checkpoints/, and those of sinks.
        resume: `auto` goes on from the newest checkpoint in `out`; `never` wants a new folder.
        overwrite: remove the run that `out` holds, then start.
        dry_run: print the plan and write nothing.
        calibrate: with `dry_run`, train for ten seconds and print what the run will take: hours, memory, energy.
        max_seconds: stop, with a checkpoint, after this long.

    Raises:
        AudiobatError: data that cannot be used, a run of another config in `out`, a loss that is no longer finite.
        Stopped: SIGTERM, SIGINT (Ctrl-C), SIGUSR1 or SIGHUP came: it ended after the current step, with a checkpoint.
    """
    out = Path(out)
    with errors_of_user_code():
        config = make_config(PretrainConfig, config)
        if calibrate and not dry_run:
            raise AudiobatError("calibrate goes with dry_run only: add --dry-run, or leave --calibrate out.")
        if dry_run:
            print_plan(config)
            if calibrate:
                print(calibrate_run(config).describe(config.train.steps))
            return out
        if max_seconds is not None and not max_seconds >= 0:
            raise AudiobatError(f"max_seconds is {max_seconds}: give 0 or more, or leave it out.")
        if not config.data.path:
            raise AudiobatError("No data to train on: give --data, a folder of audio or a CSV with a path column.")
        with launch(config.train.device, config.train.timeout, partial(goes_on_from, out)) as ranks:
            table = read_clips(config.data.path)
            order = clip_order(table, config.data, config.train.seed)
            check_batch(config.train.batch_size, ranks)
            torch.manual_seed(config.train.seed)
            # Before anything is written: its parts may not fit, and neither may what it begins with.
            check_kept(config)  # it is made of plain values, with which sizes can be counted
            check_sinks(config.train.log_to)
            check_memory(config, ranks)
            objective = build_objective(config)
            check_memory(config, ranks, objective)
            beginning = begin(objective, config) if overwrite or latest(out) is None else None
            watch = watcher(config, objective, ranks)
            with sole_use(out) if ranks.is_main else nullcontext():
                if ranks.is_main:
                    prepare_run(out, config, resume, overwrite)
                ranks.barrier()
                train_run(config, objective, beginning, watch, out, table, order, ranks, max_seconds)
    return out


def watcher(config: PretrainConfig, objective: Objective, ranks: Ranks) -> OnlineProbe | None:
    """The probes that watch what a release will keep, if `online.data` has clips for them."""
    if config.online.data is None:
        return None
    from audiobat.probing.online import OnlineProbe  # of a room below: probes know nothing of how a model is trained

    return OnlineProbe(config.online, objective.encoder, config.train.steps, ranks)


def check_memory(config: PretrainConfig, ranks: Ranks, objective: Objective | None = None) -> None:
    """Raise an AudiobatError if a step takes more memory than a rank's machine has (see `shortage_of`)."""
    if sentence := shortage_of(config, ranks, objective):
        raise AudiobatError(sentence)


def print_plan(config: PretrainConfig) -> None:
    """Print what a run of `config` computes, what it begins with, and its rung of the ladder; first try its parts.

    A run that is too large for this machine has a plan all the same, as it may be meant for another.
    """
    ranks = Ranks(pick_device(config.train.device))
    bf16 = pick_precision(config.train.precision, ranks.device) is not None
    beginning = None
    if (lacking := shortage_of(config, ranks)) is None:
        objective = build_objective(config)
        if sum(parameter.numel() for parameter in objective.parameters()) <= LARGEST_TRIED:
            try_step(objective)
        beginning = begin(objective, config)
        lacking = shortage_of(config, ranks, objective)
    with torch.device("meta") if lacking else nullcontext():  # there sizes take no memory
        print(make_plan(config, bytes_per_value=2 if bf16 else 4))
    if lacking is not None:
        print(f"{'warning':>14}  {lacking}")
    if beginning is not None:
        print(f"{'init':>14}  {beginning.sentence}")
    if rung := rung_of(config):
        print(f"{'ladder':>14}  {describe_rung(rung)}")


def train_run(
    config: PretrainConfig,
    model: Objective,
    beginning: Beginning | None,
    watch: OnlineProbe | None,
    out: Path,
    table: ClipTable,
    order: ClipOrder,
    ranks: Ranks,
    max_seconds: float | None,
) -> None:
    """Train the run in `out` from its newest checkpoint, or from step 0 and its `beginning`, to its end."""
    checkpoint = load_checkpoint(out)
    start = checkpoint.step if checkpoint else 0
    optimizer = set_up(model, config, ranks.device)
    if beginning is not None and beginning.optimizer is not None:
        restore_moments(beginning.optimizer, optimizer)
    loader, skipped = crops_of(config, table, order, ranks, start), SkippedList(out / "skipped.csv", ranks)
    try:
        with RunLog(out, start, main=ranks.is_main, sinks=config.train.log_to, config=to_dict(config)) as log:
            log.say(f"Pre-training on {len(table)} clips, {config.train.steps} steps, from step {start}, in {out}.")
            if beginning is not None:
                log.say(beginning.sentence)
            if watch is not None:
                log.say(watch.sentence)
            clips = table.sha256()
            if checkpoint is not None and checkpoint.extra.get("clips") != clips:
                log.say(f"Warning: {config.data.path} has other clips than before step {start}: their order changes.")
            result = fit(
                model,
                optimizer,
                loader,
                config.train,
                config.optim,
                log=log,
                ranks=ranks,
                max_seconds=max_seconds,
                resume=checkpoint,
                extra={"clips": clips, "encoder": encoder_prefix(model)},
                after_step=model.after_step,
                before_save=lambda: skipped.gather(loader.skipped),
                on_log=CollapseWatch(log, model),
                watch=watch,
            )
        if result.stopped:
            raise Stopped  # the log has said so
    finally:
        skipped.add(loader.skipped)


class CollapseWatch:
    """Says in words, once for each sign, that the representation is collapsing."""

    def __init__(self, log: RunLog, objective: type[Objective] | Objective) -> None:
        self.log, self.objective = log, objective  # whose `health` says which statistics tell of a collapse
        self.warned: set[str] = set()
        self.is_first_row = True

    def __call__(self, row: dict[str, Any]) -> None:
        """Look at one row of the log."""
        unknown = [name for name in self.objective.health if name not in row]
        if unknown and self.is_first_row:
            known = ", ".join(name for name in row if name != "step")
            self.log.say(f"Warning: health watches {', '.join(unknown)}, which is no statistic: there are {known}.")
        self.is_first_row = False
        hint = f" Hint: {self.objective.health_hint}." if self.objective.health_hint else ""
        for name, (limit, meaning) in self.objective.health.items():
            if name in row and row[name] < limit and name not in self.warned:
                self.warned.add(name)
                sign = f"{meaning} ({name} {row[name]:.3g}, below {limit})"
                self.log.say(f"Warning: collapse at step {row['step']}: {sign}.{hint}")
