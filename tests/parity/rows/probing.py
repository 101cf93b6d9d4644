"""Training of every kind of head for 50 steps on the features of a random encoder, beside the plain formulas."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, ProbeTrainConfig
from audiobat.evaluation.labels import Task
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import head_class
from audiobat.models.heads.base import BlockInputs, block_inputs
from audiobat.probing.jobs import HeadJob
from audiobat.probing.training import HeadTrainer

from ..plain import heads, optimisers
from ..plain.losses import LOSSES
from ..precision import precision
from .base import Named, Row, difference, largest
from .material import batch_of, keep_first_gradients, sounds, state, stir

DIM, DEPTH, HEADS, CLASSES, CLIPS, BATCH = 128, 2, 2, 5, 10, 4
STEPS, WARMUP, PEAK, FLOOR = 50, 8, 1e-2, 1e-6
LENGTHS = (7_000, 4_000, 7_600, 5_555, 7_600, 7_600, 3_333, 6_001, 7_600, 7_600)  # samples
PAPER, RELEASE = "paper, Section 4 and Table 6", "BAT's release"
SCALED = {"norm": "scaled_layer"}


class Case(NamedTuple):
    """A head, its settings, and what its source is."""

    kind: str
    source: str
    settings: dict[str, Any] = {}  # noqa: RUF012
    loss: str = "bce"
    decay: float = 0.005  # of the classifier's matrix
    name: str | None = None
    floored: bool = False  # the release's warm-up

    @property
    def what(self) -> str:
        return f"{self.name or self.kind} ({self.loss})"


CASES = [
    Case("cgp", PAPER, {"prototypes": 30}, decay=0.5),
    Case("cgp", PAPER, {"prototypes": 30}, "ce", 0.5),
    Case("cgp", RELEASE, {"prototypes": 30, "dropout": 0.2}, "asl", 0.05, floored=True),
    Case("protobin", "Rauch et al., 2509.24901; BAT's release", {"prototypes": 30}, "asl", 0.05),
    Case("linear", PAPER),
    Case("linear", RELEASE, SCALED | {"dropout": 0.2}, "asl", 0.05, "linear, scaled layer norm", floored=True),
    Case("linear", "He et al., 2021", {"norm": "batch", "pool": "mean"}, "ce", name="linear, batch norm"),
    Case("linear_cgp", RELEASE, SCALED, "asl", 0.05),
    Case("head2toe", "Evci et al., 2201.03529", {}, "asl", 0.05),
    Case("head2toe", RELEASE, SCALED, "asl", 0.05, "head2toe, scaled layer norm"),
    Case("vqt", "Tu et al., 2212.03220; BAT's release", {"queries": 3}, "asl", 0.05),
    Case("attentive", "AIM; Rauch et al., 2509.24901"),
    Case("ep", "Psomas et al., 2026", {"queries": 4, "reduction": 2}),
    Case("mean_time_keep_freq", "Niizumi et al."),
    Case("proto_classwise", "Bird-MAE, 2504.12880", {"per_class": 3}),
]


class Frozen(NamedTuple):
    """Stands for the features that a probe keeps: an encoder, and what it says of clips."""

    encoder: AudioEncoder
    device: torch.device
    freq_patches: int
    features: BlockInputs

    def batch(self, clips: np.ndarray) -> BlockInputs:
        f = self.features
        inputs = tuple(x[clips] for x in f.inputs)
        tokens, cls = f.patch_tokens[:, clips], f.cls_token[:, clips]
        return BlockInputs(tokens, cls, f.grid, f.valid[clips], f.frame_times, inputs)

    def means(self, clips: np.ndarray) -> LayerFeatures:
        """Each clip's mean patch in place of its patches."""
        f = self.batch(clips)
        weight = f.valid / f.valid.sum(1, keepdim=True)
        mean = torch.einsum("lbnd,bn->lbd", f.patch_tokens, weight.to(f.patch_tokens))[:, :, None]
        return LayerFeatures(mean, f.cls_token, (1, 1), torch.ones(len(clips), 1, dtype=torch.bool), f.frame_times[:1])

    def clips(self) -> list[heads.Clip]:
        """The same for the plain formulas, without padding."""
        f, rows = self.features, self.freq_patches
        found = []
        for i, valid in enumerate(f.valid):
            own = valid.nonzero()[:, 0]
            tokens, cls = f.patch_tokens[:, i, own].double(), f.cls_token[:, i].double()
            inputs = [x[i][torch.cat([torch.zeros(1, dtype=torch.long), own + 1])].double() for x in f.inputs]
            found.append(heads.Clip(tokens, cls, (own % rows).tolist(), inputs))
        return found


def frozen() -> Frozen:
    """Features of clips of several lengths by an encoder with random weights."""
    config = EncoderConfig(dim=DIM, depth=DEPTH, heads=HEADS, mlp_ratio=1.0, patch_size=(16, 64), max_frames=48)
    encoder = AudioEncoder(ModelConfig(FrontendConfig(), config))
    stir(encoder)
    batch = batch_of(sounds(LENGTHS))
    return Frozen(encoder, torch.device("cpu"), 2, block_inputs(encoder, batch.waveform, batch.lengths))


def labels_of(loss: str) -> Tensor:
    """One label a clip for ce, else none to several. [CLIPS, CLASSES] bool."""
    rng = np.random.default_rng(3)
    if loss == "ce":
        return torch.eye(CLASSES, dtype=torch.bool)[torch.from_numpy(rng.integers(CLASSES, size=CLIPS))]
    return torch.from_numpy(rng.random((CLIPS, CLASSES)) < 0.4)


def drawn() -> list[np.ndarray]:
    """The clips of each step."""
    rng = np.random.default_rng(4)
    return [rng.permutation(CLIPS)[:BATCH] for _ in range(STEPS)]


class Trained(NamedTuple):
    gradients: Named  # of the first step
    weights: Named
    logits: Tensor  # of all clips


def inputs_for(head: nn.Module, source: Frozen, clips: np.ndarray) -> LayerFeatures:
    return source.means(clips) if head.reads == "means" else source.batch(clips)


def ours(case: Case, dtype: torch.dtype, steps: int) -> tuple[Frozen, Named, list[Tensor], Trained]:
    """The package: features, the weights that it starts from, what dropout kept, and what became of the weights."""
    with precision(dtype), torch.no_grad():
        source = frozen()
    train = ProbeTrainConfig(
        steps=STEPS,
        warmup_steps=WARMUP,
        batch_size=BATCH,
        lr=PEAK,
        min_lr=FLOOR,
        weight_decay=case.decay,
        loss=case.loss,
        **({"warmup": "floored"} if case.floored else {}),
    )
    labels = labels_of(case.loss)
    with precision(dtype):
        task = Task.of_matrix(labels, case.loss == "ce")
        trainer = HeadTrainer(HeadJob(case.what, HeadConfig(case.kind, **case.settings), train), source, task)
        head = trainer.head
        stir_head(head)
        start, gradients, kept = state(head), {}, []
        keep_first_gradients(head, gradients)
        head.dropout.register_forward_hook(lambda _, args, out: kept.append(quotient(out, args[0])))
        for step, clips in enumerate(drawn()[:steps]):
            trainer.train_step(step, inputs_for(head, source, clips), labels[clips])
        drops = kept[:steps]
        head.eval()
        with torch.no_grad():
            logits = head(inputs_for(head, source, np.arange(CLIPS)))
        return source, start, drops, Trained(gradients, state(head), logits)


def quotient(out: Tensor, given: Tensor) -> Tensor:
    """What dropout multiplied by; of a 0, any number is right."""
    return (out / given).detach().double().nan_to_num(1.0)


def stir_head(head: nn.Module) -> None:
    """Weights off their starts."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float32).to(p))


def theirs(case: Case, source: Frozen, start: Named, drops: list[Tensor]) -> Trained:
    """The plain formulas on the same features, from the same weights, with the same dropout."""
    if case.kind == "vqt":
        encoder = {name: p.detach().double() for name, p in source.encoder.named_parameters()}
        recipe = heads.Recipe(heads.tuned_queries(encoder, HEADS))
    else:
        recipe = heads.RECIPES[case.name or case.kind]
    clips, labels = source.clips(), labels_of(case.loss).double()
    weights = {name: value.double() for name, value in start.items()}
    width = weights["classifier.weight"].shape[1]
    statistics = heads.Statistics(torch.zeros(width, dtype=torch.float64), torch.ones(width, dtype=torch.float64))
    adamw, first = optimisers.AdamW((0.9, 0.999)), None
    for step, (batch, kept) in enumerate(zip(drawn()[: len(drops)], drops, strict=True)):
        leaves = optimisers.watched(weights.items())
        logits, statistics = heads.logits_of(recipe, leaves, [clips[i] for i in batch], kept, statistics, True)
        loss = LOSSES[case.loss](logits, labels[batch])
        if recipe.penalty is not None:
            loss = loss + recipe.penalty(leaves)
        gradients = optimisers.gradients_of(loss, leaves)
        first = first or gradients
        rate = optimisers.warmup_cosine(step, PEAK, FLOOR, WARMUP, STEPS, case.floored)
        weights = adamw(
            weights,
            gradients,
            lambda name, rate=rate: rate,
            lambda name: case.decay if name == "classifier.weight" else 0.0,
        )
    logits, _ = heads.logits_of(recipe, weights, clips, None, statistics, False)
    return Trained(first, weights, logits)


def rows_of(case: Case) -> Iterator[Row]:
    source, start, drops, found = ours(case, torch.float64, STEPS)
    wanted = theirs(case, source, start, drops)
    source32, start32, drops32, found32 = ours(case, torch.float32, 1)
    wanted32 = theirs(case, source32, start32, drops32)
    both = largest(found.gradients, wanted.gradients), largest(found32.gradients, wanted32.gradients)
    yield Row(case.what, case.source, f"gradients of {len(wanted.gradients)} parameters", *both)
    yield Row(case.what, case.source, f"weights after {STEPS} steps", largest(found.weights, wanted.weights, start))
    yield Row(case.what, case.source, f"logits after {STEPS} steps", difference(found.logits, wanted.logits))


def neighbours() -> Row:
    """The head that trains nothing."""
    labels = labels_of("bce")
    stored, asked = np.arange(6), np.arange(6, CLIPS)
    found = []
    for dtype in (torch.float64, torch.float32):
        with precision(dtype), torch.no_grad():
            source = frozen()
            head = head_class("knn").build_for(HeadConfig("knn", neighbours=3), source.encoder, CLASSES, 2)
            head.fit(head.pool(source.means(stored)), labels[stored])
            logits = head(source.means(asked))
        cls = source.features.cls_token[-1].double()
        wanted = heads.nearest(cls[stored], labels[stored].double(), cls[asked], 3, 0.07)
        finite = wanted.isfinite()
        assert bool(finite.any())
        found.append(difference(logits[finite], wanted[finite]))
    return Row("knn", "DINO", "logits", *found)


def rows() -> Iterator[Row]:
    for case in CASES:
        yield from rows_of(case)
    yield neighbours()
