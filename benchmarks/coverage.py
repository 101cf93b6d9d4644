"""How often do 95% intervals hold the truth? Simulated test sets out of large populations whose metrics are known.

python benchmarks/coverage.py [DRAWS]: for mAP seven constructions side by side, for every metric the interval that
records hold, for accuracy Wilson's beside the basic bootstrap, worked out exactly. 200 draws take 20 minutes of a core.

The truth of a metric is its value on the whole population: what endless test clips would give. Of cmAP5 it is the mean
over the classes that the test set lets in.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from audiobat.evaluation.metrics import (
    Ranking,
    bootstrap_values,
    clips_behind,
    event_f1,
    half_sample_interval,
    half_sample_values,
    rank_micro,
    wilson,
)
from audiobat.evaluation.scoring import ClipOutputs, FrameOutputs, evaluate

POPULATION = 100_000
RESAMPLES = 500
LEVELS = torch.tensor([0.025, 0.975], dtype=torch.float64)
Metric = Callable[[Tensor], Tensor]  # counts [R, n] to [R]


@dataclass(frozen=True)
class Case:
    """A population of clips: labels by prevalence, scores that tell them apart by so many standard deviations."""

    name: str
    apart: float
    prevalence: tuple[float, float] | None  # of the rarest and the commonest class; None: one label a clip
    clips: int = 400
    classes: int = 37
    heavy: bool = False  # some clips have scores many times as noisy as others
    columns: int = 0  # patch columns of a clip; 0: scores of clips

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scores and targets of clips [rows, C], or of their columns [rows * columns, C]."""
        width = max(self.columns, 1)
        size = (rows, width, self.classes)
        if self.prevalence is None:
            shares = torch.linspace(0.2, 2.0, self.classes)
            targets = torch.zeros(size, dtype=torch.bool)
            labels = torch.multinomial(shares, rows, replacement=True, generator=generator)
            targets[torch.arange(rows), :, labels] = True
        else:
            low, high = map(math.log10, self.prevalence)
            targets = torch.rand(rows, 1, self.classes, generator=generator) < torch.logspace(low, high, self.classes)
            start = torch.rand(rows, 1, self.classes, generator=generator) * width
            place = torch.arange(width).view(1, -1, 1)
            targets = targets & (place >= start - 1) & (place < start + width / 3)  # an event lasts a third of a clip
        own = torch.linspace(-0.8, 0.8, self.classes)[torch.randperm(self.classes, generator=_seeded(1))]  # easy or not
        hard = torch.randn(rows, 1, 1, generator=generator)  # a clip that is hard is so for all classes
        noise = torch.randn(size, generator=generator) + torch.randn(rows, 1, self.classes, generator=generator)
        if self.heavy:
            noise = noise / torch.rand(rows, 1, 1, generator=generator).clamp_min(0.05).sqrt()
        scores = noise / 2**0.5 + 0.4 * hard + (self.apart + own + 0.5 * hard) * targets - self.apart / 2 - 0.8
        if self.prevalence is None:
            scores = scores.log_softmax(-1)
        return scores.flatten(0, 1), targets.flatten(0, 1)


CASES = (
    Case("3 to 20%, mAP about .5", 1.8, (0.03, 0.2)),
    Case("3 to 20%, mAP about .9", 4.0, (0.03, 0.2)),
    Case("one label, 2 to 20 clips a class", 2.5, None),
    Case("one label, 5 clips a class", 3.5, None, clips=200),
    Case("rare: 0.4 to 5%, mAP about .4", 2.2, (0.004, 0.05)),
    Case("rare, mAP about .7", 3.5, (0.004, 0.05)),
    Case("rare, mAP about .9", 5.0, (0.004, 0.05)),
    Case("rare, some clips very noisy", 3.0, (0.004, 0.05), heavy=True),
    Case("60 clips, 10 classes", 2.0, (0.05, 0.3), clips=60, classes=10),
    Case("60 clips, 10 classes, mAP about .9", 4.0, (0.05, 0.3), clips=60, classes=10),
    Case("100 clips, 2 classes", 2.0, (0.2, 0.3), clips=100, classes=2),
    Case("1,000 clips, 50 classes of 0.2 to 10%", 2.2, (0.002, 0.1), clips=1000, classes=50),
)
FRAMES = (
    Case("60 clips of 20 columns", 2.5, (0.1, 0.4), clips=60, classes=11, columns=20),
    Case("200 clips of 20 columns, rare", 3.0, (0.02, 0.1), clips=200, classes=11, columns=20),
)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantiles(values: Tensor) -> tuple[float, float]:
    """2.5 and 97.5%."""
    low, high = values.nanquantile(LEVELS).tolist()
    return low, high


def percentile(metric: Metric, corrected: Metric, n: int, seed: int) -> tuple[float, float]:
    """Of bootstrap resamples."""
    return quantiles(bootstrap_values(metric, n, RESAMPLES, seed))


def basic(metric: Metric, corrected: Metric, n: int, seed: int) -> tuple[float, float]:
    """The percentiles mirrored at the value."""
    value, (low, high) = at_once(metric, n), percentile(metric, corrected, n, seed)
    return 2 * value - high, 2 * value - low


def bias_corrected(metric: Metric, corrected: Metric, n: int, seed: int) -> tuple[float, float]:
    """The value less the bootstrap's bias, and 1.96 of its standard deviations to either side."""
    values = bootstrap_values(metric, n, RESAMPLES, seed)
    middle, margin = 2 * at_once(metric, n) - float(values.nanmean()), 1.96 * float(values[~values.isnan()].std())
    return middle - margin, middle + margin


def studentised(metric: Metric, corrected: Metric, n: int, seed: int) -> tuple[float, float]:
    """Bootstrap t: each resample's error in units of its own standard error, a jackknife over 10 groups of clips."""
    groups = 10
    kept = 1 - torch.nn.functional.one_hot(torch.randperm(n, generator=_seeded(seed)) % groups, groups).T.double()
    errors = []

    def with_error(counts: Tensor) -> Tensor:
        value = metric(counts)
        without = torch.stack([metric(counts * one) for one in kept])  # [groups, R]
        errors.append((without.var(0, correction=0) * (groups - 1)).sqrt())
        return value

    value = at_once(with_error, n)
    error = float(errors.pop())
    values = bootstrap_values(with_error, n, samples=100, seed=seed)
    low, high = quantiles((values - value) / torch.cat(errors).clamp_min(1e-6))
    return value - high * error, value - low * error


def bayesian(metric: Metric, corrected: Metric, n: int, seed: int) -> tuple[float, float]:
    """The basic interval of weights from a Dirichlet distribution in place of counts."""
    weights = -torch.rand(RESAMPLES, n, generator=_seeded(seed), dtype=torch.float64).clamp_min(1e-300).log()
    value, (low, high) = at_once(metric, n), quantiles(metric(weights / weights.mean(1, keepdim=True)))
    return 2 * value - high, 2 * value - low


def halves_alone(metric: Metric, corrected: Metric, n: int, seed: int) -> tuple[float, float]:
    """The basic interval of halves of the clips."""
    value, (low, high) = at_once(metric, n), quantiles(half_sample_values(metric, n, RESAMPLES, seed))
    return 2 * value - high, 2 * value - low


def ours(metric: Metric, corrected: Metric, n: int, seed: int) -> tuple[float, float]:
    """What records hold."""
    halves = half_sample_values(corrected, n, RESAMPLES, seed)
    return half_sample_interval(at_once(metric, n), at_once(corrected, n), halves, n)


CONSTRUCTIONS = {
    "percentile": percentile,
    "basic": basic,
    "bias-corrected": bias_corrected,
    "studentised": studentised,
    "Bayesian": bayesian,
    "halves, basic": halves_alone,
    "ours": ours,
}


def at_once(metric: Metric, n: int) -> float:
    """The metric with each clip counted once."""
    return float(metric(torch.ones(1, n, dtype=torch.float64)))


class Tally:
    """Hits and widths of intervals by name."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[bool, bool, float]]] = defaultdict(list)

    def add(self, name: str, truth: float, low: float, high: float) -> None:
        """One interval, cut to 0 and 1 as records have it."""
        low, high = max(low, 0.0), min(high, 1.0)
        self.found[name].append((truth < low, truth > high, high - low))

    def text(self, name: str) -> str:
        """`.950 (.124)`: coverage and mean width."""
        below, above, width = np.mean(self.found[name], axis=0)
        return f"{1 - below - above:.3f} ({width:.3f})".replace("0.", ".")


def by_class(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Average precision and AUC [C] of a population, a class at a time."""
    ranked = [Ranking(scores[:, c : c + 1], targets[:, c : c + 1]) for c in range(scores.shape[1])]
    return torch.cat([one.average_precision() for one in ranked]), torch.cat([one.auc() for one in ranked])


def clip_case(case: Case, draws: int) -> tuple[Tally, Tally, float]:
    """mAP by every construction, every metric by ours, and the true mAP."""
    scores, targets = case.draw(POPULATION, _seeded(0))
    loss = "ce" if case.prevalence is None else "bce"
    ap, auc = by_class(scores, targets)
    truth = {"map": float(ap.mean()), "auc": float(auc.mean()), **of_answers(scores, targets, case.prevalence is None)}
    maps, all_metrics = Tally(), Tally()
    generator = _seeded(2)
    for draw in range(draws):
        rows = torch.randint(POPULATION, (case.clips,), generator=generator)
        s, t = scores[rows], targets[rows]
        ranking = Ranking(s, t)
        for name, construction in CONSTRUCTIONS.items():
            low, high = construction(
                lambda c, r=ranking: r.average_precision(c).nanmean(-1),
                lambda c, r=ranking: r.corrected_precision(c).nanmean(-1),
                case.clips,
                draw,
            )
            maps.add(name, truth["map"], low, high)
        outputs = ClipOutputs(s, t, loss)
        names = [str(c) for c in range(case.classes)]
        found = evaluate([outputs], names, case.prevalence is None, draw).metrics
        for name, metric in found.items():
            if name == "cmap5":
                all_metrics.add(name, float(ap[t.sum(0) >= 5].mean()), metric.low, metric.high)
            elif name in truth:
                all_metrics.add(name, truth[name], metric.low, metric.high)
    return maps, all_metrics, truth["map"]


def of_answers(scores: Tensor, targets: Tensor, single_label: bool) -> dict[str, float]:
    """F1 and accuracy of a population."""
    top = scores.argmax(1)
    if single_label:
        labels = targets.int().argmax(1)
        predicted = torch.nn.functional.one_hot(top, scores.shape[1]).bool()
        return {"f1_top": macro_f1(predicted, targets), "accuracy": float((top == labels).double().mean())}
    return {"f1": macro_f1(scores > 0, targets)}


def macro_f1(predicted: Tensor, targets: Tensor) -> float:
    """Mean over classes."""
    hits = (predicted & targets).sum(0).double()
    return float((2 * hits / (predicted.sum(0) + targets.sum(0)).clamp_min(1)).mean())


def frame_case(case: Case, draws: int) -> tuple[Tally, dict[str, float]]:
    """The metrics of patch columns by ours; onsets are drawn by themselves: hits, true and found events of a clip."""
    rows = POPULATION // case.columns
    scores, targets = case.draw(rows, _seeded(0))
    generator = _seeded(3)
    skill = torch.rand(rows, 1, generator=generator)  # of the head on a clip
    true = torch.poisson(torch.full((rows, case.classes), 0.3), generator=generator)
    hits = torch.binomial(true, skill.expand_as(true), generator=generator)
    false = torch.poisson(0.3 * (1 - skill).expand_as(true), generator=generator)
    tally = torch.stack([hits, true, hits + false], -1).double()
    ap, _ = by_class(scores, targets)
    truth = {"map": float(ap.mean()), "onset_f1": float(event_f1(tally)), "f1": macro_f1(scores > 0, targets)}
    truth["map_micro"] = float(rank_micro(scores, targets).average_precision())
    found = Tally()
    by_clip = (rows, case.columns, case.classes)
    for draw in range(draws):
        some = torch.randint(rows, (case.clips,), generator=generator)
        parts = (x.view(by_clip)[some].flatten(0, 1) for x in (scores, targets))
        clips = torch.arange(case.clips).repeat_interleave(case.columns)
        outputs = FrameOutputs(*parts, "bce", clips=clips, tally=tally[some])
        names = [str(c) for c in range(case.classes)]
        for name, metric in evaluate([outputs], names, False, draw).metrics.items():
            found.add(name, truth[name], metric.low, metric.high)
    return found, truth


def exact(n: int, share: float, interval: Callable[[int, int], tuple[float, float]]) -> float:
    """Coverage of an interval (hits, clips) of a share of n clips, worked out over all numbers of hits."""
    hits = np.arange(n + 1)
    ends = np.array([interval(k, n) for k in hits.tolist()])
    return float(binom.pmf(hits, n, share)[(ends[:, 0] <= share) & (share <= ends[:, 1])].sum())


def basic_share(hits: int, n: int) -> tuple[float, float]:
    """The basic bootstrap of a share, with endless resamples."""
    share = hits / n
    low, high = binom.ppf([0.025, 0.975], n, share) / n
    return max(2 * share - high, 0.0), min(2 * share - low, 1.0)


def fold_case(sizes: Sequence[int], share: float, draws: int) -> float:
    """Coverage of Wilson's interval of the mean over folds that are not equally hard (standard deviation .03)."""
    generator = np.random.default_rng(0)
    each = share + np.array([-0.042, -0.015, 0.0, 0.015, 0.042])
    hits = generator.binomial(sizes, each, size=(20 * draws, len(sizes)))
    ends = np.array([wilson(float(m), clips_behind(sizes)) for m in (hits / np.array(sizes)).mean(1)])
    return float(((ends[:, 0] <= each.mean()) & (each.mean() <= ends[:, 1])).mean())


def main(draws: int) -> None:
    print(f"Coverage (mean width) over {draws} test sets a case.\n")
    print(f"| mAP | truth | {' | '.join(CONSTRUCTIONS)} |\n|{' --- |' * (2 + len(CONSTRUCTIONS))}")
    others = []
    for case in CASES:
        maps, all_metrics, truth = clip_case(case, draws)
        print(f"| {case.name} | {truth:.2f} | {' | '.join(map(maps.text, CONSTRUCTIONS))} |", flush=True)
        others.append((case.name, all_metrics))
    for case in FRAMES:
        found, _ = frame_case(case, draws)
        others.append((case.name, found))
    names = ("map", "cmap5", "auc", "f1", "f1_top", "accuracy", "map_micro", "onset_f1")
    print(f"\n| ours | {' | '.join(names)} |\n|{' --- |' * (1 + len(names))}")
    for title, tally in others:
        print(f"| {title} | {' | '.join(tally.text(n) if tally.found[n] else '' for n in names)} |")

    print(
        "\n| accuracy | clips | basic | Wilson | Wilson, least of .50, .51, ..., .95 |\n| --- | --- | --- | --- | --- |"
    )
    for n in (20, 60, 100, 400, 2000):
        least = min(exact(n, p / 100, lambda k, m: wilson(k / m, m)) for p in range(50, 96))
        for share in (0.5, 0.8, 0.95):
            pair = [exact(n, share, one) for one in (basic_share, lambda k, m: wilson(k / m, m))]
            print(f"| {share} | {n} | {pair[0]:.3f} | {pair[1]:.3f} | {least:.3f} |")
    print("\n| accuracy over five folds | Wilson |\n| --- | --- |")
    for sizes in ([12] * 5, [80] * 5, [400] * 5, [20, 30, 50, 100, 200]):
        for share in (0.5, 0.8, 0.94):
            print(f"| {share}, of {', '.join(map(str, sizes))} clips | {fold_case(sizes, share, draws):.3f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
