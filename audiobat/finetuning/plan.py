"""What a fine-tuning will do, in a few lines: clips, labels, loss, and the learning rate of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiobat.config import FinetuneConfig
from audiobat.finetuning.layer_rates import describe_rates
from audiobat.models.tagger import Tagger


def describe(tagger: Tagger, config: FinetuneConfig, clips: int, splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Lines for people; `splits` holds for each test fold (or "") the rows of each split."""
    counts = [
        (f"fold {fold}: " if fold else "") + ", ".join(f"{len(rows):,} {name}" for name, rows in split.items())
        for fold, split in splits.items()
    ]
    train = config.train
    return "\n".join(
        [
            f"clips: {clips:,} of {len(tagger.classes)} classes; {'; '.join(counts)}",
            f"head: {tagger.config.head.kind} for each {tagger.task}, "
            f"{'several classes at once' if tagger.multi_label else 'one class'}",
            f"steps: {train.steps:,} of {train.batch_size} clips, the first {train.freeze_steps:,} of the head alone",
            "layers:",
            *describe_rates(tagger, config.optim),
        ]
    )
