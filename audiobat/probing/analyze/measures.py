"""Features and clips to the measures of an analysis: ranks, LiDAR and CKA; attention sinks; use of prototypes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from audiobat.engine.progress import Progress
from audiobat.evaluation.analysis import attention, label_free, prototypes
from audiobat.evaluation.analysis.rank import Lidar
from audiobat.evaluation.analysis.views import views_of
from audiobat.evaluation.labels import ClipIds
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder
from audiobat.models.heads.cgp import ConvexGatedProbe
from audiobat.probing.cache import FeatureSource, frozen
from audiobat.probing.training import batches_of

STRONGEST = 3  # prototypes named for each class


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
                "prototype": one.prototype,
                "strength": one.strength,
                "similarity": one.similarity,
                "row": one.row,
                "clip": str(table.keys[one.row]),
                "column": one.patch // bands,
                "band": one.patch % bands,
                "bands": bands,
            }
            for one in strongest
        ]
        classes[label] = {"average_precision": per_class.get(label), "strongest": listed}
    return {"use": tally.use(), "classes": classes}
