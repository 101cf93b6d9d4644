"""Models from elsewhere as encoders: Hugging Face's (`hf:NAME_OR_FOLDER`) and a user's own (`my_file.py:MyEncoder`).

In: a name, a folder or a Python file. Out: an object that meets the `Encoder` protocol.

custom.py       a user's own class
windows.py      base class of the adapters: clips in windows without padding
published.py    wav2vec 2.0 and its kin, Moonshine, AST, Whisper, CLAP
conformers.py   w2v-BERT, Parakeet, LASR: encoders of log-mel frames of any number
remote.py       Dasheng, BEATs and EAT, whose Python code comes with their weights
huggingface.py  picks the adapter for a model's name or folder
"""

from audiobat.zoo.adapters.custom import load_custom
from audiobat.zoo.adapters.huggingface import load_huggingface
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder, recorded_blocks

__all__ = ["TimeGrid", "WindowedEncoder", "load_custom", "load_huggingface", "recorded_blocks"]
