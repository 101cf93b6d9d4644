"""`audiobat probe`: a model and labelled clips in; heads on its frozen features; result records out (Section 4)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import numpy as np
from torch import Tensor

from audiobat.config import ProbeConfig, ProbeTrainConfig, from_dict
from audiobat.config.presets import fields_for, task_of
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import write_skipped
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import split_for_probe
from audiobat.engine.ranks import pick_device
from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import average_precision, macro_map_present
from audiobat.evaluation.record import ResultRecord, save_scores
from audiobat.evaluation.scoring import scores_of
from audiobat.models.features import Encoder
from audiobat.models.fitted import fitted
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.jobs import HeadJob, head_jobs, layer_jobs, with_seeds
from audiobat.probing.listening_clips import save_clips
from audiobat.probing.plan import plan_lines, untaught
from audiobat.probing.records import Probed, Shared, record_of
from audiobat.probing.selection import Choice, choose_jobs
from audiobat.probing.task import ClipTask, Task, pick_loss, task_for
from audiobat.probing.testing import Tested, ask_heads
from audiobat.probing.training import Rows, check_buildable, predict_heads, sight_of, train_heads
from audiobat.zoo.load import load_encoder

Splits: TypeAlias = Mapping[str, tuple[Rows, Rows]]  # test fold, or "" -> rows that train, rows that test


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
        model: whatever `audiobat.models.load_encoder` takes, or an encoder.
        data: clips with labels, from any source.
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
            fitted(encoder, config.frontend, config.max_frames),
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
    records = []
    written = []
    for one in probed:
        record = one.record
        if folder is not None:
            path = record_path(folder, name, one.name, record.seed)
            record = replace(record, scores=save_scores(path, one.scores))
            record.save(path)
            written.append((path, one))
        print(summary(one.name, record))
        records.append(record)
    if folder is not None:
        save_clips(written, table)
        print(f"records: {folder / 'results'}")
    return records


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
    splits = {"": (train_rows, test_rows)}
    found = probe_splits(encoder_name, encoder, source, table, splits, config, data_name=data_name)
    return [one.record for one in found]


def probe_splits(
    encoder_name: str,
    encoder: Encoder,
    source: FeatureSource,
    table: ClipTable,
    splits: Splits,
    config: ProbeConfig,
    *,
    data_name: str = "clips",
    preset_task: str = "as20k",
) -> list[Probed]:
    """`probe_source` for several splits, the folds of a data set: one record, of the means over them, for each head."""
    start = monotonic()
    task = task_for(config, table)
    tested: dict[tuple[str, int], dict[str, Tested]] = {}  # head and seed -> test fold -> what it said
    choices: dict[str, dict[str, Choice]] = {}  # head -> test fold -> how it was chosen
    training = 0.0
    read = {fold: (readable(source, a, "train"), readable(source, b, "test")) for fold, (a, b) in splits.items()}
    for number, (fold, (train, test)) in enumerate(read.items(), start=1):
        label = f"fold {number} of {len(splits)}, " if len(splits) > 1 else ""
        jobs = head_jobs(config, source.depth)
        if config.grid.choose:
            jobs, chosen = choose_jobs(source, table, train, task, config, label)
            for name, choice in chosen.items():
                choices.setdefault(name, {})[fold] = choice
        trainees, seconds = train_heads(source, train, task, with_seeds(jobs, config), label)
        training += seconds
        for one in ask_heads(trainees, source, table, train, test, task):
            tested.setdefault((one.job.name, one.job.train.seed), {})[fold] = one
    wall = monotonic() - start
    lost = untaught(table, read)
    shared = Shared(encoder_name, encoder, source, table, task, config, data_name, preset_task, lost)
    return [record_of(shared, folds, choices.get(name, {}), training, wall) for (name, _), folds in tested.items()]


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
    task = ClipTask(targets, single_label)
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


def splits_of(table: ClipTable, test_fold: int | None) -> Splits:
    """Rows that train and test; where clips have folds, no splits and no `test_fold`, each fold tests in turn."""
    if table.folds is None or table.splits is not None or test_fold is not None:
        return {"": split_for_probe(table, test_fold)}
    return {str(fold): split_for_probe(table, fold) for fold in sorted(set(table.folds.tolist()))}


def keep_used(table: ClipTable, splits: Splits) -> tuple[ClipTable, Splits]:
    """Without the clips that no split uses (those of `valid`), so that nobody computes their features."""
    used = np.unique(np.concatenate([rows for split in splits.values() for rows in split]))
    place = {fold: (np.searchsorted(used, a), np.searchsorted(used, b)) for fold, (a, b) in splits.items()}
    return table.select(used), place


def readable(source: FeatureSource, rows: Rows, split: str) -> Rows:
    """The rows that have features; AudiobatError if none has."""
    kept = rows[np.isin(rows, source.indices)]
    if not len(kept):
        raise AudiobatError(f"None of the {len(rows)} clips of split {split} can be read: see skipped.csv.")
    return kept


def record_path(out: Path, name: str, head: str, seed: int) -> Path:
    """OUT/results/MODEL_HEAD_SEED.json."""
    model = re.sub(r"[^\w.-]+", "-", name)
    return out / "results" / f"{model}_{head}_{seed}.json"


def list_skipped(out: Path, skipped: Mapping[str, str]) -> None:
    """Write OUT/skipped.csv and say so, if there are any; an older list goes."""
    path = out / "skipped.csv"
    path.unlink(missing_ok=True)
    if skipped:
        out.mkdir(parents=True, exist_ok=True)
        write_skipped(path, skipped)
        print(f"skipped: {len(skipped):,} clips that cannot be read; {path} says why")


def summary(head: str, record: ResultRecord) -> str:
    """One line: model, head, seed, main metric with its interval."""
    metric, data = record.metrics[record.main_metric], record.data
    name = "macro mAP" if record.main_metric == "map" else record.main_metric
    spread = "" if metric.sd is None else f", sd {metric.sd:.3f} over {len(record.folds or {})} folds"
    return (
        f"{record.model.id}, {head}, seed {record.seed}: {name} {metric.value:.3f} "
        f"[{metric.low:.3f}, {metric.high:.3f}]{spread} (test clips have {data.classes_present} of {data.classes} "
        f"classes{f', {len(data.untaught)} of them never trained' if data.untaught else ''})"
    )
