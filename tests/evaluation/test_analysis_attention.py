"""Attention measures against maps formed in full by plain loops over heads, queries and keys."""

import math

import pytest
import torch

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.evaluation.analysis.attention import DEFINITIONS, attention_inputs, attention_measures, mean_measures
from audiobat.models.encoder import AudioEncoder
from audiobat.models.layers import GatedAttention

RATE, HEADS, DEPTH = 8000, 2, 2
SINK = 0.3  # Gu et al., 2410.10781
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)


def made_encoder(gated: bool, block_norm: str = "post") -> AudioEncoder:
    torch.manual_seed(0)
    encoder = AudioEncoder(
        ModelConfig(
            FRONTEND,
            EncoderConfig(
                dim=16,
                depth=DEPTH,
                heads=HEADS,
                patch_size=(16, 8),
                max_frames=96,
                gated_attention=gated,
                block_norm=block_norm,
            ),
        )
    )
    for parameter in encoder.parameters():  # attention far from uniform
        torch.nn.init.normal_(parameter, std=0.4)
    return encoder.eval()


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(round(seconds * RATE), generator=generator) for seconds in (0.9, 0.5)]


def plain_maps(module: GatedAttention, x: torch.Tensor) -> dict[str, list[list[list[float]]]]:
    """What query q takes from key k in each head, [H][N][N], rows scaled to one."""
    width = x.shape[1] // HEADS
    projected = x @ module.qkv.weight.T + (0 if module.qkv.bias is None else module.qkv.bias)  # [N, 3 D]: q, k, v
    q, k, v = projected.split(x.shape[1], dim=1)
    gate = None if module.gate is None else torch.sigmoid(module.gate(x))
    maps: dict[str, list[list[list[float]]]] = {"weights": [], "values": [], "gated": []}
    for h in range(HEADS):
        part = slice(h * width, (h + 1) * width)
        rows: dict[str, list[list[float]]] = {kind: [] for kind in maps}
        for i in range(len(x)):
            score = [float(q[i, part] @ k[j, part]) / math.sqrt(width) for j in range(len(x))]
            total = sum(math.exp(s - max(score)) for s in score)
            weight = [math.exp(s - max(score)) / total for s in score]
            rows["weights"].append(weight)
            taken = [w * float(v[j, part].norm()) for j, w in enumerate(weight)]
            rows["values"].append([t / sum(taken) for t in taken])
            if gate is not None:
                taken = [float((gate[i, part] * w * v[j, part]).norm()) for j, w in enumerate(weight)]
                rows["gated"].append([t / sum(taken) for t in taken])
        for kind, found in rows.items():
            maps[kind].append(found)
    return maps


def plain_measures(matrix: list[list[float]]) -> dict[str, float]:
    """Every measure of one head's map, sum by sum."""
    n = len(matrix)
    received = [sum(matrix[i][j] for i in range(n)) / n for j in range(n)]
    entropies = [-sum(a * math.log(a) for a in row if a > 0) / math.log(n) for row in matrix]
    return {
        "first_token": received[0],
        "strongest_token": max(received),
        "strongest_patch": max(received[1:]),
        "sink_rate_first": float(received[0] > SINK),
        "sink_rate_any": float(max(received) > SINK),
        "cls_to_cls": matrix[0][0],
        "cls_to_patches": sum(matrix[0][1:]),
        "patch_to_cls": sum(row[0] for row in matrix[1:]) / (n - 1),
        "patch_to_itself": sum(matrix[i][i] for i in range(1, n)) / (n - 1),
        "cls_entropy": entropies[0],
        "patch_entropy": sum(entropies[1:]) / (n - 1),
    }


@pytest.mark.parametrize(("gated", "block_norm"), [(True, "post"), (False, "post"), (True, "pre")])
@torch.no_grad()
def test_mean_measures_match_maps_formed_in_full(gated: bool, block_norm: str):
    encoder = made_encoder(gated, block_norm)
    found = mean_measures(encoder, clips())
    assert set(found) == {"weights", "values", *(["gated"] if gated else [])}
    for layer in range(DEPTH):
        maps = []
        for clip in clips():
            module, x = encoder.attention_input(clip[None], layer + 1)
            maps.append(plain_maps(module, x[0]))
        for kind, measures in found.items():
            assert set(measures) == set(DEFINITIONS)
            for head in range(HEADS):
                each = [plain_measures(one[kind][head]) for one in maps]
                for name, value in measures.items():
                    expected = sum(one[name] for one in each) / len(each)
                    assert float(value[layer, head]) == pytest.approx(expected, abs=2e-5), (kind, name)


def test_a_sink_a_mirror_and_an_even_listener():
    n = 8
    sink = torch.zeros(n, n)
    sink[:, 0] = 1
    other = torch.zeros(n, n)
    other[:, 5] = 1
    found = attention_measures(torch.stack([sink, torch.eye(n), torch.full((n, n), 1 / n), other]))
    expected = {
        "first_token": [1, 1 / n, 1 / n, 0],
        "strongest_token": [1, 1 / n, 1 / n, 1],
        "strongest_patch": [0, 1 / n, 1 / n, 1],
        "sink_rate_first": [1, 0, 0, 0],
        "sink_rate_any": [1, 0, 0, 1],
        "cls_to_cls": [1, 1, 1 / n, 0],
        "cls_to_patches": [0, 0, 1 - 1 / n, 1],
        "patch_to_cls": [1, 0, 1 / n, 0],
        "patch_to_itself": [0, 1, 1 / n, 1 / (n - 1)],
        "cls_entropy": [0, 0, 1, 0],
        "patch_entropy": [0, 0, 1, 0],
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values, abs=1e-6), name


@torch.no_grad()
def test_an_even_gate_changes_no_share_and_an_uneven_one_does_though_the_weights_stay():
    encoder = made_encoder(gated=True)
    for block in encoder.blocks:  # half open for all
        block.attn.gate.weight.zero_()
        block.attn.gate.bias.zero_()
    open_gate = mean_measures(encoder, clips())
    for name, value in open_gate["values"].items():  # an even gate changes no share
        torch.testing.assert_close(value, open_gate["gated"][name], atol=1e-5, rtol=1e-4)
    width = encoder.dim // HEADS
    for block in encoder.blocks:
        block.attn.gate.bias.fill_(-30.0)
        block.attn.gate.bias[:: width // 2] = 30.0  # two of the features of each head stay
    shut = mean_measures(encoder, clips())
    torch.testing.assert_close(shut["weights"]["first_token"][0], open_gate["weights"]["first_token"][0])
    assert not torch.allclose(shut["gated"]["first_token"][0], open_gate["gated"]["first_token"][0], atol=1e-3)


@torch.no_grad()
def test_a_long_clip_counts_window_by_window_and_its_padding_is_not_looked_at():
    encoder = made_encoder(gated=True)
    clip = torch.randn(round(1.3 * RATE), generator=torch.Generator().manual_seed(2))  # 131 frames: 96, and 32 of 35
    windows = list(attention_inputs(encoder, clip))
    assert [[x.shape[1] for _, x in blocks] for blocks in windows] == [[13, 13], [1 + 2 * 2] * 2]
    assert not any(module._forward_pre_hooks for module in encoder.modules())
    found = mean_measures(encoder, [clip])["weights"]["first_token"]
    for layer in range(DEPTH):
        for head in range(HEADS):
            each = [plain_measures(plain_maps(m, x[0])["weights"][head]) for m, x in (w[layer] for w in windows)]
            assert float(found[layer, head]) == pytest.approx(sum(e["first_token"] for e in each) / 2, abs=2e-5)
