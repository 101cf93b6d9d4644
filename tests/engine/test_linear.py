"""The linear layer against `F.linear` in float64, and where it hands over to `F.linear`."""

import pytest
import torch
from torch.nn import functional as F

from audiobat.engine import linear as module
from audiobat.engine.linear import Linear, linear


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (0, 7), (7,)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_float64(shape, bias):
    torch.manual_seed(0)
    x, layer = torch.randn(shape, requires_grad=True), Linear(7, 4, bias=bias)
    grad = torch.randn(*shape[:-1], 4)
    layer(x).backward(grad)
    found = [layer(x).detach(), x.grad, *(p.grad for p in layer.parameters())]
    exact, wide = x.detach().double().requires_grad_(), Linear(7, 4, bias=bias).double()
    wide.load_state_dict(layer.state_dict())
    out = F.linear(exact, wide.weight, wide.bias)
    out.backward(grad.double())
    wanted = [out.detach(), exact.grad, *(p.grad for p in wide.parameters())]
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other.float())


def test_parts_of_tokens_and_weights_that_lie_apart_in_memory():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 9, 8), torch.randn(12, 8), torch.randn(12)
    torch.testing.assert_close(linear(x[:, 3:], weight[4:], bias[4:]), F.linear(x[:, 3:], weight[4:], bias[4:]))
    torch.testing.assert_close(linear(x.mT.contiguous().mT, weight), F.linear(x, weight))


def test_only_what_is_trained_gets_a_gradient():
    x, layer = torch.randn(3, 7, requires_grad=True), Linear(7, 4).requires_grad_(False)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is layer.bias.grad is None
    layer.weight.requires_grad_()
    layer(x.detach()).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        assert not layer(x).requires_grad
    layer.weight.requires_grad_(False)
    layer.bias.requires_grad_()
    layer(x.detach()).sum().backward()  # its bias alone is trained
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 3.0))


def test_other_types_and_autocast_go_as_before(monkeypatch):
    def refuse(*args):
        raise AssertionError("float32 alone")

    monkeypatch.setattr(module, "_product", refuse)
    x, layer = torch.randn(3, 7), Linear(7, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64
    monkeypatch.setattr(module, "_product", None)
    torch.testing.assert_close(layer.float()(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.skipif(module._product is None, reason="PyTorch has no oneDNN here")
def test_float32_on_a_cpu_is_computed_by_onednn(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "_product", lambda *args, real=module._product: calls.append(args) or real(*args))
    Linear(7, 4)(torch.randn(3, 7, requires_grad=True)).sum().backward()
    assert len(calls) == 3  # the product, and two for the gradients
