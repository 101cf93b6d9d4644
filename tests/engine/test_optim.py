"""The schedule at its corners and against torch's own cosine; which tensors AdamW decays."""

import math

import pytest
import torch
from torch import nn

from audiobat.engine.optim import build_optimizer, lr_at, set_lr

PAPER = {"peak": 5e-4, "floor": 1e-6, "warmup_steps": 53_000, "total_steps": 400_000}


@pytest.mark.parametrize(
    ("step", "lr"),
    [
        (0, 1e-6),
        (26_500, (5e-4 + 1e-6) / 2),
        (53_000, 5e-4),
        (399_999, 1e-6),
        (500_000, 1e-6),
    ],
)
def test_corner_points_of_the_papers_schedule(step, lr):
    assert lr_at(step, **PAPER) == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "lr"),
    [(0, 1e-6), (106, 1e-6), (107, 107 / 53_000 * 5e-4), (26_500, 2.5e-4), (52_999, 52_999 / 53_000 * 5e-4)],
)
def test_a_floored_warmup_is_the_line_from_zero_and_nowhere_below_the_floor(step, lr):
    assert lr_at(step, **PAPER, warmup="floored") == pytest.approx(lr, rel=1e-12)


def test_both_warmups_meet_at_the_peak_and_share_the_cosine():
    for step in (53_000, 200_000, 399_999):
        assert lr_at(step, **PAPER, warmup="floored") == lr_at(step, **PAPER)


def test_a_cosine_that_ends_after_the_last_step_is_that_of_a_run_a_step_longer():
    run = {"peak": 0.3, "floor": 0.0, "warmup_steps": 5}
    for step in range(20):
        assert lr_at(step, **run, total_steps=20, cosine_end="after") == lr_at(step, **run, total_steps=21)
    half = 0.5 * (1 + math.cos(math.pi * 14 / 15))  # the last of 15 steps behind the warm-up
    assert lr_at(19, **run, total_steps=20, cosine_end="after") == pytest.approx(0.3 * half)


def test_decay_is_torchs_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=29, eta_min=0.01)
    for step in range(30):
        ours = lr_at(5 + step, peak=0.3, floor=0.01, warmup_steps=5, total_steps=35)
        assert ours == pytest.approx(oracle.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        oracle.step()


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 10), (9, 10), (10, 10), (20, 10), (1, 2)])
def test_short_runs_stay_between_floor_and_peak(warmup, total):
    rates = [lr_at(s, peak=1.0, floor=0.1, warmup_steps=warmup, total_steps=total) for s in range(total)]
    assert all(0.1 <= rate <= 1.0 and math.isfinite(rate) for rate in rates)
    assert rates[0] == (1.0 if warmup == 0 else 0.1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.ones(1, 1, 4))
        self.gate = nn.Parameter(torch.ones(3))
        self.linear = nn.Linear(4, 1)
        self.conv = nn.Conv2d(1, 2, 3)
        self.scale = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        for parameter in self.parameters():
            parameter.data.fill_(1.0)


MATRICES = {"linear.weight", "conv.weight"}
VECTORS = {"cls_token", "gate", "linear.bias", "conv.bias", "scale"}


@pytest.mark.parametrize(("decay_1d", "shrunk"), [(True, MATRICES | VECTORS), (False, MATRICES)])
def test_with_zero_gradients_only_decayed_tensors_shrink(decay_1d, shrunk):
    net = Net()
    optimizer = build_optimizer(net.named_parameters(), lr=0.1, weight_decay=0.5, betas=(0.9, 0.95), decay_1d=decay_1d)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    set_lr(optimizer, 0.2)
    optimizer.step()
    for name, parameter in net.named_parameters():
        expected = 1 - 0.2 * 0.5 if name in shrunk else 1.0
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, expected), msg=name)


def test_betas_reach_adamw():
    optimizer = build_optimizer(Net().named_parameters(), lr=0.1, weight_decay=0.0, betas=(0.8, 0.7), decay_1d=False)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.7)}


def test_a_group_may_have_a_rate_of_its_own():
    first, second, third = ({"params": [nn.Parameter(torch.ones(1))]} for _ in range(3))
    optimizer = torch.optim.AdamW([first, {**second, "lr_scale": 0.5}, {**third, "lr_scale": 0.5, "lr_shift": 0.25}])
    set_lr(optimizer, 2.0)
    assert [group["lr"] for group in optimizer.param_groups] == [2.0, 1.0, 1.25]
