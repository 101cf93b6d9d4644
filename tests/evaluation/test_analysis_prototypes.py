"""How prototypes are used, and which speak for a class: against plain counts and a search over every patch."""

import math

import pytest
import torch

from audiobat.evaluation.analysis.prototypes import PrototypeTally, patch_similarities, prototype_use
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.cgp import ConvexGatedProbe

LAYERS, CLIPS, DIM, PROTOTYPES, CLASSES = 2, 7, 6, 9, 3
GRID = (4, 2)


def made_features(cls: bool) -> LayerFeatures:
    torch.manual_seed(0)
    patches = torch.randn(LAYERS, CLIPS, math.prod(GRID), DIM)
    columns = torch.tensor([4, 3, 4, 2, 1, 4, 3])
    valid = (torch.arange(GRID[0])[None] < columns[:, None]).repeat_interleave(GRID[1], 1)
    patches[:, ~valid] = 50.0  # padding would be the strongest of all
    return LayerFeatures(
        patches, torch.randn(LAYERS, CLIPS, DIM) if cls else None, GRID, valid, torch.arange(GRID[0]) * 0.1
    )


def made_head() -> ConvexGatedProbe:
    torch.manual_seed(1)
    head = ConvexGatedProbe(DIM, LAYERS, CLASSES, PROTOTYPES).eval()
    torch.nn.init.normal_(head.gate)
    torch.nn.init.normal_(head.classifier.weight)
    head.prototypes.data[4] = 1.0  # as padding points
    return head


TARGETS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]], dtype=torch.bool)
ROWS = torch.tensor([10, 3, 42, 7, 8, 99, 5])


def tallied(head: ConvexGatedProbe, features: LayerFeatures) -> PrototypeTally:
    tally = PrototypeTally(head, CLASSES)
    for chosen in (slice(0, 3), slice(3, 7)):
        cls = None if features.cls_token is None else features.cls_token[:, chosen]
        part = LayerFeatures(features.patch_tokens[:, chosen], cls, GRID, features.valid[chosen], features.frame_times)
        tally.update(part, ROWS[chosen], TARGETS[chosen])
    return tally


def plain_similarity(head: ConvexGatedProbe, features: LayerFeatures, clip: int, patch: int, k: int) -> float:
    """Eq. 9 and 10 of one patch and one prototype."""
    weights = [math.exp(g) for g in head.gate.tolist()]
    mixed = torch.zeros(DIM)
    for layer, weight in enumerate(weights):
        token = features.patch_tokens[layer, clip, patch]
        mixed += weight / sum(weights) * token / token.norm()
    prototype = head.prototypes[k].detach()
    return float(mixed @ prototype / prototype.norm())


def plain_table(head: ConvexGatedProbe, features: LayerFeatures) -> list[dict[int, list[float]]]:
    """For each clip and valid patch, its similarity with every prototype."""
    return [
        {
            patch: [plain_similarity(head, features, clip, patch, k) for k in range(PROTOTYPES)]
            for patch in range(math.prod(GRID))
            if features.valid[clip, patch]
        }
        for clip in range(CLIPS)
    ]


def test_similarities_are_those_of_the_equations():
    head, features = made_head(), made_features(cls=True)
    found = patch_similarities(head, features)
    for clip, patches in enumerate(plain_table(head, features)):
        for patch, values in patches.items():
            assert found[clip, patch].tolist() == pytest.approx(values, abs=1e-5)


def test_use_is_a_count_over_valid_patches():
    head, features = made_head(), made_features(cls=True)
    counts = [0] * PROTOTYPES
    for patches in plain_table(head, features):
        for values in patches.values():
            counts[values.index(max(values))] += 1
    shares = [c / sum(counts) for c in counts if c]
    entropy = -sum(s * math.log(s) for s in shares)
    found = tallied(head, features).use()
    assert found["patches"] == int(features.valid.sum()) == sum(counts)
    assert found["dead_share"] == pytest.approx(counts.count(0) / PROTOTYPES)
    assert found["entropy"] == pytest.approx(entropy)
    assert found["perplexity"] == pytest.approx(math.exp(entropy))


def test_even_use_has_the_perplexity_of_its_size_and_a_single_one_leaves_the_others_dead():
    assert prototype_use(torch.full((8,), 3)) == pytest.approx(
        {"patches": 24, "dead_share": 0.0, "entropy": math.log(8), "perplexity": 8}
    )
    assert prototype_use(torch.tensor([0, 5, 0, 0])) == pytest.approx(
        {"patches": 5, "dead_share": 0.75, "entropy": 0.0, "perplexity": 1}
    )


@pytest.mark.parametrize("cls", [True, False])
def test_strongest_prototypes_and_their_patches_are_those_a_search_finds(cls: bool):
    head, features = made_head(), made_features(cls)
    table = plain_table(head, features)
    highest = [[max(values[k] for values in patches.values()) for k in range(PROTOTYPES)] for patches in table]
    # Which third of the classifier's columns reads the greatest similarity, asked of the head itself.
    thirds = head.pool(features).detach().unflatten(1, (3, PROTOTYPES))
    (third,) = [i for i in range(3) if torch.allclose(thirds[:, i], torch.tensor(highest), atol=1e-5)]
    weight = head.classifier.weight.detach().unflatten(1, (3, PROTOTYPES))[:, third].tolist()
    found = tallied(head, features).strongest(4)
    assert found[2] == []  # no clip has this class
    for c in (0, 1):
        members = [i for i in range(CLIPS) if TARGETS[i, c]]
        others = [i for i in range(CLIPS) if not TARGETS[i, c]]

        def strength(k: int, c: int = c, members: list[int] = members, others: list[int] = others) -> float:
            inside = sum(highest[i][k] for i in members) / len(members)
            return weight[c][k] * (inside - sum(highest[i][k] for i in others) / len(others))

        order = sorted(range(PROTOTYPES), key=lambda k: -strength(k))[:4]
        assert [one.prototype for one in found[c]] == order
        for one in found[c]:
            best, clip, patch = max((table[i][p][one.prototype], i, p) for i in members for p in table[i])
            assert one.strength == pytest.approx(strength(one.prototype), abs=1e-5)
            assert (one.row, one.patch) == (int(ROWS[clip]), patch)
            assert one.similarity == pytest.approx(best, abs=1e-5)
