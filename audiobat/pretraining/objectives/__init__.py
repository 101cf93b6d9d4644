"""Objectives: a batch of waveforms to a loss. Each file is a kind, named by `objective.kind`.

base.py         the protocol: loss, what moves after a step, what a release keeps, what collapse means, what it costs
statistics.py   what shows a collapse
"""
