"""Blocks against the plain formulas of Eq. 1-4 and 12-14, written out head by head."""

import math

import pytest
import torch
from torch.nn import functional as F

from audiobat.models.layers import Block, DropPath, GatedAttention


def plain_attention(module: GatedAttention, x: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    batch, _, dim = x.shape
    width = dim // module.heads
    weight, bias = module.qkv.weight, module.qkv.bias
    q, k, v = (x @ weight[i * dim : (i + 1) * dim].T + bias[i * dim : (i + 1) * dim] for i in range(3))
    out = torch.zeros_like(x)
    for b in range(batch):
        for h in range(module.heads):
            part = slice(h * width, (h + 1) * width)
            score = q[b, :, part] @ k[b, :, part].T / math.sqrt(width)
            if valid is not None:
                score[:, ~valid[b]] = -math.inf
            out[b, :, part] = torch.softmax(score, -1) @ v[b, :, part]
    if module.gate is not None:
        out = out / (1 + torch.exp(-module.gate(x)))
    return out @ module.proj.weight.T + module.proj.bias


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_matches_the_plain_formula(gated, masked):
    torch.manual_seed(0)
    module = GatedAttention(12, 3, gated)
    x = torch.randn(2, 7, 12)
    valid = torch.rand(2, 7) > 0.4 if masked else None
    if valid is not None:
        valid[:, 0] = True
    torch.testing.assert_close(module(x, valid), plain_attention(module, x, valid), atol=1e-6, rtol=1e-5)


def test_block_is_post_norm_and_returns_the_mlp_output_before_its_residual():
    torch.manual_seed(0)
    block = Block(12, 3, 2.0)
    x = torch.randn(2, 5, 12)
    zb = F.layer_norm(x + plain_attention(block.attn, x), (12,), block.norm1.weight, block.norm1.bias, 1e-6)
    zc = F.gelu(zb @ block.mlp.fc1.weight.T + block.mlp.fc1.bias) @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    zd = F.layer_norm(zb + zc, (12,), block.norm2.weight, block.norm2.bias, 1e-6)
    out, mlp = block(x)
    torch.testing.assert_close(mlp, zc, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out, zd, atol=1e-5, rtol=1e-5)


def test_maps_agree_with_what_attention_computes():
    torch.manual_seed(0)
    module = GatedAttention(8, 2)
    x = torch.randn(1, 6, 8)
    attention = module.attention_map(x)
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 2, 6))
    value = (x @ module.qkv.weight[16:].T + module.qkv.bias[16:]).view(1, 6, 2, 4).transpose(1, 2)
    gate = torch.sigmoid(module.gate(x)).view(1, 6, 2, 4).transpose(1, 2)
    terms = attention[..., None] * value[:, :, None]  # [1, H, q, k, d]
    torch.testing.assert_close(module.contribution_map(x, gated=False), terms.norm(dim=-1))
    torch.testing.assert_close(module.contribution_map(x), (gate[:, :, :, None] * terms).norm(dim=-1))


def test_gate_without_bias_has_the_papers_parameter_count():
    assert GatedAttention(8, 2, gate_bias=False).gate.bias is None


def test_drop_path_keeps_the_expectation_and_is_off_in_eval():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(20_000, 1, 1)
    out = drop(x, drop.draw(x))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)
    assert drop.eval().draw(x) is None
    assert drop(x, None) is x
