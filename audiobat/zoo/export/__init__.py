"""An encoder, or one with its head, for those who run it without audiobat.

bundle.py       a module of audiobat as one file of source
remote_code.py  the classes that transformers loads
onnx.py         one ONNX file, the spectrogram inside
transformers.py  a folder for `trust_remote_code=True`
"""
