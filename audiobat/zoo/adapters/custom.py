"""A user's own encoder: `--model my_file.py:MyEncoder` to an instance of that class, with the parts of the protocol.

The whole of such a file, for a model of one token for each 20 ms:

    import torch
    from audiobat.models.features import LayerFeatures

    class MyEncoder(torch.nn.Module):
        sample_rate, dim, depth = 16_000, 64, 1

        def __init__(self):
            super().__init__()
            self.project = torch.nn.Linear(320, 64)

        def forward_intermediates(self, waveform, lengths=None):  # [B, S], [B]
            frames = waveform.unfold(1, 320, 320)  # [B, T, 320]
            T, steps = frames.shape[1], torch.arange(frames.shape[1], device=waveform.device)
            counts = steps.new_full((len(waveform),), T) if lengths is None else lengths // 320
            valid = steps < counts[:, None].clamp(min=1)  # [B, T], False on padding
            return LayerFeatures(self.project(frames)[None], None, (T, 1), valid, steps * 0.02)

`audiobat doctor --model my_file.py:MyEncoder` checks the features of such a class. An exception inside it becomes one
sentence with the line of the user's file. `forward_layers`, the method's old name, serves too until version 0.2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from audiobat.config.user_files import failure, find_in_file
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder

SIZES = ("sample_rate", "dim", "depth")
METHOD, OLD_METHOD = "forward_intermediates", "forward_layers"


def load_custom(file: str | Path, name: str) -> Encoder:
    """Run the Python file and make its encoder, in eval mode.

    Args:
        file: the Python file.
        name: of a class or function in it, which is called without arguments, or of an object.

    Returns:
        The encoder. Whatever its `forward_intermediates` raises is an AudiobatError with the line of the file.

    Raises:
        AudiobatError: no such file or name; the file or the class raises; the object lacks a part of `Encoder`.
    """
    found = find_in_file(Path(file), name)
    try:
        encoder = found() if callable(found) and not isinstance(found, nn.Module) else found
    except Exception as error:
        raise failure(error, Path(file), f"{name}()") from error
    has_own = hasattr(encoder, "__dict__")  # not with __slots__: then its methods stay as they are
    method = OLD_METHOD if has_own and not hasattr(encoder, METHOD) else METHOD
    missing = [word for word in SIZES if not hasattr(encoder, word)]
    missing += [METHOD] if not hasattr(encoder, method) else []
    if missing:
        raise AudiobatError(
            f"{file}:{name} has no {', '.join(missing)}: see the Encoder protocol in audiobat.models.features."
        )
    for word in SIZES:
        size = getattr(encoder, word)
        if type(size) is not int or size < 1:
            raise AudiobatError(f"{file}:{name}.{word} is {size!r}: set it to a whole number above 0.")
    if isinstance(encoder, nn.Module):
        encoder.eval()
    if has_own:
        vars(encoder)[METHOD] = located(getattr(encoder, method), Path(file))
    checked: Encoder = encoder
    return checked


def located(method: Callable[..., Any], file: Path) -> Callable[..., Any]:
    """`method`, with its exceptions turned into one sentence that names the line of the user's file."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            raise failure(error, file, method.__name__) from error

    return call
