"""What a cell will take, counted from its settings alone: operations of the encoder and of the head, and GPU hours.

A multiply-add is two operations. Layers' norms, losses, optimiser and the decoding of audio are not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from audiobat.config import ModelConfig, ProbeConfig
from audiobat.config.benchmark import FINETUNE, PROTOCOLS
from audiobat.probing.cache import GB, SPILL_GB
from audiobat.probing.feature_store import FLOAT_BYTES
from audiobat.studies.benchmark_cells import Cell

BASE = ModelConfig()  # what a model counts as that is not here, or is none of ours: base size, with gates


@dataclass(frozen=True)
class Cost:
    """Operations of a cell."""

    encoder: float
    head: float

    def hours(self, tflops: float) -> float:
        """At `tflops` 10^12 operations a second."""
        return (self.encoder + self.head) / (tflops * 1e12) / 3600


def cost_of(cell: Cell, model: ModelConfig = BASE) -> Cost:
    """Of all seeds and folds of a cell."""
    data, finetune = cell.about_data, cell.finetune_config()
    patches = patches_of(model, finetune.data.clip_seconds)
    forward = forward_flops(model, patches)
    times = data.folds * len(cell.seeds())
    if cell.protocol == FINETUNE:
        passes = 3 * finetune.train.steps * finetune.train.batch_size + data.test
        return Cost(times * passes * forward, 0.0)
    config = cell.probe_config()
    steps = config.train.steps * config.train.batch_size * times
    clips = data.train + data.test
    head = steps * head_flops(PROTOCOLS[cell.protocol], model, patches, config.head.prototypes, data.classes)
    if config.grid.choose:
        head *= 1 + len(config.grid.lr or (0,)) * len(config.grid.weight_decay or (0,)) / len(cell.seeds())
    if is_kept(cell.protocol, config, model, patches, clips):
        return Cost(clips * forward, head)
    # Features that nothing can hold are computed for every batch, which seeds share.
    draws = config.train.steps * config.train.batch_size * data.folds * (1 + config.grid.choose)
    return Cost((draws + data.test * data.folds) * forward, head)


def patches_of(model: ModelConfig, seconds: float) -> int:
    """Of a clip, padded to whole columns."""
    frames = min(seconds * model.frontend.sample_rate / model.frontend.hop_length, model.encoder.max_frames)
    high, wide = model.frontend.mel_bins // model.encoder.patch_size[1], model.encoder.patch_size[0]
    return math.ceil(round(frames) / wide) * high


def forward_flops(model: ModelConfig, patches: int) -> float:
    """Of the encoder for one clip: its blocks on the patches and the cls token, and the embedding of patches."""
    encoder, tokens = model.encoder, patches + 1
    linear = 2 * (4 + encoder.gated_attention + 2 * encoder.mlp_ratio) * encoder.dim**2
    embed = patches * 2 * encoder.patch_size[0] * encoder.patch_size[1] * encoder.dim
    return encoder.depth * tokens * (linear + 4 * tokens * encoder.dim) + embed


def head_flops(kind: str, model: ModelConfig, patches: int, prototypes: int, classes: int) -> float:
    """Of a step of training for one clip: forward and back. Of its similarities only the extremes have a gradient."""
    dim = model.encoder.dim
    if kind == "linear":
        return 3 * 2.0 * dim * classes
    extremes = 2 if kind == "cgp" else 1
    scored = 2.0 * patches * dim * prototypes + extremes * 4.0 * dim * prototypes
    cls = 3 * 2.0 * dim * prototypes if kind == "cgp" else 0.0
    features = 3 * prototypes if kind == "cgp" else prototypes
    return scored + cls + 3 * 2.0 * features * classes


def is_kept(protocol: str, config: ProbeConfig, model: ModelConfig, patches: int, clips: int) -> bool:
    """Whether the features that a probe needs are computed once: where they fit into memory or on the disk."""
    layer = model.encoder.depth * model.encoder.dim * FLOAT_BYTES * clips
    if config.cache_dir is not None:
        return True
    if PROTOCOLS[protocol] == "linear":  # means and cls alone
        return 2 * layer <= config.cache_gb * GB
    return (patches + 1) * layer <= max(config.cache_gb, SPILL_GB if config.cache_gb else 0.0) * GB
