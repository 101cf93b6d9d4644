"""Attention against the plain formula in float64: values, gradients, masks; and which kernel runs where."""

import pytest
import torch
from torch.nn import functional as F

from audiobat.models import attention
from audiobat.models.attention import attend
from audiobat.models.layers import Block


def plain(q, k, v, valid):
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None, None, :], float("-inf"))
    return scores.softmax(-1) @ v


def projections(queries=7, dtype=torch.float32):
    torch.manual_seed(0)
    qkv = torch.randn(3, 9, 3, 2, 4)  # B, N, (q, k, v), H, d: as a layer projects them
    q, k, v = (part.to(dtype).requires_grad_() for part in qkv.permute(2, 0, 3, 1, 4))
    return q[:, :, 9 - queries :].detach().requires_grad_(), k, v


VALID = torch.arange(9) < torch.tensor([[9], [4], [1]])


@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "padded"])
@pytest.mark.parametrize("queries", [9, 7])
def test_values_and_gradients_are_those_of_the_plain_formula(valid, queries):
    parts = projections(queries)
    exact = [part.detach().double().requires_grad_() for part in parts]
    out, wanted = attend(*parts, valid), plain(*exact, valid)
    grad = torch.randn(out.shape)
    out.backward(grad)
    wanted.backward(grad.double())
    torch.testing.assert_close(out, wanted.float())
    for part, other in zip(parts, exact, strict=True):
        torch.testing.assert_close(part.grad, other.grad.float())
    with torch.no_grad():
        torch.testing.assert_close(attend(*parts, valid), wanted.float())


def test_bf16_is_as_near_as_pytorchs_own_kernel():
    parts = projections(9, torch.bfloat16)
    wanted = plain(*(part.detach().double() for part in parts), VALID)
    own, theirs = attend(*parts, VALID), F.scaled_dot_product_attention(*parts, attn_mask=VALID[:, None, None, :])
    assert own.dtype == torch.bfloat16
    assert (own - wanted).abs().max() <= 2 * (theirs - wanted).abs().max()


def test_only_training_on_a_cpu_keeps_matrices(monkeypatch):
    kept = []
    monkeypatch.setattr(
        attention._Attention, "apply", lambda *args, real=attention._Attention.apply: kept.append(1) or real(*args)
    )
    q, k, v = projections()
    attend(q, k, v)
    with torch.no_grad():
        attend(q, k, v)
    attend(q.detach(), k.detach(), v.detach())
    assert len(kept) == 1


def test_torch_func_derives_a_whole_block():
    torch.manual_seed(0)
    block, x = Block(16, 2, 2.0), torch.randn(2, 5, 16)

    def loss(weights):
        return torch.func.functional_call(block, weights, (x,))[0].square().sum()

    weights = dict(block.named_parameters())
    grads = torch.func.grad(loss)({name: weight.detach() for name, weight in weights.items()})
    for name, grad in zip(weights, torch.autograd.grad(loss(weights), list(weights.values())), strict=True):
        torch.testing.assert_close(grads[name], grad)
