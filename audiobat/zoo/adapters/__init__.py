"""Models from elsewhere as encoders: Hugging Face's (`hf:NAME_OR_FOLDER`), a user's own, files for other programs.

In: a name, a folder or a Python file. Out: an object that meets the `Encoder` protocol.

custom.py       a user's own class
windows.py      base class of the adapters: clips in windows without padding
published.py    wav2vec 2.0 and its kin, Moonshine, AST, Whisper, CLAP
conformers.py   w2v-BERT, Parakeet, LASR: encoders of log-mel frames of any number
towers.py       audio towers of Qwen2-Audio, Voxtral, the Flamingos and PE-AV, loaded without the rest
remote.py       Dasheng, BEATs and EAT, whose Python code comes with their weights
huggingface.py  picks the adapter for a model's name or folder
torchaudio_bundles.py  wav2vec 2.0, HuBERT and WavLM as torchaudio publishes them
runtimes.py     files that another program runs: ONNX, TFLite, TorchScript
files.py        such a file as an encoder
avex_models.py  models of the package avex, in the same way
"""

from audiobat.zoo.adapters.avex_models import load_avex
from audiobat.zoo.adapters.custom import load_custom
from audiobat.zoo.adapters.files import FileEncoder, is_program, load_file
from audiobat.zoo.adapters.huggingface import load_huggingface
from audiobat.zoo.adapters.torchaudio_bundles import load_torchaudio
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder, recorded_blocks

__all__ = [
    "FileEncoder",
    "TimeGrid",
    "WindowedEncoder",
    "is_program",
    "load_avex",
    "load_custom",
    "load_file",
    "load_huggingface",
    "load_torchaudio",
    "recorded_blocks",
]
