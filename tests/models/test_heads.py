"""Heads against slow formulas written token by token, and that padding and neighbours never reach a clip's logits."""

import dataclasses

import pytest
import torch
from torch import nn

from audiobat.config import HeadConfig
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import build_head, parameter_groups
from audiobat.models.heads.cgp import ConvexGatedProbe
from audiobat.models.heads.linear import LinearProbe
from audiobat.models.heads.pooling import extremes, mix_layers, repeat_valid
from audiobat.models.heads.protobin import Protobin

DEPTH, CLIPS, PATCHES, DIM, CLASSES, PROTOTYPES = 3, 2, 6, 8, 4, 5
HEADS = {
    "cgp": HeadConfig("cgp", PROTOTYPES),
    "protobin": HeadConfig("protobin", PROTOTYPES, layer=2),
    "linear_cls": HeadConfig("linear", layer=2),
    "linear_mean": HeadConfig("linear", pool="mean", norm="layer"),
    "linear_batch": HeadConfig("linear", pool="mean", norm="batch"),
}


def features_of(cls: bool = True, padded: bool = True, dtype=torch.float64, seed: int = 0) -> LayerFeatures:
    """Tokens off the centre, so that minimum, mean and maximum differ and share signs now and then."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(DEPTH, CLIPS, PATCHES, DIM, generator=generator, dtype=dtype) + 0.5
    cls_token = torch.randn(DEPTH, CLIPS, DIM, generator=generator, dtype=dtype) if cls else None
    valid = torch.ones(CLIPS, PATCHES, dtype=torch.bool)
    if padded:
        valid[0, :2] = False  # a clip whose first token is padding
        valid[1, 3:] = False
    return LayerFeatures(tokens, cls_token, (3, 2), valid, torch.arange(3) * 0.16)


def head_of(config: HeadConfig, dtype=torch.float64) -> nn.Module:
    torch.manual_seed(3)
    head = build_head(config, DIM, DEPTH, CLASSES).to(dtype)
    with torch.no_grad():
        if isinstance(head, ConvexGatedProbe):
            head.gate.copy_(torch.tensor([0.3, -1.0, 0.8]))
        for module in head.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return head.eval()


def unit(x):
    return x / x.pow(2).sum().sqrt()


def slow_cgp(head: ConvexGatedProbe, features: LayerFeatures) -> torch.Tensor:
    """Eq. 8-11, one clip, token and prototype at a time."""
    alpha = head.gate.exp() / head.gate.exp().sum()
    logits = []
    for b in range(CLIPS):
        own = [n for n in range(PATCHES) if features.valid[b, n]]
        mixed = [sum(alpha[i] * unit(features.patch_tokens[i, b, n]) for i in range(DEPTH)) for n in own]
        low, mean, high, summary = [], [], [], []
        for p in map(unit, head.prototypes):
            scores = torch.stack([z @ p for z in mixed])
            low.append(scores.min())
            mean.append(scores.mean())
            high.append(scores.max())
            if features.cls_token is not None:
                summary.append(sum(alpha[i] * unit(features.cls_token[i, b]) for i in range(DEPTH)) @ p)
        parts = low + (high + summary if summary else mean + high)
        logits.append(head.classifier.weight @ torch.stack(parts) + head.classifier.bias)
    return torch.stack(logits)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cls", [False, True])
def test_cgp_matches_the_slow_formula_in_value_and_gradient(cls, padded):
    head, features = head_of(HEADS["cgp"]), features_of(cls, padded)
    weights = torch.randn(CLIPS, CLASSES, dtype=torch.float64)
    logits, wanted = head(features), slow_cgp(head, features)
    torch.testing.assert_close(logits, wanted, atol=1e-12, rtol=1e-12)
    gradients = torch.autograd.grad((logits * weights).sum(), head.parameters())
    slow = torch.autograd.grad((wanted * weights).sum(), head.parameters())
    for (name, _), got, want in zip(head.named_parameters(), gradients, slow, strict=True):
        assert want.abs().max() > 1e-6, name
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-9, msg=name)


def test_cgp_does_not_stretch_the_mix_to_a_unit_vector_again():
    head = head_of(HEADS["cgp"])
    features = features_of()
    opposed = features.patch_tokens.clone()
    opposed[1], opposed[2] = opposed[0] * 3, -opposed[0]
    patches, _ = mix_layers(dataclasses.replace(features, patch_tokens=opposed), head.gate_weights)
    alpha = head.gate_weights
    expected = (alpha[0] + alpha[1] - alpha[2]).abs().expand(CLIPS, PATCHES)
    torch.testing.assert_close(patches.norm(dim=-1), expected)


def test_mix_layers_takes_stacks_of_lower_precision_and_zero_tokens():
    features = features_of(dtype=torch.float32)
    weights = torch.tensor([0.2, 0.5, 0.3])
    half = dataclasses.replace(
        features, patch_tokens=features.patch_tokens.bfloat16(), cls_token=features.cls_token.bfloat16()
    )
    same = dataclasses.replace(features, patch_tokens=half.patch_tokens.float(), cls_token=half.cls_token.float())
    for got, wanted in zip(mix_layers(half, weights), mix_layers(same, weights), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted)
    silent = dataclasses.replace(features, patch_tokens=torch.zeros_like(features.patch_tokens), cls_token=None)
    patches, cls = mix_layers(silent, weights)
    assert cls is None
    assert torch.equal(patches, torch.zeros(CLIPS, PATCHES, DIM))


@pytest.mark.parametrize("cls", [False, True])
def test_a_mix_passes_gradcheck_for_tokens_and_weights(cls):
    features = features_of(cls)
    stacks = [features.patch_tokens, *([features.cls_token] if cls else [])]

    def mix(weights, tokens, cls_token=None):
        mixed = mix_layers(dataclasses.replace(features, patch_tokens=tokens, cls_token=cls_token), weights)
        return tuple(part for part in mixed if part is not None)

    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mix, (weights, *(stack.requires_grad_() for stack in stacks)))


def test_a_mix_gives_tokens_of_lower_precision_a_gradient_of_theirs():
    features = features_of(dtype=torch.float32, cls=False)
    weights = torch.tensor([0.2, 0.5, 0.3])
    gradients = []
    for dtype in (torch.bfloat16, torch.float32):
        tokens = features.patch_tokens.bfloat16().to(dtype).requires_grad_()
        mix_layers(dataclasses.replace(features, patch_tokens=tokens), weights)[0].square().sum().backward()
        assert tokens.grad.dtype == dtype
        gradients.append(tokens.grad.float())
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3)


def test_mix_layers_refuses_another_depth():
    with pytest.raises(AudiobatError, match=r"mixes 5 blocks and the model has 3"):
        mix_layers(features_of(), torch.full((5,), 0.2, dtype=torch.float64))


def slow_protobin(shadow: torch.Tensor, head: Protobin, features: LayerFeatures) -> torch.Tensor:
    """Signs as a constant added to the shadow weights, so that these have their gradient, divided by their length."""
    block = features.patch_tokens[-1 if head.layer == -1 else head.layer - 1]
    logits = []
    for b in range(CLIPS):
        similarities = []
        for p in shadow:
            sign = torch.tensor([1.0 if v >= 0 else -1.0 for v in p.tolist()], dtype=p.dtype)
            corner = p + (sign - p.detach())
            corner = corner / (corner * corner).sum().sqrt()
            scores = [block[b, n] @ corner / block[b, n].norm() for n in range(PATCHES)]
            similarities.append(max(s for n, s in enumerate(scores) if features.valid[b, n]))
        logits.append(head.classifier.weight @ torch.stack(similarities) + head.classifier.bias)
    return torch.stack(logits)


@pytest.mark.parametrize("layer", [-1, 1, 2, 3])
def test_protobin_matches_the_slow_formula_in_value_and_gradient(layer):
    head, features = head_of(dataclasses.replace(HEADS["protobin"], layer=layer)), features_of()
    with torch.no_grad():
        head.prototypes[0, 0] = 0.0  # the sign of zero is +1
    weights = torch.randn(CLIPS, CLASSES, dtype=torch.float64)
    logits, wanted = head(features), slow_protobin(head.prototypes, head, features)
    torch.testing.assert_close(logits, wanted, atol=1e-12, rtol=1e-12)
    gradients = torch.autograd.grad((logits * weights).sum(), head.parameters())
    slow = torch.autograd.grad((wanted * weights).sum(), head.parameters())
    assert gradients[0].abs().max() > 1e-6
    for got, want in zip(gradients, slow, strict=True):
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-9)


def test_protobins_gradient_has_no_part_along_the_signs():
    """A step along the signs would change no cosine."""
    head, features = head_of(HEADS["protobin"]), features_of()
    weights = torch.randn(CLIPS, CLASSES, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((head(features) * weights).sum(), head.prototypes)
    signs = torch.where(head.prototypes >= 0, 1.0, -1.0).double()
    assert gradient.norm() > 1e-3
    assert ((gradient * signs).sum(1).abs() < 1e-12 * gradient.norm()).all()


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("pool", ["auto", "cls", "mean"])
@pytest.mark.parametrize("norm", ["none", "layer", "scaled_layer", "batch"])
def test_linear_probe_matches_the_slow_formula(cls, pool, norm):
    head, features = head_of(HeadConfig("linear", layer=2, pool=pool, norm=norm)), features_of(cls)
    if pool == "cls" and not cls:
        with pytest.raises(AudiobatError, match=r"head\.pool"):
            head(features)
        return
    for b, logits in enumerate(head(features)):
        own = features.patch_tokens[1, b][features.valid[b]]
        x = features.cls_token[1, b] if cls and pool != "mean" else own.mean(0)
        if norm in ("layer", "scaled_layer"):
            x = (x - x.mean()) / (x.var(unbiased=False) + 1e-6).sqrt()
        if norm == "scaled_layer":
            x = head.norm.weight * x + head.norm.bias
        if norm == "batch":
            x = (x - head.norm.running_mean) / (head.norm.running_var + 1e-6).sqrt()
        torch.testing.assert_close(logits, head.classifier.weight @ x + head.classifier.bias)


def test_batch_norm_learns_the_statistics_of_its_batches():
    head, features = head_of(HEADS["linear_batch"]).train(), features_of(padded=False)
    x = features.patch_tokens[-1].mean(1)
    z = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(head(features), z @ head.classifier.weight.T + head.classifier.bias)
    assert not list(head.norm.parameters())


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_garbage_in_padding_changes_nothing(name, cls):
    head, features = head_of(HEADS[name]), features_of(cls)
    garbage = torch.where(
        features.valid[None, ..., None], features.patch_tokens, 1e6 * features_of(seed=9).patch_tokens
    )
    dirty = dataclasses.replace(features, patch_tokens=garbage)
    assert not torch.equal(dirty.patch_tokens, features.patch_tokens)
    results = []
    for one in (features, dirty):
        head.zero_grad()
        logits = head(one)
        logits.pow(2).sum().backward()
        results.append([logits.detach(), *(p.grad.clone() for p in head.parameters())])
    for clean, other in zip(*results, strict=True):
        torch.testing.assert_close(other, clean, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_a_clip_gets_the_same_logits_alone_and_in_a_batch(name, cls):
    head, features = head_of(HEADS[name]), features_of(cls)
    together = head(features)
    for b in range(CLIPS):
        alone = features.clip(b)
        own = alone.valid[0]
        trimmed = dataclasses.replace(alone, patch_tokens=alone.patch_tokens[:, :, own], valid=alone.valid[:, own])
        torch.testing.assert_close(head(alone)[0], together[b], atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(head(trimmed)[0], together[b], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_full_precision_read_features_of_half(name):
    head, features = head_of(HEADS[name], torch.float32), features_of(dtype=torch.float32)
    half = dataclasses.replace(features, patch_tokens=features.patch_tokens.half(), cls_token=features.cls_token.half())
    torch.testing.assert_close(head(half), head(features), atol=5e-3, rtol=5e-3)


def test_extremes_pass_gradcheck_for_both_and_for_either_output():
    torch.manual_seed(0)
    tokens = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    prototypes = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(extremes, (tokens, prototypes))
    for i in (0, 1):
        assert torch.autograd.gradcheck(lambda t, p, i=i: extremes(t, p)[i], (tokens, prototypes))
    assert torch.autograd.gradcheck(lambda p: extremes(tokens.detach(), p), (prototypes,))


def test_a_repeated_token_gets_the_gradient_of_all_its_copies():
    tokens = torch.tensor([[[1.0], [5.0]]], requires_grad=True)
    valid = torch.tensor([[False, True]])
    low, high = extremes(repeat_valid(tokens, valid), torch.ones(1, 1))
    (low + 10 * high).sum().backward()
    assert tokens.grad.flatten().tolist() == [0.0, 11.0]


def test_parameters_have_the_published_names_shapes_and_starts():
    def shapes(head):
        return {name: tuple(p.shape) for name, p in head.named_parameters()}

    torch.manual_seed(0)
    cgp = ConvexGatedProbe(64, DEPTH, CLASSES, 200)
    linear = {"classifier.weight": (CLASSES, 600), "classifier.bias": (CLASSES,)}
    assert shapes(cgp) == {"prototypes": (200, 64), "gate": (DEPTH,)} | linear
    assert torch.equal(cgp.gate, torch.ones(DEPTH))
    assert cgp.prototypes.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(cgp.prototypes.mean().item()) < 1e-3
    protobin = shapes(Protobin(DIM, CLASSES, PROTOTYPES))
    assert protobin == {
        "prototypes": (PROTOTYPES, DIM),
        "classifier.weight": (CLASSES, PROTOTYPES),
        "classifier.bias": (CLASSES,),
    }
    for norm in ("none", "layer", "batch"):
        probe = shapes(LinearProbe(DIM, CLASSES, norm=norm))
        assert probe == {"classifier.weight": (CLASSES, DIM), "classifier.bias": (CLASSES,)}


def test_cgp_has_the_published_size():
    head = ConvexGatedProbe(768, 12, 527, 10_000)
    assert sum(p.numel() for p in head.parameters()) == 23_490_539


def test_gate_weights_are_convex_and_learn():
    head, features = head_of(HEADS["cgp"]), features_of()
    assert head.gate_weights.sum().item() == pytest.approx(1.0)
    assert (head.gate_weights > 0).all()
    head(features).sum().backward()
    assert head.gate.grad.sum().item() == pytest.approx(0.0, abs=1e-12)  # softmax moves shares between blocks
    assert head.gate.grad.abs().max() > 1e-6


@pytest.mark.parametrize("name", ["cgp", "protobin", "linear_cls"])
def test_only_the_classifiers_matrix_is_decayed(name):
    head = head_of(HEADS[name])
    decayed, spared = parameter_groups(head, 0.5)
    assert decayed["weight_decay"] == 0.5
    assert [id(p) for p in decayed["params"]] == [id(head.classifier.weight)]
    assert spared["weight_decay"] == 0.0
    every = [id(p) for group in (decayed, spared) for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in head.parameters())


@pytest.mark.parametrize("name", ["cgp", "protobin", "linear_cls"])
def test_dropout_acts_in_training_only(name):
    head, features = head_of(dataclasses.replace(HEADS[name], dropout=0.5)), features_of()
    assert torch.equal(head(features), head(features))
    head.train()
    assert not torch.equal(head(features), head(features))


@pytest.mark.parametrize("kind", ["protobin", "linear"])
def test_a_layer_beyond_the_model_is_refused(kind):
    with pytest.raises(AudiobatError, match=r"head\.layer is 4 .* 3 blocks"):
        build_head(HeadConfig(kind, PROTOTYPES, layer=4), DIM, DEPTH, CLASSES)
    build_head(HeadConfig(kind, PROTOTYPES, layer=3), DIM, DEPTH, CLASSES)
