"""The losses of training on labels, against their formulas written out number by number."""

import math

import pytest
import torch

from audiobat.models.losses import probe_loss, smooth, soft_loss

LOGITS = torch.tensor([[0.3, -2.0, 1.5], [4.0, 0.0, -0.7]], dtype=torch.float64)
SOFT = torch.tensor([[0.9, 0.0, 0.1], [0.25, 0.5, 0.25]], dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cells():
    return [
        (x, t)
        for row, wanted in zip(LOGITS.tolist(), SOFT.tolist(), strict=True)
        for x, t in zip(row, wanted, strict=True)
    ]


def test_binary_cross_entropy():
    terms = [-t * math.log(sigmoid(x)) - (1 - t) * math.log(1 - sigmoid(x)) for x, t in cells()]
    assert float(soft_loss("bce", LOGITS, SOFT)) == pytest.approx(sum(terms) / 6)


def test_asymmetric_loss_weighs_negatives_by_their_probability():
    terms = [-t * math.log(sigmoid(x)) - (1 - t) * sigmoid(x) * math.log(1 - sigmoid(x)) for x, t in cells()]
    assert float(soft_loss("asl", LOGITS, SOFT)) == pytest.approx(sum(terms) / 6)


def test_cross_entropy_takes_a_distribution():
    total = 0.0
    for row, wanted in zip(LOGITS.tolist(), SOFT.tolist(), strict=True):
        norm = math.log(sum(math.exp(x) for x in row))
        total -= sum(t * (x - norm) for x, t in zip(row, wanted, strict=True))
    assert float(soft_loss("ce", LOGITS, SOFT)) == pytest.approx(total / 2)


@pytest.mark.parametrize("kind", ["bce", "ce", "asl"])
def test_hard_labels_are_a_special_case(kind):
    hard = torch.tensor([[False, False, True], [True, False, False]])
    assert float(probe_loss(kind, LOGITS, hard)) == pytest.approx(float(soft_loss(kind, LOGITS, hard.double())))


def test_smoothing_spreads_a_share_over_all_classes():
    hard = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(smooth(hard, 0.1), torch.tensor([[0.025, 0.925, 0.025, 0.025]]))
    assert float(smooth(hard, 0.1).sum()) == pytest.approx(1.0)
    assert smooth(hard, 0.0) is hard
