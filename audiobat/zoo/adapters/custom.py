"""A user's own encoder: `--model my_file.py:MyEncoder` to an instance of that class, checked for what all rely on.

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

`audiobat doctor --model my_file.py:MyEncoder` says whether it keeps the rules. What it raises names its line.
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
NEEDED = (*SIZES, "forward_intermediates")  # the Encoder protocol


def load_custom(file: str | Path, name: str) -> Encoder:
    """Run the Python file and make an encoder: `name` is a class or function without arguments, or an object.

    A module is put in eval mode. Whatever its `forward_intermediates` raises later is an AudiobatError with the line.

    Raises:
        AudiobatError: no such file or name, the file or class fails, or the object lacks part of `Encoder`.
    """
    found = find_in_file(Path(file), name)
    try:
        encoder = found() if callable(found) and not isinstance(found, nn.Module) else found
    except Exception as error:
        raise failure(error, Path(file), f"{name}()") from error
    missing = [word for word in NEEDED if not hasattr(encoder, word)]
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
    if hasattr(encoder, "__dict__"):
        vars(encoder)["forward_intermediates"] = located(encoder.forward_intermediates, Path(file))
    made: Encoder = encoder
    return made


def located(method: Callable[..., Any], file: Path) -> Callable[..., Any]:
    """`method`, but what it raises is one sentence with the line of the user's file."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            raise failure(error, file, "forward_intermediates") from error

    return call
