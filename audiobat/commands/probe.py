"""`audiobat probe`: a model and labelled clips in; a head on its frozen features; a result record out (Section 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from audiobat.cache import FeatureSource, cache_features
from audiobat.commands.head_training import (
    Loss,
    Rows,
    check_head,
    check_schedule,
    decay_of,
    pick_loss,
    predict,
    train_head,
    train_heads,
)
from audiobat.commands.scoring import Answers, evaluate, scores_of, values
from audiobat.config import HeadConfig, ProbeConfig, ProbeTrainConfig, to_dict
from audiobat.data.dataset import write_skipped
from audiobat.data.index import ClipTable
from audiobat.data.sources import read_labelled_clips
from audiobat.data.split import split_for_probe
from audiobat.errors import AudiobatError
from audiobat.features import Encoder
from audiobat.heads import ConvexGatedProbe
from audiobat.hub import load, weights_sha256
from audiobat.metrics import average_precision, macro_map_present
from audiobat.results import DataInfo, ModelInfo, ResultRecord, environment
from audiobat.train.dist import pick_device

Splits: TypeAlias = Mapping[str, tuple[Rows, Rows]]  # test fold, or "" -> rows that train, rows that test


def probe(
    model: str | Path | Encoder,
    data: str | Path,
    config: ProbeConfig | None = None,
    *,
    out: str | Path | None = None,
    test_fold: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> ResultRecord:
    """Train a head on the frozen features of `model` and test it.

    Args:
        model: whatever `audiobat.load` takes, or an encoder.
        data: a CSV (`path,label[;label...]` and `split` or `fold`) or a folder of class folders.
        config: the head, its training and the memory for features; by default CGP as in Table 6.
        out: folder for results/MODEL_HEAD_SEED.json, and skipped.csv if clips were left out; None: nothing is written.
        test_fold: the fold to test on; None, where clips have folds and no splits: each in turn, on the same features.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        overwrite: replace the record that `out` holds for this model, head and seed, an error otherwise.

    Raises:
        AudiobatError: a bad argument, model or data set, more than 5% of the clips unreadable.
    """
    config = config or ProbeConfig()
    check_schedule(config.train)
    name = Path(model).resolve().name if isinstance(model, str | Path) else type(model).__name__
    folder = None if out is None else Path(out)
    if folder is not None and record_path(folder, name, config).exists() and not overwrite:
        raise AudiobatError(
            f"{record_path(folder, name, config)} exists: choose another --out, or replace it with --overwrite."
        )
    table = read_labelled_clips(data)
    table, splits = keep_used(table, splits_of(table, test_fold))
    encoder = load(model) if isinstance(model, str | Path) else model
    check_head(config, encoder.depth, table.single_label)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)  # now, as the features may take hours
    skipped: dict[str, str] = {}
    try:
        source = cache_features(
            encoder, table, cache_gb=config.cache_gb, device=str(pick_device(device)), skipped=skipped
        )
    finally:
        if folder is not None:
            list_skipped(folder, skipped)
    record = probe_splits(name, encoder, source, table, splits, config, data_name=Path(data).resolve().stem)
    print(summary(record))
    if folder is not None:
        record.save(record_path(folder, name, config))
        print(f"record: {record_path(folder, name, config)}")
    return record


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
) -> ResultRecord:
    """Train and test one head on features that are there already, so that many heads share them.

    Args:
        encoder_name: what the record calls the model.
        encoder: whose weights the record names.
        source: features of `table`.
        table: clips with labels.
        train_rows: rows of `table` that train the head; clips without features are left out.
        test_rows: rows that test it.
        config: the head and its training.
        data_name: what the record calls the data.

    Raises:
        AudiobatError: a schedule or a loss that does not fit, no features for a split, a loss that is not finite.
    """
    splits = {"": (train_rows, test_rows)}
    return probe_splits(encoder_name, encoder, source, table, splits, config, data_name=data_name)


def probe_splits(
    encoder_name: str,
    encoder: Encoder,
    source: FeatureSource,
    table: ClipTable,
    splits: Splits,
    config: ProbeConfig,
    *,
    data_name: str = "clips",
) -> ResultRecord:
    """`probe_source` for several splits, the folds of a data set: one record of the means over them."""
    start = monotonic()
    targets = torch.from_numpy(table.targets())
    loss = pick_loss(config.train, table.single_label)
    answers: dict[str, Answers] = {}
    gates: list[Tensor] = []
    training = 0.0
    for fold, (train_rows, test_rows) in splits.items():
        train, test = readable(source, train_rows, "train"), readable(source, test_rows, "test")
        head, seconds = train_head(
            source, train, targets, config.head, config.train, len(table.classes), table.single_label
        )
        training += seconds
        answers[fold] = Answers(scores_of(predict(head, source, test), loss), targets[torch.from_numpy(test)], loss)
        if isinstance(head, ConvexGatedProbe):
            gates.append(head.gate_weights.detach().cpu())
    tests = list(answers.values())
    metrics, per_class = evaluate(tests, table.classes, table.single_label, config.train.seed)
    sizes = {"train": len(train), "test": len(test)} if len(splits) == 1 else {f: len(a) for f, a in answers.items()}
    about = environment()
    return ResultRecord(
        model=describe_model(encoder_name, encoder),
        data=DataInfo(
            name=data_name,
            sha256=table.sha256(),
            clips=sizes,
            unreadable=len(source.skipped),
            classes=len(table.classes),
            classes_present=int(torch.cat([a.targets for a in tests]).any(0).sum()),
        ),
        head=settings(config, loss),
        preset="paper" if config.train == ProbeTrainConfig() else "custom",
        seed=config.train.seed,
        metrics=metrics,
        per_class=per_class,
        gate_weights=torch.stack(gates).mean(0).tolist() if gates else None,
        wall_seconds=monotonic() - start,
        clips_per_second=config.train.steps * config.train.batch_size * len(splits) / training,
        device=str(source.device),
        environment=about,
        git_commit=about["git_commit"],
        folds=None if len(splits) == 1 else {f: values(a, table.single_label) for f, a in answers.items()},
    )


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
    configs = [HeadConfig(kind="linear", layer=i + 1, pool="mean", norm="batch") for i in range(source.depth)]
    train, test = readable(source, train_rows, "train"), readable(source, test_rows, "test")
    heads, _ = train_heads(source, train, targets, configs, train_config, targets.shape[1], single_label)
    loss = pick_loss(train_config, single_label)
    scores = [scores_of(predict(head, source, test), loss) for head in heads]
    return [float(macro_map_present(average_precision(s, targets[torch.from_numpy(test)]))) for s in scores]


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


def describe_model(name: str, encoder: Encoder) -> ModelInfo:
    """The record's model."""
    if not isinstance(encoder, nn.Module):
        return ModelInfo(name, None, None)
    return ModelInfo(name, weights_sha256(encoder), sum(p.numel() for p in encoder.parameters()))


def settings(config: ProbeConfig, loss: Loss) -> dict[str, object]:
    """Every hyper-parameter of the head and its training, `auto` and null replaced by what they meant."""
    decided = {"loss": loss, "weight_decay": decay_of(config.head, config.train)}
    return {**to_dict(config.head), **to_dict(config.train), **decided}


def record_path(out: Path, name: str, config: ProbeConfig) -> Path:
    """OUT/results/MODEL_HEAD_SEED.json."""
    model = re.sub(r"[^\w.-]+", "-", name)
    return out / "results" / f"{model}_{config.head.kind}_{config.train.seed}.json"


def list_skipped(out: Path, skipped: Mapping[str, str]) -> None:
    """Write OUT/skipped.csv if there are any; an older list goes."""
    path = out / "skipped.csv"
    path.unlink(missing_ok=True)
    if skipped:
        out.mkdir(parents=True, exist_ok=True)
        write_skipped(path, skipped)


def summary(record: ResultRecord) -> str:
    """One line: model, head, main metric with its interval."""
    metric, data = record.metrics[record.main_metric], record.data
    spread = "" if metric.sd is None else f", sd {metric.sd:.3f} over {len(record.folds or {})} folds"
    return (
        f"{record.model.id}, {record.head['kind']}: macro mAP {metric.value:.3f} "
        f"[{metric.low:.3f}, {metric.high:.3f}]{spread} ({data.classes_present} of {data.classes} classes)"
    )
