"""Masked latent regression (Sections 3 and 5): from a batch of waveforms to a loss, and from clips to a run folder.

Read `objective.py` first: one step of the method on a page.

    masking.py      inverse-block masks for M clones
    mixing.py       partial mixtures of a batch (SSLAM)
    decoders/       visible tokens to predictions at the masked cells (Section 5.3, Table 4)
    targets.py      the EMA teacher, or the spectrogram itself (Table 3)
    objective.py    a batch to the loss of Eq. 5 and its parts
    cost.py         what a run will cost
    run.py          `audiobat pretrain`
"""
