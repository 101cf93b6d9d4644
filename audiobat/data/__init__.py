"""From folders, lists and data sets to batches of clips.

In: a folder, a list, shards, a public data set. Out: a clip table (columns, memory-mapped), and batches of its clips in
an order that is a function of (seed, epoch).

    csv_text.py     rows to CSV that no spreadsheet takes for formulas, and back
    columns.py      columns of a clip table: numbers of any length, text
    clip_table.py   which clips there are, where their bytes are, what is known of each
    build.py        Python lists to a clip table
    remote.py       files behind URLs, through fsspec
    shards.py       what a prepared folder holds, and how it is opened
    sources/        folders, lists, Parquet files, public data sets: each layout to a clip table
    clip.py         one open clip: its length, and any spans of its samples; the lengths of all
    describe.py     `audiobat describe`: what a source holds, and what is odd about it
    split.py        which labelled clips train, validate and test
    folds.py        folds for clips that come without any
    frames.py       events of clips to targets for each frame and class
    sampler.py      which clips make up step n
    stretches.py    long recordings with events as stretches to train on, and as windows to test on
    skipped.py      clips that a run could not read, and why
    loader.py       batches of random crops, and of whole clips in a given order
    embeddings.py   tables of what an encoder made of windows: written, and read again
    windows.py      recordings of any length as windows, in constant memory
    scenes.py       the demo's recordings mixed into labelled scenes
    prepare/        any source to shards, once, for long training
"""
