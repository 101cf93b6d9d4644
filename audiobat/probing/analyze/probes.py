"""The probes of an analysis: a linear one for each block and CGP of several sizes, all seeds, in one pass.

Their result records are written as `audiobat probe` writes them, so that `report` and `compare` read them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiobat.config import ProbeConfig
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.collect import Collection, collect, load_all
from audiobat.evaluation.report.curves import rhos, sweeps
from audiobat.evaluation.report.rows import deviation
from audiobat.models.features import Encoder
from audiobat.models.heads.cgp import ConvexGatedProbe
from audiobat.probing.cache import FeatureSource
from audiobat.probing.one_pass import probe_splits
from audiobat.probing.plan import Plan

SEEDS = 3
SHARES = (100, 30, 10, 3, 1)  # the sizes of CGP: `head.prototypes` over these


@dataclass(frozen=True, eq=False)
class AnalysisProbes:
    """What was trained."""

    found: Collection  # of the records
    head: ConvexGatedProbe  # the largest, of the first seed
    per_class: Mapping[str, float]  # average precision of that size of CGP, mean over seeds
    files: list[Path]  # the records


def analysis_config(config: ProbeConfig) -> ProbeConfig:
    """The config of an analysis: three seeds and five sizes of CGP unless it names others.

    Raises:
        AudiobatError: it asks for other heads, a choice of rates, or frames, which an analysis does not have.
    """
    refused = {
        "heads": config.heads,
        "head.kind": "" if config.head.kind == "cgp" else config.head.kind,
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


def train_probes(name: str, encoder: Encoder, source: FeatureSource, plan: Plan, out: Path) -> AnalysisProbes:
    """Train and test every probe of an `analysis_config`, and write the records into `out`."""
    trained = probe_splits(name, encoder, source, plan)
    paths = [result.save(out).path(out) for result, _ in trained]
    found = collect(load_all(paths))
    largest = plan.config.head.prototypes
    heads = [head for _, head in trained if isinstance(head, ConvexGatedProbe)]  # seed by seed within a size
    head = next(head for head in heads if len(head.prototypes) == largest)
    row = next(row for row in found.rows if row.first.head["prototypes"] == largest)
    return AnalysisProbes(found, head, row.per_class, paths)


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
