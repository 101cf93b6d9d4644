"""The kernel for GPUs against the plain formula, in Triton's interpreter, which runs kernels on a CPU, and on a GPU.

Triton decides when it is imported whether it interprets, so that each runs this file as a program of its own.
"""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from audiobat.config import HeadConfig
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import build_head, pooling

SHAPES = [(2, 200, 150, 70), (3, 1, 1, 1), (1, 64, 128, 32), (2, 7, 300, 33)]  # clips, patches, prototypes, width


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: PyTorch's builds for GPUs have it.")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_kernel_is_the_plain_formula(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("There is no GPU.")
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if device == "cpu" else {})
    done = subprocess.run([sys.executable, __file__, device], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_kernel_is_taken_where_there_is_one(monkeypatch):
    taken = []

    def kernel(tokens, prototypes):
        taken.append(tokens.dtype)
        return pooling.extremes_in_chunks(tokens, prototypes)

    tokens, prototypes = torch.randn(2, 3, 4), torch.randn(5, 4)
    without = pooling.extremes(tokens, prototypes)
    monkeypatch.setattr(pooling, "kernel_for", lambda device: kernel)
    for got, wanted in zip(pooling.extremes(tokens, prototypes), without, strict=True):
        assert torch.equal(got, wanted)
    pooling.extremes(tokens.double(), prototypes.double())  # it sums in fp32
    assert taken == [torch.float32]


def test_a_gpu_on_which_the_kernel_fails_goes_on_without_it(monkeypatch):
    def no_compiler(*_):
        raise RuntimeError("Failed to find C compiler")

    pooling.kernel_for.cache_clear()
    monkeypatch.setattr(pooling, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "audiobat.models.heads.fused_extremes", type(sys)("fused_extremes"))
    sys.modules["audiobat.models.heads.fused_extremes"].fused_extremes = no_compiler
    monkeypatch.setattr(torch, "zeros", lambda *_, device: None)
    with pytest.warns(UserWarning, match="Triton does not run on cuda:1.* Failed to find C compiler"):
        assert pooling.kernel_for(torch.device("cuda:1")) is None
    pooling.kernel_for.cache_clear()


def test_a_cpu_has_no_kernel():
    assert pooling.kernel_for(torch.device("cpu")) is None


def check_values(device, dtype, shape):
    """Values, and the places of exact ties: the first of equals."""
    from audiobat.models.heads.fused_extremes import fused_extremes

    clips, patches, count, width = shape
    tokens = torch.randn(clips, patches, width).to(device, dtype)
    prototypes = torch.randn(count, width).to(device, dtype)
    similarity = tokens.double() @ prototypes.double().T
    low, high, *places = fused_extremes(tokens, prototypes)
    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {}
    for value, place, wanted in zip((low, high), places, (similarity.amin(1), similarity.amax(1)), strict=True):
        assert value.dtype == dtype
        torch.testing.assert_close(value, wanted.to(dtype), **near)
        chosen = similarity.gather(1, place.long()[:, None])[:, 0]
        torch.testing.assert_close(chosen, wanted, atol=1e-5, rtol=1e-5)
    tied = tokens.sign().repeat(1, 2, 1)
    similarity = tied.float() @ prototypes.sign().float().T
    _, _, low_at, high_at = fused_extremes(tied, prototypes.sign())
    assert torch.equal(low_at.long(), similarity.min(1).indices)
    assert torch.equal(high_at.long(), similarity.max(1).indices)


def check_nan(device):
    """A head that has diverged must show it."""
    from audiobat.models.heads.fused_extremes import fused_extremes

    tokens = torch.randn(2, 70, 4, device=device)
    tokens[0, 3] = float("nan")
    low, high, *_ = fused_extremes(tokens, torch.randn(5, 4, device=device))
    assert not low[0].isfinite().any()
    assert not high[0].isfinite().any()
    assert low[1].isfinite().all()
    assert high[1].isfinite().all()


def check_head(device):
    """Logits and gradients of CGP with padding: kernel, and chunks on a CPU in fp64."""
    from audiobat.models.heads.fused_extremes import fused_extremes

    valid = torch.ones(3, 70, dtype=torch.bool)
    valid[0, :5] = valid[1, 66:] = valid[2, 1:] = False
    tokens = torch.randn(4, 3, 70, 24)
    tokens[:, ~valid] = 1e6
    head = build_head(HeadConfig("cgp", 140), 24, 4, 6)
    results = []
    for place, dtype, kernel in ((device, torch.float32, fused_extremes), ("cpu", torch.float64, None)):
        pooling.kernel_for = lambda _, kernel=kernel: kernel
        features = LayerFeatures(tokens.to(place, dtype), None, (35, 2), valid.to(place), torch.arange(35.0))
        own = head.to(place, dtype)
        logits = own(features)
        gradients = torch.autograd.grad(logits.square().sum(), list(own.parameters()))
        results.append([one.detach().cpu().double() for one in (logits, *gradients)])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for shape in SHAPES:
            check_values(sys.argv[1], dtype, shape)
    check_nan(sys.argv[1])
    check_head(sys.argv[1])
