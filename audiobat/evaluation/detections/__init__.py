"""Detections against truth: events of the same recordings to hits, misses and false alarms, and numbers of them.

In: two tables of annotations (`data.sources.read.read_annotations`), or scores of a model in place of one. Out:
precision, recall, F1 and error rate of clips, segments and events with intervals, curves over thresholds, a confusion
matrix, and the list of errors.

    conventions.py  collars and rules at the ends, by the name of who counts so: ours, sed_eval, hear
    event_list.py   events of many recordings as flat arrays; pairs of events that are near or overlap
    align.py        two tables to the same recordings and classes
    units.py        what intervals resample
    matching.py     one-to-one hits within collars
    levels.py       counts of clips, segments and events
    measures.py     counts to ratios with intervals
    curves.py       scores to average precision and to curves over thresholds
    decode.py       scores of a recording to events, and to the highest score in a stretch of time
    sweep.py        kept scores to what every level has at every threshold
    confusion.py    which label is taken for which; the worst errors
    result.py       `evaluation.json` and the tables beside it
    run.py          aligned events to every number
    show.py         the tables in a terminal
"""
