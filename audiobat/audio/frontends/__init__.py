"""Frontends: waveform to spectrogram (Section 5.1, Table 2). Each file is a kind, named by `frontend.kind`.

base.py         the protocol, normalisation, and mel filters
filter_bank.py  frames to mel power: by an FFT, or by matrix products in a graph for ONNX
"""
