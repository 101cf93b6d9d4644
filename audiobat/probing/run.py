"""`audiobat probe`: a model and labelled clips in; heads on its frozen features; result records out (Section 4)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic

import numpy as np
from torch import Tensor

from audiobat.config import ProbeConfig, ProbeTrainConfig, from_dict
from audiobat.config.presets import fields_for, task_of
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import Split, splits_of
from audiobat.engine.ranks import pick_device
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipTask, Task, pick_loss, task_for
from audiobat.evaluation.metrics import average_precision, macro_map_present
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.results import (
    FoldResult,
    Result,
    RunInfo,
    list_skipped,
    model_info,
    record_path,
    summary,
)
from audiobat.evaluation.scoring import scores_of
from audiobat.models.features import Encoder
from audiobat.models.input_stats import with_input_stats
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.jobs import HeadJob, head_jobs, layer_jobs, with_seeds
from audiobat.probing.listening_clips import save_clips
from audiobat.probing.plan import plan_lines
from audiobat.probing.records import record_of
from audiobat.probing.selection import Choice, choose_jobs
from audiobat.probing.testing import evaluate_heads
from audiobat.probing.training import Rows, check_buildable, predict_heads, sight_of, train_heads
from audiobat.zoo.load import load_encoder


def probe(
    model: str | Path | Encoder,
    data: str | Path,
    config: ProbeConfig | None = None,
    *,
    out: str | Path | None = None,
    test_fold: int | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> list[ResultRecord]:
    """Train heads on the frozen features of `model`, all in one pass over the clips, and test them.

    Args:
        model: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, a checkpoint of BAT, EAT, SSLAM,
            Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `my_file.py:MyEncoder`, or an encoder object.
        data: clips with labels: a folder, a CSV or Parquet file with a path column, prepared shards, or NAME:FOLDER of
            a public data set.
        config: the heads, their training and where features are kept; by default CGP as in Table 6, in the
            column of a public data set, else of AS-20K.
        out: folder for results/MODEL_HEAD_SEED.json, clips/ of the best head to listen to, features/ if memory
            is too small for them, and skipped.csv if clips were left out; None: nothing is written.
        test_fold: the fold to test on; None, where clips have folds and no splits: each in turn, on the same features.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: let a Hugging Face model run the Python files that come with it.
        overwrite: replace the records that `out` holds for this model, these heads and seeds, an error otherwise.

    Returns:
        A record for each head and seed, heads in the order of the config.

    Raises:
        AudiobatError: a bad argument, model or data set, more than 5% of the clips unreadable.
    """
    config = config or from_dict(ProbeConfig, fields_for(data))
    head_jobs(config, depth=max(1, config.head.layer))  # what can be refused before anything is read
    name = Path(model).resolve().name if isinstance(model, str | Path) else type(model).__name__
    folder = None if out is None else Path(out)
    table = read_labelled_clips(data)
    table, splits = keep_used(table, splits_of(table, test_fold))
    task = task_for(config, table)
    pick_loss(config.train, task.single_label)
    encoder = load_encoder(model, trust_remote_code=trust_remote_code) if isinstance(model, str | Path) else model
    jobs = with_seeds(head_jobs(config, encoder.depth), config)
    if folder is not None:
        for job in jobs:
            path = record_path(folder, name, job.name, job.train.seed)
            if path.exists() and not overwrite:
                raise AudiobatError(f"{path} exists: choose another --out, or replace it with --overwrite.")
        folder.mkdir(parents=True, exist_ok=True)  # now, as the features may take hours
    check_buildable(jobs, encoder, task)
    for line in plan_lines(table, splits, config, jobs, task, task_of(data)):
        print(line, file=sys.stderr, flush=True)
    if all(job.head.kind == "vqt" for job in jobs):
        config = replace(config, cache_gb=0.0, cache_dir=None)  # it looks at waveforms
    skipped: dict[str, str] = {}
    try:
        source = cache_features(
            with_input_stats(encoder, config.frontend, config.max_frames),
            table,
            cache_gb=config.cache_gb,
            cache_dir=config.cache_dir,
            spill_dir=spill_dir(config, folder, jobs, task),
            device=str(pick_device(device)),
            workers=config.workers,
            skipped=skipped,
        )
    finally:
        if folder is not None:
            list_skipped(folder, skipped)
    probed = probe_splits(
        name, encoder, source, table, splits, config, data_name=Path(data).resolve().stem, preset_task=task_of(data)
    )
    if folder is not None:
        probed = [one.save(folder) for one in probed]
    for one in probed:
        print(summary(one.name, one.record))
    if folder is not None:
        save_clips([(one.path(folder), one) for one in probed], table)
        print(f"records: {folder / 'results'}")
    return [one.record for one in probed]


def probe_source(
    encoder_name: str,
    encoder: Encoder,
    source: FeatureSource,
    table: ClipTable,
    train_rows: Rows,
    test_rows: Rows,
    config: ProbeConfig,
    *,
    data_name: str = "clips",
) -> list[ResultRecord]:
    """Train and test heads on features that are there already.

    Args:
        encoder_name: what the records call the model.
        encoder: whose weights the records name.
        source: features of `table`.
        table: clips with labels.
        train_rows: rows of `table` that train the heads; clips without features are left out.
        test_rows: rows that test them.
        config: the heads and their training.
        data_name: what the records call the data.

    Raises:
        AudiobatError: a schedule or a loss that does not fit, no features for a split, a loss that is not finite.
    """
    splits = [Split(train_rows, test_rows)]
    found = probe_splits(encoder_name, encoder, source, table, splits, config, data_name=data_name)
    return [one.record for one in found]


def probe_splits(
    encoder_name: str,
    encoder: Encoder,
    source: FeatureSource,
    table: ClipTable,
    splits: Sequence[Split],
    config: ProbeConfig,
    *,
    data_name: str = "clips",
    preset_task: str = "as20k",
) -> list[Result]:
    """`probe_source` for several splits, the folds of a data set: one record, of the means over them, for each head."""
    start = monotonic()
    task = task_for(config, table)
    tested: dict[tuple[str, int], list[tuple[HeadJob, FoldResult]]] = {}  # head and seed -> each fold
    training = 0.0
    read = [replace(s, train=readable(source, s.train, "train"), test=readable(source, s.test, "test")) for s in splits]
    for number, split in enumerate(read, start=1):
        label = f"fold {number} of {len(splits)}, " if len(splits) > 1 else ""
        jobs, choices = head_jobs(config, source.depth), dict[str, Choice]()
        if config.grid.choose:
            jobs, choices = choose_jobs(source, table, split.train, task, config, label)
        trainees, seconds = train_heads(source, split.train, task, with_seeds(jobs, config), label)
        training += seconds
        for job, result in evaluate_heads(trainees, source, table, split, task):
            choice = asdict(choices[job.name]) if job.name in choices else None
            tested.setdefault((job.name, job.train.seed), []).append((job, replace(result, choice=choice)))
    wall = monotonic() - start
    info = model_info(encoder_name, encoder)
    run = RunInfo(info, data_name, table, task.single_label, str(source.device), source.skipped)
    return [
        record_of([job for job, _ in folds], [result for _, result in folds], run, config, preset_task, training, wall)
        for folds in tested.values()
    ]


def per_layer_linear(
    source: FeatureSource,
    train_rows: Rows,
    test_rows: Rows,
    targets: Tensor,
    train_config: ProbeTrainConfig,
    single_label: bool = False,
) -> list[float]:
    """Macro mAP (classes present) of a linear probe of each block: its mean patch, batch norm, a matrix.

    All blocks' probes train at once on the same batches of one pass over the clips; each is what it would be alone.
    """
    task = ClipTask.of_matrix(targets, single_label)
    jobs = layer_jobs(source.depth, train_config)
    train, test = readable(source, train_rows, "train"), readable(source, test_rows, "test")
    trainees, _ = train_heads(source, train, task, jobs)
    said = predict_heads(trainees, source, test, task)
    scores = [scores_of(logits, t.loss) for t, logits in zip(trainees, said.logits, strict=True)]
    return [float(macro_map_present(average_precision(s, said.labels))) for s in scores]


def spill_dir(config: ProbeConfig, folder: Path | None, jobs: Sequence[HeadJob], task: Task) -> Path | None:
    """Where features go that memory is too small for: only heads that look at every patch need such."""
    wanted = any(sight_of(job.head.kind, task) == "features" for job in jobs)
    return folder / "features" if folder is not None and wanted and config.cache_gb > 0 else None


def keep_used(table: ClipTable, splits: Sequence[Split]) -> tuple[ClipTable, list[Split]]:
    """Without the clips that no split uses (those of `valid`), so that nobody computes their features."""
    used = np.unique(np.concatenate([ids for split in splits for ids in (split.train, split.test)]))
    place = [
        Split(np.searchsorted(used, split.train), np.searchsorted(used, split.test), fold=split.fold)
        for split in splits
    ]
    return table.select(used), place


def readable(source: FeatureSource, rows: Rows, split: str) -> Rows:
    """The rows that have features; AudiobatError if none has."""
    kept = rows[np.isin(rows, source.indices)]
    if not len(kept):
        raise AudiobatError(f"None of the {len(rows)} clips of split {split} can be read: see skipped.csv.")
    return kept
