"""`audiobat.classify`: one recording and a model with a head in; its labels with their scores out, the best first."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.audio.read import pad_batch, source_name, to_waveform
from audiobat.data.build import clip_table
from audiobat.data.windows import BrokenClip, Samples, WindowStream, cut_windows
from audiobat.errors import AudiobatError
from audiobat.inference.window_pass import Windows
from audiobat.models.features import NOT_FINITE
from audiobat.models.tagger import Tagger
from audiobat.zoo.release import load_tagger

BATCH = 8  # windows that are computed at once


class Label(NamedTuple):
    """A label and how sure the model is of it, from 0 to 1."""

    label: str
    score: float


@torch.inference_mode()
def classify(
    audio: str | Path | NDArray[Any] | Tensor,
    model: str | Path | Tagger,
    *,
    sample_rate: int | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> list[Label]:
    """The labels of one recording with their scores, all that the model knows, the best first.

    A recording that is longer than the model's longest clip is heard window by window. Where several labels can hold at
    once, the score of each is its highest in any window; where they exclude each other, the mean over windows, weighted
    by their lengths.

    Args:
        audio: a file of any length, rate and number of channels, or an array [S] or [channels, S].
        model: a release folder with a head, the run of a fine-tuning, `hub:OWNER/NAME`, or a Tagger object, which saves
            loading it again for every recording.
        sample_rate: Hz of an array; files bring their own.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.

    Raises:
        AudiobatError: a recording that cannot be read, an array without a rate, a model without a head.
    """
    tagger = model if isinstance(model, Tagger) else load_tagger(model, device, trust_remote_code)
    settings = Windows.of_tagger(tagger, None, None, BATCH, 0)
    if isinstance(audio, str | Path):
        samples: Iterable[Samples] = windows_of_file(audio, settings)
    else:
        waveform = to_waveform(audio, sample_rate, tagger.sample_rate).numpy()
        samples = (cut for _, cut in cut_windows([waveform], settings.length, settings.hop, settings.least))
    scores, weights = [], []
    place, was_training = next(tagger.parameters()).device, tagger.training
    tagger.eval()
    following = iter(samples)
    try:
        while batch := list(itertools.islice(following, BATCH)):
            waveforms, lengths = pad_batch([torch.from_numpy(cut) for cut in batch])
            scores.append(tagger.scores(tagger(waveforms.to(place), lengths.to(place))).float().cpu().numpy())
            weights += [len(cut) for cut in batch]
    finally:
        tagger.train(was_training)
    by_window = np.concatenate(scores)  # [W, C]
    if not np.isfinite(by_window).all():
        raise AudiobatError(f"{source_name(audio)}: {NOT_FINITE}")
    whole = by_window.max(0) if tagger.multi_label else np.average(by_window, axis=0, weights=weights)
    return [Label(tagger.classes[i], float(whole[i])) for i in np.argsort(-whole, kind="stable")]


def windows_of_file(path: str | Path, settings: Windows) -> Iterator[Samples]:
    """The windows of a file; an AudiobatError where it cannot be read."""
    table = clip_table("", [str(path)])
    for item in WindowStream(table, settings.sample_rate, settings.length, settings.hop, 0, settings.least)():
        if isinstance(item, BrokenClip):
            raise AudiobatError(item.reason)
        yield item.samples
