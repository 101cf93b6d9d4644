"""`audiobat finetune`: a model and labelled clips in; a run folder with a release that tags and result records out.

A data set with folds is one training for each fold, in OUT/folds; a data set with splits is one training, in OUT.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Literal

import torch
from torch import nn

from audiobat.config import FinetuneConfig, TaggerConfig, check
from audiobat.config.recipes import Recipe, make_config
from audiobat.data.clip_table import ClipTable
from audiobat.data.folds import describe_folds, with_folds
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import Split, splits_of, with_valid
from audiobat.engine.checkpoint import goes_on_from
from audiobat.engine.logs import check_sinks
from audiobat.engine.ranks import Ranks, check_batch, launch, pick_precision
from audiobat.engine.run_folder import prepare_run, sole_use
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.evaluation.labels import pick_loss, untaught
from audiobat.evaluation.record import ModelInfo, ResultRecord, load_record
from audiobat.evaluation.results import FoldResult, list_skipped, model_info, record_path, summary
from audiobat.finetuning.crops import Crops, crops_of, task_of
from audiobat.finetuning.from_features import finetune_features
from audiobat.finetuning.layer_rates import describe_rates, own_encoder
from audiobat.finetuning.needs import shortage_of
from audiobat.finetuning.step import Finetuning
from audiobat.finetuning.testing import Evaluator, Work, record_of, windows_of
from audiobat.finetuning.training import train_fold
from audiobat.models.encoder import AudioEncoder
from audiobat.models.heads import check_users_head
from audiobat.models.input_stats import with_input_stats
from audiobat.models.needs import built_without_memory
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io
from audiobat.zoo.load import load_encoder


def finetune(
    model: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    config: FinetuneConfig | Recipe | None = None,
    *,
    features: str | Path | None = None,
    folds: int | None = None,
    test_fold: int | None = None,
    resume: Literal["auto", "never"] = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    max_seconds: float | None = None,
    trust_remote_code: bool = False,
) -> list[ResultRecord]:
    """Train an encoder with a head on labelled clips, test it, and write it as a release.

    Args:
        model: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, or a checkpoint of BAT, EAT, SSLAM,
            Audio-MAE or BEATs; a head that it has is left out unless `config.keep_head`.
        data: clips with labels: a folder of classes or of recordings with annotations beside them, a CSV or Parquet
            file with a path column, prepared shards, tars of recordings, or NAME:FOLDER of a public data set; clips of
            split `valid` choose the best weights.
        out: run folder: config.yaml, env.json, metrics.jsonl, log.txt, skipped.csv, checkpoints/, results/, release/;
            with folds the run and the release of each are in folds/FOLD/.
        config: the head, its training and which weights are kept; by default Table 6, AS-20K.
        features: a table that `embed` wrote with this model: a linear head is fitted to its rows, in seconds and
            without a pass over the audio. `data` are then one or several of: annotated recordings, folders that
            `predict --review` made. Without a split, folds test, and the release learns from all.
        folds: draw so many folds, for clips that have neither folds nor splits: each tests in turn, on classes spread
            evenly over them and with recordings and groups whole.
        test_fold: the fold to test on; None, where clips have folds and no splits: each fold in turn.
        resume: `auto` goes on from the newest checkpoint in `out`; `never` refuses a folder that holds a run.
        overwrite: remove the run that `out` holds, then start.
        dry_run: print clips, labels and learning rates, and write nothing.
        max_seconds: stop, with a checkpoint, after this long.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.

    Returns:
        The records, of the kept weights first; of the last and of the best where there are validation clips. An empty
        list if its time was up before, of which a checkpoint is left.

    Raises:
        AudiobatError: a model or clips that cannot be used, a label that no training clip has, a head of other classes,
            a run of other settings in `out`, a loss that is not finite.
        Stopped: SIGTERM, SIGINT (Ctrl-C), SIGUSR1 or SIGHUP came: it ended after the current step, with a checkpoint.
    """
    start, out, config = monotonic(), Path(out), make_config(FinetuneConfig, config)
    sources = [data] if isinstance(data, str | Path) else list(data)
    if not sources or (len(sources) > 1 and features is None):
        raise AudiobatError(f"--data has {len(sources)} sources: give one, or with --features one or several.")
    config = replace(config, data=replace(config.data, path=" ".join(map(str, sources))))
    if max_seconds is not None and not max_seconds >= 0:
        raise AudiobatError(f"max_seconds is {max_seconds}: give 0 or more, or leave it out.")
    goes_on = partial(goes_on_from, out)
    with launch(config.train.device, config.train.timeout, goes_on) as ranks, ExitStack() as held:
        if features is not None:
            return finetune_features(
                *(model, sources, out, config, features, folds, test_fold, ranks),
                resume=resume,
                overwrite=overwrite,
                dry_run=dry_run,
                trust_remote_code=trust_remote_code,
            )
        labels = config.labels
        table = with_folds(read_labelled_clips(sources[0], labels.column, labels.background, labels.map), folds)
        drawn = [] if folds is None else [describe_folds(table)]
        splits = [with_validation(table, split, config) for split in splits_of(table, test_fold)]
        crops = [crops_of(table.select(split.train), config) for split in splits]
        for each in crops:
            _ = each.order  # an error now, if clips cannot be drawn
        wanted = tagger_config(config, table)
        first = new_tagger(  # now, so that a model that does not fit leaves no folder
            model, wanted, config, ranks.device, trust_remote_code, dry_run
        )
        check_parts(first, config)
        if dry_run:
            if ranks.is_main:
                print("\n".join([*drawn, plan_text(first, config, len(table), splits, crops)]))
            return []
        for line in drawn if ranks.is_main else ():
            print(line)
        name = Path(model).resolve().name
        info = model_info(name, first.encoder)  # its hash is that of the model before fine-tuning
        check_batch(config.train.batch_size, ranks)
        check_sinks(config.train.log_to)
        if ranks.is_main:
            held.enter_context(sole_use(out))
            prepare_run(out, config, resume, overwrite, {"model": str(model), "test_fold": test_fold, "folds": folds})
        ranks.barrier()  # the folder is there
        tested = weights_tested(splits, config)
        paths = [record_path(out, name, f"finetune_{which}", config.train.seed) for which in tested]
        if all(path.exists() for path in paths):
            if ranks.is_main:
                print(f"{out} is finished: --overwrite starts again.")
            return [load_record(path) for path in paths]
        evaluator = evaluator_for(table, config, ranks)
        work = Work()
        outputs: dict[Literal["last", "best"], list[FoldResult]] = {which: [] for which in tested}
        for split, each in zip(splits, crops, strict=True):
            folder = out if split.fold is None else out / "folds" / split.fold
            left = None if max_seconds is None else max(0.0, max_seconds - (monotonic() - start))
            # Every fold starts from the model as it came.
            tagger = new_tagger(model, wanted, config, ranks.device, trust_remote_code)
            trained = train_fold(folder, tagger, evaluator, split, each, config, work, left)
            if trained is None:
                return []
            for which in tested:
                outputs[which].append(evaluator.test(trained.kept(which), split))
            # Test clips that nobody has marked may choose: no number of the record depends on these thresholds.
            choosing = split.test if split.drawn and not len(split.valid) else split.valid
            thresholds = evaluator.thresholds(trained.kept(config.select.which).tagger, choosing)
            if ranks.is_main:
                save_release(folder, trained, config, info, evaluator, thresholds)
        work.seconds = monotonic() - start
        results = [record_of(info, evaluator, outputs[which], which, config, work) for which in tested]
        if ranks.is_main:
            list_skipped(out, evaluator.skipped)
            results = [result.save(out) for result in results]
            for result in results:
                print(summary(f"fine-tuned, {result.record.head['selection']} weights", result.record))
            print(f"records and confusion matrices: {out / 'results'}, release: {folder / release_io.RELEASE}")
    return [result.record for result in results]


def with_validation(table: ClipTable, split: Split, config: FinetuneConfig) -> Split:
    """The split with clips that validate (see `with_valid`).

    Raises:
        AudiobatError: no clips validate and the best weights are to be kept; a label that no training clip has.
    """
    split = with_valid(table, split, config.select)
    for name, clip_ids in (("valid", split.valid), ("test", split.test)):
        for label, count in untaught(table, [(split.train, clip_ids)]).items():
            raise AudiobatError(
                f"Label {label!r} is on {count} {name} clips and on none that trains: add training "
                "clips of it, or take these out."
            )
    return split


def tagger_config(config: FinetuneConfig, table: ClipTable) -> TaggerConfig:
    """The head that these clips call for.

    Raises:
        AudiobatError: frames are asked for and the clips have no events; settings that would move events in time; a
            loss that does not suit the labels.
    """
    task = task_of(config, table)
    moving = [name for name in ("roll", "time_roll") if getattr(config.augment, name)]
    if task.unit == "frame" and moving:
        raise AudiobatError(f"augment.{moving[0]} moves sounds away from their labels of frames: leave it out.")
    loss = pick_loss(config.train, task.single_label)
    return TaggerConfig(config.head, table.classes, task.unit, multi_label=loss != "ce")


def new_tagger(
    model: str | Path,
    wanted: TaggerConfig,
    config: FinetuneConfig,
    device: torch.device,
    trust: bool = False,
    dry_run: bool = False,
) -> Tagger:
    """The model with a new head, whose weights depend on the seed alone, or with its own head under `keep_head`.

    In a dry run a head that is too large for the `device` has no values, and a line says so.

    Raises:
        AudiobatError: no such model, one of another kind, or a head of other classes than `wanted`; not enough memory.
    """
    if config.keep_head:
        tagger = release_io.load_tagger(model, trust_remote_code=trust)
        check_same_classes(str(model), tagger, wanted)
        tagger.encoder = with_input_stats(tagger.encoder, config.frontend, config.max_frames)
        return tagger
    encoder = load_encoder(model, trust_remote_code=trust)
    if not isinstance(encoder, AudioEncoder):
        raise AudiobatError(f"{model} is no encoder of audiobat's own, as fine-tuning needs: give a release or a run.")
    encoder = with_input_stats(encoder, config.frontend, config.max_frames)
    tagger = built_without_memory(lambda: Tagger(encoder, wanted), f"head {wanted.head.kind}")
    if lacking := shortage_of(encoder, tagger.head, config, device):
        if not dry_run:
            raise AudiobatError(lacking)
        print(f"warning: {lacking}")
        return tagger
    check_users_head(wanted.head, encoder, len(wanted.classes), encoder.freq_patches)
    with torch.random.fork_rng():  # the caller's random state stays
        torch.manual_seed(config.train.seed)
        return Tagger(encoder, wanted)


def check_parts(tagger: Tagger, config: FinetuneConfig) -> None:
    """Raise an AudiobatError if the batch is to run in parts and a norm needs the statistics of the whole."""
    parts = config.train.accumulate
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in tagger.modules())
    hint = f"the batch norm of head.kind {tagger.config.head.kind} needs the whole batch: use null, or another norm"
    check(parts in (None, 1) or not norms, "train.accumulate", parts, hint)


def check_same_classes(model: str, tagger: Tagger, wanted: TaggerConfig) -> None:
    """Raise an AudiobatError unless the model's own head has the classes and the task of the data."""
    hint = "leave keep_head out to train a new head"
    for name in wanted.classes:
        if name not in tagger.classes:
            guess = did_you_mean(name, tagger.classes)
            raise AudiobatError(f"The head of {model} has no class {name!r}, which the data have{guess}: {hint}.")
    for name in tagger.classes:
        if name not in wanted.classes:
            raise AudiobatError(f"The head of {model} has a class {name!r}, which the data have not: {hint}.")
    for field in ("classes", "task", "multi_label"):  # the same names: then their order, and what logits mean
        theirs, ours = getattr(tagger.config, field), getattr(wanted, field)
        if theirs != ours:
            what = "in another order than the data" if field == "classes" else f"{theirs!r}, the data ask for {ours!r}"
            raise AudiobatError(f"The head of {model} has {field} {what}: {hint}.")


def weights_tested(splits: Sequence[Split], config: FinetuneConfig) -> list[Literal["last", "best"]]:
    """Which weights are tested: those that the release keeps first, then the others if clips validate."""
    if not all(len(split.valid) for split in splits):
        return ["last"]
    return ["best", "last"] if config.select.which == "best" else ["last", "best"]


def evaluator_for(table: ClipTable, config: FinetuneConfig, ranks: Ranks) -> Evaluator:
    """An evaluator of the clips of `table`, to validate and to test."""
    task = task_of(config, table)
    return Evaluator(
        table,
        task,
        pick_loss(config.train, task.single_label),
        ranks,
        pick_precision(config.train.precision, ranks.device),
        config.data.workers,
        config.overlap,
        skipped={},
    )


def save_release(
    folder: Path,
    trained: Finetuning,
    config: FinetuneConfig,
    model: ModelInfo,
    evaluator: Evaluator,
    thresholds: tuple[float, ...],
) -> None:
    """Write the weights that `select.which` names as FOLDER/release, with the thresholds of their classes."""
    kept = trained.kept(config.select.which)
    chosen = replace(kept.tagger.config, thresholds=thresholds)
    if thresholds and chosen.task == "frame":
        window, hop = windows_of(own_encoder(kept.tagger), config.overlap)
        chosen = replace(chosen, median=1, window_seconds=window, hop_seconds=hop)
    kept.tagger.config = chosen
    extra = {
        "finetuned_from": {"model": model.id, "sha256": model.sha256},
        "data_sha256": evaluator.table.sha256(),
        "recipe": config.recipe,
        "selection": config.select.which,
        "step": kept.step,
        "validation": kept.validation,
    }
    release_io.save_release(folder / release_io.RELEASE, kept.tagger, extra=extra)


def plan_text(
    tagger: Tagger, config: FinetuneConfig, clips: int, splits: Sequence[Split], crops: Sequence[Crops]
) -> str:
    """The lines of a dry run: clips, labels, loss, and the learning rate of each layer."""
    counts = [
        ("" if split.fold is None else f"fold {split.fold}: ")
        + f"{len(split.train):,} train, {len(split.valid):,} valid, {len(split.test):,} test"
        for split in splits
    ]
    train = config.train
    return "\n".join(
        [
            f"clips: {clips:,} of {len(tagger.classes)} classes; {'; '.join(counts)}",
            *(f"drawn from: {each}" for each in crops if each.some_empty),
            f"head: {tagger.config.head.kind} for each {tagger.task}, "
            f"{'several classes at once' if tagger.multi_label else 'one class'}",
            f"steps: {train.steps:,} of {train.batch_size} clips, the first {train.freeze_steps:,} of the head alone; "
            f"the learning rate rises for {config.optim.warmup_steps:,}",
            "layers:",
            *describe_rates(tagger, config.optim),
        ]
    )
