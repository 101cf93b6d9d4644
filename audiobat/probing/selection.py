"""Learning rate and weight decay chosen on a held-out tenth of the training split: `grid.choose`, preset `fair`.

In: heads and a grid. Out: a job for each head with the chosen rates, and the scores of all candidates, which train side
by side on the same features; test clips have no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from audiobat.config import GridConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import hashed_share
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds, Task
from audiobat.evaluation.metrics import average_precision, macro_map_present
from audiobat.evaluation.scoring import scores_of
from audiobat.probing.cache import FeatureSource
from audiobat.probing.jobs import HeadJob, candidates, decay_of
from audiobat.probing.training import predict_heads, train_heads

HELD_OUT = 0.1


@dataclass(frozen=True)
class Candidate:
    """One point of the grid and what it reached on the held-out clips; null: its loss was not finite."""

    lr: float
    weight_decay: float
    score: float | None


@dataclass(frozen=True)
class Choice:
    """How a head's learning rate and weight decay were chosen."""

    held_out: int  # clips
    chosen: Candidate
    runner_up: Candidate
    candidates: list[Candidate]  # all, in the order of the grid


def choose_jobs(
    source: FeatureSource,
    table: ClipTable,
    train: ClipIds,
    task: Task,
    heads: Sequence[HeadJob],
    grid: GridConfig,
    label: str = "",
) -> tuple[list[HeadJob], dict[str, Choice]]:
    """The heads, each with the learning rate and weight decay of highest mAP on clips held out of `train`.

    Also returns how each was chosen, by name; a head that is not trained has no choice. The held-out clips are a tenth
    of each class by the hash of their groups, so that no recording is on both sides. Of equal scores the one that comes
    first in the grid is taken. Raises AudiobatError if nothing can be held out, or no candidate's loss stays finite.
    """
    held = hashed_share(table.select(train), HELD_OUT)
    if held.all() or not held.any():
        raise AudiobatError(
            f"Nothing can be held out of {len(train)} training clips in one group: leave grid.choose out."
        )
    tried = [(base, job) for base in heads for job in candidates(base, grid)]
    trainers, _ = train_heads(source, train[~held], task, [job for _, job in tried], f"{label}choose: ", tolerant=True)
    predicted = predict_heads(trainers, source, train[held], task)
    found: dict[str, list[tuple[float, HeadJob]]] = {}
    for (base, job), trainer, logits in zip(tried, trainers, predicted.logits, strict=True):
        finite = trainer.diverged is None and bool(logits.isfinite().all())
        score = float("-inf")
        if finite:
            score = float(macro_map_present(average_precision(scores_of(logits, trainer.loss), predicted.labels)))
        found.setdefault(base.name, []).append((score, job))
    jobs: list[HeadJob] = []
    choices: dict[str, Choice] = {}
    for base in heads:
        scored = found[base.name]
        order = sorted(range(len(scored)), key=lambda i: -scored[i][0])  # stable: the first of equals stays first
        best, job = scored[order[0]]
        if best == float("-inf"):
            raise AudiobatError(f"The loss of every candidate for head {base.name} became infinite: lower grid.lr.")
        jobs.append(replace(job, name=base.name))
        if len(scored) > 1:
            points = [
                Candidate(job.train.lr, decay_of(job.head, job.train), None if score == float("-inf") else score)
                for score, job in scored
            ]
            choices[base.name] = Choice(int(held.sum()), points[order[0]], points[order[1]], points)
    return jobs, choices
