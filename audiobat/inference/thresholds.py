"""The score above which each class is found: from `--threshold`, or from the model.

In: a number, a file or a mapping of classes to numbers, or nothing. Out: an array [C].
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from audiobat.config.checks import shortened
from audiobat.data.csv_text import unescape
from audiobat.engine.files import read_json
from audiobat.errors import AudiobatError, did_you_mean

FIELD = "thresholds"  # of a JSON file that has other fields, too

Threshold: TypeAlias = float | str | Path | Mapping[str, float]


def pick_thresholds(
    given: Threshold | None,
    classes: Sequence[str],
    own: Sequence[float],
    argument: str = "threshold",
    of_model: bool = True,
) -> NDArray[np.float64]:
    """Thresholds [C]: the number or those of the file or mapping that is given; other classes keep their `own` [C].

    `argument` is the name under which it is given. `of_model`: the classes are all that a model has; False: those that
    a table of predictions happens to have, which may lack some that are named, but not all.

    Raises:
        AudiobatError: no number from 0 to 1, an unknown class, a file that cannot be read.
    """
    found = np.array(own, np.float64)
    if given is None:
        return found
    number = number_of(given)
    if number is not None:
        return np.full(len(classes), checked(number, argument))
    if isinstance(given, Mapping):
        named, where = dict(given), argument
    else:
        named, where = read_thresholds(str(given), argument), str(given)
    places = {name: place for place, name in enumerate(classes)}
    unknown = [name for name in named if name not in places]
    if unknown and (of_model or len(unknown) == len(named)):
        what = (
            "no class of the model" if of_model else "no label of the predictions, and neither is any other name there"
        )
        raise AudiobatError(f"{where} names {unknown[0]!r}, which is {what}{did_you_mean(unknown[0], classes)}.")
    for name, value in named.items():
        number = checked(value, f"{where}: {name!r}")
        if name in places:
            found[places[name]] = number
    return found


def number_of(given: object) -> float | None:
    """What is given as a number, or as the text of one; None if it is none."""
    if isinstance(given, Mapping | Path):
        return None
    try:
        return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def checked(value: Any, where: str) -> float:
    """The value as a number; AudiobatError unless it is one from 0 to 1."""
    number = None if isinstance(value, bool) else number_of(value)
    if number is None or math.isnan(number) or not 0 <= number <= 1:
        raise AudiobatError(f"{where} is {shortened(repr(value))}: use 0 to 1.")
    return number


def read_thresholds(path: str | Path, argument: str) -> dict[str, Any]:
    """Classes to thresholds: a JSON object, or its field `thresholds`; or a CSV with columns label and threshold.

    Raises:
        AudiobatError: no such file; neither form.
    """
    path = Path(path)
    forms = "a number, or a .json or .csv file of a threshold for each class"
    if path.suffix.lower() not in (".json", ".csv"):
        raise AudiobatError(f"--{argument} {path}: give {forms}.")
    if not path.is_file():
        raise AudiobatError(f"--{argument} {path}: no such file; give {forms}.")
    if path.suffix.lower() == ".json":
        fields = read_json(path)
        named = fields.get(FIELD, fields)
        if not isinstance(named, Mapping):
            raise AudiobatError(f"{path}: its {FIELD} are no object of classes and numbers.")
        return dict(named)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AudiobatError(f"{path} cannot be read as CSV ({error}).") from None
    if not rows or not {"label", "threshold"} <= rows[0].keys():
        raise AudiobatError(f"{path} has no columns label and threshold.")
    return {unescape(row["label"] or ""): row["threshold"] for row in rows}
