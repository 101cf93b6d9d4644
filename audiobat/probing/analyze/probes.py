"""The probes of an analysis: a linear one for each block and CGP of several sizes, all seeds, in one pass.

Their result records are written as `audiobat probe` writes them, so that `report` and `compare` read them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from audiobat.config import ProbeConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import pick_loss, task_for
from audiobat.evaluation.report.collect import Collection, collect, load_all
from audiobat.evaluation.report.curves import rhos, sweeps
from audiobat.evaluation.report.rows import deviation
from audiobat.evaluation.results import RunInfo, model_info
from audiobat.models.features import Encoder
from audiobat.models.heads import ConvexGatedProbe
from audiobat.probing.cache import FeatureSource
from audiobat.probing.jobs import head_jobs, with_seeds
from audiobat.probing.records import record_of
from audiobat.probing.run import readable
from audiobat.probing.testing import evaluate_heads
from audiobat.probing.training import check_buildable, train_heads

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


def check_probes(config: ProbeConfig, encoder: Encoder, table: ClipTable) -> None:
    """Raise AudiobatError for what can be refused before features are computed: a schedule, a loss, a size."""
    task = task_for(config, table)
    pick_loss(config.train, task.single_label)
    check_buildable(head_jobs(config, encoder.depth), encoder, task)


def train_probes(
    name: str,
    encoder: Encoder,
    source: FeatureSource,
    table: ClipTable,
    split: Split,
    config: ProbeConfig,
    out: Path,
    data_name: str,
    preset_task: str,
) -> AnalysisProbes:
    """Train and test every probe of an `analysis_config`, and write the records into `out`."""
    start = monotonic()
    task = task_for(config, table)
    split = Split(readable(source, split.train, "train"), readable(source, split.test, "test"))
    trainees, seconds = train_heads(source, split.train, task, with_seeds(head_jobs(config, source.depth), config))
    info = model_info(name, encoder)
    run = RunInfo(info, data_name, table, task.single_label, str(source.device), source.skipped)
    paths = []
    for job, result in evaluate_heads(trainees, source, table, split, task):
        probed = record_of([job], [result], run, config, preset_task, seconds, monotonic() - start)
        paths.append(probed.save(out).path(out))
    found = collect(load_all(paths))
    largest = config.head.prototypes
    head = next(t.head for t in trainees if t.job.head.kind == "cgp" and t.job.head.prototypes == largest)
    assert isinstance(head, ConvexGatedProbe)
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
