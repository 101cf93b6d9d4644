"""Frame-level labels: the events of clips to a target for each frame and class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiobat.data.columns import Ragged

RESOLUTION = 1e-6  # seconds: 3 * 0.1 and 0.3 are the same time


def frame_targets(
    events: Ragged, clip_ids: ArrayLike, frame_times: ArrayLike, classes: int, filled: float | None = None
) -> NDArray[np.bool_]:
    """Which classes sound in which frame, [B, T, C].

    A frame is positive when its start lies in an event, onset <= time < offset; an event that lies between two frame
    starts marks none. With `filled` it is positive where an event sounds for so large a share of it, or where all of a
    shorter event lies: the onset of an event is then on average that of its first frame, and none is lost.

    Args:
        events: of n clips, lists of `clip_table.EVENT`.
        clip_ids: [B] clips wanted.
        frame_times: [T] start of each frame, in seconds from the clip's start.
        classes: C.
        filled: share of a frame, more than 0 up to 1; None: frames are their start times.
    """
    wanted = np.asarray(clip_ids, np.int64)
    chosen = events.take(wanted)
    times = _ticks(frame_times)
    onset, offset = _ticks(chosen.values["onset"])[:, None], _ticks(chosen.values["offset"])[:, None]  # [E, 1]
    if filled is None or len(times) < 2:
        sounds = (onset <= times) & (times < offset)
    else:
        ends = np.append(times[1:], 2 * times[-1] - times[-2])
        shared = np.minimum(offset, ends) - np.maximum(onset, times)  # [E, T]
        sounds = (shared > 0) & (shared >= np.minimum(filled * (ends - times), shared.max(1, keepdims=True, initial=0)))
    event, frame = np.nonzero(sounds)
    clip = np.repeat(np.arange(len(wanted)), chosen.lengths)  # [E]
    targets = np.zeros((len(wanted), len(times), classes), dtype=bool)
    targets[clip[event], frame, chosen.values["label"][event]] = True
    return targets


def _ticks(seconds: ArrayLike) -> NDArray[np.int64]:
    return np.rint(np.asarray(seconds, np.float64) / RESOLUTION).astype(np.int64)
