"""Write detections.json: random events, and what sed_eval 0.2.1 measures on them.

    python -m venv /tmp/sed && /tmp/sed/bin/pip install sed_eval==0.2.1
    /tmp/sed/bin/python tests/golden/make_detection_goldens.py

Times lie on grids of 0.1 and 0.05 s, so that many are a collar apart to the last bit or nearly so. HEAR's event scores
are sed_eval's, by onset alone.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import dcase_util
import sed_eval

LABELS = ["bell", "dog", "rain"]
FILES = ["a.wav", "b.wav"]


def some_events(rng: random.Random, count: int, grid: float, labels: list[str]) -> list[list[Any]]:
    """Events [file, label, onset, offset] on a grid."""
    found = []
    for _ in range(count):
        onset = round(rng.randrange(0, int(12 / grid)) * grid, 6)
        found.append([rng.choice(FILES), rng.choice(labels), onset, round(onset + rng.randrange(1, 40) * grid, 6)])
    return found


def moved(rng: random.Random, events: list[list[Any]], grid: float) -> list[list[Any]]:
    """Detections near events, some of another label, some left out."""
    found = []
    for file, label, onset, offset in events:
        if rng.random() < 0.2:
            continue
        onset = max(0.0, round(onset + rng.randrange(-3, 4) * grid, 6))
        offset = max(round(onset + grid, 6), round(offset + rng.randrange(-3, 4) * grid, 6))
        found.append([file, rng.choice(LABELS) if rng.random() < 0.2 else label, onset, offset])
    return found


def container(events: list[list[Any]], file: str) -> Any:
    names = ("file", "event_label", "onset", "offset")
    rows = [dict(zip(names, event, strict=True)) for event in events if event[0] == file]
    return dcase_util.containers.MetaDataContainer(rows)


def measured(truth: list[list[Any]], found: list[list[Any]]) -> dict[str, Any]:
    """sed_eval's results by level."""
    measures = {
        "segment_1": sed_eval.sound_event.SegmentBasedMetrics(LABELS, time_resolution=1.0),
        "segment_0.1": sed_eval.sound_event.SegmentBasedMetrics(LABELS, time_resolution=0.1),
        "onset_0.2": sed_eval.sound_event.EventBasedMetrics(LABELS, evaluate_offset=False, t_collar=0.2),
        "onset_0.05": sed_eval.sound_event.EventBasedMetrics(LABELS, evaluate_offset=False, t_collar=0.05),
        "event_0.2_0.5": sed_eval.sound_event.EventBasedMetrics(LABELS),
        "event_0.25_0.2": sed_eval.sound_event.EventBasedMetrics(LABELS, t_collar=0.25, percentage_of_length=0.2),
    }
    results = {}
    for name, measure in measures.items():
        for file in FILES:
            measure.evaluate(container(truth, file), container(found, file))
        overall = measure.results_overall_metrics()
        average = measure.results_class_wise_average_metrics()
        classes = measure.results_class_wise_metrics()
        results[name] = {
            "micro": overall["f_measure"],
            "error_rate": overall["error_rate"]["error_rate"],
            "macro": average["f_measure"],
            "classes": {label: classes[label]["f_measure"] for label in LABELS},
        }
    return results


def plain(value: Any) -> Any:
    """NaN as the text `nan`, which JSON can hold."""
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def main() -> None:
    cases = []
    for seed in range(40):
        rng = random.Random(seed)
        grid = rng.choice([0.1, 0.05])
        truth = some_events(rng, rng.randrange(1, 12), grid, LABELS)
        found = moved(rng, truth, grid) + some_events(rng, rng.randrange(0, 4), grid, LABELS)
        if seed == 0:
            found = []
        cases.append({"truth": truth, "found": found, "sed_eval": plain(measured(truth, found))})
    path = Path(__file__).with_name("detections.json")
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
