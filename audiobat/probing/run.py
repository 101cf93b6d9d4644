"""`audiobat probe`: a model and labelled clips in; heads and tasks on its frozen features; result records out."""

from __future__ import annotations

import dataclasses
import sys
from itertools import chain
from pathlib import Path

import numpy as np

from audiobat.config import ProbeConfig, to_dict
from audiobat.config.presets import fields_for, task_of
from audiobat.config.recipes import Recipe, load_recipe, make_config
from audiobat.data.clip_table import ClipTable
from audiobat.data.columns import Ragged
from audiobat.data.folds import describe_folds, with_folds
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.split import Split, splits_of, test_alone, with_valid
from audiobat.engine.ranks import launch
from audiobat.engine.run_folder import FREE_FIELDS, began, note_begun, note_ended
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.record import ResultRecord, load_record, load_scores, load_values
from audiobat.evaluation.results import Result, model_info, record_path, summary
from audiobat.models.features import Encoder
from audiobat.probing.cache import FeatureSource
from audiobat.probing.listening_clips import save_clips
from audiobat.probing.one_pass import compute_features, measure_tasks, open_model, probe_splits
from audiobat.probing.plan import Plan, make_plan, plan_lines, used_clips
from audiobat.probing.tasks import labelled, trains
from audiobat.probing.training import check_buildable


def probe(
    model: str | Path | Encoder,
    data: str | Path,
    config: ProbeConfig | Recipe | None = None,
    *,
    out: str | Path | None = None,
    folds: int | None = None,
    test_fold: int | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> list[ResultRecord]:
    """Train heads on the frozen features of `model`, all in one pass over the clips, and test them; and other tasks.

    Several ranks divide the clips among them to compute features; rank 0 trains and tests the heads.

    Args:
        model: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, a checkpoint of BAT, EAT, SSLAM,
            Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `FILE.onnx@RATE`, `my_file.py:MyEncoder`, `baseline:NAME`,
            or an encoder object.
        data: clips with labels: a folder, a CSV or Parquet file with a path column, prepared shards, tars of
            recordings as WebDataset has them, or NAME:FOLDER of a public data set.
        config: the heads and tasks, their training and where features are kept; by default CGP as in Table 6, in the
            column of a public data set, else of AS-20K.
        out: folder for results/MODEL_HEAD_SEED.json, clips/ of the best head to listen to, features/ if memory
            is too small for them, and skipped.csv if clips were left out; a probe that was stopped goes on there;
            None: nothing is written.
        folds: draw so many folds, for clips that have neither folds nor splits: each tests in turn, on classes spread
            evenly over them and with recordings and groups whole.
        test_fold: the fold to test on; None, where clips have folds and no splits: each in turn, on the same features.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.
        overwrite: replace the records that `out` holds for this model, these heads and seeds, an error otherwise.

    Returns:
        A record for each head and seed, heads in the order of the config, then of the other tasks; on other ranks than
        0 nothing.

    Raises:
        AudiobatError: a bad argument, model or data set, more than 5% of the clips unreadable.
    """
    return probe_as(
        None,
        None,
        model,
        data,
        config,
        out=out,
        folds=folds,
        test_fold=test_fold,
        device=device,
        trust_remote_code=trust_remote_code,
        overwrite=overwrite,
    )


def probe_as(
    model_name: str | None,
    data_name: str | None,
    model: str | Path | Encoder,
    data: str | Path,
    config: ProbeConfig | Recipe | None = None,
    *,
    out: str | Path | None = None,
    folds: int | None = None,
    test_fold: int | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> list[ResultRecord]:
    """`probe` with the names by which records call the model and the data; None: as their paths are called."""
    if not isinstance(config, ProbeConfig):
        recipe = load_recipe(config) if isinstance(config, str | Path) else config or {}
        config = make_config(ProbeConfig, recipe, fields_for(data, recipe.get("preset"), recipe.get("preset_task")))
    folder = None if out is None else Path(out)
    with launch(device) as ranks:
        table = with_folds(read_for_tasks(data, config), folds)
        drawn = [] if folds is None else [describe_folds(table)]
        splits = splits_of(table, test_fold) if trains(config) else [test_alone(table, test_fold)]
        table, splits = used_clips(table, splits, config.select)
        name, encoder = open_model(model, trust_remote_code)
        name = model_name or name
        plan = make_plan(
            table,
            splits,
            config,
            encoder.depth,
            data_name=data_name or Path(data).resolve().stem,
            preset_task=task_of(data),
        )
        if plan.jobs:
            check_buildable(plan.jobs, encoder, plan.task.classes, config, ranks.device)
        for task in plan.tasks.values():
            task.check_model(encoder)
        kept, source = dict[tuple[str, int], Result](), None
        if ranks.is_main and folder is not None:
            kept = kept_results(folder, name, encoder, plan, test_fold, overwrite)
        for line in (*drawn, *plan_lines(plan)) if ranks.is_main else ():
            print(line, file=sys.stderr, flush=True)
        if ranks.gather(len(kept) < len(plan.keys))[0]:
            source = compute_features(encoder, table, config, folder, ranks, plan.reads)
    if not ranks.is_main:
        return []  # rank 0, which has the features, is alone from here on
    if source is not None:
        heads = (result for result, _ in probe_splits(name, encoder, source, plan, kept))
        for result in chain(heads, measure_tasks(name, encoder, source, plan, kept)):
            kept[result.name, result.record.seed] = result if folder is None else result.save(folder)
    results = [kept[key] for key in plan.keys]
    for result in results:
        print(summary(result.name, result.record))
    if folder is not None:
        save_clips([(result.path(folder), result) for result in results], table)
        note_ended(folder)
        print(f"records{' and confusion matrices' if plan.jobs else ''}: {folder / 'results'}")
    return [result.record for result in results]


def read_for_tasks(data: str | Path, config: ProbeConfig) -> ClipTable:
    """The clips of a probe: labelled ones, or, where it has no use for labels, any, as clips of no class."""
    labels = config.labels
    if labelled(config):
        return read_labelled_clips(data, labels.column, labels.background, labels.map)
    table = read_clips(data)
    return dataclasses.replace(
        table, labels=Ragged.of([()] * len(table), np.int32), classes=(), events=None, event_scores=None
    )


def kept_results(
    out: Path, name: str, encoder: Encoder, plan: Plan, test_fold: int | None, overwrite: bool
) -> dict[tuple[str, int], Result]:
    """Begin in `out`, or go on: the results, by name and seed, that the same probe wrote there before it was stopped.

    Raises AudiobatError for a record of another probe, or of one that ended, unless `overwrite` is to replace it.
    """
    config = to_dict(plan.config)
    if (plan.config.tasks, plan.config.by_task) == (ProbeConfig.tasks, {}):
        del config["tasks"], config["by_task"]  # as the notes of earlier versions, which had no tasks, lack them
    command = {
        "verb": "probe",
        "model": dataclasses.asdict(model_info(name, encoder)),
        "clips": plan.table.sha256(),
        "test_fold": test_fold,
        "overwrite": overwrite,  # then a record that is there may be the one to replace
        "config": {field: value for field, value in config.items() if field not in FREE_FIELDS},
    }
    kept, goes_on = dict[tuple[str, int], Result](), began(out, command)
    for key in plan.keys:
        path = record_path(out, name, *key)
        if overwrite or not path.exists():
            continue
        if not goes_on:
            raise AudiobatError(f"{path} exists: choose another --out, or replace it with --overwrite.")
        record = load_record(path)
        scores = load_values(path, record) if record.values is not None else None
        kept[key] = Result(key[0], record, scores if record.scores is None else load_scores(path, record))
    note_begun(out, command)  # now, as the features may take hours
    return kept


def probe_source(
    encoder_name: str,
    encoder: Encoder,
    source: FeatureSource,
    table: ClipTable,
    train_ids: ClipIds,
    test_ids: ClipIds,
    config: ProbeConfig,
    *,
    data_name: str = "clips",
) -> list[ResultRecord]:
    """Train and test heads on features of `table` that are there already; clips without features are left out.

    Records call the model `encoder_name` and the data `data_name`. Raises AudiobatError for a schedule or a loss that
    does not fit, no features for a split, or a loss that is not finite.
    """
    split = Split(train_ids, test_ids)
    split = with_valid(table, split, config.select) if config.select.which == "best" else split
    plan = make_plan(table, [split], config, source.encoder.depth, data_name=data_name)
    heads = [result for result, _ in probe_splits(encoder_name, encoder, source, plan)]
    return [result.record for result in (*heads, *measure_tasks(encoder_name, encoder, source, plan))]
