"""How often do the intervals of `evaluate` hold the truth? Simulated recordings whose detector is known.

python benchmarks/event_coverage.py [DRAWS]: recordings differ in how well the detector does on them, so that what lies
in one recording is alike. The truth is the value over 400,000 recordings. 200 draws take a minute of a core.
"""

import sys

import numpy as np

from audiobat.evaluation.detections.conventions import find_convention
from audiobat.evaluation.detections.levels import Level
from audiobat.evaluation.detections.measures import error_rate, macro, measure, ratios

OURS = find_convention("ours")
RECALL = np.array([0.9, 0.6, 0.4, 0.75])  # of four classes, in a recording of middling quality
FREQUENCY = np.array([1.0, 0.5, 1.5, 0.3])  # of the classes, beside each other
SETTINGS = ((20, 3), (20, 20), (60, 5), (300, 3))  # recordings, events of the first class in each
NAMES = ("f1_micro", "precision_micro", "recall_micro", "f1_macro", "error_rate")


def draw(rng: np.random.Generator, recordings: int, events: float) -> np.ndarray:
    """Counts of recordings and classes: found, true, right, predicted; [R, 4, 4]."""
    quality = rng.normal(0, 0.8, recordings)[:, None]
    chance = 1 / (1 + np.exp(-(np.log(RECALL / (1 - RECALL)) + quality)))
    true = rng.poisson(events * FREQUENCY, (recordings, 4))
    found = rng.binomial(true, chance)
    alarms = rng.poisson(events * 0.3, (recordings, 4))
    return np.stack([found, true, found, found + alarms], -1).astype(float)


def values_of(counts: np.ndarray) -> dict[str, float]:
    """The metrics of summed counts [4, 4]."""
    micro, mean = ratios(counts.sum(0), OURS), macro(ratios(counts, OURS), np.ones(4, bool))
    rate = float(error_rate(counts[None], np.zeros(1), OURS)[0])
    return dict(zip(NAMES, [*micro.tolist(), float(mean[0]), rate], strict=True))


def main(draws: int) -> None:
    for recordings, events in SETTINGS:
        rng = np.random.default_rng(0)
        truth = values_of(draw(rng, 400_000, events).sum(0))
        held = dict.fromkeys(NAMES, 0)
        for seed in range(draws):
            counts = draw(rng, recordings, events)
            level = Level("event", counts, counts.sum(1), np.zeros(recordings), None)
            metrics, _ = measure(level, OURS, seed)
            for name in NAMES:
                held[name] += metrics[name].low <= truth[name] <= metrics[name].high
        shares = ", ".join(f"{name} {count / draws:.1%}" for name, count in held.items())
        print(f"{recordings} recordings, {events} events: {shares}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
