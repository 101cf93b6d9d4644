"""What one does with a finished model: embed, predict, export.

In: a model and recordings of any length. Out: tables; folders and files to share.

    journal.py      rows on their way to a table; a killed run goes on
    recordings.py   what embed and predict read, and their window
    window_pass.py  one pass over all windows of many files
    embedding_table.py  embeddings to .parquet, .npz, .csv
    embed.py        `audiobat embed`
    predict_rows.py  scores to rows of windows or events
    writers.py      predictions to CSV, JSON lines, Parquet, label tracks, selection tables
    predict.py      `audiobat predict`
    export_facts.py  what a run folder knows of its model
    export_source.py  whatever `export --model` names
    export.py       `audiobat export`
    push.py         `audiobat push`
"""
