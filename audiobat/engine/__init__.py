"""The engine: steps, ranks, checkpoints and files. It knows nothing of audio.

In: a module that returns its loss, an optimiser, batches. Out: trained weights, a run folder that resumes bit for bit.

    environment.py  versions, machine and commit that a run depends on
    memory.py       what a run takes of memory, and what the machine has
    power.py        watts that a device draws
    signals.py      signals that ask work to stop
    rank_watch.py   whether all ranks are alive, and the end of all when one is not
    ranks.py        which process of how many this is, its device and precision
    randomness.py   random numbers of a step, the same for a row of the batch on any number of ranks
    linear.py       a linear layer by the fastest matrix product
    chunks.py       a sum of losses over chunks of a batch, and its gradient, in the memory of one chunk
    row_layers.py   dropout and batch norm over the rows of all ranks
    optim.py        AdamW over named parameters; warm-up and cosine
    progress.py     phase, rate and time left, on a terminal or in a log
    sharding.py     a model divided over the ranks, and its files
    files.py        files and folders written beside their place and renamed; JSON read
    logs/           metrics.jsonl, log.txt, and sinks such as TensorBoard
    checkpoint.py   what resuming needs, written so that a kill at any instant loses no older one
    loop.py         the step loop
    tensors.py      files of named tensors; digests
    run_folder.py   one folder a run: held by one process, kept to one config
"""
