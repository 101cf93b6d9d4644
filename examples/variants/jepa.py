"""A JEPA-like objective: from one context, predict a teacher's features in several blocks (Assran et al., 2023).

    audiobat pretrain --config bat_nano --data recordings/ --out runs/jepa --target.layers 1 --mask.clones 4 \
        --objective.kind examples/variants/jepa.py:JEPA --mask.kind examples/variants/jepa.py:TargetBlocks \
        --decoder.kind examples/variants/jepa.py:Predictor --mask.block_size 2 --decoder.dim 48

The student encodes each clip once, the predictor is narrow and attends from target cells to the context only, the error
is smooth L1, and the cls token has no loss. A clone is a target block here.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from audiobat.config import DecoderConfig, check
from audiobat.config.registry import class_for
from audiobat.engine.ranks import mean_over_ranks
from audiobat.models.encoder import AudioEncoder
from audiobat.models.patches import sincos_positions
from audiobat.pretraining.cost import StepCost, encoder_cost
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.masks.base import Mask, Masks, clips_of_clones, take, take_valid, visible_count
from audiobat.pretraining.objectives.base import Objective, embed_clips
from audiobat.pretraining.objectives.statistics import participation_ratio


class TargetBlocks(Mask):
    """`clones` square target blocks a clip, and one context, which overlaps none of them."""

    def draw(self, count, grid, generator):
        """Draw `count` masks: the clones of a clip have the same visible patches."""
        patches, clones, device = grid[0] * grid[1], self.config.clones, generator.device
        side = torch.arange(min(self.config.block_size, *grid), device=device)
        free = [size - len(side) + 1 for size in grid]  # places of a block's corner
        time, frequency = (torch.randint(n, (count, 1, 1), generator=generator, device=device) for n in free)
        masked = ((time + side[:, None]) * grid[1] + frequency + side).flatten(1)  # [R, m]
        taken = torch.zeros(count // clones, patches, device=device)
        taken.scatter_(1, masked.view(count // clones, -1), 1.0)
        order = torch.rand(taken.shape, generator=generator, device=device).add(taken).argsort(1)  # targets last
        shown = min(visible_count(patches, self.config.ratio), max(patches - clones * len(side) ** 2, 1))
        return Masks(order[:, :shown].sort(1).values.repeat_interleave(clones, 0), masked)


class Predictor(Decoder):
    """Queries at the target cells attend to the context, in a few narrow layers."""

    @dataclass(frozen=True)
    class Config(DecoderConfig):
        dim: int = 96  # width of the predictor

    def __init__(self, config, model, width):
        super().__init__(config, model, width)
        check(config.dim % config.heads == 0, "decoder.heads", config.heads, f"it must divide decoder.dim {config.dim}")
        self.embed = nn.Linear(model.encoder.dim, config.dim)
        self.query = nn.Parameter(torch.randn(config.dim) * 0.02)
        self.register_buffer("pos_embed", sincos_positions(model.grid, config.dim)[0])
        sizes = config.dim, config.heads, int(config.mlp_ratio * config.dim)
        layers = [nn.TransformerDecoderLayer(*sizes, 0.0, "gelu", batch_first=True) for _ in range(config.depth)]
        self.layers = nn.ModuleList(layers)
        self.proj = nn.Linear(config.dim, width)

    def forward(self, tokens, masks, grid, valid=None):
        """Context [R, n, D] to predictions [R, m, width]."""
        context = self.embed(tokens) + self.pos_embed[masks.visible]
        padding = None if valid is None else ~valid.gather(1, masks.visible)
        if padding is not None:
            padding = padding & ~padding.all(1, keepdim=True)  # attention over nothing would be nan
        x = self.query + self.pos_embed[masks.masked]
        for layer in self.layers:
            x = layer(x, context, memory_key_padding_mask=padding)
        return self.proj(x)


class JEPA(Objective):
    """A context encoder, an EMA teacher and a predictor."""

    health: ClassVar = {"feature_rank": (1.1, "the context's tokens vary in one direction only")}

    def __init__(self, config):
        super().__init__(config)
        self.encoder = AudioEncoder(config.model)
        self.mask = class_for(config.mask).build(config.mask, config.model)
        self.targets = class_for(config.target).build(config.target, config.model, self.encoder)
        self.predictor = class_for(config.decoder).build(config.decoder, config.model, self.targets.width)

    def forward(self, batch, step):
        """Smooth L1 between predictions and the teacher's features in the target blocks."""
        spectrogram, valid, tokens, grid = embed_clips(self.encoder, batch)
        targets = self.targets(spectrogram, valid, batch.waveform, batch.lengths)
        clips, clones = len(tokens), self.config.mask.clones
        masks = self.mask(clips * clones, grid, self.generator(step, tokens.device))
        each, clip = (clips_of_clones(clips, count, tokens.device) for count in (1, clones))  # [B, 1], [R, 1]
        context = masks.visible[::clones]  # [B, n], the same for all blocks of a clip: encoded once
        shown = take(tokens, each, context), take_valid(valid, each, context), context
        encoded = self.encoder.encode_tokens(*shown)[:, 1:]
        block_valid = None if valid is None else valid[clip[:, 0]]
        predicted = self.predictor(encoded[clip[:, 0]], masks, grid, block_valid).float()  # [R, m, D]
        wanted = take(targets.patch_targets, clip, masks.masked)
        error = F.smooth_l1_loss(predicted, wanted, reduction="none").mean(-1)  # [R, m]
        scored = take_valid(valid, clip, masks.masked)
        scored = torch.ones_like(error) if scored is None else scored
        loss = mean_over_ranks((error * scored).sum() / scored.sum().clamp(min=1), scored.sum())
        rank = participation_ratio(encoded.detach().flatten(0, 1).float())
        return loss, {"target_variance": targets.variance, "feature_rank": rank}

    def after_step(self, step):
        """Let the teacher follow."""
        self.targets.update(self.encoder, step)

    def cost(self):
        """The encoder once per clip, the predictor once per block."""
        config, grid, clips = self.config, self.config.crop_grid, self.config.train.batch_size
        masks = self.mask.draw(config.mask.clones, grid, torch.Generator())
        blocks, n, m = clips * config.mask.clones, masks.visible.shape[1], masks.masked.shape[1]
        encoder, predictor = encoder_cost(config.model, clips, n), self.predictor.cost(blocks, grid, n, m)
        flops = 3 * (encoder.flops + predictor.flops) + self.targets.flops(clips, grid[0] * grid[1])
        return StepCost({"encoder": clips * (1 + n), "predictor": blocks * (n + m)}, flops, encoder.kept, n, m)
