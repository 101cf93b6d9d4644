"""A trained CGP head and clips to how its prototypes are used, and which of them mark which class, where and when."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiobat.models.features import LayerFeatures
from audiobat.models.heads import ConvexGatedProbe
from audiobat.models.heads.cgp import mix_layers
from audiobat.models.heads.pooling import unit_rows


@dataclass(frozen=True)
class Strongest:
    """A prototype that raises a class's logit, and the patch of the class's clips that is most similar to it."""

    prototype: int
    strength: float  # what it adds to the class's logit in the class's clips, above what it adds in others
    similarity: float
    row: int  # of the clip table
    patch: int  # t * F + f


class PrototypeTally:
    """Statistics of a head's K prototypes over clips of C classes, batch after batch, in C x K numbers."""

    def __init__(self, head: ConvexGatedProbe, classes: int) -> None:
        self._head = head
        count = len(head.prototypes)
        self._nearest = torch.zeros(count, dtype=torch.int64)  # patches whose nearest prototype this is
        self._clips, self._sizes = 0, torch.zeros(classes)  # clips of all classes, of each
        self._total = torch.zeros(count)  # sum over clips of the greatest similarity
        self._sum = torch.zeros(classes, count)  # the same over each class's clips
        self._best = torch.full((classes, count), -torch.inf)
        self._row = torch.zeros(classes, count, dtype=torch.int64)
        self._patch = torch.zeros(classes, count, dtype=torch.int64)
        self._first = 0  # column of the classifier at which the greatest similarities begin

    @torch.no_grad()
    def update(self, features: LayerFeatures, rows: Tensor, targets: Tensor) -> None:
        """Add a batch: its clips' rows [B] in the clip table and their labels, bool [B, C]."""
        count = len(self._head.prototypes)
        self._first = count if features.cls_token is not None else 2 * count  # [min, max, cls] or [min, mean, max]
        for i, row in enumerate(rows.tolist()):
            clip = features.clip(i)
            similarity = patch_similarities(self._head, clip)[0].masked_fill(~clip.valid[0, :, None], -torch.inf)
            nearest = similarity.argmax(1)[clip.valid[0]]
            self._nearest += torch.bincount(nearest, minlength=count).cpu()
            high, patch = (part.cpu() for part in similarity.max(0))  # [K]
            self._clips += 1
            self._total += high
            for c in targets[i].nonzero().flatten().tolist():
                self._sizes[c] += 1
                self._sum[c] += high
                better = high > self._best[c]
                self._best[c, better] = high[better]
                self._row[c, better] = row
                self._patch[c, better] = patch[better]

    def use(self) -> dict[str, float]:
        """Share of dead prototypes, and how evenly the others share the patches."""
        return prototype_use(self._nearest)

    def strongest(self, count: int) -> list[list[Strongest]]:
        """The `count` prototypes that raise the logit of each class most; none for a class without clips."""
        columns = slice(self._first, self._first + len(self._head.prototypes))
        weight = self._head.classifier.weight.detach()[:, columns].cpu()  # [C, K]
        sizes = self._sizes[:, None]
        elsewhere = (self._total - self._sum) / (self._clips - sizes).clamp(min=1)
        strength = weight * (self._sum / sizes.clamp(min=1) - elsewhere)
        order = strength.argsort(descending=True)[:, :count].tolist()
        return [[self._of(c, k, strength) for k in ks] if sizes[c] else [] for c, ks in enumerate(order)]

    def _of(self, c: int, k: int, strength: Tensor) -> Strongest:
        return Strongest(
            k, float(strength[c, k]), float(self._best[c, k]), int(self._row[c, k]), int(self._patch[c, k])
        )


@torch.no_grad()
def patch_similarities(head: ConvexGatedProbe, features: LayerFeatures) -> Tensor:
    """Similarity of every patch of the gated mix with every prototype, [B, N, K] (Eq. 9 and 10)."""
    patches, _ = mix_layers(features, head.gate_weights)
    return patches @ unit_rows(head.prototypes).T


def prototype_use(counts: Tensor) -> dict[str, float]:
    """Counts [K] of patches whose nearest prototype each is, to measures of `DEFINITIONS`."""
    shares = counts.double() / counts.sum()
    entropy = -float(torch.xlogy(shares, shares).sum())
    return {
        "patches": int(counts.sum()),
        "dead_share": float((counts == 0).double().mean()),
        "entropy": entropy,
        "perplexity": float(torch.tensor(entropy).exp()),
    }


DEFINITIONS = {
    "dead_share": "share of prototypes that are nearest to no patch",
    "entropy": "of the shares of patches that prototypes are nearest to, in nats",
    "perplexity": "exp of the entropy: as many evenly used prototypes would have it",
    "strength": "classifier weight of the greatest similarity, times its mean in the class's clips less that in others",
}
