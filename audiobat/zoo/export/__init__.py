"""An encoder, or an encoder with its head, for programs that do not have audiobat.

In: a model. Out: an ONNX file, or a folder for transformers.

kinds.py        the registry of an exported file
bundle.py       a module of audiobat, and all that it uses, as one file of source
remote_code.py  the classes that transformers loads
onnx.py         one ONNX file, the spectrogram inside
transformers.py  a folder for `trust_remote_code=True`
"""
