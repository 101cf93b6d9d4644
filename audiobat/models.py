"""Whatever `--model` may name to an encoder: our own weights, others' files, a Hugging Face model, a user's class."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from audiobat import hub
from audiobat.adapters import load_custom, load_huggingface
from audiobat.convert import convert_file, is_foreign
from audiobat.errors import AudiobatError
from audiobat.features import Encoder
from audiobat.train.dist import pick_device

HUGGING_FACE = "hf:"


def load_encoder(source: str | Path, device: str = "cpu", trust_remote_code: bool = False) -> Encoder:
    """Load an encoder, in eval mode on `device`.

    Args:
        source: what `audiobat.load` takes (shipped weights, a release or run folder); a checkpoint file of BAT, EAT,
            SSLAM, Audio-MAE or BEATs, or a folder of EAT's or SSLAM's from Hugging Face, with `:teacher` behind it for
            the EMA copy that some hold; `hf:NAME_OR_FOLDER`; or `my_file.py:MyEncoder`.
        device: `cpu`, `cuda`, `cuda:1` or `auto`; an encoder that is no torch module stays where it is.
        trust_remote_code: let a Hugging Face model run the Python files that come with it.

    Raises:
        AudiobatError: nothing there, or nothing that can be used.
    """
    file, _, name = str(source).rpartition(":")
    if str(source).startswith(HUGGING_FACE):
        encoder: Encoder = load_huggingface(str(source).removeprefix(HUGGING_FACE), trust_remote_code)
    elif file.endswith(".py"):
        encoder = load_custom(file, name)
    elif str(source).endswith(".py"):
        raise AudiobatError(f"{source} names a file of Python but no class in it: give --model {source}:CLASS.")
    elif is_foreign(source):
        encoder = convert_file(source).encoder
    else:
        return hub.load(source, device)
    if isinstance(encoder, nn.Module):
        encoder.to(pick_device(device))
    return encoder
