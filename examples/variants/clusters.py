"""Clusters as targets: predict at masked cells which cluster of a teacher's features a patch belongs to.

    audiobat pretrain --config bat_nano --data recordings/ --out runs/clusters --target.layers 1 \
        --objective.kind examples/variants/clusters.py:Clusters --objective.clusters 256

The codebook learns with an optimizer of its own, on assignments that Sinkhorn-Knopp balances, so that no cluster takes
everything (as SwAV and CAPI do); student and decoder learn by the cross-entropy. Masks and decoder are the config's.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from audiobat.config import ObjectiveConfig, check
from audiobat.config.registry import class_for
from audiobat.engine.ranks import mean_over_ranks
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.cost import StepCost, encoder_cost
from audiobat.pretraining.masks.base import clips_of_clones, take, take_valid
from audiobat.pretraining.objectives.base import Objective, embed_clips


class Clusters(Objective):
    """A student, an EMA teacher, and a codebook [K, D] between them."""

    @dataclass(frozen=True)
    class Config(ObjectiveConfig):
        clusters: int = 256
        temperature: float = 0.1  # of the cosines between features and codes
        codebook_lr: float = 1e-3

        def __post_init__(self):
            super().__post_init__()
            check(self.clusters > 1, "objective.clusters", self.clusters, "use at least two")

    health: ClassVar = {"clusters_used": (1.5, "nearly all patches fall into one cluster")}

    def __init__(self, config):
        super().__init__(config)
        own = config.objective
        self.student = AudioEncoder(config.model)
        self.mask = class_for(config.mask).build(config.mask, config.model)
        self.targets = class_for(config.target).build(config.target, config.model, self.student)
        self.decoder = class_for(config.decoder).build(config.decoder, config.model, own.clusters)
        # Without requires_grad the run's optimizer leaves the codebook alone.
        self.codebook = nn.Parameter(torch.randn(own.clusters, self.targets.width), requires_grad=False)
        self.optimizer = torch.optim.AdamW([self.codebook], lr=own.codebook_lr)

    @property
    def encoder(self):
        """A release keeps the student."""
        return self.student

    def get_extra_state(self):
        """What a checkpoint keeps besides weights: the codebook's optimizer."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state):
        """Go on with it."""
        self.optimizer.load_state_dict(state)

    def forward(self, batch, step):
        """Cross-entropy between predictions and balanced assignments at the masked cells."""
        spectrogram, valid, tokens, grid = embed_clips(self.student, batch)
        features = self.targets(spectrogram, valid, batch.waveform, batch.lengths).patch_targets  # [B, N, D]
        clips, clones = len(tokens), self.config.mask.clones
        masks = self.mask(clips * clones, grid, self.generator(step, tokens.device))
        clip = clips_of_clones(clips, clones, tokens.device)  # [R, 1]
        real = torch.ones_like(features[..., 0], dtype=torch.bool) if valid is None else valid  # [B, N]
        assigned = torch.zeros(*real.shape, len(self.codebook), device=tokens.device)  # [B, N, K], zeros on padding
        assigned[real], codebook_loss = self.assign(features[real])

        shown = take(tokens, clip, masks.visible), take_valid(valid, clip, masks.visible), masks.visible
        encoded = self.student.encode_tokens(*shown)[:, 1:]  # [R, n, D]
        logits = self.decoder(encoded, masks, grid, None if valid is None else valid[clip[:, 0]]).float()
        wanted = take(assigned, clip, masks.masked)  # [R, m, K]
        loss = mean_over_ranks(-(wanted * logits.log_softmax(-1)).sum() / wanted.sum().clamp(min=1), wanted.sum())
        share = assigned[real].mean(0)
        used = torch.exp(-(share * share.clamp(min=1e-9).log()).sum())  # perplexity: K where all are used alike
        return loss, {"codebook_loss": codebook_loss, "clusters_used": used}

    def assign(self, features):
        """Features [n, D] of one GPU to balanced assignments [n, K], and their loss; leaves its gradient behind."""
        with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
            codes = self.codebook.detach().requires_grad_()
            scores = F.normalize(features, dim=-1) @ F.normalize(codes, dim=-1).T / self.config.objective.temperature
            assigned = sinkhorn(scores.detach())
            loss = -(assigned * scores.log_softmax(-1)).sum(-1).mean()
            (self.codebook.grad,) = torch.autograd.grad(loss, [codes])
        if dist.is_initialized():
            dist.all_reduce(self.codebook.grad, dist.ReduceOp.AVG)  # the ranks keep one codebook
        return assigned, loss.detach()

    def after_step(self, step):
        """Move the codebook and the teacher."""
        self.optimizer.step()
        self.targets.update(self.student, step)

    def cost(self):
        """Student and decoder for each clone, the teacher once per clip."""
        config, grid, clips = self.config, self.config.crop_grid, self.config.train.batch_size
        masks = self.mask.draw(config.mask.clones, grid, torch.Generator())
        clones, n, m = clips * config.mask.clones, masks.visible.shape[1], masks.masked.shape[1]
        student, decoder = encoder_cost(config.model, clones, n), self.decoder.cost(clones, grid, n, m)
        flops = 3 * (student.flops + decoder.flops) + self.targets.flops(clips, n + m)
        tokens = {"student": clones * (1 + n), "decoder": clones * (n + m)}
        return StepCost(tokens, flops, student.kept + decoder.kept, n, m)


def sinkhorn(scores, rounds=3):
    """Soft assignments [n, K] whose rows sum to one and whose clusters are about equally full."""
    shares = (scores - scores.max()).exp()
    for _ in range(rounds):
        shares = shares / shares.sum(0).clamp(min=1e-9)
        shares = shares / shares.sum(1, keepdim=True)
    return shares
