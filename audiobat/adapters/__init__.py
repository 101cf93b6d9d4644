"""Models from elsewhere as encoders: Hugging Face's (`hf:NAME_OR_FOLDER`) and a user's own (`my_file.py:MyEncoder`)."""

from audiobat.adapters.custom import load_custom
from audiobat.adapters.huggingface import load_huggingface
from audiobat.adapters.windows import TimeGrid, WindowedEncoder

__all__ = ["TimeGrid", "WindowedEncoder", "load_custom", "load_huggingface"]
