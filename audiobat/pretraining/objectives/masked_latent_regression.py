"""Masked latent regression (Sections 3 and 5): the loss of Eq. 5 and its parts, for M masked clones of every clip.

`forward` and `compare_clones` are the method on one screen. Everything that clones share is computed once per clip:
spectrogram, patch embedding, targets. Clones run in chunks, each forward and backward before the next, so that memory
does not grow with their number. With a retention weight each clip is there twice, as itself and mixed with another
(SSLAM): both have clones, under the same masks, and targets of their own, and mixtures have to retain their sources
besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.config import PretrainConfig, check
from audiobat.config.registry import class_for
from audiobat.engine.chunks import chunk_size, sum_in_chunks
from audiobat.engine.randomness import RowParts, leave_draws_out_of_graphs
from audiobat.engine.ranks import any_rank, mean_over_ranks, pick_device
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.cost import StepCost, embedding_flops, encoder_cost
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.lengths import Waveforms
from audiobat.pretraining.masks.base import Mask, Masks, clips_of_clones, take, take_valid
from audiobat.pretraining.mixing import draw_mixed_columns, mix, mixed_count, partner
from audiobat.pretraining.objectives.base import Clips, Objective, Stats, embed_clips
from audiobat.pretraining.objectives.statistics import participation_ratio, pooled_variance, spread
from audiobat.pretraining.targets.base import Targets, TargetSource
from audiobat.pretraining.targets.teacher import Teacher


class Version(NamedTuple):
    """Clips that clones are made of, and what these are compared with."""

    clips: Clips
    targets: Targets
    terms: list[Term]


class Term(NamedTuple):
    """A mean squared error at masked cells, as a part of the loss."""

    name: str  # of the statistic
    weight: float
    wanted: Tensor  # [B, N, P]
    scored: Tensor | None  # bool [B, N], the cells that count; None: all
    share: Tensor  # [] of one masked cell of one clone in the mean over those of all ranks


class Clones(NamedTuple):
    """R clones of B clips, or some of them."""

    clip: Tensor  # [R, 1] the clip of each
    masks: Masks

    def chosen(self, rows: slice) -> Clones:
        """Those of `rows`."""
        return Clones(self.clip[rows], Masks(*(patches[rows] for patches in self.masks)))


class Outcome(NamedTuple):
    """What came of r clones: all without gradient."""

    terms: dict[str, Tensor]  # parts of the loss by name, []
    cls: Tensor  # [r, D] float32
    tokens: Tensor  # [r, n, D] the student's, of visible patches; `run_clones` keeps those of one clone a clip
    predicted_mean: Tensor  # [P] over the masked cells
    predicted_variance: Tensor  # [P]


class MaskedLatentRegression(Objective):
    """A student sees a few patches of each clone and predicts its EMA teacher's features of all others."""

    health: ClassVar[Mapping[str, tuple[float, str]]] = {
        "target_variance": (0.01, "the teacher's tokens are nearly one and the same"),
        "feature_rank": (1.1, "the student's tokens vary in one direction only"),
        "token_std": (0.01, "the student's cls token is nearly the same for every clip"),
        "prediction_variance": (0.01, "the decoder predicts nearly the same everywhere"),
    }

    health_hint = "lower optim.lr, lengthen optim.warmup_steps, or raise target.ema_end towards 1"

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self.student = AudioEncoder(config.model)
        self.mask: Mask = class_for(config.mask).build(config.mask, config.model)
        targets: TargetSource = class_for(config.target).build(config.target, config.model, self.student)
        self.decoder: Decoder = class_for(config.decoder).build(config.decoder, config.model, targets.width)
        self.teacher = targets  # the name under which checkpoints know its weights; code reads `targets`
        weights, source = config.objective, config.target.source
        for name, possible in (
            ("global_weight", targets.has_cls_target),
            ("retention_weight", isinstance(targets, Teacher)),
        ):
            weight = getattr(weights, name)
            check(possible or weight == 0, f"objective.{name}", weight, f"target.source {source} has no teacher: use 0")

    @property
    def encoder(self) -> AudioEncoder:  # type: ignore[override]
        """A release keeps the student."""
        return self.student

    @property
    def targets(self) -> TargetSource:
        """What makes the targets: a teacher, or the spectrogram itself."""
        return self.teacher

    def forward(self, batch: Waveforms, step: int) -> tuple[Tensor, Stats]:
        """The loss (Eq. 5) and statistics of global step `step`; masks are a function of (seed, step)."""
        weights = self.config.objective
        clips = embed_clips(self.student, batch)  # once for all clones of a clip
        generator = self.generator(step, clips.tokens.device)
        masks = self.mask(len(clips.tokens) * self.config.mask.clones, clips.grid, generator)
        clones = Clones(clips_of_clones(len(clips.tokens), self.config.mask.clones, clips.tokens.device), masks)
        targets = self.targets(clips.spectrogram, clips.valid, batch.waveform, batch.lengths)
        versions = [Version(clips, targets, [])]  # of each clip: itself and, in SSLAM, a mixture, under the same masks
        if weights.retention_weight:
            mixed = draw_mixed_columns(clips.grid[0], generator)  # bool [T]
            mixture = self.mix_clips(clips, mixed)
            both = self.retention_targets(clips, targets, mixed)
            targets = self.targets(mixture.spectrogram, mixture.valid, batch.waveform, batch.lengths)
            retention = term("retention_loss", weights.retention_weight, *both, clones)
            versions.append(Version(mixture, targets, [retention]))
        for version in versions:  # which have equally many masked cells: the mean of their means is that over all
            wanted = version.targets.patch_targets
            version.terms.append(term("local_loss", 1 / len(versions), wanted, clips.valid, clones))  # Eq. 7

        loss, outcomes = self.run_clones(versions, clones)
        stats = {"loss": loss.detach(), "target_variance": versions[0].targets.variance}
        for outcome in chain(*outcomes):
            for name, value in outcome.terms.items():
                stats[name] = stats.get(name, 0) + value
        stats |= self.health_of(versions[0], outcomes[0], masks.masked.numel())
        return loss, {name: torch.as_tensor(value).detach() for name, value in stats.items()}

    def run_clones(self, versions: list[Version], clones: Clones) -> tuple[Tensor, list[list[Outcome]]]:
        """The loss of the R clones of each version, and for each version what came of its clones, chunk by chunk."""
        total = len(clones.clip)
        size = chunk_size(total, versions[0].clips.tokens.shape[1], self.config.objective.chunk, clones.clip.device)
        chunks = [(version, first) for version in range(len(versions)) for first in range(0, total, size)]
        draws = RowParts(total, clones.clip.device)

        def run_chunk(chunk: tuple[int, int], *tokens: Tensor) -> tuple[Tensor, Outcome]:
            version, first = chunk
            some, share = clones.chosen(slice(first, first + size)), size / total / len(versions)
            with draws.part(first):
                loss, outcome = self.compare_clones(versions[version], tokens[version], some, share)
            # One clone of each clip is enough to tell the rank of tokens, and a sixteenth of the work.
            firsts = outcome.tokens[-first % self.config.mask.clones :: self.config.mask.clones].clone()
            return loss, outcome._replace(tokens=firsts)

        tokens = [version.clips.tokens for version in versions]
        loss, outcomes = sum_in_chunks(run_chunk, chunks, tokens, list(self.parameters()))
        count = total // size
        return loss, [outcomes[i : i + count] for i in range(0, len(outcomes), count)]

    def compare_clones(self, version: Version, tokens: Tensor, clones: Clones, share: float) -> tuple[Tensor, Outcome]:
        """Encode and decode r clones of clips with patch `tokens` [B, N, D]: their part of the loss and what they are.

        `share` is that of these clones among those of all versions.
        """
        weights, (clip, masks) = self.config.objective, clones
        valid = version.clips.valid
        visible = take(tokens, clip, masks.visible)
        encoded = self.student.encode_tokens(visible, take_valid(valid, clip, masks.visible))  # [r, 1 + n, D]
        clone_valid = None if valid is None else valid.index_select(0, clip[:, 0])  # [r, N]
        predicted = self.decoder(encoded[:, 1:], masks, version.clips.grid, clone_valid).float()  # [r, m, P]
        cls = encoded[:, 0].float()
        global_loss = share * cls_error(cls, version.targets.cls_target, clip)  # Eq. 6
        loss, errors = weights.global_weight * global_loss, {"global_loss": global_loss.detach()}
        for name, weight, wanted, scored, cell in version.terms:
            part = masks.masked
            error = cell * squared_error(predicted, take(wanted, clip, part), take_valid(scored, clip, part))
            loss, errors[name] = loss + weight * error, weight * error.detach()
        variance, mean = torch.var_mean(predicted.detach().flatten(0, 1), 0)
        return weights.scale * loss, Outcome(errors, cls.detach(), encoded[:, 1:].detach(), mean, variance)

    def mix_clips(self, clips: Clips, mixed: Tensor) -> Clips:
        """Clips whose `mixed` columns [T] are mixed with those of their partners; each is as long as it was."""
        mixture = mix(clips.spectrogram, mixed, self.config.encoder.patch_size[0])
        return clips._replace(spectrogram=mixture, tokens=self.student.embed_patches(mixture))

    def retention_targets(self, clips: Clips, targets: Targets, mixed: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the clones of mixtures have to retain of both sources (SSLAM): targets [B, N, D], and the cells scored.

        In mixed columns the target is the mean of two: the clip's own, and that of its partner, of which the teacher
        gets those columns alone. In the other columns, which no partner is mixed into, it is the clip's own. SSLAM's
        code counts all masked cells (`retention_cells: all`), the BAT paper speaks of mixed regions (`mixed`). Cells
        that are padding in a source are left out.
        """
        assert isinstance(self.targets, Teacher)  # __init__ refuses the others
        spectrogram, valid, tokens, grid = clips
        cells = mixed.repeat_interleave(grid[1])  # [N]
        padded = any_rank(valid is not None)  # a partner may come from a rank that has padding where this one has none
        own_valid = torch.ones_like(tokens[..., 0], dtype=torch.bool) if padded and valid is None else valid
        other_valid = None if own_valid is None else partner(own_valid)
        other = self.targets.of_tokens(
            partner(self.targets.encoder.embed_patches(spectrogram))[:, cells],
            None if other_valid is None else other_valid[:, cells],
        )
        wanted = targets.patch_targets.clone()
        wanted[:, cells] = (wanted[:, cells] + other.patch_targets) / 2
        scored = None
        if own_valid is not None and other_valid is not None:
            scored = own_valid & (other_valid | ~cells)
        if self.config.objective.retention_cells == "mixed":
            scored = cells.expand(len(tokens), -1) if scored is None else scored & cells
        return wanted, scored

    def health_of(self, version: Version, outcomes: list[Outcome], cells: int) -> Stats:
        """The statistics that tell of a collapse, of the clones of clips, which have `cells` masked cells in all."""
        tokens = torch.cat([outcome.tokens for outcome in outcomes])
        variance = pooled_variance(
            torch.stack([outcome.predicted_mean for outcome in outcomes]),
            torch.stack([outcome.predicted_variance for outcome in outcomes]),
            cells // len(outcomes),
        )
        return {
            "feature_rank": participation_ratio(tokens.flatten(0, 1).float()),
            **spread(version.targets.patch_targets, version.clips.valid, torch.cat([o.cls for o in outcomes])),
            "prediction_variance": variance,
        }

    def compile_step(self) -> None:
        """Compile the targets and `compare_clones`; draws stay outside, and what is done once a clip."""
        leave_draws_out_of_graphs()
        self.targets.compile()
        self.compare_clones = torch.compile(self.compare_clones)  # type: ignore[method-assign]

    def after_step(self, step: int) -> None:
        """Let the teacher follow the student's update number `step`."""
        self.targets.update(self.student, step)

    def cost(self) -> StepCost:
        """Student and decoder run on every clone, forward and backward; the teacher once per version, forward only."""
        config, grid = self.config, self.config.crop_grid
        clips, patches = config.train.batch_size, grid[0] * grid[1]
        masks = self.mask.draw(config.mask.clones, grid, torch.Generator())
        visible, masked = masks.visible.shape[1], masks.masked.shape[1]
        versions = 2 if config.objective.retention_weight else 1  # of a clip: itself, and a mixture
        clones = clips * config.mask.clones * versions
        student = encoder_cost(config.model, clones, visible)
        decoder = self.decoder.cost(clones, grid, visible, masked)
        of_clip = clips * config.mask.clones
        device = pick_device(config.train.device)
        chunk = chunk_size(of_clip, patches, config.objective.chunk, device) / (of_clip * versions)
        embed = embedding_flops(config.model, clips, patches)
        teacher_tokens, teacher = 0, self.targets.flops(clips * versions, patches)
        if isinstance(self.targets, Teacher):
            teacher_tokens = clips * versions * (1 + patches)
        if versions == 2:  # the teacher runs on the partner's mixed columns alone, too
            mixed = mixed_count(grid[0]) * grid[1]
            teacher_tokens += clips * (1 + mixed)
            teacher += encoder_cost(config.model, clips, mixed).flops + embed
        return StepCost(
            tokens={"student": clones * (1 + visible), "decoder": clones * patches, "teacher": teacher_tokens},
            flops=3 * (student.flops + decoder.flops) + 2 * embed * versions + teacher,
            kept=(student.kept + decoder.kept) * chunk,
            visible=visible,
            masked=masked,
        )


def term(name: str, weight: float, wanted: Tensor, scored: Tensor | None, clones: Clones) -> Term:
    """The term that compares `clones` with `wanted` [B, N, P] at their masked cells that are `scored` (bool [B, N])."""
    masked = take_valid(scored, clones.clip, clones.masks.masked)
    if masked is None:
        count = clones.masks.masked.numel()
        return Term(name, weight, wanted, scored, mean_over_ranks(wanted.new_full((), 1 / count), count))
    cells = masked.sum()
    return Term(name, weight, wanted, scored, mean_over_ranks(1 / cells.to(wanted).clamp(min=1), cells))


def cls_error(cls: Tensor, target: Tensor | None, clip: Tensor) -> Tensor:
    """Eq. 6 as a mean over clones [r, D] and features, against targets [B, D]; zero where there is no target."""
    return cls.new_zeros(()) if target is None else F.mse_loss(cls, target.index_select(0, clip[:, 0]))


def squared_error(predicted: Tensor, wanted: Tensor, scored: Tensor | None) -> Tensor:
    """Sum over the masked cells [r, m, P] that are `scored` (bool [r, m]; None: all) of their mean squared errors."""
    if scored is None:
        return F.mse_loss(predicted, wanted, reduction="sum") / predicted.shape[-1]
    return ((predicted - wanted).square().mean(-1) * scored).sum()
