"""From the logits of a head to numbers, tables, figures and pages.

In: scores and labels; result records. Out: metrics with intervals, comparisons, a report.

    metrics/        average precision, AUC, F1, events; bootstrap intervals
    record.py       the result record: one JSON file for each number that is shown
    head_names.py   kinds of heads as tables name them
    confusion.py    scores to the confusion matrix: which class is taken for which
    certainty.py    how sure the intervals of records are, and which classes are rare
    score_file.py   the file of the scores of whole recordings, that `predict --scores` keeps
    labels.py       the labels of clips as targets, for probing and fine-tuning
    scoring.py      logits for test clips to metrics
    unit_scoring.py  what a task measured of queries, pairs or clips to metrics
    compare_records.py  files of records to named systems
    compare_measures.py  what lies beside a record to a metric as a function of how often each clip counts
    compare.py      `audiobat compare`: who is better, and how sure that is
    detections/     events that were predicted beside true ones
    analysis/       features, attention and prototypes to plain numbers
    results.py      test outputs to a result record and its files
    run_logs.py     the logs of training runs, and a table of them
    report/         records to tables, figures and one page
    leaderboard/    a file of results that grows, and the order of the models in it
"""
