"""Rankings: AUC, micro and frame averages against scikit-learn, d-prime against its definition, speed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import (
    Ranking,
    average_precision,
    d_prime,
    macro_map_frequent,
    macro_map_present,
    rank_micro,
    ranking,
)


@st.composite
def problems(draw):
    """Few distinct scores, so that ties are the rule; counts with zeros; classes without positives or negatives."""
    clips, classes = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(-2, draw(st.integers(-1, 20)), (clips, classes)).astype(np.float64) / 4
    targets = rng.random((clips, classes)) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    counts = rng.multinomial(clips, np.full(clips, 1 / clips), size=3)
    return scores, targets, counts


def sklearn_auc(scores, targets) -> list[float]:
    columns = zip(np.asarray(targets).T, np.asarray(scores).T, strict=True)
    return [roc_auc_score(t, s) if 0 < t.sum() < len(t) else math.nan for t, s in columns]


@settings(max_examples=150)
@given(problems())
def test_auc_is_scikit_learns_on_the_repeated_clips(problem):
    scores, targets, counts = problem
    s, t, c = map(torch.from_numpy, problem)
    ranked = Ranking(s, t)
    np.testing.assert_allclose(ranked.auc(), sklearn_auc(scores, targets), atol=1e-12)
    expected = [sklearn_auc(scores.repeat(row, 0), targets.repeat(row, 0)) for row in counts]
    np.testing.assert_allclose(ranked.auc(c), expected, atol=1e-12)
    np.testing.assert_allclose(ranked.auc(c[1]), expected[1], atol=1e-12)


@settings(max_examples=60)
@given(problems(), st.integers(1, 3), st.integers(1, 4))
def test_neither_batches_of_resamples_nor_blocks_of_classes_show(problem, batch, block):
    s, t, c = map(torch.from_numpy, problem)
    whole = Ranking(s, t)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BATCH", batch)
        patch.setattr(ranking, "BLOCK", block * len(s))
        patch.setattr(ranking, "EXACT", 0)  # sums in float64
        parts = Ranking(s, t)
        assert torch.equal(parts.average_precision(c).nan_to_num(9), whole.average_precision(c).nan_to_num(9))
        assert torch.equal(parts.auc(c).nan_to_num(9), whole.auc(c).nan_to_num(9))


@settings(max_examples=60)
@given(problems())
def test_micro_average_is_scikit_learns(problem):
    scores, targets, counts = problem
    s, t, c = map(torch.from_numpy, problem)
    found = rank_micro(s, t).average_precision(c)[:, 0].tolist()
    for value, row in zip(found, counts, strict=True):
        rows = targets.repeat(row, 0)
        if rows.any():
            assert value == pytest.approx(average_precision_score(rows, scores.repeat(row, 0), average="micro"))
        else:
            assert math.isnan(value)


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_frames_count_as_often_as_their_clip_and_padding_never(clips, frames, classes, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (clips, frames, classes)) / 4
    targets = rng.random(scores.shape) < 0.4
    valid = rng.random((clips, frames)) < 0.7
    scores[~valid] = 99.0
    counts = rng.multinomial(clips, np.full(clips, 1 / clips), size=2)
    s, t, v, c = (torch.from_numpy(a) for a in (scores, targets, valid, counts))
    clip_of_row = torch.arange(clips)[:, None].expand_as(v)[v]
    for row, macro, micro in zip(
        counts,
        Ranking(s[v], t[v], clip_of_row).average_precision(c).tolist(),
        rank_micro(s[v], t[v], clip_of_row).average_precision(c)[:, 0].tolist(),
        strict=True,
    ):
        kept = np.repeat(valid, row, 0)
        rows, truth = np.repeat(scores, row, 0)[kept], np.repeat(targets, row, 0)[kept]
        for label in range(classes):
            expected = average_precision_score(truth[:, label], rows[:, label]) if truth[:, label].any() else math.nan
            assert macro[label] == pytest.approx(expected, nan_ok=True)
        assert micro == pytest.approx(
            average_precision_score(truth, rows, average="micro") if truth.any() else math.nan, nan_ok=True
        )


def test_no_positives_and_no_clips_give_nan():
    none = Ranking(torch.randn(4, 3), torch.zeros(4, 3))
    counts = torch.ones(2, 4)
    assert none.average_precision(counts).isnan().all()
    assert none.auc(counts).isnan().all()
    assert Ranking(torch.zeros(0, 3), torch.zeros(0, 3)).average_precision().isnan().all()
    with pytest.raises(AudiobatError, match="NaN or infinity"):
        Ranking(torch.tensor([[math.nan]]), torch.ones(1, 1))


def test_macro_means_take_the_classes_that_they_name():
    targets = torch.zeros(20, 4)
    for label, positives in enumerate((5, 4, 20, 0)):
        targets[:positives, label] = 1
    scores = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    ap, auc = average_precision(scores, targets), Ranking(scores, targets).auc()
    assert macro_map_frequent(ap, targets) == pytest.approx(float((ap[0] + ap[2]) / 2))
    assert macro_map_frequent(ap, targets, positives=4) == pytest.approx(float(ap[:3].mean()))
    assert macro_map_present(ap) == pytest.approx(float(ap[:3].mean()))
    assert auc.nanmean() == pytest.approx(float(auc[:2].mean()))  # a class without negatives has no AUC
    assert macro_map_frequent(torch.stack([ap, ap]), targets).shape == (2,)


def test_d_prime_is_the_distance_of_two_normal_distributions_of_that_area():
    areas = torch.tensor([0.01, 0.5, 0.76, 0.999], dtype=torch.float64)
    np.testing.assert_allclose(d_prime(areas), math.sqrt(2) * norm.ppf(areas.numpy()), atol=1e-12)
    assert d_prime(torch.tensor(1.0)).item() == math.inf
    generator = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.randn(4000, 1, generator=generator) + 1.5, torch.randn(4000, 1, generator=generator)])
    area = Ranking(scores, torch.arange(8000)[:, None] < 4000).auc()
    assert d_prime(area.nanmean(-1)).item() == pytest.approx(1.5, abs=0.05)
