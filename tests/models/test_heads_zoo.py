"""Every head, for clips and for frames, against a slow formula written token by token with the same weights."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from audiobat.config import HeadConfig
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import build_head, parameter_groups

DEPTH, CLIPS, COLUMNS, ROWS, DIM, CLASSES = 3, 3, 4, 3, 8, 4
PATCHES = COLUMNS * ROWS
HEADS = {
    "cgp": HeadConfig("cgp", 5),
    "protobin": HeadConfig("protobin", 5, layer=2),
    "linear": HeadConfig("linear", layer=2, norm="layer"),
    "linear_mean": HeadConfig("linear", pool="mean"),
    "linear_scaled": HeadConfig("linear", norm="scaled_layer"),
    "linear_batch": HeadConfig("linear", norm="batch"),
    "linear_cgp": HeadConfig("linear_cgp"),
    "linear_cgp_mean": HeadConfig("linear_cgp", pool="mean"),
    "linear_cgp_scaled": HeadConfig("linear_cgp", norm="scaled_layer"),
    "attentive": HeadConfig("attentive", layer=1),
    "attentive_scaled": HeadConfig("attentive", norm="scaled_layer"),
    "attentive_batch": HeadConfig("attentive", norm="batch"),
    "ep": HeadConfig("ep", queries=4, layer=2),
    "ep_narrow": HeadConfig("ep", queries=2, reduction=2),
    "head2toe": HeadConfig("head2toe"),
    "head2toe_mean": HeadConfig("head2toe", pool="mean"),
    "head2toe_scaled": HeadConfig("head2toe", norm="scaled_layer"),
    "proto_classwise": HeadConfig("proto_classwise", per_class=2, layer=1),
    "mean_time_keep_freq": HeadConfig("mean_time_keep_freq", layer=2),
    "mean_time_keep_freq_batch": HeadConfig("mean_time_keep_freq", norm="batch"),
    "mean_time_keep_freq_scaled": HeadConfig("mean_time_keep_freq", norm="scaled_layer"),
    "knn": HeadConfig("knn", neighbours=4, temperature=0.3),
    "knn_mean": HeadConfig("knn", layer=1, pool="mean", neighbours=4, temperature=0.3),
}
TRAINED = [name for name in HEADS if not name.startswith("knn")]


def features_of(cls: bool = True, padded: bool = True, dtype=torch.float64, seed: int = 0) -> LayerFeatures:
    """Tokens off the centre. Padded: a clip with two columns of padding, one cut in mid-column, one whole."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(DEPTH, CLIPS, PATCHES, DIM, generator=generator, dtype=dtype) + 0.5
    cls_token = torch.randn(DEPTH, CLIPS, DIM, generator=generator, dtype=dtype) if cls else None
    valid = torch.ones(CLIPS, PATCHES, dtype=torch.bool)
    if padded:
        valid[0, 2 * ROWS :] = False
        valid[1, : ROWS + 1] = False
    return LayerFeatures(tokens, cls_token, (COLUMNS, ROWS), valid, torch.arange(COLUMNS) * 0.16)


def head_of(name: str, dtype=torch.float64, seed: int = 3) -> nn.Module:
    """A head with weights off their starts; the gates' starts are tested apart."""
    torch.manual_seed(seed)
    head = build_head(HEADS[name], DIM, DEPTH, CLASSES, ROWS).to(dtype)
    if HEADS[name].kind == "knn":
        head.fit(torch.randn(9, DIM, dtype=dtype) + 0.3, torch.rand(9, CLASSES) > 0.5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    for module in head.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return head.eval()


def unit(x):
    return x / x.pow(2).sum().sqrt()


def standard(x):
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-6).sqrt()


def batch_normal(x, norm):
    return (x - norm.running_mean) / (norm.running_var + 1e-6).sqrt()


def normal(x, norm, config):
    if config.norm == "batch":
        return batch_normal(x, norm)
    scaled = config.norm == "scaled_layer"
    return standard(x) * norm.weight + norm.bias if scaled else standard(x) if config.norm == "layer" else x


def mean(vectors):
    return sum(vectors) / len(vectors)


def softmax(scores):
    exponents = [score.exp() for score in scores]
    return [e / sum(exponents) for e in exponents]


class Bag:
    """One clip's valid patches, or one column's: token(i, n), its cls token, if that exists, and where it lies."""

    def __init__(self, features: LayerFeatures, clip: int, column: int | None = None) -> None:
        own = range(PATCHES) if column is None else range(column * ROWS, (column + 1) * ROWS)
        self.own = [n for n in own if features.valid[clip, n]]
        self.features, self.clip = features, clip
        self.model_has_cls = features.cls_token is not None
        self.cls = features.cls_token[:, clip] if self.model_has_cls and column is None else None

    def tokens(self, layer: int) -> list[torch.Tensor]:
        index = DEPTH - 1 if layer == -1 else layer - 1
        return [self.features.patch_tokens[index, self.clip, n] for n in self.own]

    def summary(self, layer: int, pool: str) -> torch.Tensor:
        index = DEPTH - 1 if layer == -1 else layer - 1
        return self.cls[index] if self.cls is not None and pool != "mean" else mean(self.tokens(layer))


def slow_cgp(head, config, bag):
    alpha = softmax(head.gate)
    blocks = [bag.tokens(i + 1) for i in range(DEPTH)]
    mixed = [sum(alpha[i] * unit(blocks[i][n]) for i in range(DEPTH)) for n in range(len(bag.own))]
    low, middle, high = [], [], []
    for p in map(unit, head.prototypes):
        scores = torch.stack([z @ p for z in mixed])
        low.append(scores.min())
        high.append(scores.max())
        if bag.cls is None:
            middle.append(scores.mean())
        else:
            middle.append(sum(alpha[i] * unit(bag.cls[i]) for i in range(DEPTH)) @ p)
    return low + (high + middle if bag.model_has_cls else middle + high)  # the mean in the place of cls


def slow_protobin(head, config, bag):
    scores = []
    for shadow in head.prototypes:
        corner = shadow + (torch.where(shadow >= 0, 1.0, -1.0) - shadow).detach()
        scores.append(max(unit(x) @ unit(corner) for x in bag.tokens(config.layer)))
    return scores


def slow_linear(head, config, bag):
    x = bag.summary(config.layer, config.pool)
    return normal(x, head.norm, config)


def slow_linear_cgp(head, config, bag):
    alpha = softmax(head.gate)
    mix = sum(alpha[i] * bag.summary(i + 1, config.pool) for i in range(DEPTH))
    return normal(mix, head.norm, config) if config.norm == "scaled_layer" else standard(mix)


def slow_attentive(head, config, bag):
    tokens = bag.tokens(config.layer)  # of width 8: a single head
    tokens = [normal(x, head.token_norm, config) for x in tokens]
    shares = softmax([head.query @ (head.keys.weight @ x) / math.sqrt(DIM) for x in tokens])
    return sum(share * (head.values.weight @ x) for share, x in zip(shares, tokens, strict=True))


def slow_ep(head, config, bag):
    tokens, answers = bag.tokens(config.layer), []
    width = DIM // config.reduction // config.queries
    for i, query in enumerate(head.queries):
        shares = softmax([query @ x / math.sqrt(DIM) for x in tokens])
        values = [(head.values.weight @ x)[i * width : (i + 1) * width] for x in tokens]
        answers.append(sum(share * value for share, value in zip(shares, values, strict=True)))
    return batch_normal(torch.cat(answers), head.norm)


def slow_head2toe(head, config, bag):
    line = torch.cat([bag.summary(i + 1, config.pool) for i in range(DEPTH)])
    return normal(line, head.norm, config) if config.norm == "scaled_layer" else standard(line)


def slow_mean_time_keep_freq(head, config, bag):
    tokens = dict(zip(bag.own, bag.tokens(config.layer), strict=True))
    rows = [[x for n, x in tokens.items() if n % ROWS == row] for row in range(ROWS)]
    line = torch.cat([mean(row) if row else torch.zeros(DIM, dtype=torch.float64) for row in rows])
    return normal(line, head.norm, config)


SLOW = {
    "cgp": slow_cgp,
    "protobin": slow_protobin,
    "linear": slow_linear,
    "linear_cgp": slow_linear_cgp,
    "attentive": slow_attentive,
    "ep": slow_ep,
    "head2toe": slow_head2toe,
    "mean_time_keep_freq": slow_mean_time_keep_freq,
}


def slow_proto_classwise(head, config, bag):
    def longer(x):
        return torch.cat([x, torch.full((2,), 1e-4, dtype=x.dtype)])

    logits = []
    for c in range(CLASSES):
        logit = head.classifier.bias[c]
        for j in range(config.per_class):
            p = longer(head.prototypes[c * config.per_class + j])
            scores = [(unit(longer(x)) @ unit(p) * 64 / (64 * 1.01)).clamp_min(0) for x in bag.tokens(config.layer)]
            logit = logit + head.classifier.weight[c, j].clamp_min(0) * max(scores)
        logits.append(logit)
    return torch.stack(logits)


def slow_knn(head, config, bag):
    x = unit(bag.summary(config.layer, config.pool))
    ranked = sorted(((x @ y).item(), i) for i, y in enumerate(head.bank))[-config.neighbours :]
    weights = {i: math.exp(score / config.temperature) for score, i in ranked}
    shares = torch.stack([sum(w * head.targets[i, c] for i, w in weights.items()) for c in range(CLASSES)])
    shares = (shares / sum(weights.values())).clamp(1e-6, 1 - 1e-6)
    return (shares / (1 - shares)).log()


def slow(head, name: str, bag: Bag) -> torch.Tensor:
    config = HEADS[name]
    if config.kind == "proto_classwise":
        return slow_proto_classwise(head, config, bag)
    if config.kind == "knn":
        return slow_knn(head, config, bag)
    pooled = SLOW[config.kind](head, config, bag)
    pooled = torch.stack(pooled) if isinstance(pooled, list) else pooled
    return head.classifier.weight @ pooled + head.classifier.bias


def assert_same(got, wanted, head):
    """Equal logits, and equal gradients of every parameter."""
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-9)
    parameters = list(head.parameters())
    if not parameters:
        return
    weights = torch.randn(got.shape, dtype=got.dtype, generator=torch.Generator().manual_seed(5))
    gradients = torch.autograd.grad((got * weights).sum(), parameters)
    expected = torch.autograd.grad((wanted * weights).sum(), parameters)
    for (name, _), one, other in zip(head.named_parameters(), gradients, expected, strict=True):
        assert other.abs().max() > 1e-6, name
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9, msg=name)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_clip_logits_are_the_slow_formulas(name, cls, padded):
    head, features = head_of(name), features_of(cls, padded)
    wanted = torch.stack([slow(head, name, Bag(features, b)) for b in range(CLIPS)])
    assert_same(head(features), wanted, head)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_frame_logits_are_the_slow_formulas_of_single_columns(name, cls, padded):
    head, features = head_of(name), features_of(cls, padded)
    rows = []
    for b in range(CLIPS):
        for t in range(COLUMNS):
            bag = Bag(features, b, t)
            rows.append(slow(head, name, bag) if bag.own else torch.zeros(CLASSES, dtype=torch.float64))
    wanted = torch.stack(rows).view(CLIPS, COLUMNS, CLASSES)
    assert padded == bool((wanted == 0).all(-1).any())
    assert_same(head.frames(features), wanted, head)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_garbage_in_padding_changes_no_answer_gradient_or_statistic(name, training):
    features = features_of()
    garbage = torch.where(features.valid[..., None], features.patch_tokens, 1e4 * features_of(seed=9).patch_tokens)
    dirty = dataclasses.replace(features, patch_tokens=garbage)
    assert not torch.equal(dirty.patch_tokens, features.patch_tokens)
    for answer in ("forward", "frames"):
        results = []
        for one in (features, dirty):
            head = head_of(name).train(training)
            logits = getattr(head, answer)(one)
            if name in TRAINED:
                logits.pow(2).sum().backward()
            results.append([logits.detach(), *(p.grad for p in head.parameters()), *head.buffers()])
        for clean, other in zip(*results, strict=True):
            torch.testing.assert_close(other, clean, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", HEADS)
def test_neighbours_in_a_batch_and_padding_cut_off_change_nothing(name):
    head, features = head_of(name), features_of()
    clips, frames = head(features), head.frames(features)
    for b in range(CLIPS):
        alone = features.clip(b)
        torch.testing.assert_close(head(alone)[0], clips[b], atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(head.frames(alone)[0], frames[b], atol=1e-12, rtol=1e-9)
    short = 2 * ROWS
    alone = features.clip(0)
    trimmed = LayerFeatures(
        alone.patch_tokens[:, :, :short], alone.cls_token, (2, ROWS), alone.valid[:, :short], alone.frame_times[:2]
    )
    torch.testing.assert_close(head(trimmed)[0], clips[0], atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(head.frames(trimmed)[0], frames[0, :2], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", ["linear_batch", "attentive_batch", "ep", "mean_time_keep_freq_batch"])
def test_batch_norms_learn_from_frames_without_padding(name):
    features = features_of(padded=False)
    padded = features_of()
    kept = [(b, t) for b in range(CLIPS) for t in range(COLUMNS) if padded.valid[b, t * ROWS : (t + 1) * ROWS].any()]
    whole = dataclasses.replace(
        padded, valid=features.valid & padded.valid.view(CLIPS, COLUMNS, ROWS).any(-1).repeat_interleave(ROWS, 1)
    )  # no column cut in the middle
    single = LayerFeatures(
        torch.stack([features.patch_tokens[:, b, t * ROWS : (t + 1) * ROWS] for b, t in kept], dim=1),
        None,
        (1, ROWS),
        torch.ones(len(kept), ROWS, dtype=torch.bool),
        features.frame_times[:1],
    )
    one, other = head_of(name).train(), head_of(name).train()
    frames = one.frames(whole)
    torch.testing.assert_close(torch.stack([frames[b, t] for b, t in kept]), other(single), atol=1e-12, rtol=1e-9)
    for learnt, wanted in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(learnt, wanted)


@pytest.mark.parametrize("name", HEADS)
def test_a_stored_state_brings_every_answer_back(name):
    head, features = head_of(name), features_of()
    fresh = build_head(HEADS[name], DIM, DEPTH, CLASSES, ROWS).double().eval()
    fresh.load_state_dict(head.state_dict())
    assert torch.equal(fresh(features), head(features))
    assert torch.equal(fresh.frames(features), head.frames(features))


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", HEADS)
def test_heads_of_full_precision_read_features_of_half(name, low):
    head, features = head_of(name, torch.float32), features_of(dtype=torch.float32)
    half = dataclasses.replace(
        features, patch_tokens=features.patch_tokens.to(low), cls_token=features.cls_token.to(low)
    )
    same = dataclasses.replace(half, patch_tokens=half.patch_tokens.float(), cls_token=half.cls_token.float())
    for answer in (head, head.frames):
        assert answer(half).dtype == torch.float32
        torch.testing.assert_close(answer(half), answer(same), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_only_the_classifiers_matrix_is_decayed(name):
    head = head_of(name)
    decayed, spared = parameter_groups(head, 0.5)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.0)
    assert [id(p) for p in decayed["params"]] == [id(head.classifier.weight)]
    every = [id(p) for group in (decayed, spared) for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in head.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_vectors_of_the_classifier_and_its_norm_decay_where_all_do_and_prototypes_and_gates_never(name):
    head = head_of(name)
    decayed, *spared = parameter_groups(head, 0.5, decay_1d=True)
    names = {id(p): own for own, p in head.named_parameters()}
    vectors = {own for own in names.values() if own.split(".")[0] in ("classifier", "norm", "token_norm")}
    assert {names[id(p)] for p in decayed["params"]} == vectors
    assert {names[id(p)] for group in spared for p in group["params"]} == set(names.values()) - vectors
    assert (decayed["weight_decay"], [group["weight_decay"] for group in spared]) == (0.5, [0.0] * len(spared))


@pytest.mark.parametrize("name", [name for name in HEADS if name.endswith("_scaled")])
def test_a_scaled_norm_starts_as_the_one_without_and_learns(name):
    def fresh(norm):
        torch.manual_seed(0)
        return build_head(dataclasses.replace(HEADS[name], norm=norm), DIM, DEPTH, CLASSES, ROWS).double()

    plain, scaled = fresh("layer"), fresh("scaled_layer")
    assert torch.equal(plain(features_of()), scaled(features_of()))
    learned = set(dict(scaled.named_parameters())) - set(dict(plain.named_parameters()))
    assert {own.rpartition("norm.")[2] for own in learned} == {"weight", "bias"}
    for answer in (scaled, scaled.frames):
        scaled.zero_grad()
        answer(features_of()).square().sum().backward()
        assert all(dict(scaled.named_parameters())[own].grad.abs().max() > 1e-6 for own in learned)


def test_eats_matrix_starts_from_its_normal_distribution():
    torch.manual_seed(0)
    heads = [build_head(HeadConfig("linear", init=init), 768, 1, 527) for init in ("torch", "eat")]
    for head, wanted, flat in zip(heads, (768**-0.5 / 3**0.5, 0.02), (True, False), strict=True):
        weight = head.classifier.weight
        assert weight.std().item() == pytest.approx(wanted, rel=0.01)
        assert (weight.abs().max().item() <= 768**-0.5) == flat  # PyTorch's is uniform
    assert not heads[1].classifier.bias.any()
    assert heads[0].classifier.bias.any()


def test_nearest_neighbours_have_nothing_to_train():
    head = head_of("knn")
    assert parameter_groups(head, 0.5) == []
    assert not head(features_of()).requires_grad
    assert not head.frames(features_of()).requires_grad


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "linear_cgp_mean"])
def test_dropout_acts_in_training_only(name):
    head = build_head(dataclasses.replace(HEADS[name], dropout=0.5), DIM, DEPTH, CLASSES, ROWS).double()
    features = features_of()
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_parameters_have_documented_shapes_and_starts():
    def shapes(config, dim=768):
        torch.manual_seed(0)
        head = build_head(config, dim, 12, 10, 8)
        return head, {name: tuple(p.shape) for name, p in head.named_parameters()}

    head, found = shapes(HeadConfig("linear_cgp"))
    assert found == {"gate": (12,), "classifier.weight": (10, 768), "classifier.bias": (10,)}
    assert torch.equal(head.gate, torch.zeros(12))

    head, found = shapes(HeadConfig("attentive"))
    assert found["query"] == (768,)
    assert found["keys.weight"] == found["values.weight"] == (768, 768)
    assert set(found) == {"query", "keys.weight", "values.weight", "classifier.weight", "classifier.bias"}
    assert head.query.std().item() == pytest.approx(0.02, rel=0.1)

    head, found = shapes(HeadConfig("ep"))
    assert (found["queries"], found["values.weight"], found["classifier.weight"]) == ((32, 768), (768, 768), (10, 768))
    _, found = shapes(HeadConfig("ep", queries=12, reduction=8))
    assert (found["queries"], found["values.weight"], found["classifier.weight"]) == ((12, 768), (96, 768), (10, 96))

    head, found = shapes(HeadConfig("proto_classwise"))
    assert found == {"prototypes": (200, 768), "classifier.weight": (10, 20), "classifier.bias": (10,)}
    assert torch.equal(head.classifier.weight, torch.ones(10, 20))
    assert head.prototypes.min() >= 0
    assert head.prototypes.mean().item() == pytest.approx(0.5, abs=0.01)

    assert shapes(HeadConfig("head2toe"))[1]["classifier.weight"] == (10, 12 * 768)
    assert shapes(HeadConfig("mean_time_keep_freq"))[1]["classifier.weight"] == (10, 8 * 768)


@pytest.mark.parametrize(("dim", "heads"), [(8, 1), (64, 1), (128, 2), (768, 12), (200, 2)])
def test_an_attentive_probe_of_several_heads_is_multi_head_attention(dim, heads):
    torch.manual_seed(1)
    head = build_head(HeadConfig("attentive"), dim, 1, CLASSES).double().eval()
    assert head.heads == heads
    attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True).double()
    with torch.no_grad():
        identity = torch.eye(dim)
        attention.in_proj_weight.copy_(torch.cat([identity, head.keys.weight, head.values.weight]))
        attention.out_proj.weight.copy_(identity)
        head.query.mul_(20)
    tokens = torch.randn(2, 6, dim, dtype=torch.float64)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    features = LayerFeatures(tokens[None], None, (3, 2), valid, torch.arange(3))
    pooled, _ = attention(head.query.expand(2, 1, -1), tokens, tokens, key_padding_mask=~valid)
    torch.testing.assert_close(head(features), head.classifier(pooled[:, 0]))


def test_head2toes_lasso_groups_each_features_weights():
    head = build_head(HeadConfig("head2toe", penalty=0.25), DIM, DEPTH, CLASSES).double()
    total = 0.0
    for feature in range(DEPTH * DIM):
        total += math.sqrt(sum(head.classifier.weight[c, feature].item() ** 2 for c in range(CLASSES)))
    assert head.penalty().item() == pytest.approx(0.25 * math.sqrt(CLASSES) * total)
    default = build_head(HeadConfig("head2toe"), DIM, DEPTH, CLASSES).double()
    default.load_state_dict(head.state_dict())
    assert default.penalty().item() == pytest.approx(head.penalty().item() * 1e-4 / 0.25)
    with torch.no_grad():
        head.classifier.weight[:, 0] = 0  # a feature that is out stays out, without NaN
    head.penalty().backward()
    assert torch.equal(head.classifier.weight.grad[:, 0], torch.zeros(CLASSES, dtype=torch.float64))
    assert head.classifier.weight.grad[:, 1:].abs().min() > 0


def test_classwise_prototypes_of_a_class_are_pushed_apart():
    head = build_head(HeadConfig("proto_classwise", per_class=3, penalty=0.5), DIM, DEPTH, CLASSES).double()
    squares = []
    for c in range(CLASSES):
        own = [unit(p) for p in head.prototypes[3 * c : 3 * c + 3]]
        squares += [((own[i] @ own[j]).item() - (i == j)) ** 2 for i in range(3) for j in range(3)]
    assert head.penalty().item() == pytest.approx(0.5 * sum(squares) / len(squares))
    with torch.no_grad():
        head.prototypes.copy_(torch.cat([2 * torch.eye(3, DIM)] * CLASSES))  # the same in every class: no matter
    assert head.penalty().item() == pytest.approx(0.0, abs=1e-12)


def test_a_class_sees_its_own_prototypes_and_no_negative_weight():
    head = head_of("proto_classwise")
    with torch.no_grad():
        head.classifier.weight[0].fill_(-1.0)
    logits = head(features_of())
    assert torch.equal(logits[:, 0], head.classifier.bias[0].expand(CLIPS))
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), head.prototypes)
    touched = gradient.view(CLASSES, 2, DIM).abs().amax((1, 2)) > 0
    assert touched.tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", ["cgp", "protobin", "linear", "attentive", "ep"])
def test_other_heads_add_nothing_to_the_loss(name):
    assert head_of(name).penalty().item() == 0


def test_neighbours_with_one_label_each_give_log_shares():
    head = build_head(HeadConfig("knn", neighbours=2, temperature=0.5, pool="mean"), 2, 1, 3)
    head.fit(torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]), torch.eye(3))
    features = LayerFeatures(torch.tensor([[[[3.0, 4.0]]]]), None, (1, 1), torch.ones(1, 1).bool(), torch.zeros(1))
    first, second = math.exp(0.6 / 0.5), math.exp(0.8 / 0.5)  # cosines 0.6, 0.8 and -0.6
    expected = [first / (first + second), second / (first + second), 0.0]
    assert head(features).softmax(-1)[0].tolist() == pytest.approx(expected, abs=2e-6)
    assert head(features).isfinite().all()
    head.fit(torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]), torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0]]))
    expected = [first / (first + second), second / (first + second), 1.0]  # several labels: each its own share
    assert head(features).sigmoid()[0].tolist() == pytest.approx(expected, abs=2e-6)


def test_fewer_clips_than_neighbours_all_vote():
    few = build_head(HeadConfig("knn", pool="mean"), DIM, DEPTH, CLASSES).double()
    exact = build_head(HeadConfig("knn", pool="mean", neighbours=4), DIM, DEPTH, CLASSES).double()
    for head in (few, exact):
        head.fit(features_of().patch_tokens[0, 0, :4], torch.eye(4))
    assert torch.equal(few(features_of()), exact(features_of()))


def test_neighbours_name_what_they_miss():
    head = build_head(HeadConfig("knn"), DIM, DEPTH, CLASSES)
    with pytest.raises(AudiobatError, match="call fit"):
        head(features_of())
    for pooled, targets in [
        ((4, DIM + 1), (4, CLASSES)),
        ((4, DIM), (4, 1)),
        ((4, DIM), (3, CLASSES)),
        ((0, DIM),) * 2,
    ]:
        with pytest.raises(AudiobatError, match="training clip"):
            head.fit(torch.ones(pooled), torch.ones(targets))


@pytest.mark.parametrize("kind", ["linear", "linear_cgp", "head2toe", "knn"])
def test_cls_is_refused_where_a_model_has_none(kind):
    head = build_head(HeadConfig(kind, pool="cls"), DIM, DEPTH, CLASSES).double()
    if kind == "knn":
        head.fit(torch.ones(1, DIM), torch.ones(1, CLASSES))
    head(features_of())
    with pytest.raises(AudiobatError, match=r"head\.pool"):
        head(features_of(cls=False))


@pytest.mark.parametrize("kind", ["cgp", "linear_cgp", "head2toe"])
def test_heads_of_all_blocks_refuse_another_depth(kind):
    head = build_head(HeadConfig(kind, 5), DIM, DEPTH + 1, CLASSES).double()
    with pytest.raises(AudiobatError, match="4 blocks and the model has 3"):
        head(features_of())


@pytest.mark.parametrize("kind", ["protobin", "linear", "attentive", "ep", "proto_classwise", "knn"])
def test_a_layer_beyond_the_model_is_refused(kind):
    config = HeadConfig(kind, 5, layer=DEPTH + 1, queries=4)
    with pytest.raises(AudiobatError, match=r"head\.layer is 4 .* 3 blocks"):
        build_head(config, DIM, DEPTH, CLASSES)
    build_head(dataclasses.replace(config, layer=DEPTH), DIM, DEPTH, CLASSES)


def test_what_a_head_cannot_be_built_from_is_named():
    with pytest.raises(AudiobatError, match="freq_patches=grid"):
        build_head(HeadConfig("mean_time_keep_freq"), DIM, DEPTH, CLASSES)
    with pytest.raises(AudiobatError, match=r"reads 2 patches above one another and the model has 3"):
        build_head(HeadConfig("mean_time_keep_freq"), DIM, DEPTH, CLASSES, 2).double()(features_of())
    with pytest.raises(AudiobatError, match=r"head\.queries is 3 .* width 8"):
        build_head(HeadConfig("ep", queries=3), DIM, DEPTH, CLASSES)
    with pytest.raises(AudiobatError, match=r"VisualQueryTuning\(encoder, classes\)"):
        build_head(HeadConfig("vqt"), DIM, DEPTH, CLASSES)


@pytest.mark.parametrize(
    ("name", "value"),
    [("queries", 0), ("reduction", 0), ("per_class", 0), ("penalty", -1.0), ("neighbours", 0), ("temperature", 0.0)],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(AudiobatError, match=rf"head\.{name} is "):
        HeadConfig(**{name: value})
