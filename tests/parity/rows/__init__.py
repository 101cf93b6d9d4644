"""The package beside the plain implementations: each file runs both on one input and gives rows of the table.

base.py         a row, and how differences are measured
inputs.py       spectrograms, and the statistics of masks
pretraining.py  steps of pre-training, from waveforms to weights
"""
