"""The package beside the plain implementations: each file runs both on one input and gives rows of the table.

base.py         a row, and how differences are measured
pretraining.py  steps of pre-training, from waveforms to weights
inputs.py       spectrograms
masks.py        statistics of masks
finetuning.py   steps of fine-tuning, with their augmentation
probing.py      training of every kind of head
"""
