"""Scores and labels to metrics, each from how often every clip counts; resamples and halves of clips to intervals.

Every metric takes `counts`, how often each clip is drawn in a resample: [n], or [R, n] for R resamples at once. None
counts every clip once.

    inputs.py       checks and orders that all metrics share
    decisions.py    F1 at a threshold, the best threshold, accuracy
    thresholds.py   a threshold for each class
    events.py       frame scores to events, and their F1
    pairs.py        similarities of pairs
    clusters.py     clusters beside classes
    repeated.py     any function of two columns
    retrieval.py    lists of found clips
    ranking.py      average precision and AUC
    resampling.py   a metric in resamples and on halves of the clips, and p values of comparisons
    intervals.py    a metric's 95% interval
    student.py      Student's t: intervals over seeds, and the seeds that a difference needs
    words.py        recognised texts beside true ones: word and character errors
    ranks.py        ranks of systems over many data sets: Friedman's test, Nemenyi's critical difference
"""

from __future__ import annotations

from audiobat.evaluation.metrics.clusters import v_measure
from audiobat.evaluation.metrics.decisions import accuracy, best_threshold, f1_at, f1_macro
from audiobat.evaluation.metrics.events import Events, event_f1, frames_to_events, match_events
from audiobat.evaluation.metrics.intervals import clips_behind, half_sample_interval, symmetric_interval, wilson
from audiobat.evaluation.metrics.pairs import best_accuracy, best_f1
from audiobat.evaluation.metrics.ranking import (
    Ranking,
    average_precision,
    d_prime,
    macro_map_frequent,
    macro_map_present,
    rank_micro,
)
from audiobat.evaluation.metrics.ranks import Friedman, critical_difference, friedman, groups_alike, ranks_of
from audiobat.evaluation.metrics.repeated import by_repeating
from audiobat.evaluation.metrics.resampling import (
    bootstrap_values,
    half_sample_values,
    holm,
    interval_of_difference,
    wilcoxon,
)
from audiobat.evaluation.metrics.retrieval import hit_rate, mean_precision, ndcg, recall_at
from audiobat.evaluation.metrics.student import difference_found, mean_interval, pairs_needed, t_quantile
from audiobat.evaluation.metrics.thresholds import best_thresholds, middle_of_best, thresholds_by_rate

__all__ = [
    "Events",
    "Friedman",
    "Ranking",
    "accuracy",
    "average_precision",
    "best_accuracy",
    "best_f1",
    "best_threshold",
    "best_thresholds",
    "bootstrap_values",
    "by_repeating",
    "clips_behind",
    "critical_difference",
    "d_prime",
    "difference_found",
    "event_f1",
    "f1_at",
    "f1_macro",
    "frames_to_events",
    "friedman",
    "groups_alike",
    "half_sample_interval",
    "half_sample_values",
    "hit_rate",
    "holm",
    "interval_of_difference",
    "macro_map_frequent",
    "macro_map_present",
    "match_events",
    "mean_interval",
    "mean_precision",
    "middle_of_best",
    "ndcg",
    "pairs_needed",
    "rank_micro",
    "ranks_of",
    "recall_at",
    "symmetric_interval",
    "t_quantile",
    "thresholds_by_rate",
    "v_measure",
    "wilcoxon",
    "wilson",
]
