"""What a fine-tuning takes of memory at the least, before its head is built."""

from __future__ import annotations

import torch
from torch import nn

from audiobat.config import FinetuneConfig
from audiobat.data.loader import ring_needs
from audiobat.engine.memory import FLOAT, Need, shortage
from audiobat.engine.ranks import place
from audiobat.models.encoder import AudioEncoder
from audiobat.models.needs import bytes_of_weight, clip_needs


def shortage_of(encoder: AudioEncoder, head: nn.Module, config: FinetuneConfig, device: torch.device) -> str | None:
    """A sentence on what is too large if a rank's machine lacks the memory for a step; None if it may have it.

    `head` is one on the meta device, whose weights take none.
    """
    copies = bytes_of_weight(config.train) + FLOAT * (config.train.ema_decay is not None)

    def of_weights(part: nn.Module) -> float:
        return copies * sum(parameter.numel() for parameter in part.parameters())

    samples = round(config.data.clip_seconds * encoder.sample_rate)
    share = -(-config.train.batch_size // place()[1])
    parts = config.train.accumulate or 1  # of the batch: the encoder runs on one after the other
    needs = [
        Need("the encoder's weights", of_weights(encoder), "the size of --model"),
        Need("the head's weights", of_weights(head), "head.prototypes, head.per_class or head.queries"),
        *clip_needs(encoder.config, share, samples, per_patch=encoder.dim / parts),
    ]
    return shortage("A step", needs, device, ring_needs(config.data.workers, share, samples))
