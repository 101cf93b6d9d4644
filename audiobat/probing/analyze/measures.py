"""Clips to the numbers of an analysis: ranks, LiDAR, CKA and attention sinks; probes of every block and CGP of several
sizes (Fig. 2, 4 and 6), trained in one pass for all seeds; use of prototypes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiobat.config import ProbeConfig
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError
from audiobat.evaluation.analysis import attention, label_free, prototypes
from audiobat.evaluation.analysis.rank import Lidar
from audiobat.evaluation.analysis.views import views_of
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.report.collect import Collection, collect, load_all
from audiobat.evaluation.report.curves import rhos, sweeps
from audiobat.evaluation.report.rows import deviation
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder
from audiobat.models.heads.cgp import ConvexGatedProbe
from audiobat.probing.cache import FeatureSource
from audiobat.probing.encoding import frozen
from audiobat.probing.one_pass import probe_splits
from audiobat.probing.plan import Plan
from audiobat.probing.training import batches_of

STRONGEST = 3  # prototypes named for each class
SEEDS = 3
SHARES = (100, 30, 10, 3, 1)  # the sizes of CGP: `head.prototypes` over these


def measure_features(source: FeatureSource, clip_ids: ClipIds, views: int) -> dict[str, Any]:
    """Ranks, spread and CKA of the clips `clip_ids`, and LiDAR over `views` of each."""
    measures = label_free.LabelFree(source.encoder.depth, source.encoder.dim)
    with Progress("look at features", len(clip_ids), "clip") as bar:
        for part, features in source.batches(batches_of(clip_ids)):
            measures.update(features)
            bar.advance(len(part))
    blocks = measures.blocks()
    lidars = [Lidar(source.encoder.dim) for _ in blocks] if views > 1 else []
    with frozen(source.encoder), Progress("look at views", len(clip_ids) if lidars else 0, "clip") as bar:
        for number, waveform in enumerate(each_clip(source, clip_ids) if lidars else ()):
            for lidar, vectors in zip(lidars, views_of(source.encoder, waveform, views, number), strict=True):
                if bool(vectors.isfinite().all()):  # a clip of one patch cannot be masked
                    lidar.update(vectors)
            bar.advance()
    for i, block in enumerate(blocks):
        block["lidar"] = lidars[i].value() if lidars and lidars[i].clips > 1 else None
    return {"blocks": blocks, "cka": measures.cka()}


def measure_attention(encoder: Encoder, source: FeatureSource, clip_ids: ClipIds) -> dict[str, Any] | None:
    """Sinks of every block and head; None for a model whose attention cannot be read."""
    if not isinstance(encoder, AudioEncoder):
        return None
    with frozen(encoder):
        found = attention.mean_measures(encoder, each_clip(source, clip_ids))
    measures = {kind: {name: value.tolist() for name, value in named.items()} for kind, named in found.items()}
    means = {kind: {name: float(value.mean()) for name, value in named.items()} for kind, named in found.items()}
    return {"clips": len(clip_ids), "means": means, "measures": measures}


def each_clip(source: FeatureSource, clip_ids: ClipIds) -> Iterator[Tensor]:
    """Each clip [S] on the encoder's device, without padding."""
    for drawn in source.waveforms(clip_ids[i : i + 1] for i in range(len(clip_ids))):
        yield drawn.waveform[0, : int(drawn.lengths[0])].to(source.device)


def tally_prototypes(source: FeatureSource, clip_ids: ClipIds, head: ConvexGatedProbe) -> prototypes.PrototypeTally:
    """How the head's prototypes are used by the clips `clip_ids`."""
    targets = torch.from_numpy(source.table.targets())
    tally = prototypes.PrototypeTally(head, targets.shape[1])
    with Progress("look at prototypes", len(clip_ids), "clip") as bar:
        for part, features in source.batches(batches_of(clip_ids)):
            chosen = torch.from_numpy(part)
            tally.update(features, chosen, targets[chosen])
            bar.advance(len(part))
    return tally


def prototype_use(
    source: FeatureSource, tally: prototypes.PrototypeTally, per_class: Mapping[str, float]
) -> dict[str, Any]:
    """What prototypes are used for, and for each class those that speak for it: clip, time and frequency band."""
    table, bands = source.table, source.freq_patches
    classes = {}
    for label, strongest in zip(table.classes, tally.strongest(STRONGEST), strict=True):
        listed = [
            {
                **{name: getattr(one, name) for name in ("prototype", "strength", "similarity", "row")},
                "clip": str(table.keys[one.row]),
                "column": one.patch // bands,
                "band": one.patch % bands,
                "bands": bands,
            }
            for one in strongest
        ]
        classes[label] = {"average_precision": per_class.get(label), "strongest": listed}
    return {"use": tally.use(), "classes": classes}


def analysis_config(config: ProbeConfig) -> ProbeConfig:
    """The config of an analysis: three seeds and five sizes of CGP unless it names others.

    Raises:
        AudiobatError: it asks for other heads, a choice of rates, or frames, which an analysis does not have.
    """
    refused = {
        "heads": config.heads,
        "head.kind": "" if config.head.kind == "cgp" else config.head.kind,
        "tasks": "" if config.tasks == ProbeConfig.tasks else ", ".join(config.tasks),
        "task": "" if config.task != "frame" else "frame",
        "grid.choose": config.grid.choose,
        "grid.lr": config.grid.lr,
        "grid.weight_decay": config.grid.weight_decay,
    }
    for name, value in refused.items():
        if value:
            raise AudiobatError(
                f"{name} is {value}: analyze trains CGP and linear probes of whole clips at one rate, "
                "leave it out, or the preset that sets it."
            )
    counts = config.grid.prototypes or tuple(sorted({max(1, config.head.prototypes // share) for share in SHARES}))
    seed = config.train.seed
    return replace(
        config,
        head=replace(config.head, kind="cgp", prototypes=max(counts), layer=-1),
        heads=("cgp",),
        layers=True,
        seeds=config.seeds or tuple(range(seed, seed + SEEDS)),
        grid=replace(config.grid, prototypes=counts),
        task="clip",
    )


def train_probes(
    name: str, encoder: Encoder, source: FeatureSource, plan: Plan, out: Path
) -> tuple[Collection, ConvexGatedProbe, Mapping[str, float], list[Path]]:
    """Train and test every probe of an `analysis_config`, and write the records into `out`, as `audiobat probe` does.

    Returns the records; the largest CGP, of the first seed; its average precision by class, mean over seeds; the files.
    """
    trained = probe_splits(name, encoder, source, plan)
    paths = [result.save(out).path(out) for result, _ in trained]
    found = collect(load_all(paths))
    largest = plan.config.head.prototypes
    heads = [head for _, head in trained if isinstance(head, ConvexGatedProbe)]  # seed by seed within a size
    head = next(head for head in heads if len(head.prototypes) == largest)
    row = next(row for row in found.rows if row.first.head["prototypes"] == largest)
    return found, head, row.per_class, paths


def layer_numbers(found: Collection) -> dict[str, Any]:
    """Fig. 4 as numbers: each seed's linear probes and gate weights by block, and their rank correlation."""
    (curve,) = found.layers
    correlations = rhos(curve)
    return {
        "metric": curve.metric,
        "seeds": [blocks[0].seed for blocks in curve.probes],
        "linear": curve.values,
        "gate_weights": [list(gate) for gate in curve.gates],
        "spearman": correlations,
        "spearman_mean": sum(correlations) / len(correlations) if correlations else None,
        "spearman_sd": deviation(correlations),
    }


def prototype_numbers(found: Collection) -> list[dict[str, Any]]:
    """Fig. 2 as numbers: for each size of CGP the metric, mean over seeds, and each seed's."""
    rows = (sweeps(found.rows) or [list(found.rows)])[0]
    return [
        {
            "prototypes": row.first.head["prototypes"],
            "metric": row.main_metric,
            "mean": row.main.value,
            "sd": row.main.sd_seeds,
            "seeds": [record.metrics[row.main_metric].value for record in row.records],
        }
        for row in rows
    ]
