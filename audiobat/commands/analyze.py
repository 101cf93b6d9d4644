"""`audiobat analyze`: a model and clips in; what its blocks, attention and prototypes do, as numbers and figures, out.

Clips with labels are probed (Fig. 2, 4 and 6 of the paper) and shown with the prototypes that speak for their classes;
all else (Fig. 3 and 5, ranks, CKA, sinks) needs no labels.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from audiobat.analysis import attention, label_free, prototypes
from audiobat.analysis.rank import Lidar
from audiobat.analysis.similarity import FEWEST
from audiobat.analysis.views import CROPPED, MASKED, views_of
from audiobat.cache import FeatureSource, cache_features, frozen
from audiobat.commands.analysis_pictures import class_pictures, clip_pictures
from audiobat.commands.analysis_probes import analysis_config, layer_numbers, prototype_numbers, train_probes
from audiobat.commands.head_training import Rows, cut
from audiobat.commands.probe import keep_used, list_skipped, splits_of
from audiobat.commands.probe_records import describe_model
from audiobat.config import ProbeConfig
from audiobat.data.index import ClipTable
from audiobat.data.sources import read_clips, read_labelled_clips
from audiobat.encoder import AudioEncoder
from audiobat.errors import AudiobatError
from audiobat.features import Encoder
from audiobat.heads import ConvexGatedProbe
from audiobat.models import load_encoder
from audiobat.presets import task_of
from audiobat.progress import Progress
from audiobat.report import analysis_figures
from audiobat.report.curves import sweeps
from audiobat.report.record_figures import layer_curves, prototype_curve
from audiobat.report.style import save
from audiobat.results import environment
from audiobat.train.dist import pick_device

FORMAT = "audiobat-analysis-1"
ATTENTION_CLIPS = 64  # of which maps are formed
STRONGEST = 3  # prototypes named for each class


def analyze(
    model: str | Path | Encoder,
    data: str | Path,
    config: ProbeConfig | None = None,
    *,
    out: str | Path,
    clips: int = 512,
    views: int = 16,
    pictures: int = 3,
    test_fold: int | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Look into a model, and write `analysis.json`, `figures/` and the records of its probes into `out`.

    Args:
        model: whatever `audiobat.models.load_encoder` takes, or an encoder.
        data: clips from any source; without labels there are no probes and no prototypes.
        config: how CGP and the blocks' linear probes are trained; sizes of CGP from `grid.prototypes` (else five up to
            `head.prototypes`), spread over `seeds` (else three).
        out: folder to write.
        clips: at most so many, of the test split where there is one, are looked at besides the probes.
        views: of each clip, for LiDAR; fewer than 2 leave it out.
        pictures: of how many best and of how many worst classes the prototypes are drawn.
        test_fold: the fold to test on, where clips have folds in place of splits; None: the first.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: let a Hugging Face model run the Python files that come with it.
        overwrite: replace the analysis that `out` holds, an error otherwise.

    Returns:
        What `analysis.json` holds.

    Raises:
        AudiobatError: a bad argument, model or data set, more than 5% of the clips unreadable.
    """
    for name, value, least in (("clips", clips, FEWEST), ("views", views, 0), ("pictures", pictures, 0)):
        if value < least:
            raise AudiobatError(f"{name} is {value}: use {least} or more.")
    config = analysis_config(config or ProbeConfig())
    out = Path(out)
    if (out / "analysis.json").exists() and not overwrite:
        raise AudiobatError(f"{out / 'analysis.json'} exists: choose another --out, or replace it with --overwrite.")
    name = Path(model).resolve().name if isinstance(model, str | Path) else type(model).__name__
    table, split = read_table(data, test_fold, clips)
    encoder = load_encoder(model, trust_remote_code=trust_remote_code) if isinstance(model, str | Path) else model
    out.mkdir(parents=True, exist_ok=True)  # now, as the features may take hours
    skipped: dict[str, str] = {}
    try:
        source = cache_features(
            encoder,
            table,
            cache_gb=config.cache_gb,
            cache_dir=config.cache_dir,
            device=str(pick_device(device)),
            workers=config.workers,
            skipped=skipped,
        )
    finally:
        list_skipped(out, skipped)
    looked_at = spread(source.indices if split is None else np.intersect1d(split[1], source.indices), clips)
    figures = out / "figures"
    found = about(name, encoder, table, data, looked_at, views)
    found["label_free"] = measure_features(source, looked_at, views)
    found["attention"] = measure_attention(encoder, source, looked_at[:ATTENTION_CLIPS])
    save(analysis_figures.ranks(found["label_free"]["blocks"]), figures, "ranks")
    if found["label_free"]["cka"] is not None:
        save(analysis_figures.likeness(found["label_free"]["cka"]), figures, "cka")
    if found["attention"] is not None:
        save(analysis_figures.sinks(found["attention"]["measures"]), figures, "sinks")
    clip_pictures(encoder, table, looked_at, figures)
    if split is not None:
        probes = train_probes(
            name, encoder, source, table, split, config, out, Path(data).resolve().stem, task_of(data)
        )
        found["layers"] = layer_numbers(probes.found)
        found["prototype_curve"] = prototype_numbers(probes.found)
        save(layer_curves(probes.found.layers), figures, "layers")
        if len(config.grid.prototypes) > 1:
            save(prototype_curve(sweeps(probes.found.rows)), figures, "prototypes")
        tally = tally_prototypes(source, looked_at, probes.head)
        found["prototypes"] = prototype_use(table, source, tally, probes.per_class)
        class_pictures(encoder, source, probes.head, found["prototypes"]["classes"], pictures, figures)
    found["not_measured"] = reasons(encoder, split is not None, found)
    write_json(out / "analysis.json", found)
    print_summary(found)
    print(f"analysis: {out / 'analysis.json'}, figures: {figures}")
    return found


def read_table(data: str | Path, test_fold: int | None, clips: int) -> tuple[ClipTable, tuple[Rows, Rows] | None]:
    """The clips in use, and the rows that train and test; without labels a spread of at most `clips`, and None."""
    table = read_clips(data)
    labelled = table.labels is not None or (Path(data).is_dir() and has_class_folders(table))
    if not labelled:
        return table.select(spread(np.arange(len(table)), clips)), None
    table = read_labelled_clips(data)
    fold, rows = next(iter(splits_of(table, test_fold).items()))
    table, splits = keep_used(table, {fold: rows})
    return table, splits[fold]


def has_class_folders(table: ClipTable) -> bool:
    """Whether no clip lies in the folder itself."""
    return all("/" in key for key in table.keys.tolist())


def spread(rows: Rows, count: int) -> Rows:
    """At most `count` of the rows, evenly over all of them."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def about(
    name: str, encoder: Encoder, table: ClipTable, data: str | Path, looked_at: Rows, views: int
) -> dict[str, Any]:
    """What the numbers are of."""
    ours = isinstance(encoder, AudioEncoder)
    return {
        "format": FORMAT,
        "model": {**dataclasses.asdict(describe_model(name, encoder)), "depth": encoder.depth, "dim": encoder.dim},
        "data": {"name": Path(data).resolve().stem, "sha256": table.sha256(), "clips": len(looked_at)},
        "environment": environment(),
        "definitions": {
            **label_free.DEFINITIONS,
            **prototypes.DEFINITIONS,
            "attention": {**attention.DEFINITIONS, **attention.KINDS},
            "views": f"{views} a clip: {MASKED if ours else CROPPED}",
        },
    }


def measure_features(source: FeatureSource, rows: Rows, views: int) -> dict[str, Any]:
    """Ranks, spread and CKA of the clips at `rows`, and LiDAR over `views` of each."""
    measures = label_free.LabelFree(source.depth, source.dim)
    with Progress("look at features", len(rows), "clip") as bar:
        for part, features in source.batches(cut(rows)):
            measures.update(features)
            bar.advance(len(part))
    blocks = measures.blocks()
    lidars = [Lidar(source.dim) for _ in blocks] if views > 1 else []
    with frozen(source.encoder), Progress("look at views", len(rows) if lidars else 0, "clip") as bar:
        for number, waveform in enumerate(each_clip(source, rows) if lidars else ()):
            for lidar, seen in zip(lidars, views_of(source.encoder, waveform, views, number), strict=True):
                if bool(seen.isfinite().all()):  # a clip of one patch cannot be masked
                    lidar.update(seen)
            bar.advance()
    for i, block in enumerate(blocks):
        block["lidar"] = lidars[i].value() if lidars and lidars[i].clips > 1 else None
    return {"blocks": blocks, "cka": measures.cka()}


def measure_attention(encoder: Encoder, source: FeatureSource, rows: Rows) -> dict[str, Any] | None:
    """Sinks of every block and head; None if the model does not let us look."""
    if not isinstance(encoder, AudioEncoder):
        return None
    with frozen(encoder):
        found = attention.mean_measures(encoder, each_clip(source, rows))
    measures = {kind: {name: value.tolist() for name, value in named.items()} for kind, named in found.items()}
    means = {kind: {name: float(value.mean()) for name, value in named.items()} for kind, named in found.items()}
    return {"clips": len(rows), "means": means, "measures": measures}


def each_clip(source: FeatureSource, rows: Rows) -> Iterator[Tensor]:
    """Each clip [S] on the encoder's device, without padding."""
    for drawn in source.waveforms(rows[i : i + 1] for i in range(len(rows))):
        yield drawn.waveform[0, : int(drawn.lengths[0])].to(source.device)


def tally_prototypes(source: FeatureSource, rows: Rows, head: ConvexGatedProbe) -> prototypes.PrototypeTally:
    """How the head's prototypes are used by the clips at `rows`."""
    targets = torch.from_numpy(source.table.targets())
    tally = prototypes.PrototypeTally(head, targets.shape[1])
    with Progress("look at prototypes", len(rows), "clip") as bar:
        for part, features in source.batches(cut(rows)):
            chosen = torch.from_numpy(part)
            tally.update(features, chosen, targets[chosen])
            bar.advance(len(part))
    return tally


def prototype_use(
    table: ClipTable, source: FeatureSource, tally: prototypes.PrototypeTally, per_class: Any
) -> dict[str, Any]:
    """What prototypes are used for, and for each class those that speak for it: clip, time and frequency band."""
    bands = source.patch_rows
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


def reasons(encoder: Encoder, labelled: bool, found: dict[str, Any]) -> list[str]:
    """A line for each part that is left out."""
    lines = []
    if found["attention"] is None:
        lines.append(
            f"attention: {type(encoder).__name__} does not show its attention, so Fig. 5 and sinks are left out."
        )
    if not labelled:
        lines.append("probes and prototypes: the clips have no labels.")
    if found["label_free"]["cka"] is None:
        lines.append("cka: fewer than 4 clips.")
    return lines


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Write the numbers, whole or not at all; null stands for nan."""
    beside = path.with_name(path.name + ".tmp")
    text = json.dumps(plain(found), indent=1, ensure_ascii=False, allow_nan=False)
    beside.write_text(text + "\n", encoding="utf-8")
    os.replace(beside, path)


def plain(value: Any) -> Any:
    """Without nan and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def print_summary(found: dict[str, Any]) -> None:
    """A line for each block, then what was left out."""
    table = Table(title=f"{found['model']['id']} on {found['data']['name']}, {found['data']['clips']} clips")
    columns = summary_columns(found)
    for name in columns:
        table.add_column(name, justify="right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    console = Console()
    console.print(table)
    if "layers" in found:
        rho, use = found["layers"]["spearman_mean"], found["prototypes"]["use"]
        told = "" if rho is None else f"Spearman of probe and gate {rho:+.2f}; "
        console.print(f"{told}{use['dead_share']:.0%} of prototypes dead, {use['perplexity']:.0f} in even use")
    for line in found["not_measured"]:
        console.print(f"not measured: {line}", highlight=False)


def summary_columns(found: dict[str, Any]) -> dict[str, list[str]]:
    """The columns of the printed table."""
    blocks = found["label_free"]["blocks"]
    columns = {"block": [str(block["block"]) for block in blocks]}
    if "layers" in found:
        layers = found["layers"]
        columns[f"linear, {layers['metric']}"] = [f"{value:.3f}" for value in np.mean(layers["linear"], 0)]
        if layers["gate_weights"]:
            columns["gate"] = [f"{value:.3f}" for value in np.mean(layers["gate_weights"], 0)]
    columns["RankMe"] = [f"{block['patches']['rankme']:.1f}" for block in blocks]
    if blocks[0]["lidar"] is not None:
        columns["LiDAR"] = [f"{block['lidar']:.1f}" for block in blocks]
    columns["token std"] = [f"{block['patches']['token_std']:.2f}" for block in blocks]
    if found["attention"] is not None:
        for kind, named in found["attention"]["measures"].items():
            if kind != "values":
                columns[f"to cls, {kind}"] = [f"{value:.1%}" for value in np.mean(named["first_token"], 1)]
    return columns
