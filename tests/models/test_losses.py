"""The losses of training on labels, against their formulas written out number by number."""

import math

import numpy as np
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


def test_binary_cross_entropy_is_a_sum_divided_by_the_labels_as_in_eat():
    terms = [-t * math.log(sigmoid(x)) - (1 - t) * math.log(1 - sigmoid(x)) for x, t in cells()]
    labels = sum(t for _, t in cells())
    assert float(soft_loss("bce", LOGITS, SOFT, "label")) == pytest.approx(sum(terms) / labels)
    none = float(soft_loss("bce", LOGITS, torch.zeros_like(SOFT), "label"))
    assert none == pytest.approx(sum(-math.log(1 - sigmoid(x)) for x, _ in cells())), "no label: the plain sum"


def asymmetric(x: np.ndarray, y: np.ndarray, gamma_neg: float = 1.0, gamma_pos: float = 0.0):
    """The asymmetric loss by the paper's letters, and its gradient where the focusing weight is a constant."""
    p = 1 / (1 + np.exp(-x))
    p_t = p * y + (1 - p) * (1 - y)
    weight = (1 - p_t) ** (gamma_neg * (1 - y) + gamma_pos * y)
    loss = -(weight * (y * np.log(p) + (1 - y) * np.log(1 - p))).mean()
    return loss, weight * (p - y) / x.size


@pytest.mark.parametrize("hard", [False, True])
def test_asymmetric_loss_has_a_focusing_weight_that_takes_no_gradient(hard: bool):
    targets = (SOFT > 0.2).double() if hard else SOFT
    logits = LOGITS.clone().requires_grad_()
    loss = soft_loss("asl", logits, targets)
    loss.backward()
    wanted, gradient = asymmetric(LOGITS.numpy(), targets.numpy())
    assert float(loss.detach()) == pytest.approx(wanted)
    assert logits.grad.numpy() == pytest.approx(gradient)


def test_asymmetric_loss_of_hard_labels_weighs_negatives_by_their_probability_alone():
    hard = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    p, q = sigmoid(1.5), sigmoid(-0.7)
    wanted = (p * -math.log(1 - p) - math.log(q)) / 2
    assert float(soft_loss("asl", torch.tensor([[1.5, -0.7]], dtype=torch.float64), hard)) == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["bce", "asl"])
def test_extreme_logits_give_finite_losses_and_gradients(kind: str):
    logits = torch.tensor([[-1e4, 1e4, -200.0, 200.0]], requires_grad=True)
    for targets in (torch.tensor([[0.0, 1.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.5, 0.3]])):
        soft_loss(kind, logits, targets).backward()
    assert logits.grad.isfinite().all()


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
