"""The package beside the plain implementations: each file runs both on one input and gives rows of the table.

In reading order:

    base.py         a row, and how differences are measured
    material.py     sounds and random weights
    inputs.py       spectrograms
    features.py     clips of any length through an encoder
    masks.py        statistics of masks
    pretraining.py  steps of pre-training, from waveforms to weights
    probing.py      training of every kind of head
    draws.py        statistics of what augmentation draws
    finetuning.py   steps of fine-tuning, with their augmentation
"""
