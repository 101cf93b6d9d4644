"""Clips to the pictures of an analysis: both frontends (Fig. 3), attention (Fig. 5), prototypes on spectrograms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.audio.frontends.base import Frontend
from audiobat.audio.frontends.kaldi_fbank import KaldiFrontend
from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig
from audiobat.data.clip import read_clip
from audiobat.data.clip_table import ClipTable
from audiobat.evaluation.analysis.prototypes import patch_similarities
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.report import analysis_figures, figures
from audiobat.evaluation.report.analysis_figures import PrototypeClip, class_prototypes
from audiobat.evaluation.report.style import save
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder
from audiobat.models.heads.cgp import ConvexGatedProbe
from audiobat.models.layers import GatedAttention
from audiobat.probing.cache import FeatureSource
from audiobat.probing.encoding import frozen

BUSY = 3  # labels of the clip that is shown
NAME = 60  # letters of a label in the name of a file

KALDI = FrontendConfig(kind="kaldi_fbank")  # whose defaults are EAT's


def measure_pictures(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw ranks, likeness of blocks and sinks, so far as they were measured."""
    blocks, cka, attention = found["label_free"]["blocks"], found["label_free"]["cka"], found["attention"]
    drawn = [save(analysis_figures.ranks(blocks), folder, "ranks")]
    if cka is not None:
        drawn.append(save(analysis_figures.likeness(cka), folder, "cka"))
    if attention is not None:
        drawn.append(save(analysis_figures.sinks(attention["measures"]), folder, "sinks"))
    return drawn


def clip_pictures(encoder: Encoder, table: ClipTable, clip_ids: ClipIds, folder: Path) -> list[Path]:
    """Draw one clip through both frontends and, of our encoders, the last block's attention to it."""
    clip_id = busy_clip(table, clip_ids)
    labels = labels_of(table, clip_id)
    mel = MelFrontend(FrontendConfig())
    waveform = read(table, clip_id, mel.config.sample_rate)
    drawn = [save(figures.frontends(waveform, labels, mel, KaldiFrontend(KALDI)), folder, "frontends")]
    if isinstance(encoder, AudioEncoder):
        with frozen(encoder):
            spectrogram, attention = look(encoder, read(table, clip_id, encoder.sample_rate))
        drawn.append(save(figures.attention(attention, spectrogram, encoder.frontend, labels), folder, "attention"))
    return drawn


def class_pictures(
    encoder: Encoder,
    source: FeatureSource,
    head: ConvexGatedProbe,
    classes: Mapping[str, Any],
    count: int,
    folder: Path,
) -> list[Path]:
    """Draw the strongest prototypes, as `prototype_use` lists them, of the `count` best and `count` worst classes."""
    known = [label for label, one in classes.items() if one["average_precision"] is not None and one["strongest"]]
    known.sort(key=lambda label: -classes[label]["average_precision"])
    ends = known if 2 * count >= len(known) else known[:count] + known[len(known) - count :]
    frontend = encoder.frontend if isinstance(encoder, AudioEncoder) else MelFrontend(FrontendConfig())
    frontend.to(source.device)
    numbers = {label: number for number, label in enumerate(classes)}  # names that differ in signs alone stay apart
    drawn = []
    for label in ends if count else ():
        shown = [prototype_clip(source, head, one, frontend) for one in classes[label]["strongest"]]
        figure = class_prototypes(label, classes[label]["average_precision"], shown, frontend)
        name = re.sub(r"[^A-Za-z0-9_]+", "_", label)[:NAME]
        drawn.append(save(figure, folder, f"class_{numbers[label]:03d}_{name}"))
    return drawn


def prototype_clip(
    source: FeatureSource, head: ConvexGatedProbe, one: Mapping[str, Any], frontend: Frontend
) -> PrototypeClip:
    """A prototype's own clip, and the similarity of each of its patches to the prototype."""
    clip_id = one["row"]
    features = source.batch([clip_id])
    similarity = patch_similarities(head, features)[0, :, one["prototype"]]
    similarity = similarity.masked_fill(~features.valid[0], float("nan")).reshape(features.grid).cpu()
    waveform = read(source.table, clip_id, frontend.config.sample_rate)
    times, seconds = features.frame_times, len(waveform) / frontend.config.sample_rate
    spectrogram = frontend(waveform[None].to(source.device))[0][0].cpu()
    return PrototypeClip(
        one["prototype"],
        one["strength"],
        labels_of(source.table, clip_id),
        spectrogram.numpy(),
        similarity.numpy(),
        column_seconds=float(times[1] - times[0])
        if len(times) > 1
        else seconds,  # a lone one lasts as long as its clip
    )


def busy_clip(table: ClipTable, clip_ids: ClipIds) -> int:
    """The first of the clips `clip_ids` with three labels or more, else with the most."""
    if table.labels is None:
        return int(clip_ids[0])
    return int(clip_ids[table.labels.lengths[clip_ids].clip(max=BUSY).argmax()])


def labels_of(table: ClipTable, clip_id: int) -> list[str]:
    """Names of a clip's labels, or its own."""
    named = [] if table.labels is None else [table.classes[c] for c in table.labels.row(clip_id)]
    return named or [Path(str(table.keys[clip_id])).name]


@torch.no_grad()
def look(encoder: AudioEncoder, waveform: Tensor) -> tuple[NDArray[Any], figures.Attention]:
    """The spectrogram [T, F] of a clip [S], and the last block's attention to it."""
    waveform = waveform[None].to(encoder.pos_embed.device)
    layer, x = encoder.attention_input(waveform)
    assert isinstance(layer, GatedAttention)
    places = encoder.places(x.shape[1] - 1)
    maps = [layer.attention_map(x, places=places), layer.contribution_map(x, gated=False, places=places)]
    maps += [] if layer.gate is None else [layer.contribution_map(x, places=places)]
    weights, ungated, *rest = (m[0].mean(0).cpu().numpy() for m in maps)
    freq_patches = encoder.config.grid[1]
    grid = ((x.shape[1] - 1) // freq_patches, freq_patches)  # x begins with cls
    attention = figures.Attention(encoder.depth, weights, ungated, rest[0] if rest else None, grid)
    return encoder.spectrogram(waveform)[0][0].cpu().numpy(), attention


def read(table: ClipTable, clip_id: int, sample_rate: int) -> Tensor:
    """A clip's waveform [S]."""
    return torch.from_numpy(read_clip(table, clip_id, sample_rate))
