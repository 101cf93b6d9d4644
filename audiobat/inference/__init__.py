"""Using a finished model: embed and label recordings of any length; write the model to share or to run elsewhere.

In: a model and recordings. Out: tables; folders and files to share.

    journal.py         what a pass has made so far; a run that was killed goes on from there
    tally.py           how far a pass has come over all ranks, and which clips cannot be read
    window_pass.py     one pass over all windows of many recordings, which tasks compute on
    embed.py           `audiobat embed`: embeddings to .parquet, .npz, .csv
    classify.py        `audiobat.classify`: the labels of one recording
    scores.py          the file of all scores of a run
    events.py          scores to labels of windows, and to events
    thresholds.py      the score above which each class is found
    settings.py        the arguments of predict that make rows of scores
    scoring.py         the task of predict: scores of windows or frames
    writers.py         predictions to CSV, JSON lines, Parquet, label tracks, selection tables
    library/           what stands near what among embedded sounds: `audiobat search`
    review.py          which windows are worth a person's ear, as clips to hear
    predict.py         `audiobat predict`
    kept_scores.py     the file of scores as predictions of evaluate
    evaluate.py        `audiobat evaluate`: predictions beside truth
    export_source.py   whatever `export --model` names, to a model and what the files of its run tell of it
    export.py          `audiobat export`
    push.py            `audiobat.push`: to the Hugging Face Hub
"""
