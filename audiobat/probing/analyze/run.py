"""`audiobat analyze`: a model and clips in; what its blocks, attention and prototypes do, as numbers and figures, out.

Clips with labels are probed (Fig. 2, 4 and 6 of the paper) and shown with the prototypes that speak for their classes;
all else (Fig. 3 and 5, ranks, CKA, sinks) needs no labels.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from audiobat.config import LabelConfig, ProbeConfig, SelectConfig, to_dict
from audiobat.config.presets import task_of
from audiobat.config.recipes import Recipe, make_config
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.split import Split, splits_of
from audiobat.engine.environment import environment
from audiobat.engine.files import read_json, write_atomic
from audiobat.engine.memory import FLOAT, Need, check_fits
from audiobat.engine.ranks import launch
from audiobat.engine.run_folder import began, note_begun, note_ended
from audiobat.errors import AudiobatError
from audiobat.evaluation.analysis import attention, label_free, prototypes
from audiobat.evaluation.analysis.similarity import FEWEST
from audiobat.evaluation.analysis.views import CROPPED, MASKED
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.record import without_nan
from audiobat.evaluation.report.curves import sweeps
from audiobat.evaluation.report.record_figures import layer_curves, prototype_curve
from audiobat.evaluation.report.style import save
from audiobat.evaluation.results import model_info
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder
from audiobat.probing.analyze import measures
from audiobat.probing.analyze.pictures import class_pictures, clip_pictures, measure_pictures
from audiobat.probing.one_pass import compute_features, open_model, readable
from audiobat.probing.plan import make_plan, used_clips
from audiobat.probing.training import check_buildable

FORMAT = "audiobat-analysis-1"
ATTENTION_CLIPS = 64  # of which maps are formed


def analyze(
    model: str | Path | Encoder,
    data: str | Path,
    config: ProbeConfig | Recipe | None = None,
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
    """Look into a model, and write `analysis.json`, `figures/` and the probes' records, `results/`, into `out`.

    What memory is too small for is kept in `features/` there, as `probe` does.

    Args:
        model: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, a checkpoint of BAT, EAT, SSLAM,
            Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `FILE.onnx@RATE`, `my_file.py:MyEncoder`, `baseline:NAME`,
            or an encoder object.
        data: clips, as for `probe`: a folder, a CSV or Parquet file with a path column, prepared shards, tars of
            recordings, or NAME:FOLDER of a public data set; without labels there are no probes and no prototypes.
        config: how CGP and the blocks' linear probes are trained; sizes of CGP from `grid.prototypes` (else five up to
            `head.prototypes`), spread over `seeds` (else three).
        out: folder to write.
        clips: clips that are measured besides the probes, of the test split where there is one.
        views: views of each clip for LiDAR; fewer than 2: no LiDAR.
        pictures: how many of the best and how many of the worst classes have their prototypes drawn.
        test_fold: the fold to test on, where clips have folds in place of splits; None: the first.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.
        overwrite: replace the analysis that `out` holds, an error otherwise.

    Returns:
        What `analysis.json` holds; None stands for what is not defined, such as the rank of zeros. On other ranks than
        0 nothing.

    Raises:
        AudiobatError: a bad argument, model or data set, more than 5% of the clips unreadable.
    """
    for name, value, least in (("clips", clips, FEWEST), ("views", views, 0), ("pictures", pictures, 0)):
        if value < least:
            raise AudiobatError(f"{name} is {value}: use {least} or more.")
    with launch(device) as ranks:
        config, out = measures.analysis_config(make_config(ProbeConfig, config)), Path(out)
        command = {"verb": "analyze", "model": str(model), "data": str(data), "config": to_dict(config)}
        old = listed_files(out, overwrite or began(out, command)) if ranks.is_main else set()
        table, split = read_table(data, test_fold, clips, config.select, config.labels)
        name, given = open_model(model, trust_remote_code)
        views_of_clip = Need("views of a clip", FLOAT * views * given.depth * given.dim, "views")
        check_fits("LiDAR", [views_of_clip], ranks.device)
        plan = None
        if split is not None:
            data_name = Path(data).resolve().stem
            plan = make_plan(table, [split], config, given.depth, data_name=data_name, preset_task=task_of(data))
            check_buildable(plan.jobs, given, plan.task.classes, config, ranks.device)
        if ranks.is_main:
            note_begun(out, command)  # now, as the features may take hours
        source = compute_features(given, table, config, out, ranks, ("patches", "means"))
    if not ranks.is_main:
        return {}  # rank 0, which has the features, is alone from here on
    encoder = source.encoder
    looked_at = spread(source.indices if split is None else readable(source, split.test, "test"), clips)
    found = about(name, encoder, table, data, len(looked_at), views)
    found["label_free"] = measures.measure_features(source, looked_at, views)
    found["attention"] = measures.measure_attention(encoder, source, looked_at[:ATTENTION_CLIPS])
    figures = out / "figures"
    files = [*measure_pictures(found, figures), *clip_pictures(encoder, table, looked_at, figures)]
    if plan is not None:
        records, head, per_class, paths = measures.train_probes(name, given, source, plan, out)
        found["layers"] = measures.layer_numbers(records)
        found["prototype_curve"] = measures.prototype_numbers(records)
        files += [*paths, save(layer_curves(records.layers), figures, "layers")]
        if len(config.grid.prototypes) > 1:
            files.append(save(prototype_curve(sweeps(records.rows)), figures, "prototypes"))
        tally = measures.tally_prototypes(source, looked_at, head)
        found["prototypes"] = measures.prototype_use(source, tally, per_class)
        files += class_pictures(encoder, source, head, found["prototypes"]["classes"], pictures, figures)
    found["not_measured"] = left_out(encoder, found)
    found["files"] = sorted(path.relative_to(out).as_posix() for path in files)
    held: dict[str, Any] = without_nan(found)
    write_atomic(out / "analysis.json", json.dumps(held, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for path in old - set(files):
        for part in path.parent.glob(f"{path.stem}.*"):  # a figure's PNG, a record's scores
            part.unlink()
    note_ended(out)
    print_summary(found)
    print(f"analysis: {out / 'analysis.json'}, figures: {figures}")
    return held


def read_table(
    data: str | Path, test_fold: int | None, clips: int, select: SelectConfig, labels: LabelConfig
) -> tuple[ClipTable, Split | None]:
    """The clips in use, and their split; without labels a spread of at most `clips`, and None."""
    table = read_clips(data, annotated=True)
    # A folder whose clips all lie in folders of their own has classes.
    has_class_folders = Path(data).is_dir() and all("/" in key for key in table.keys.tolist())
    if table.labels is None and labels.column is None and not has_class_folders:
        return table.select(spread(np.arange(len(table)), clips)), None
    table = read_labelled_clips(data, labels.column, labels.background, labels.map)
    table, (split,) = used_clips(table, splits_of(table, test_fold)[:1], select)
    return table, split


def spread(clip_ids: ClipIds, count: int) -> ClipIds:
    """At most `count` of the ids, evenly over all of them."""
    if len(clip_ids) <= count:
        return clip_ids
    return clip_ids[np.linspace(0, len(clip_ids) - 1, count).round().astype(np.int64)]


def about(name: str, encoder: Encoder, table: ClipTable, data: str | Path, clips: int, views: int) -> dict[str, Any]:
    """What the numbers are of; `clips` were looked at, `views` of each."""
    drawn = MASKED if isinstance(encoder, AudioEncoder) else CROPPED
    return {
        "format": FORMAT,
        "model": {**dataclasses.asdict(model_info(name, encoder)), "depth": encoder.depth, "dim": encoder.dim},
        "data": {"name": Path(data).resolve().stem, "sha256": table.sha256(), "clips": clips},
        "environment": environment(),
        "definitions": {
            **label_free.DEFINITIONS,
            **prototypes.DEFINITIONS,
            "attention": {**attention.DEFINITIONS, **attention.KINDS},
            "views": f"{views} a clip: {drawn}",
        },
    }


def left_out(encoder: Encoder, found: Mapping[str, Any]) -> list[str]:
    """A line for each part that is left out, or that means little."""
    lines = []
    clips, dim = found["data"]["clips"], found["model"]["dim"]
    if found["attention"] is None:
        lines.append(
            f"attention: {type(encoder).__name__} does not show its attention, so Fig. 5 and sinks are left out."
        )
    elif "gated" not in found["attention"]["measures"]:
        lines.append("gates: this model's attention has none, so what Fig. 5 draws with gate is what it draws without.")
    if "layers" not in found:
        lines.append("probes and prototypes: the clips have no labels.")
    if found["label_free"]["cka"] is None:
        lines.append(f"cka: there are {clips} clips, and it needs {FEWEST}.")
    if found["label_free"]["blocks"][0]["lidar"] is None:
        lines.append("lidar: it needs 2 views of each of 2 clips.")
    if clips < dim:
        lines.append(
            f"full rank of LiDAR, and of mean patches and cls: {clips} clips span fewer than {dim} dimensions."
        )
    return lines


def listed_files(out: Path, overwrite: bool) -> set[Path]:
    """The figures and records of the analysis that `out` holds; none if there is none.

    Raises:
        AudiobatError: `out` holds any, and `overwrite` does not allow to replace them.
    """
    for taken in (out / "analysis.json", out / "figures", out / "results"):
        if taken.exists() and not overwrite:
            raise AudiobatError(f"{taken} exists: choose another --out, or replace it with --overwrite.")
    try:
        names = read_json(out / "analysis.json")["files"]
        found = [Path(name) for name in names]
    except (ValueError, TypeError, KeyError):  # no analysis, or not one of ours: nothing of it is removed
        return set()
    return {out / path for path in found if path.parent in (Path("figures"), Path("results"))}


def print_summary(found: Mapping[str, Any]) -> None:
    """A line for each block, then what was left out."""
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
    for kind, named in found["attention"]["measures"].items() if found["attention"] is not None else ():
        if kind != "values":
            columns[f"to cls, {kind}"] = [f"{value:.1%}" for value in np.mean(named["first_token"], 1)]
    table = Table(title=f"{found['model']['id']} on {found['data']['name']}, {found['data']['clips']} clips")
    for name in columns:
        table.add_column(name, justify="right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    console = Console()
    console.print(table)
    if "layers" in found:
        rho, use = found["layers"]["spearman_mean"], found["prototypes"]["use"]
        agreement = "" if rho is None or math.isnan(rho) else f"Spearman of probe and gate {rho:+.2f}; "
        console.print(f"{agreement}{use['dead_share']:.0%} of prototypes dead, {use['perplexity']:.0f} in even use")
    for line in found["not_measured"]:
        console.print(f"not measured: {line}", highlight=False)
