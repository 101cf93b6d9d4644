"""What intervals resample: recordings or, where there are few, stretches of them.

A resample draws units as a whole, as what lies in one unit is alike: the same animal, place and weather.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiobat.evaluation.detections.event_list import Floats, Whole

ENOUGH = 20  # recordings; fewer are cut into stretches
STRETCH = 60.0  # seconds, or longer where that would make more than MOST
MOST = 1000  # units; more recordings than this are taken together, neighbours in the order of their names


@dataclass(frozen=True, eq=False)
class Units:
    """U units, of which every recording is one, a part of one, or several."""

    count: int  # U
    name: str  # "recordings", "stretches of 60 s"
    first: Whole  # [R] the first unit of each recording
    number: Whole  # [R] its units
    stretch: float  # seconds; infinity: units are not cut

    def of(self, recording: Whole, seconds: Floats) -> Whole:
        """The unit of each recording at each time."""
        part = np.zeros(len(seconds)) if np.isinf(self.stretch) else np.floor(seconds / self.stretch)
        return self.first[recording] + np.clip(part, 0, self.number[recording] - 1).astype(np.int64)


def units_of(lengths: Floats, *, whole: bool = False) -> Units:
    """The units of recordings that last so many seconds, [R]; with `whole` none is cut, however few they are."""
    recordings = len(lengths)
    one = np.ones(recordings, np.int64)
    if recordings > MOST:
        group = np.arange(recordings) * MOST // recordings
        return Units(MOST, f"groups of {recordings / MOST:.3g} recordings", group, one, np.inf)
    if whole or recordings >= ENOUGH:
        return Units(recordings, "recordings", np.arange(recordings), one, np.inf)
    stretch = max(STRETCH, float(np.ceil(lengths.sum() / MOST)))
    number = np.maximum(1, np.ceil(lengths / stretch)).astype(np.int64)
    first = np.cumsum(number) - number
    return Units(int(number.sum()), f"stretches of {stretch:g} s", first, number, stretch)
