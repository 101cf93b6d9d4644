"""When a detection counts as right: collars, and what happens at the ends of scales, by the name of who counts so.

`ours` treats a difference of exactly the collar as within it, whatever binary fractions make of it, gives a system that
detects nothing an F1 of 0, and evaluates a recording up to its end where that is known.

`sed_eval` (0.2.1, by Mesaros et al., 2016) compares binary fractions, so that an onset 0.2 s late is a hit at 1.0 s and
a miss at 2.0 s; a system that detects nothing has NaN; a recording is evaluated up to the last offset that truth or
predictions have; and an error rate without any true event is divided by the least float.

`hear` (Turian et al., 2022) is sed_eval's, and an event found in scores of frames ends where its last frame begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from audiobat.errors import AudiobatError, did_you_mean

SHORTEST = 0.001  # seconds of a segment
ROUNDING = 1e-6  # seconds that a time in a table may be off


@dataclass(frozen=True)
class Convention:
    """How truth and predictions are compared."""

    name: str
    segment_seconds: float = 1.0  # a label holds in a segment that one of its events touches
    onset_collar: float = 0.2  # seconds between the onsets of a true event and its detection, at most
    offset_collar: float = 0.2  # seconds between their offsets, at most ...
    offset_share: float = 0.2  # ... or this share of the true event's length, if that is more
    slack: float = ROUNDING  # seconds by which a comparison may be missed
    silent: float = 0.0  # precision of who detects nothing
    least: float = math.nan  # what an error rate without true events is divided by
    every_class: bool = False  # whether means over classes take in those that have a value but no true event
    to_end: bool = True  # whether a recording is evaluated up to its end, where that is known
    ends_on_frame: bool = False  # whether an event ends where its last frame begins, not where that ends

    def __post_init__(self) -> None:
        least = {"segment_seconds": SHORTEST, "onset_collar": 0.0, "offset_collar": 0.0, "offset_share": 0.0}
        for name, low in least.items():
            value = getattr(self, name)
            if not low <= value < math.inf:
                raise AudiobatError(f"--{name.replace('_', '-')} is {value}: use {low:g} or more.")


SED_EVAL = Convention(
    "sed_eval",
    offset_share=0.5,
    slack=0.0,
    silent=math.nan,
    least=float(np.spacing(1)),
    every_class=True,
    to_end=False,
)
CONVENTIONS = {
    "ours": Convention("ours"),
    "sed_eval": SED_EVAL,
    "hear": replace(SED_EVAL, name="hear", ends_on_frame=True),
}


def find_convention(name: str, **collars: float | None) -> Convention:
    """The convention called `name`, with those of the collars that are not None in place of its own.

    Raises:
        AudiobatError: an unknown name, a collar below 0, a segment of no length.
    """
    if name not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise AudiobatError(f"--convention {name} is unknown{did_you_mean(name, CONVENTIONS)}: use one of {known}.")
    given: dict[str, Any] = {key: value for key, value in collars.items() if value is not None}
    return replace(CONVENTIONS[name], **given)
