"""Models from elsewhere as encoders: Hugging Face's (`hf:NAME_OR_FOLDER`) and a user's own (`my_file.py:MyEncoder`).

custom.py       a user's own class
windows.py      what foreign models share: clips in windows of one length
spectrogram.py  AST, Whisper, CLAP
waveform.py     wav2vec 2.0, HuBERT, WavLM
remote.py       models whose code comes with their weights
huggingface.py  a name or folder to one of these
"""

from audiobat.zoo.adapters.custom import load_custom
from audiobat.zoo.adapters.huggingface import load_huggingface
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder

__all__ = ["TimeGrid", "WindowedEncoder", "load_custom", "load_huggingface"]
