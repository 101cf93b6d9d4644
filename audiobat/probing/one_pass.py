"""Features once, then all heads, seeds and folds on them: the work that `probe` and `analyze` share (Section 4).

In: an encoder and a `Plan`. Out: the result of each head and seed, and the head itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic

import numpy as np

from audiobat.config import ProbeConfig
from audiobat.config.user_files import errors_of_user_code
from audiobat.data.clip_table import ClipTable
from audiobat.engine.ranks import pick_device
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.results import FoldResult, Result, RunInfo, list_skipped, model_info
from audiobat.models.features import Encoder
from audiobat.models.heads import Head
from audiobat.models.input_stats import with_input_stats
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.jobs import HeadJob, with_seeds
from audiobat.probing.plan import Plan
from audiobat.probing.records import record_of
from audiobat.probing.selection import Choice, choose_jobs
from audiobat.probing.testing import evaluate_heads
from audiobat.probing.training import train_heads
from audiobat.zoo.load import load_encoder


def open_model(model: str | Path | Encoder, trust_remote_code: bool) -> tuple[str, Encoder]:
    """The encoder that `--model` means, or that is given itself, and its name in records."""
    if not isinstance(model, str | Path):
        return type(model).__name__, model
    return Path(model).resolve().name, load_encoder(model, trust_remote_code=trust_remote_code)


def compute_features(
    encoder: Encoder,
    table: ClipTable,
    config: ProbeConfig,
    out: Path | None,
    device: str,
    reads: Collection[str],
) -> FeatureSource:
    """The frozen features of all clips, kept as far as memory and disk allow; OUT/skipped.csv names what is left out.

    Args:
        encoder: the model; `config` may change its input statistics and its window.
        table: the clips.
        config: where features are kept.
        out: the run's folder; None: nothing is written.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        reads: the forms of features that heads ask for, `Head.reads`. Only patches are worth a folder: means are small,
            and what goes into blocks is made anew for every batch.

    Raises:
        AudiobatError: as for `cache_features`.
    """
    spills = out is not None and "patches" in reads and config.cache_gb > 0
    is_kept = set(reads) != {"blocks"}
    skipped: dict[str, str] = {}
    try:
        return cache_features(
            with_input_stats(encoder, config.frontend, config.max_frames),
            table,
            cache_gb=config.cache_gb if is_kept else 0.0,
            cache_dir=config.cache_dir if is_kept else None,
            spill_dir=out / "features" if out is not None and spills else None,
            device=str(pick_device(device)),
            workers=config.workers,
            skipped=skipped,
        )
    finally:  # also where too many clips are unreadable: the list says which
        if out is not None:
            list_skipped(out, skipped)


@errors_of_user_code()  # a head may be a class in a user's file
def probe_splits(name: str, encoder: Encoder, source: FeatureSource, plan: Plan) -> list[tuple[Result, Head]]:
    """Train and test the heads of a plan: for each head and seed its result, the mean over folds, and the last head.

    Args:
        name: what records call the model.
        encoder: whose weights the records name.
        source: features of the plan's table; clips without features are left out.
        plan: what to train, on which clips.

    Raises:
        AudiobatError: no features for a split, a loss that is not finite, nothing to choose rates on.
    """
    start, training = monotonic(), 0.0
    config, task, table = plan.config, plan.task, plan.table
    tested: dict[tuple[str, int], list[tuple[HeadJob, FoldResult]]] = {}  # head and seed -> each fold
    heads: dict[tuple[str, int], Head] = {}
    read = [
        replace(one, train=readable(source, one.train, "train"), test=readable(source, one.test, "test"))
        for one in plan.splits
    ]
    for number, split in enumerate(read, start=1):
        label = f"fold {number} of {len(read)}, " if len(read) > 1 else ""
        jobs, choices = plan.jobs, dict[str, Choice]()
        if config.grid.choose:
            jobs, choices = choose_jobs(source, table, split.train, task, plan.jobs, config.grid, label)
        trainers, seconds = train_heads(source, split.train, task, with_seeds(jobs, config), label)
        training += seconds
        for trainer, result in evaluate_heads(trainers, source, table, split, task):
            job = trainer.job
            choice = asdict(choices[job.name]) if job.name in choices else None
            tested.setdefault((job.name, job.train.seed), []).append((job, replace(result, choice=choice)))
            heads[job.name, job.train.seed] = trainer.head
    wall = monotonic() - start
    info = model_info(name, encoder)
    run = RunInfo(info, plan.data_name, table, task.single_label, str(source.device), source.skipped)
    results = []
    for key, pairs in tested.items():
        jobs, folds = [job for job, _ in pairs], [result for _, result in pairs]
        results.append((record_of(jobs, folds, run, config, plan.preset_task, training, wall), heads[key]))
    return results


def readable(source: FeatureSource, clip_ids: ClipIds, split: str) -> ClipIds:
    """The ids of clips that have features; AudiobatError if none has."""
    kept = clip_ids[np.isin(clip_ids, source.indices)]
    if not len(kept):
        raise AudiobatError(f"None of the {len(clip_ids)} clips of split {split} can be read: see skipped.csv.")
    return kept
