"""Steps of pre-training: each method's recipe, made small, beside the plain formulas, from waveforms to weights."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from audiobat.config import PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe
from audiobat.engine.logs import RunLog
from audiobat.engine.loop import fit
from audiobat.engine.optim import build_optimizer
from audiobat.engine.ranks import Ranks
from audiobat.pretraining.objectives import masked_latent_regression as objective_module
from audiobat.pretraining.objectives.base import Objective, build_objective

from ..plain import frontends, networks, optimisers
from ..plain import pretraining as plain
from ..precision import precision
from .base import Named, Row, difference, largest
from .material import batch_of, keep_first_gradients, sounds, state, stir

DIM, HEADS, COLUMNS, CLONES, STEPS = 24, 2, 12, 3, 4
FRAMES = COLUMNS * 16
FULL = (FRAMES - 1) * 160 + 37  # samples that fill the grid of either frontend, and end in the middle of a hop
UNEQUAL = (FULL, 17_000, 9_111)
PADDED = (FRAMES - 1) * 160  # samples to which BAT's release pads
OPTIM = {"lr": 3e-3, "warmup_steps": 2}
DECAY = {"ema_start": 0.9, "ema_end": 0.99, "ema_steps": 3}
SMALL = {
    "encoder": {"dim": DIM, "depth": 2, "heads": HEADS, "mlp_ratio": 2.0, "max_frames": FRAMES},
    "decoder": {"depth": 2, "heads": 4, "mlp_ratio": 3.0, "groups": 2},
    "mask": {"clones": CLONES, "block_size": 3},
    "data": {"clip_seconds": FULL / 16_000},
    "target": DECAY,
    "optim": OPTIM,
    "train": {"steps": 6, "precision": "fp32", "log_every": 100, "save_every": 100},
}


class Case(NamedTuple):
    """A recipe, what its sources are, and lengths of clips."""

    recipe: str
    what: str
    source: str
    lengths: tuple[int, ...]


CASES = [
    Case("bat_base", "BAT", "paper, Sections 3 and 5", (FULL,) * 3),
    Case("bat_base", "BAT, clips of unequal length", "paper, Sections 3 and 5", UNEQUAL),
    Case("bat_base_released", "BAT's release", "BAT's release", (FULL,) * 3),
    Case("bat_base_released", "BAT's release, clips of unequal length", "BAT's release", UNEQUAL),
    Case("eat_base", "EAT", "EAT, its code", (FULL,) * 3),
    Case("eat_base", "EAT, clips of unequal length", "EAT, its code", UNEQUAL),
    Case("eat_large", "EAT-large", "EAT, its code and large config", (FULL,) * 3),
    Case("sslam", "SSLAM, second stage", "SSLAM, its code", (FULL,) * 3),
    Case("sslam", "SSLAM, second stage, clips of unequal length", "SSLAM, its code", UNEQUAL),
]


def small(case: Case) -> PretrainConfig:
    """The recipe with a network and a grid that take a moment; of EAT's losses, with the weight of their rows."""
    config = from_dict(PretrainConfig, load_recipe(case.recipe))
    groups = {name: dict(fields) for name, fields in SMALL.items()}
    if config.frontend.pad_seconds is not None:
        groups["frontend"] = {"pad_seconds": PADDED / 16_000}
    if method_of(case).sums:
        rows = len(case.lengths) * CLONES * (2 if case.recipe == "sslam" else 1)
        groups["objective"] = {"global_weight": float(rows), "scale": DIM**0.5}
    changed = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in groups.items()}
    return dataclasses.replace(config, **changed)


def method_of(case: Case) -> plain.Method:
    """The formulas of the case's sources."""
    table = networks.positions(COLUMNS, 8, DIM)
    bat = plain.Method(in_columns, table, HEADS, 4, None, "block", 1e-6, None, sums=False)
    eat = plain.Method(eat_spectrogram, table, HEADS, 4, 2, "mlp", 1e-5, None, sums=True)
    released = networks.released_positions(COLUMNS, 8, DIM)
    return {
        "bat_base": bat,
        "bat_base_released": bat._replace(spectrogram=released_spectrogram, positions=released),
        "eat_base": eat,
        "eat_large": eat._replace(kernel=5),
        "sslam": eat._replace(spectrogram=sslam_spectrogram, cls_layers=1),
    }[case.recipe]


def in_columns(waveform: frontends.Array) -> frontends.Array:
    """BAT's spectrogram, with zeros up to whole patches."""
    spectrogram = frontends.mel_db_minmax(waveform)
    return frontends.fit_frames(spectrogram, -(-len(spectrogram) // 16) * 16)


def released_spectrogram(waveform: frontends.Array) -> frontends.Array:
    """BAT's release: zeros behind the waveform, up to all frames."""
    return frontends.mel_db_minmax(np.pad(waveform, (0, max(0, PADDED - len(waveform)))))


def eat_spectrogram(waveform: frontends.Array) -> frontends.Array:
    return frontends.eat_input(waveform, FRAMES, -4.268, 4.569)


def sslam_spectrogram(waveform: frontends.Array) -> frontends.Array:
    return frontends.eat_input(waveform, FRAMES, -4.2677393, 4.5689974)


class Watch:
    """Writes down what a training step draws and computes."""

    def __init__(self, model: Objective) -> None:
        self.masks: list[Any] = []
        self.filled: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.mixed: list[Tensor] = []
        model.register_forward_hook(lambda _, args, out: self.losses.append(out[0].detach()))
        model.decoder.register_forward_pre_hook(lambda _, args: self.masks.append(args[1]))
        if hasattr(model.decoder, "convs"):
            model.decoder.convs[0].register_forward_pre_hook(lambda _, args: self.filled.append(args[0].detach()))

    def columns_too(self) -> mock.patch:
        """Keep the columns that SSLAM mixes."""
        own = objective_module.draw_mixed_columns

        def draw(*args: Any) -> Tensor:
            self.mixed.append(own(*args))
            return self.mixed[-1]

        return mock.patch.object(objective_module, "draw_mixed_columns", draw)

    def draws(self) -> plain.Draws:
        """Of the step that has just run; the next one begins anew."""
        visible = [row.tolist() for masks in self.masks for row in masks.visible]
        masked = [row.tolist() for masks in self.masks for row in masks.masked]
        noise = None
        if self.filled:
            cells = torch.cat(self.filled).double().flatten(2).transpose(1, 2)  # [clones, N, D]
            noise = [own[which] for own, which in zip(cells, masked, strict=True)]
        mixed = self.mixed[0].tolist() if self.mixed else None
        for kept in (self.masks, self.filled, self.mixed):
            kept.clear()
        return plain.Draws(visible, masked, noise, mixed)


def parts(weights: Named) -> tuple[Named, Named]:
    """What is trained, and the teacher's."""
    doubles = {name: value.double() for name, value in weights.items()}
    trained = {name: value for name, value in doubles.items() if not name.startswith("teacher.")}
    return trained, networks.below(doubles, "teacher.encoder")


class Trained(NamedTuple):
    """A few steps of training."""

    losses: list[Tensor]  # of each step
    gradients: Named  # of the first
    weights: Named
    teacher: Named


def ours(case: Case, dtype: torch.dtype) -> tuple[Named, list[plain.Draws], Trained]:
    """The package: the weights that it starts from, what it drew, and what became of them."""
    config = small(case)
    with precision(dtype), tempfile.TemporaryDirectory() as folder, RunLog(Path(folder), 0, main=True) as log:
        model = build_objective(config)
        stir(model)
        start = state(model)
        watch = Watch(model)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optim = config.optim
        optimizer = build_optimizer(
            trained.items(), lr=optim.lr, weight_decay=optim.weight_decay, betas=optim.betas, decay_1d=optim.decay_1d
        )
        gradients: Named = {}
        draws: list[plain.Draws] = []
        keep_first_gradients(model, gradients)

        def after_step(step: int) -> None:
            model.after_step(step)
            draws.append(watch.draws())

        batches = [batch_of(sounds(case.lengths))] * STEPS
        alone = Ranks(torch.device("cpu"))
        end = {"until": STEPS, "after_step": after_step}
        with redirect_stderr(StringIO()), watch.columns_too():  # without the progress line
            fit(model, optimizer, batches, config.train, optim, log=log, ranks=alone, **end)
        return start, draws, Trained(watch.losses, gradients, *parts(state(model)))


def theirs(case: Case, start: Named, draws: list[plain.Draws]) -> Trained:
    """The plain formulas from the same weights, with the same draws."""
    method = method_of(case)
    weights, teacher = parts(start)
    adamw = optimisers.AdamW((0.9, 0.95))
    waveforms = sounds(case.lengths)
    found, first = [], None
    for step, drawn in enumerate(draws):
        leaves = optimisers.watched(weights.items())
        loss = plain.losses(leaves, teacher, waveforms, method, drawn).total
        gradients = optimisers.gradients_of(loss, leaves)
        first = first or gradients
        found.append(loss.detach())
        if method.sums:
            gradients = optimisers.clip(gradients, 4.0)
        floor = 0.0 if method.sums else 1e-6
        floored = case.recipe == "bat_base_released"
        schedule = OPTIM["warmup_steps"], SMALL["train"]["steps"], floored, method.sums  # of sums: EAT, SSLAM
        rate = optimisers.warmup_cosine(step, 3e-3, floor, *schedule)
        weights = adamw(weights, gradients, lambda name, rate=rate: rate, lambda name: 0.05)
        teacher = optimisers.follow(teacher, networks.below(weights, "student"), step, 0.9, 0.99, 3)
    return Trained(found, first, weights, teacher)


def rows_of(case: Case) -> Iterator[Row]:
    start, draws, found = ours(case, torch.float64)
    wanted = theirs(case, start, draws)
    start32, draws32, found32 = ours(case, torch.float32)
    wanted32 = theirs(case, start32, draws32)
    if len(set(case.lengths)) == 1:
        yield from of_first_step(case, start, draws[0])

    def row(compared: str, value: Callable[[Trained, Trained], float], both: bool = True) -> Row:
        return Row(case.what, case.source, compared, value(found, wanted), value(found32, wanted32) if both else None)

    yield row(f"losses of {STEPS} steps", lambda a, b: difference(torch.stack(a.losses), torch.stack(b.losses)))
    yield row(f"gradients of {len(wanted.gradients)} parameters", lambda a, b: largest(a.gradients, b.gradients))
    weights, teacher = parts(start)
    # In float32 AdamW makes whole steps of what rounding leaves of gradients near 0: there is nothing to compare.
    moved = f"after {STEPS} steps of AdamW"
    yield row(f"weights {moved}", lambda a, b: largest(a.weights, b.weights, weights), both=False)
    yield row(f"teacher {moved}", lambda a, b: largest(a.teacher, b.teacher, teacher), both=False)


def of_first_step(case: Case, start: Named, drawn: plain.Draws) -> Iterator[Row]:
    """What a step begins with: which weights there are, and the deviation of EAT's noise, which is 0.01."""
    wanted = plain.shapes(DIM, 2, 2.0, 3.0, method_of(case)).items()
    found = {name: tuple(p.shape) for name, p in parts(start)[0].items()}.items()
    yield Row(case.what, case.source, "names and shapes of parameters", len(wanted ^ found), tolerance=0)
    if drawn.noise is not None:
        noise = torch.cat(drawn.noise)
        spread = torch.stack([noise.std(), noise.mean() + 0.01])
        gap = difference(spread, torch.full_like(spread, 0.01))
        yield Row(case.what, case.source, "mean and deviation of noise", gap, tolerance=0.05)


def tables(recipe: str, what: str, source: str) -> Iterator[Row]:
    """The position tables that a recipe's encoder and, if it has any, decoder begin with."""
    case = Case(recipe, what, source, (FULL,))
    with precision(torch.float64):
        model = build_objective(small(case))
    for part in (model.student, model.decoder):
        if hasattr(part, "pos_embed"):
            name = "encoder" if part is model.student else "decoder"
            gap = difference(part.pos_embed.flatten(0, -2), method_of(case).positions)
            yield Row(what, source, f"positions that the {name} begins with", gap)


def rows() -> Iterator[Row]:
    yield from tables("bat_base", "BAT", "paper, Section 3; EAT")
    yield from tables("bat_base_released", "BAT's release", "BAT's release")
    for case in CASES:
        yield from rows_of(case)
