"""Metrics of AudioSet's 18,886 x 527 test scores: ours and scikit-learn's in one run, and 500 halves for intervals.

python benchmarks/metrics.py [HALVES]: seconds, ratios, and for halves also the ratio to a fixed piece of work (a
product of two 4,096 x 4,096 matrices), as other load on the machine slows both. Threads: OMP_NUM_THREADS.
"""

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from audiobat.evaluation.metrics import (
    Ranking,
    accuracy,
    average_precision,
    best_threshold,
    bootstrap_values,
    f1_at,
    f1_macro,
    half_sample_values,
    macro_map_frequent,
    macro_map_present,
    rank_micro,
)

CLIPS, CLASSES = 18_886, 527


def audioset_like() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels: 6,000 positives in the commonest class, 50 in the rarest, about 2.6 labels a clip."""
    generator = torch.Generator().manual_seed(0)
    share = (6000 * torch.arange(1, CLASSES + 1.0) ** -0.95).clamp_min(50) / CLIPS
    targets = torch.rand(CLIPS, CLASSES, generator=generator) < share
    return torch.randn(CLIPS, CLASSES, generator=generator) + 2.5 * targets - 3, targets


def seconds(work: Callable[[], object], repeats: int = 1) -> tuple[float, object]:
    """The least of `repeats` times, and what the work gave."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def main(samples: int) -> None:
    warnings.simplefilter("ignore")  # about classes without positives
    scores, targets = audioset_like()
    s, t = scores.numpy(), targets.numpy()
    labels = targets.int().argmax(1)
    print(f"{CLIPS:,} clips, {CLASSES} classes, {int(targets.sum()):,} labels, {torch.get_num_threads()} threads\n")

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "macro mAP": (
            lambda: float(macro_map_present(average_precision(scores, targets))),
            lambda: average_precision_score(t, s, average="macro"),
        ),
        "macro AUC": (
            lambda: float(Ranking(scores, targets).auc().nanmean()),
            lambda: roc_auc_score(t, s, average="macro"),
        ),
        "micro mAP": (
            lambda: float(rank_micro(scores, targets).average_precision()),
            lambda: average_precision_score(t, s, average="micro"),
        ),
        "macro F1 at 0.5": (
            lambda: float(f1_macro(scores, targets)),
            lambda: f1_score(t, s > 0, average="macro", zero_division=0),
        ),
        "accuracy": (
            lambda: float(accuracy(scores, labels)),
            lambda: accuracy_score(labels.numpy(), s.argmax(1)),
        ),
    }
    print("| metric | ours, s | scikit-learn, s | times faster |\n| --- | --- | --- | --- |")
    for name, (ours, theirs) in pairs.items():
        quick, value = seconds(ours)
        slow, expected = seconds(theirs)
        for _ in range(4):  # in turn, so that other load hits both alike
            quick, slow = min(quick, seconds(ours)[0]), min(slow, seconds(theirs)[0])
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        print(f"| {name} | {quick:.3f} | {slow:.3f} | {slow / quick:.1f} |", flush=True)
    quick, threshold = seconds(lambda: best_threshold(scores, targets))
    print(f"| the best of {CLIPS * CLASSES:,} thresholds | {quick:.3f} | | |\n")

    a, b = torch.randn(2, 4096, 4096)
    unit = seconds(lambda: a @ b, 5)[0]
    ranked, micro = Ranking(scores, targets), rank_micro(scores, targets)
    other = Ranking(scores + torch.randn(scores.shape, generator=torch.Generator().manual_seed(1)), targets)

    def halves(metric: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return half_sample_values(metric, CLIPS, samples)

    jobs: dict[str, Callable[[], object]] = {
        "macro mAP": lambda: halves(lambda c: macro_map_present(ranked.corrected_precision(c))),
        "cmAP5": lambda: halves(lambda c: macro_map_frequent(ranked.corrected_precision(c), targets)),
        "macro AUC": lambda: halves(lambda c: ranked.auc(c).nanmean(-1)),
        "micro mAP": lambda: halves(lambda c: micro.average_precision(c)[:, 0]),
        "macro F1 at 0.5": lambda: halves(lambda c: f1_macro(scores, targets, c)),
        "macro F1 at the best": lambda: halves(lambda c: f1_at(scores, targets, threshold, c)),
        "accuracy": lambda: halves(lambda c: accuracy(scores, labels, c)),
        "paired, macro mAP, as many resamples": lambda: [
            bootstrap_values(lambda c, one=one: macro_map_present(one.average_precision(c)), CLIPS, samples)
            for one in (ranked, other)
        ],
    }
    print(f"| {samples:,} halves | seconds | in matrix products of {unit:.2f} s |\n| --- | --- | --- |")
    total = 0.0
    for name, job in jobs.items():
        taken, _ = seconds(job)
        total += taken
        print(f"| {name} | {taken:.1f} | {taken / unit:.0f} |", flush=True)
    print(f"| all of them | {total:.1f} | {total / unit:.0f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
