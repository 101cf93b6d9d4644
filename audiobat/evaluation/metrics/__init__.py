"""Scores and labels to metrics, each from how often every clip counts; a bootstrap over clips to their intervals.

Every metric takes `counts`, how often each clip is drawn in a resample: [n], or [R, n] for R resamples at once. None
counts every clip once.

    inputs.py       checks and orders that all metrics share
    decisions.py    F1 at a threshold, the best threshold, accuracy
    events.py       frame scores to events, and their F1
    ranking.py      average precision and AUC
    resampling.py   a metric to its 95% interval, and p values of comparisons
"""

from __future__ import annotations

from audiobat.evaluation.metrics.decisions import accuracy, best_threshold, f1_at, f1_macro
from audiobat.evaluation.metrics.events import Events, event_f1, frames_to_events, match_events
from audiobat.evaluation.metrics.ranking import (
    Ranking,
    average_precision,
    d_prime,
    macro_map_frequent,
    macro_map_present,
    rank_micro,
)
from audiobat.evaluation.metrics.resampling import bootstrap, bootstrap_values, holm, interval_of_difference, wilcoxon

__all__ = [
    "Events",
    "Ranking",
    "accuracy",
    "average_precision",
    "best_threshold",
    "bootstrap",
    "bootstrap_values",
    "d_prime",
    "event_f1",
    "f1_at",
    "f1_macro",
    "frames_to_events",
    "holm",
    "interval_of_difference",
    "macro_map_frequent",
    "macro_map_present",
    "match_events",
    "rank_micro",
    "wilcoxon",
]
