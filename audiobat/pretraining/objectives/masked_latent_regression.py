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
from audiobat.engine.memory import FLOAT, Need, check_fits
from audiobat.engine.randomness import RowParts, leave_draws_out_of_graphs
from audiobat.engine.ranks import any_rank, mean_over_ranks, pick_device, place
from audiobat.models.encoder import AudioEncoder
from audiobat.models.needs import bytes_of_weight, clip_needs, encoder_needs
from audiobat.pretraining.cost import StepCost, embedding_flops, encoder_cost
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.lengths import Part, Waveforms, apart, together
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
    clones: Clones
    draws: RowParts  # of what is random in the clones
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
    place: Tensor  # [R] of each among the clones of this rank's whole batch

    def chosen(self, rows: slice) -> Clones:
        """Those of `rows`."""
        return Clones(self.clip[rows], Masks(*(patches[rows] for patches in self.masks)), self.place[rows])


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

    in_parts = True
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
        """The loss (Eq. 5) and statistics of global step `step`; masks are a function of (seed, step).

        If the config says so, clips that end in different patch columns run apart, masked over their own patches, and
        nothing is computed for padding. Mixtures cannot: their partners may be longer.
        """
        is_apart = self.config.objective.apart
        parts = apart(self.student, batch) if is_apart else [together(self.student, batch)]
        draws = RowParts(len(batch.waveform) * self.config.mask.clones, batch.waveform.device)
        versions = [version for part in parts for version in self.versions_of(part, draws, step)]
        share = share_of_cell([(version.clips.valid, version.clones) for version in versions])
        for version in versions:
            wanted = version.targets.patch_targets
            version.terms.append(Term("local_loss", 1.0, wanted, version.clips.valid, share))  # Eq. 7

        loss, outcomes = self.run_clones(versions)
        originals = versions[: len(parts)]  # no mixtures
        variances = [v.targets.variance * (len(v.clips.tokens) / len(batch.waveform)) for v in originals]
        stats = {"loss": loss.detach(), "target_variance": sum(variances)}
        for outcome in chain(*outcomes):
            for name, value in outcome.terms.items():
                stats[name] = stats.get(name, 0) + value
        stats |= self.health_of(originals, outcomes)
        return loss, {name: torch.as_tensor(value).detach() for name, value in stats.items()}

    def versions_of(self, part: Part, draws: RowParts, step: int) -> list[Version]:
        """Clips with their clones and targets, and in SSLAM their mixtures, masked alike.

        `draws` are those of the clones of the whole batch.
        """
        weights, device, count = self.config.objective, part.waveform.device, self.config.mask.clones
        clips = embed_clips(self.student, part)  # once for all clones of a clip
        generator = self.generator(step, device)
        masks = self.mask(draws.rows, clips.grid, generator)  # for all clips: a clip's depend on its place alone
        place = torch.arange(draws.rows, device=device)
        if part.places is not None:
            place = place.view(-1, count)[part.places.to(device, non_blocking=True)].flatten()
            masks = Masks(masks.visible[place], masks.masked[place])
        clones = Clones(clips_of_clones(len(clips.tokens), count, device), masks, place)
        targets = self.targets(clips.spectrogram, clips.valid, part.waveform, part.lengths)
        versions = [Version(clips, targets, clones, draws, [])]
        if weights.retention_weight:
            mixed = draw_mixed_columns(clips.grid[0], generator)  # bool [T]
            mixture = self.mix_clips(clips, mixed)
            wanted, scored = self.retention_targets(clips, targets, mixed)
            targets = self.targets(mixture.spectrogram, mixture.valid, part.waveform, part.lengths)
            share = share_of_cell([(scored, clones)])
            retention = Term("retention_loss", weights.retention_weight, wanted, scored, share)
            versions.append(Version(mixture, targets, clones, RowParts(draws.rows, device), [retention]))
        return versions

    def run_clones(self, versions: list[Version]) -> tuple[Tensor, list[list[Outcome]]]:
        """The loss of the clones of all versions, and for each version what came of its clones, chunk by chunk."""
        total = sum(len(version.clones.clip) for version in versions)
        limit = -(-total // (self.config.train.accumulate or 1))
        chunks = []  # (version, rows of its clones)
        for number, (clips, _, clones, *_) in enumerate(versions):
            rows, (patches, width) = len(clones.clip), clips.tokens.shape[1:]
            size = chunk_size(rows, patches, width, limit, clones.clip.device)
            chunks += [(number, slice(first, first + size)) for first in range(0, rows, size)]

        def run_chunk(chunk: tuple[int, slice], *tokens: Tensor) -> tuple[Tensor, Outcome]:
            number, rows = chunk
            version, some = versions[number], versions[number].clones.chosen(rows)
            with version.draws.part(some.place):
                loss, outcome = self.compare_clones(version, tokens[number], some, len(some.clip) / total)
            # One clone of each clip is enough to tell the rank of tokens, and a sixteenth of the work.
            firsts = outcome.tokens[-rows.start % self.config.mask.clones :: self.config.mask.clones].clone()
            return loss, outcome._replace(tokens=firsts)

        tokens = [version.clips.tokens for version in versions]
        loss, outcomes = sum_in_chunks(run_chunk, chunks, tokens, list(self.parameters()))
        found: list[list[Outcome]] = [[] for _ in versions]
        for (number, _), outcome in zip(chunks, outcomes, strict=True):
            found[number].append(outcome)
        return loss, found

    def compare_clones(self, version: Version, tokens: Tensor, clones: Clones, share: float) -> tuple[Tensor, Outcome]:
        """Encode and decode r clones of clips with patch `tokens` [B, N, D]: their part of the loss and what they are.

        `share` is that of these clones among those of all versions.
        """
        weights, (clip, masks, _) = self.config.objective, clones
        valid = version.clips.valid
        visible = take(tokens, clip, masks.visible)
        shown = take_valid(valid, clip, masks.visible)
        encoded = self.student.encode_tokens(visible, shown, masks.visible)  # [r, 1 + n, D]
        clone_valid = None if valid is None else valid.index_select(0, clip[:, 0])  # [r, N]
        predicted = self.decoder(encoded[:, 1:], masks, version.clips.grid, clone_valid).float()  # [r, m, P]
        cls = encoded[:, 0].float()
        global_loss = share * cls_error(cls, version.targets.cls_target, clip)  # Eq. 6
        loss, errors = weights.global_weight * global_loss, {"global_loss": global_loss.detach()}
        for name, weight, wanted, scored, cell in version.terms:
            part = masks.masked
            error = cell * squared_error(predicted, take(wanted, clip, part), take_valid(scored, clip, part))
            loss, errors[name] = loss + weight * error, weight * error.detach()
        variance, mean = torch.var_mean(predicted.detach().flatten(0, 1), 0, correction=0)
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
        numbers = torch.arange(len(cells), device=cells.device)[None, cells]
        padded = any_rank(valid is not None)  # a partner may come from a rank that has padding where this one has none
        own_valid = torch.ones_like(tokens[..., 0], dtype=torch.bool) if padded and valid is None else valid
        other_valid = None if own_valid is None else partner(own_valid)
        other = self.targets.of_tokens(
            partner(self.targets.encoder.embed_patches(spectrogram))[:, cells],
            None if other_valid is None else other_valid[:, cells],
            numbers,
        )
        wanted = targets.patch_targets.clone()
        wanted[:, cells] = (wanted[:, cells] + other.patch_targets) / 2
        scored = None
        if own_valid is not None and other_valid is not None:
            scored = own_valid & (other_valid | ~cells)
        if self.config.objective.retention_cells == "mixed":
            scored = cells.expand(len(tokens), -1) if scored is None else scored & cells
        return wanted, scored

    def health_of(self, versions: list[Version], outcomes: list[list[Outcome]]) -> Stats:
        """The statistics that tell of a collapse, from what came of the clones of each version, chunk by chunk."""
        longest = max(version.clips.tokens.shape[1] for version in versions)
        targets, valid = [], []
        for version in versions:
            own, missing = version.targets.patch_targets, longest - version.clips.tokens.shape[1]
            real = (
                torch.ones_like(own[..., 0], dtype=torch.bool) if version.clips.valid is None else version.clips.valid
            )
            targets.append(F.pad(own, (0, 0, 0, missing)))
            valid.append(F.pad(real, (0, missing)))
        cells, all_outcomes = [], []
        for version, own_outcomes in zip(versions, outcomes, strict=False):  # behind clips come their mixtures
            cells += [version.clones.masks.masked.numel() // len(own_outcomes)] * len(own_outcomes)
            all_outcomes += own_outcomes
        tokens = torch.cat([outcome.tokens.flatten(0, 1) for outcome in all_outcomes])
        means = torch.stack([outcome.predicted_mean for outcome in all_outcomes])
        variances = torch.stack([outcome.predicted_variance for outcome in all_outcomes])
        return {
            "feature_rank": participation_ratio(tokens.float()),
            **spread(torch.cat(targets), torch.cat(valid), torch.cat([outcome.cls for outcome in all_outcomes])),
            "prediction_variance": pooled_variance(means, variances, cells),
        }

    def compile_step(self) -> None:
        """Compile the targets and `compare_clones`; draws stay outside, and what is done once a clip."""
        leave_draws_out_of_graphs()
        self.targets.compile()
        self.compare_clones = torch.compile(self.compare_clones)  # type: ignore[method-assign]

    def after_step(self, step: int) -> None:
        """Let the teacher follow the student's update number `step`."""
        self.targets.update(self.student, step)

    @classmethod
    def needs(cls, config: PretrainConfig, clips: int) -> list[Need]:
        """Student, teacher and decoder; masks of all ranks' clones; the clips with their tokens and targets."""
        model, (columns, rows) = config.model, config.crop_grid
        has_teacher = issubclass(class_for(config.target), Teacher)
        decoder = class_for(config.decoder).count_weights(config.decoder, model)
        mask: Mask = class_for(config.mask).build(config.mask, model)
        masks = mask.memory(clips * config.mask.clones * place()[1], (columns, rows))  # every rank draws those of all
        weight = bytes_of_weight(config.train)
        width = config.encoder.dim * (1 + has_teacher)  # a token, and what the teacher makes of it
        samples = round(config.data.clip_seconds * config.frontend.sample_rate)
        return [
            *encoder_needs(model, weight + FLOAT * has_teacher, copies=1 + has_teacher),
            Need("the decoder's weights", weight * decoder, "decoder.depth, decoder.mlp_ratio or encoder.max_frames"),
            Need("masks", masks, "mask.clones, mask.adjust, train.batch_size or frontend.mel_bins"),
            *clip_needs(model, clips, samples, per_patch=width),
        ]

    def cost(self) -> StepCost:
        """Student and decoder run on every clone, forward and backward; the teacher once per version, forward only."""
        config, grid = self.config, self.config.crop_grid
        clips, patches = config.train.batch_size, grid[0] * grid[1]
        drawn = Need("masks", self.mask.memory(config.mask.clones, grid), "mask.clones")
        check_fits("A plan", [drawn], torch.device("cpu"))
        masks = self.mask.draw(config.mask.clones, grid, torch.Generator())
        visible, masked = masks.visible.shape[1], masks.masked.shape[1]
        versions = 2 if config.objective.retention_weight else 1  # of a clip: itself, and a mixture
        clones = clips * config.mask.clones * versions
        student = encoder_cost(config.model, clones, visible, config.train.recompute)
        decoder = self.decoder.cost(clones, grid, visible, masked)
        of_clip = clips * config.mask.clones
        device = pick_device(config.train.device)
        limit = -(-of_clip * versions // (config.train.accumulate or 1))
        size = chunk_size(of_clip, patches, config.encoder.dim, limit, device)
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
            flops=sum(3 * part.flops + part.again for part in (student, decoder)) + 2 * embed * versions + teacher,
            kept=(student.kept + decoder.kept) * size / (of_clip * versions),
            visible=visible,
            masked=masked,
        )


def share_of_cell(versions: list[tuple[Tensor | None, Clones]]) -> Tensor:
    """What one masked cell of one clone is of the mean over those of all versions on all ranks, [].

    A version is the cells of its clips that are scored, bool [B, N] (None: all), and their clones.
    """
    counts = []
    for scored, clones in versions:
        cells = take_valid(scored, clones.clip, clones.masks.masked)  # [R, m]
        count = clones.masks.masked.numel()
        counts.append(torch.full((), count, device=clones.clip.device) if cells is None else cells.sum())
    total = torch.stack(counts).sum()
    return mean_over_ranks(1 / total.clamp(min=1), total)


def cls_error(cls: Tensor, target: Tensor | None, clip: Tensor) -> Tensor:
    """Eq. 6 as a mean over clones [r, D] and features, against targets [B, D]; zero where there is no target."""
    return cls.new_zeros(()) if target is None else F.mse_loss(cls, target.index_select(0, clip[:, 0]))


def squared_error(predicted: Tensor, wanted: Tensor, scored: Tensor | None) -> Tensor:
    """Sum over the masked cells [r, m, P] that are `scored` (bool [r, m]; None: all) of their mean squared errors."""
    if scored is None:
        return F.mse_loss(predicted, wanted, reduction="sum") / predicted.shape[-1]
    return ((predicted - wanted).square().mean(-1) * scored).sum()
