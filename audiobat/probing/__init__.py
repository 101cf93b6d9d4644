"""Heads on frozen features, trained side by side in one pass over the audio (Section 4).

In: a model and labelled clips. Out: result records, and the scores beside them.

    feature_store.py  features of many clips, each as long as it is
    feature_files.py  the same on disk: mapped, checksummed, resumed
    encoding.py     clips to frozen features, batch by batch, over all ranks
    cache.py        an encoder's frozen features, computed once and shared by all heads
    columns.py      the mean over frequency in place of the patches of a column
    jobs.py         a config to the heads that it trains
    training.py     many heads on the same batches: trained, then tested
    asr/            a recogniser of speech on the features
    tasks/          what else is measured on the features: retrieval, pairs, ...
    selection.py    learning rate and weight decay chosen on held-out clips
    online.py       the encoder of a run probed while it is pre-trained
    plan.py         a config and clips to what is trained, and that in lines for people
    one_pass.py     features once, then all heads, tasks, seeds and folds on them, to result records
    listening_clips.py  test clips to listen to, of the classes that the best head knows best and worst
    run.py          `audiobat probe`
    analyze/        `audiobat analyze`
"""
