"""Extremes in chunks: the same values and gradients for any chunk, and never all similarities at once."""

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from audiobat.models.heads import pooling
from audiobat.models.heads.pooling import extremes, greatest, unit_rows

CLIPS, PATCHES, PROTOTYPES, DIM = 3, 20, 30, 2
SIMILARITIES = CLIPS * PATCHES * PROTOTYPES


def inputs(dtype=torch.float64):
    torch.manual_seed(0)
    tokens = torch.randn(CLIPS, PATCHES, DIM, dtype=dtype, requires_grad=True)
    prototypes = torch.randn(PROTOTYPES, DIM, dtype=dtype, requires_grad=True)
    return tokens, prototypes


def plain(tokens, prototypes):
    similarity = tokens @ prototypes.T
    return similarity.min(1).values, similarity.max(1).values


@pytest.mark.parametrize("chunk", [1, PATCHES, 7 * PATCHES, PATCHES * PROTOTYPES, 2 * PATCHES * PROTOTYPES, 2**22])
def test_every_chunk_gives_the_plain_formulas_values_and_gradients(chunk, monkeypatch):
    monkeypatch.setattr(pooling, "CHUNK", chunk)
    results = []
    for formula in (plain, extremes):
        tokens, prototypes = inputs()
        low, high = formula(tokens, prototypes)
        weights = torch.randn(2, *low.shape, dtype=low.dtype, generator=torch.Generator().manual_seed(1))
        (low * weights[0] + high * weights[1]).sum().backward()
        results.append([low, high, tokens.grad, prototypes.grad])
    for wanted, got in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)


class Largest(TorchDispatchMode):
    """Watches the values in the largest dense tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor) and one.layout == torch.strided:
                self.numel = max(self.numel, one.numel())
        return out


def largest(formula) -> int:
    tokens, prototypes = inputs()
    with Largest() as watch:
        low, high = formula(tokens, prototypes)
        (low + high).sum().backward()
    return watch.numel


def test_no_tensor_holds_all_similarities(monkeypatch):
    extremes_of_all = 2 * CLIPS * PROTOTYPES  # each has a gradient
    assert largest(plain) == SIMILARITIES
    monkeypatch.setattr(pooling, "CHUNK", PATCHES * PROTOTYPES)  # a clip at a time
    assert largest(extremes) == PATCHES * PROTOTYPES
    monkeypatch.setattr(pooling, "CHUNK", PATCHES * 5)  # a sixth of the prototypes at a time
    assert largest(extremes) == extremes_of_all < SIMILARITIES / 4


@pytest.mark.parametrize("shape", [(3, 20, 30), (1, 7, 1), (4, 1, 5), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_greatest_is_that_of_max_and_the_first_of_equals(shape, dtype):
    similarity = torch.randint(-4, 4, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    similarity[0, -1, 0] = float("nan")  # a head that has diverged must show it
    values, places = greatest(similarity)
    wanted = similarity.max(1)
    torch.testing.assert_close(values, wanted.values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(places, wanted.indices)


def test_only_the_extreme_that_is_read_has_a_gradient():
    """Protobin reads the greatest alone."""
    tokens, prototypes = inputs()
    _, high = extremes(tokens, prototypes)
    got = torch.autograd.grad(high.sum(), (tokens, prototypes))
    wanted = torch.autograd.grad(plain(tokens, prototypes)[1].sum(), (tokens, prototypes))
    for own, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(own, other, atol=1e-12, rtol=1e-12)


def test_unit_rows_are_normalised_rows_with_their_gradient():
    torch.manual_seed(0)
    rows = torch.randn(5, 7, dtype=torch.float64)
    rows[2] = 0
    weights = torch.randn(5, 7, dtype=torch.float64)
    results = []
    for formula in (unit_rows, functional.normalize):
        own = rows.clone().requires_grad_()
        unit = formula(own)
        results.append([unit, *torch.autograd.grad((unit * weights).sum(), own)])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
