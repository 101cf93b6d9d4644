"""Result records as `audiobat probe` would write them, of any number of models, heads, seeds and classes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from audiobat.evaluation.metrics import Ranking, average_precision, f1_macro, macro_map_present
from audiobat.evaluation.record import DataInfo, Metric, ModelInfo, ResultRecord, Scores, save_scores


def make_record(
    model: str = "bat",
    kind: str = "cgp",
    value: float = 0.4,
    *,
    data: str = "scenes",
    seed: int = 0,
    gate: list[float] | None = None,
    per_class: dict[str, float | None] | None = None,
    single_label: bool = False,
    sd: float | None = None,
    half: float = 0.03,
    **head: object,
) -> ResultRecord:
    """A record whose main metric is `value`."""
    metric = Metric(value, value - half, value + half, "average precision, mean over classes", sd)
    metrics = {"map": metric, "f1": Metric(value / 2, value / 2 - half, value / 2 + half, "F1 at 0.5", sd)}
    if single_label:
        metrics = {"map": metric, "f1_top": metric, "accuracy": Metric(value, value - half, value + half, "right", sd)}
    name = "_".join([kind, *(f"{setting}{value}" for setting, value in head.items())])
    return ResultRecord(
        model=ModelInfo(model, f"{model}-weights", 91_000_000),
        data=DataInfo(data, f"{data}-table", {"train": 1200, "test": 400}, 0, 3, 2),
        head={
            **{"name": name, "kind": kind, "layer": -1, "prototypes": 256, "steps": 2500, "batch_size": 48, "lr": 1e-3},
            **{"loss": "ce" if single_label else "bce", "weight_decay": 0.5, "seed": seed, "order_seed": 0},
            **head,
        },
        preset="custom",
        seed=seed,
        metrics=metrics,
        per_class=per_class or {"goat_bleat": value, "bell": 1 - value, "absent": None},
        gate_weights=gate,
        wall_seconds=1.5,
        clips_per_second=320.0,
        device="cpu",
        environment={"torch": "2.13.0", "python": "3.11", "audiobat": "0.1.0", "created": "2026-01-01T00:00:00+00:00"},
        git_commit=None,
        folds={"1": {"map": value}, "2": {"map": value}} if sd is not None else None,
    )


def save_all(folder: Path, records: list[ResultRecord]) -> Path:
    """Write records as a run folder; returns it."""
    for i, record in enumerate(records):
        record.save(folder / "results" / f"r{i:03}.json")
    return folder


def scored(path: Path, skill: float, *, seed: int = 0, clips: int = 80, classes: int = 6, **fields: object) -> None:
    """Save a record and scores of the same clips; the higher `skill`, the more the scores know."""
    generator = np.random.default_rng(7)
    targets = generator.random((clips, classes)) < 0.3
    noise = np.random.default_rng((seed, int(1000 * skill))).normal(size=targets.shape)
    scores = (skill * (2 * targets - 1) + noise).astype(np.float32)
    logits, truth = torch.from_numpy(scores), torch.from_numpy(targets)
    ap = average_precision(logits, truth)
    names = [f"class_{i}" for i in range(classes)]
    record = make_record(
        value=float(macro_map_present(Ranking(logits, truth).average_precision())),
        per_class=dict(zip(names, ap.tolist(), strict=True)),
        seed=seed,
        **fields,  # type: ignore[arg-type]
    )
    record.metrics["f1"] = Metric(float(f1_macro(logits, truth)), 0.0, 1.0, "F1 at 0.5")
    kept = save_scores(path, Scores(np.array([f"clip_{i}" for i in range(clips)]), scores, targets))
    ResultRecord(**{**vars(record), "scores": kept}).save(path)


def many(
    models: int, *, classes: int = 12, seeds: int = 2, depth: int = 12, long_names: bool = False
) -> list[ResultRecord]:
    """Records of `models` models: four heads and all blocks, on two data sets, some metrics undefined."""
    generator = np.random.default_rng(0)
    found = []
    names = [f"class_{i}" + ("_with_a_name_that_goes_on_and_on" if long_names else "") for i in range(classes)]
    for data, single in (("AudioSet-like scenes", False), ("ESC-50", True)):
        for m in range(models):
            model = f"model_{m}" + ("-pretrained-on-everything-there-is-for-400k-steps" if long_names else "")
            for seed in range(seeds):
                peak = depth * (0.4 + 0.05 * m)
                curve = 0.2 + 0.02 * m + 0.2 * np.exp(-((np.arange(1, depth + 1) - peak) ** 2) / 20)
                gate = np.exp(8 * curve + 0.1 * generator.normal(size=depth))
                for kind, gain in (("cgp", 0.1), ("protobin", 0.06), ("linear", -0.05), ("attentive", 0.03)):
                    value = float(curve.max() + gain + 0.01 * generator.normal())
                    ap = np.clip(generator.normal(value, 0.2, classes), 0, 1).tolist()
                    found.append(
                        make_record(
                            model,
                            kind,
                            math.nan if (m, kind, seed) == (1, "attentive", 0) else value,
                            data=data,
                            seed=seed,
                            gate=(gate / gate.sum()).tolist() if kind == "cgp" else None,
                            per_class=dict(zip(names, [*ap[:-1], None], strict=True)),
                            single_label=single,
                            sd=0.012 if single else None,
                        )
                    )
                for block in range(1, depth + 1):
                    value = float(curve[block - 1] + 0.005 * generator.normal())
                    found.append(
                        make_record(model, "linear", value, data=data, seed=seed, single_label=single, layer=block)
                    )
            if m < 2:
                for count in (16, 64, 1024, 4096):
                    value = 0.2 + 0.05 * m + 0.03 * math.log(count)
                    found.append(make_record(model, "cgp", value, data=data, single_label=single, prototypes=count))
    return found
