"""Plain implementations of what the sources do, clip by clip and cell by cell; they import nothing of audiobat.

Written from the formulas and constants of the papers and of the projects that the functions name. Weights are
dictionaries of tensors under the names that releases have; whatever is drawn (masks, noise, partners) is given.

    frontends.py    a waveform to BAT's and to EAT's spectrogram
    networks.py     patches, position tables, blocks plain and gated, the two decoders
    masks.py        masks as EAT's data loader draws them
    optimisers.py   AdamW, clipping, schedules, the teacher's moving average
    pretraining.py  targets and losses of BAT, of EAT and of SSLAM's second stage
    losses.py       logits against labels
    finetuning.py   augmentation, encoder, head and loss of a step; the layers' learning rates
    features.py     clips of any length through an encoder
    heads.py        every kind of head on frozen features
"""
