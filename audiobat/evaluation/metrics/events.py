"""Frame scores to events, and events to event-based onset F1, as sed_eval defines it and HEAR reports it.

An estimated event is a hit if it has the class of a reference event and its onset lies within the collar, 0.2 s, of the
reference event's onset (sed_eval by Mesaros et al., 2016; HEAR by Turian et al., 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiobat.evaluation.metrics.inputs import check_finite, weights_of


@dataclass(frozen=True)
class Events:
    """The events of one clip, in any order."""

    label: Tensor  # [E] index of the class
    onset: Tensor  # [E] seconds, float64
    offset: Tensor  # [E] seconds, float64


def frames_to_events(
    probabilities: Tensor, frame_times: Tensor, hop_seconds: float, threshold: float = 0.3, median: int = 3
) -> Events:
    """Runs of frames above a threshold, after a median filter over time; the defaults are those of DCASE-2016 task 2.

    Args:
        probabilities: [T, C] of the clip's valid frames.
        frame_times: [T] start of each frame, seconds: the onset of an event is its first frame's.
        hop_seconds: length of a frame: the offset of an event is its last frame's start and this.
        threshold: a probability of exactly this much is no event.
        median: frames under the filter, odd; at the clip's ends the clip is continued by its mirror image.
    """
    check_finite(probabilities)
    frames, _ = probabilities.shape
    if not frames:
        return Events(torch.zeros(0, dtype=torch.long), *torch.zeros(2, 0, dtype=torch.float64))
    index = torch.arange(-(median // 2), frames + median // 2) % (2 * frames)
    mirrored = torch.minimum(index, 2 * frames - 1 - index)  # ..., 1, 0, 0, 1, ..., T - 1, T - 1, T - 2, ...
    smooth = probabilities[mirrored].unfold(0, median, 1).median(-1).values  # [T, C]
    active = (smooth > threshold).T.int()  # [C, T]
    change = torch.nn.functional.pad(active, (1, 1)).diff()  # [C, T + 1]: 1 where a run begins, -1 behind its end
    label, first = (change == 1).nonzero().T
    _, end = (change == -1).nonzero().T  # in the same order, as a class's runs begin and end in turn
    times = frame_times.double()
    return Events(label, times[first], times[end - 1] + hop_seconds)


def match_events(reference: Sequence[Events], estimated: Sequence[Events], classes: int, collar: float = 0.2) -> Tensor:
    """Hits, reference events and estimated events of each clip and class: [n, C, 3] in float64.

    Hits are the largest one-to-one matching of onsets at most `collar` seconds apart (`optimal`, sed_eval's default).
    As onsets lie on a line, pairing the earliest onsets that fit, from the start on, gives the largest matching.
    """
    tally = torch.zeros(len(reference), classes, 3, dtype=torch.float64)
    for clip, (ref, est) in enumerate(zip(reference, estimated, strict=True)):
        for label in torch.cat([ref.label, est.label]).unique().tolist():
            true = ref.onset[ref.label == label].double().sort().values.tolist()
            found = est.onset[est.label == label].double().sort().values.tolist()
            tally[clip, label] = torch.tensor([_hits(true, found, collar), len(true), len(found)])
    return tally


def event_f1(tally: Tensor, counts: Tensor | None = None) -> Tensor:
    """F1 over all events, [] or [R], of the clips' tallies [n, C, 3]; NaN where there are no events at all.

    This is sed_eval's overall (micro) F-measure; without any estimated event it is 0 (`zero_score` there).
    """
    hits, reference, estimated = (weights_of(counts, len(tally)) @ tally.sum(1)).unbind(-1)
    return 2 * hits / (reference + estimated)


def _hits(reference: list[float], estimated: list[float], collar: float) -> int:
    """Size of the largest matching of two sorted lists of onsets."""
    hits = i = j = 0
    while i < len(reference) and j < len(estimated):
        if abs(reference[i] - estimated[j]) <= collar:
            hits, i, j = hits + 1, i + 1, j + 1
        elif reference[i] < estimated[j]:
            i += 1
        else:
            j += 1
    return hits
