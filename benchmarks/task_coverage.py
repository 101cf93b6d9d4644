"""How often do the intervals of tasks hold the truth? Simulated tests out of populations whose metrics are known.

python benchmarks/task_coverage.py [DRAWS]: beside ours, from random halves, the percentile and the basic bootstrap. 200
draws take ten minutes of a core. In a test of pairs each clip is in many pairs; there resamples draw pairs, as such
kits' tables would, and halves draw clips.
"""

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from audiobat.evaluation.metrics import Ranking, bootstrap_values, by_repeating
from audiobat.evaluation.unit_scoring import UnitOutputs, evaluate_units, mean_of

RESAMPLES = 500
LEVELS = torch.tensor([0.025, 0.975], dtype=torch.float64)


class Case(NamedTuple):
    """A test that can be drawn again and again."""

    name: str
    truth: float
    draw: Callable[[np.random.Generator], UnitOutputs]


def outputs(values: np.ndarray) -> UnitOutputs:
    return UnitOutputs(len(values), {"m": mean_of(values)}, {"m": ""})


def mean_case(units: int) -> Case:
    """nDCG of queries: 4 of 10 are right in every place, the others anything."""

    def draw(rng: np.random.Generator) -> UnitOutputs:
        return outputs(np.where(rng.random(units) < 0.4, 1.0, rng.beta(2, 2, units)))

    return Case(f"nDCG, {units} queries", 0.7, draw)


def share_case(units: int) -> Case:
    """A hit rate of 0.95."""
    return Case(f"hit rate .95, {units} queries", 0.95, lambda rng: outputs((rng.random(units) < 0.95).astype(float)))


def pairs_case(clips: int, pairs: int) -> Case:
    """Average precision of pairs of clips of 10 kinds, some of which are harder than others."""

    def sample(rng: np.random.Generator, clips: int, pairs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kinds = rng.integers(10, size=clips)
        vectors = np.eye(10)[kinds] + rng.gamma(1.0, 0.5, (clips, 1)) * rng.normal(size=(clips, 10))
        both = rng.integers(clips, size=(4 * pairs, 2))
        both = np.unique(np.sort(both[both[:, 0] != both[:, 1]]), axis=0)
        same = kinds[both[:, 0]] == kinds[both[:, 1]]
        half = [rng.permutation(np.flatnonzero(same == kind))[: pairs // 2] for kind in (True, False)]
        both, same = both[np.concatenate(half)], same[np.concatenate(half)]
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return both, same, (unit[both[:, 0]] * unit[both[:, 1]]).sum(1)

    _, same, cosine = sample(np.random.default_rng(1), 100_000, 200_000)

    def draw(rng: np.random.Generator) -> UnitOutputs:
        both, same, cosine = sample(rng, clips, pairs)
        ranking = Ranking(torch.from_numpy(cosine)[:, None], torch.from_numpy(same)[:, None])
        measure = {"m": lambda counts: ranking.average_precision(counts)[..., 0]}
        return UnitOutputs(len(same), measure, {"m": ""}, groups=both.astype(str))

    return Case(f"AP, {pairs} pairs of {clips} clips", float(average_precision_score(same, cosine)), draw)


def regression_case(name: str, truth: float, units: int, function: Callable[..., float]) -> Case:
    """A metric of predictions that explain 0.49 of the variance."""

    def draw(rng: np.random.Generator) -> UnitOutputs:
        found = rng.normal(size=units) * 0.7
        numbers = found + rng.normal(size=units) * math.sqrt(0.51)
        measure = {"m": by_repeating(function, numbers, found)}
        return UnitOutputs(units, measure, {"m": ""}, ranges={"m": (-1.0, 1.0)})

    return Case(f"{name}, {units} clips", truth, draw)


def r2(numbers: np.ndarray, found: np.ndarray) -> float:
    return float(1 - np.sum((numbers - found) ** 2) / np.sum((numbers - numbers.mean()) ** 2))


def pearson(numbers: np.ndarray, found: np.ndarray) -> float:
    return float(np.corrcoef(numbers, found)[0, 1])


def main(draws: int) -> None:
    sizes = (30, 100, 400)
    cases = [*map(mean_case, sizes), *map(share_case, sizes), pairs_case(40, 400), pairs_case(200, 2_000)]
    cases += [regression_case("R2", 0.49, n, r2) for n in sizes] + [
        regression_case("r", 0.7, n, pearson) for n in sizes
    ]
    print("| test | truth | percentile | basic | ours |\n| --- | --- | --- | --- | --- |")
    for case in cases:
        held = np.zeros(3)
        for seed in range(draws):
            test = case.draw(np.random.default_rng(seed))
            metric = evaluate_units([test], seed)["m"]
            low, high = bootstrap_values(test.measures["m"], test.units, RESAMPLES, seed).quantile(LEVELS).tolist()
            ends = ((low, high), (2 * metric.value - high, 2 * metric.value - low), (metric.low, metric.high))
            held += [a - 1e-9 <= case.truth <= b + 1e-9 for a, b in ends]
        shares = " | ".join(f"{share:.3f}".removeprefix("0") for share in held / draws)
        print(f"| {case.name} | {case.truth:.2f} | {shares} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
