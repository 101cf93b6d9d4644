"""What a ladder takes before it runs, `audiobat ladder --dry-run`: seeds that a difference needs, and hours.

The seeds follow from the spread of a step's differences from seed to seed (a paired t test at 5%, found in 80% of all
cases): that of the ladder in `out`, as far as it is, or else of the one that docs/results/ladder_nano keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from audiobat.config import PretrainConfig
from audiobat.config.rungs import rungs
from audiobat.errors import counted
from audiobat.evaluation.metrics import difference_found, pairs_needed
from audiobat.pretraining.calibrate import calibrate_run
from audiobat.studies.ladder_steps import common_deviation, maps_of, missing, record_of

DIFFERENCES = (0.5, 1.0, 2.0)  # points of mAP
SECONDS = 3.0  # for which each rung is timed


class Spread(NamedTuple):
    """By how many points a step's difference strays from seed to seed."""

    deviation: float
    source: str


KEPT = Spread(0.83, "the ladder at nano scale in docs/results/ladder_nano: 3 seeds, 800 steps")


def spread_of(out: Path, probes: int = 1) -> Spread:
    """The common standard deviation of paired differences; `KEPT` before two seeds are done."""
    folder = record_of(out, rungs()[0], 0).parent
    found = (re.fullmatch(r"1_.*-seed(\d+)_cgp_\1\.json", path.name) for path in folder.glob("1_*.json"))
    begun = [int(match[1]) for match in found if match]
    done = [seed for seed in begun if not any(missing(out, name, seed, probes) for name in rungs())]
    if len(done) < 2:
        return KEPT
    return Spread(common_deviation(maps_of(out, done, probes)), f"the {len(done)} seeds in {out}")


def power_lines(spread: Spread, seeds: int) -> list[str]:
    """How many seeds the `DIFFERENCES` need, and what so many seeds tell apart."""
    lines = [
        f"A step's difference strays by {spread.deviation:.2f} points of mAP from seed to seed ({spread.source}).",
        "To find it at 95% in four of five ladders,",
        *(f"  {points:g} points need {pairs_needed(points, spread.deviation)} seeds" for points in DIFFERENCES),
    ]
    if seeds < 2:
        return [*lines, "One seed tells no step apart."]
    return [*lines, f"These {seeds} seeds find {difference_found(seeds, spread.deviation):.1f} points or more."]


def time_lines(configs: Mapping[str, PretrainConfig], seeds: int) -> Iterator[str]:
    """Seconds that a step of each rung takes on this machine, one by one as they are timed, and the ladder's hours."""
    total = 0.0
    for name, config in configs.items():
        step = calibrate_run(config, SECONDS).seconds
        total += (hours := step * config.train.steps / 3600)
        yield f"  {name}: {step:.3g} s a step, {hours:.3g} hours a seed"
    yield f"Together {total * seeds:,.3g} hours for {counted(seeds, 'seed')}, probes not counted."
