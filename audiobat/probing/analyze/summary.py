"""An analysis to `analysis.json`, which needs no code to read it, and to a short table on the terminal."""

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

from audiobat.data.clip_table import ClipTable
from audiobat.engine.environment import environment
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError
from audiobat.evaluation.analysis import attention, label_free, prototypes
from audiobat.evaluation.analysis.similarity import FEWEST
from audiobat.evaluation.analysis.views import CROPPED, MASKED
from audiobat.evaluation.results import model_info
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder

FORMAT = "audiobat-analysis-1"


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
    """A line for each part that is left out, or that says little."""
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
        names = json.loads((out / "analysis.json").read_text(encoding="utf-8"))["files"]
        found = [Path(name) for name in names]
    except (OSError, ValueError, TypeError, KeyError):  # no analysis, or not one of ours: nothing of it is removed
        return set()
    return {out / path for path in found if path.parent in (Path("figures"), Path("results"))}


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write what is `plain` as JSON."""
    write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """With None for nan and infinity, which JSON does not have, and lists for tuples."""
    if isinstance(value, Mapping):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_summary(found: Mapping[str, Any]) -> None:
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
        told = "" if rho is None or math.isnan(rho) else f"Spearman of probe and gate {rho:+.2f}; "
        console.print(f"{told}{use['dead_share']:.0%} of prototypes dead, {use['perplexity']:.0f} in even use")
    for line in found["not_measured"]:
        console.print(f"not measured: {line}", highlight=False)


def summary_columns(found: Mapping[str, Any]) -> dict[str, list[str]]:
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
