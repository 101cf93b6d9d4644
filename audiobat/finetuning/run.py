"""`audiobat finetune`: a model and labelled clips in; a run folder out, with a release that tags, and its records.

Every fold of a data set with folds is a run of its own in OUT/folds; a data set with splits is one run, in OUT.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Literal

import numpy as np
import torch

from audiobat.config import FinetuneConfig, TaggerConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.sampler import clip_order
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import hashed_share
from audiobat.engine.ranks import Ranks, launch, pick_precision
from audiobat.engine.run_folder import prepare_run, sole_use
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.evaluation.record import ModelInfo, ResultRecord, load_record, save_scores
from audiobat.finetuning.labels import Rows, check_labels, is_frame_task, labels_of
from audiobat.finetuning.plan import describe
from audiobat.finetuning.step import Finetuning
from audiobat.finetuning.testing import Listener, Tested, Work, record_of
from audiobat.finetuning.training import train_fold
from audiobat.models.encoder import AudioEncoder
from audiobat.models.fitted import fitted
from audiobat.models.tagger import Tagger
from audiobat.pretraining.run import check_batch
from audiobat.probing.records import describe_model, scores_of_folds
from audiobat.probing.run import list_skipped, record_path, splits_of, summary
from audiobat.probing.task import pick_loss
from audiobat.probing.testing import gate_of
from audiobat.zoo import release as release_io
from audiobat.zoo.load import load_encoder


@dataclass(frozen=True)
class Split:
    """Rows of the clip table for one training."""

    train: Rows
    valid: Rows  # may be none
    test: Rows


def finetune(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    config: FinetuneConfig | None = None,
    *,
    test_fold: int | None = None,
    resume: Literal["auto", "never"] = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    max_seconds: float | None = None,
) -> list[ResultRecord]:
    """Train an encoder with a head on labelled clips, test it, and keep it as a release.

    Args:
        model: shipped weights by name, a release folder, a run folder, or a checkpoint file of BAT, EAT or SSLAM; a
            head that it has is left out unless `config.keep_head`.
        data: clips with labels, as for `probe`; those of split `valid` choose the best weights.
        out: run folder: config.yaml, env.json, metrics.jsonl, log.txt, skipped.csv, checkpoints/, results/, release/;
            with folds the run and the release of each are in folds/FOLD/.
        config: the head, its training and which weights are kept; by default Table 6, AS-20K.
        test_fold: the one fold to test on; None, where clips have folds and no splits: each in turn.
        resume: `auto` goes on from the newest checkpoint in `out`; `never` wants a new folder.
        overwrite: remove the run that `out` holds, then start.
        dry_run: print clips, labels and learning rates, and write nothing.
        max_seconds: stop, with a checkpoint, after this long.

    Returns:
        The records, of the kept weights first; of the last and of the best where there are validation clips. An empty
        list if it was stopped: by its time, or by SIGTERM or Ctrl-C, which end it after the current step, with a
        checkpoint.

    Raises:
        AudiobatError: a model or clips that cannot be used, a label that no training clip has, a head of other classes,
            a run of other settings in `out`, a loss that is not finite.
    """
    start, out, config = monotonic(), Path(out), config or FinetuneConfig()
    config = replace(config, data=replace(config.data, path=str(data)))
    if max_seconds is not None and not max_seconds >= 0:
        raise AudiobatError(f"max_seconds is {max_seconds}: give 0 or more, or leave it out.")
    table = read_labelled_clips(data)
    splits = {fold: split_of(table, *rows, config) for fold, rows in splits_of(table, test_fold).items()}
    for split in splits.values():
        clip_order(table.select(split.train), config.data, config.train.seed)  # tells what cannot be drawn
    tagger_config = tagger_for(config, table)
    first = new_tagger(model, tagger_config, config)
    if dry_run:
        print(describe(first, config, len(table), {fold: vars(split) for fold, split in splits.items()}))
        return []
    name, info = Path(model).resolve().name, describe_model(Path(model).resolve().name, first.encoder)
    with launch(config.train.device) as ranks, sole_use(out) if ranks.is_main else nullcontext():
        check_batch(config.train.batch_size, ranks)
        if ranks.is_main:
            prepare_run(out, config, resume, overwrite, {"model": str(model), "test_fold": test_fold})
        ranks.barrier()
        kept = weights_kept(splits, config)
        paths = [record_path(out, name, f"finetune_{which}", config.train.seed) for which in kept]
        if all(path.exists() for path in paths):
            print(f"{out} is finished: --overwrite starts again.")
            return [load_record(path) for path in paths]
        listener = listener_for(table, tagger_config, config, ranks)
        work = Work()
        tested: dict[str, dict[str, Tested]] = {which: {} for which in kept}
        for fold, split in splits.items():
            folder = out / "folds" / fold if fold else out
            left = None if max_seconds is None else max(0.0, max_seconds - (monotonic() - start))
            tagger = new_tagger(model, tagger_config, config)
            trained = train_fold(folder, tagger, listener, split.train, split.valid, config, work, left)
            if trained is None:
                return []
            for which in kept:
                tested[which][fold] = hear_test(trained, which, listener, split)
            if ranks.is_main:
                save_tagger(folder, trained, config, info, listener)
        work.seconds = monotonic() - start
        data_name = Path(data).resolve().stem
        records = [record_of(info, listener, tested[which], config, data_name, work) for which in kept]
        if ranks.is_main:
            list_skipped(out, listener.skipped)
            records = [
                save_tested(path, r, tested[which], table) for path, r, which in zip(paths, records, kept, strict=True)
            ]
            print(f"records: {out / 'results'}, release: {folder / release_io.RELEASE}")
    return records


def save_tested(path: Path, record: ResultRecord, tested: Mapping[str, Tested], table: ClipTable) -> ResultRecord:
    """Write a record with the scores of single clips beside it, and print its line; returns it as it was written."""
    record = replace(record, scores=save_scores(path, scores_of_folds(tested, table)))
    record.save(path)
    print(summary(f"fine-tuned, {record.head['selection']} weights", record))
    return record


def split_of(table: ClipTable, train: Rows, test: Rows, config: FinetuneConfig) -> Split:
    """Rows that train, validate and test.

    Split `valid` validates; without one, a share of the training clips, by the hash of their groups, if asked for.

    Raises:
        AudiobatError: nothing validates and the best weights are to be kept; a label that no training clip has.
    """
    marked = np.zeros(0, np.int64) if table.splits is None else np.flatnonzero(table.splits == "valid")
    valid = np.setdiff1d(marked, np.concatenate([train, test]))  # where a fold tests, splits may not count
    if not len(valid) and config.select.held_out > 0:
        held = hashed_share(table.select(train), config.select.held_out)
        train, valid = train[~held], train[held]
    if config.select.which == "best" and not len(valid):
        raise AudiobatError(
            "select.which is best, but no clips validate: mark some as split valid, or set select.held_out, say to 0.1."
        )
    check_labels(table, train, {"valid": valid, "test": test})
    return Split(train, valid, test)


def tagger_for(config: FinetuneConfig, table: ClipTable) -> TaggerConfig:
    """The head that these clips call for."""
    frame = is_frame_task(config, table)
    loss = pick_loss(config.train, table.single_label and not frame)
    return TaggerConfig(config.head, table.classes, "frame" if frame else "clip", multi_label=loss != "ce")


def new_tagger(model: str | Path, wanted: TaggerConfig, config: FinetuneConfig) -> Tagger:
    """The model with a new head, whose weights depend on the seed alone, or with its own, which has to fit.

    Raises:
        AudiobatError: no such model, one of another kind, or a head of other classes than `wanted`.
    """
    if config.keep_head:
        tagger = release_io.load_tagger(model)
        check_same_classes(str(model), tagger, wanted)
        tagger.encoder = fitted(tagger.encoder, config.frontend, config.max_frames)
        return tagger
    encoder = load_encoder(model)
    if not isinstance(encoder, AudioEncoder):
        raise AudiobatError(f"{model} is no encoder of audiobat's own, as fine-tuning needs: give a release or a run.")
    encoder = fitted(encoder, config.frontend, config.max_frames)
    with torch.random.fork_rng():
        torch.manual_seed(config.train.seed)
        return Tagger(encoder, wanted)


def check_same_classes(model: str, tagger: Tagger, wanted: TaggerConfig) -> None:
    """Raise an AudiobatError unless the model's head answers what the data ask."""
    hint = "leave keep_head out to train a new head"
    for name in wanted.classes:
        if name not in tagger.classes:
            guess = did_you_mean(name, tagger.classes)
            raise AudiobatError(f"The head of {model} has no class {name!r}, which the data have{guess}: {hint}.")
    for name in tagger.classes:
        if name not in wanted.classes:
            raise AudiobatError(f"The head of {model} has a class {name!r}, which the data have not: {hint}.")
    for field in ("classes", "task", "multi_label"):
        theirs, ours = getattr(tagger.config, field), getattr(wanted, field)
        if theirs != ours:
            what = "in another order than the data" if field == "classes" else f"{theirs!r}, the data ask for {ours!r}"
            raise AudiobatError(f"The head of {model} has {field} {what}: {hint}.")


def weights_kept(splits: Mapping[str, Split], config: FinetuneConfig) -> list[Literal["last", "best"]]:
    """Which weights are tested: those to keep first, and the others if there are any."""
    validated = all(len(split.valid) for split in splits.values())
    if not validated:
        return ["last"]
    return ["best", "last"] if config.select.which == "best" else ["last", "best"]


def listener_for(table: ClipTable, tagger: TaggerConfig, config: FinetuneConfig, ranks: Ranks) -> Listener:
    """What hears the clips of `table` to validate and to test."""
    return Listener(
        table,
        labels_of(table, tagger.task),
        tagger.task,
        pick_loss(config.train, table.single_label and tagger.task == "clip"),
        ranks,
        pick_precision(config.train.precision, ranks.device),
        config.data.workers,
        skipped={},
    )


def hear_test(trained: Finetuning, which: Literal["last", "best"], listener: Listener, split: Split) -> Tested:
    """What the last or the best weights say of the test clips."""
    tagger, step, score = trained.kept(which)
    answers, rows = listener.test(tagger, split.test)
    return Tested(answers, rows, gate_of(tagger.head), len(split.train), which, step, score)


def save_tagger(
    folder: Path, trained: Finetuning, config: FinetuneConfig, model: ModelInfo, listener: Listener
) -> None:
    """Write the kept weights as FOLDER/release."""
    tagger, step, score = trained.kept(config.select.which)
    extra = {
        "finetuned_from": {"model": model.id, "sha256": model.sha256},
        "data_sha256": listener.table.sha256(),
        "recipe": config.recipe,
        "selection": config.select.which,
        "step": step,
        "validation": score,
    }
    release_io.save_release(folder / release_io.RELEASE, tagger, extra=extra)
