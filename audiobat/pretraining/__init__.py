"""Pre-training: from a batch of waveforms to a loss, and from clips to a run folder (Sections 3 and 5).

Read `objectives/masked_latent_regression.py` first: its `forward` is the method. Masks, decoders, targets and
objectives are seams: each file of their folders is a kind that a config names; docs/variants.md says how to add one.

    cost.py         what a training step computes
    lengths.py      clips of different lengths, with little padding
    masks/          which patches of a clone the encoder sees
    mixing.py       partial mixtures of a batch (SSLAM)
    decoders/       visible tokens to predictions at the masked cells (Section 5.3, Table 4)
    targets/        what is predicted: an EMA teacher's features, or the spectrogram itself (Table 3)
    objectives/     a batch to the loss of Eq. 5 and its parts
    begin.py        the weights that a run begins with in place of random ones
    first_step.py   what the parts of an objective return, checked once
    plan.py         what a run will cost
    parts.py        a run's objective made ready (and compiled), its optimizer, its batches
    calibrate.py    what a run takes on this machine, from its first steps
    run.py          `audiobat pretrain`
"""
