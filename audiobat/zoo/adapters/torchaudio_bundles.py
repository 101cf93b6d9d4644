"""`torchaudio:WAV2VEC2_BASE` and its kin: the models that torchaudio publishes in `torchaudio.pipelines`.

In: the name of a bundle of the wav2vec 2.0 family: HuBERT, WavLM, XLSR, VoxPopuli, with a head for letters or without.
Out: an encoder of its blocks. torchaudio downloads the weights, or finds them in `torch.hub.get_dir()/checkpoints`.
"""

from __future__ import annotations

import importlib
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.errors import AudiobatError, did_you_mean, reason_of
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder

WINDOW_SECONDS = 30  # our choice, as for the models of transformers


def load_torchaudio(name: str) -> TorchaudioEncoder:
    """The model of the bundle `name`, in float32, on the CPU, in eval mode.

    Raises:
        AudiobatError: a torchaudio that is missing or cannot be loaded; no such bundle; weights that are neither here
            nor to be had.
    """
    try:
        pipelines = importlib.import_module("torchaudio.pipelines")
    except ModuleNotFoundError:
        raise AudiobatError(f'"torchaudio:{name}" needs torchaudio: install the one of your PyTorch.') from None
    except Exception as error:  # OSError where its libraries were built for another PyTorch
        raise AudiobatError(
            f"torchaudio is installed and cannot be loaded ({reason_of(error)}): install the one that was built for "
            f"PyTorch {torch.__version__}, from the index that PyTorch came from."
        ) from error
    bundles = [one for one in dir(pipelines) if isinstance(getattr(pipelines, one), pipelines.Wav2Vec2Bundle)]
    if name not in bundles:
        raise AudiobatError(
            f"torchaudio has no bundle {name}{did_you_mean(name, bundles)}: it has {', '.join(bundles)}."
        )
    try:
        bundle = getattr(pipelines, name)
        model = bundle.get_model()
    except Exception as error:  # of the network, or of a file that is no such model
        raise AudiobatError(
            f"The weights of torchaudio's {name} cannot be had ({reason_of(error)}): check the network, or put the "
            f"file into {torch.hub.get_dir()}/checkpoints."
        ) from error
    return TorchaudioEncoder(model, int(bundle.sample_rate)).eval()


class TorchaudioEncoder(WindowedEncoder):
    """A model of the wav2vec 2.0 family as torchaudio builds it."""

    def __init__(self, model: Any, rate: int) -> None:
        super().__init__()
        self.sample_rate = rate
        # The models of XLSR and the larger ones are wrapped in a module that normalises: not clip by clip, but all
        # clips of a batch together. So it is done here.
        self.normalise = bool(getattr(model, "normalize_waveform", False))
        self.model = getattr(model, "model", model)
        convs = list(self.model.feature_extractor.conv_layers)
        kernels, strides = ([int(getattr(conv, part)) for conv in convs] for part in ("kernel_size", "stride"))
        steps = accumulate(strides[:-1], mul, initial=1)  # samples between two inputs of each convolution
        self.grid = TimeGrid(
            window=WINDOW_SECONDS * rate,
            hop=prod(strides),
            span=1 + sum((kernel - 1) * step for kernel, step in zip(kernels, steps, strict=True)),
        )
        with torch.no_grad():
            states, _ = self.run(torch.zeros(1, self.grid.span))
        self.depth, self.dim = len(states), states.shape[-1]

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to block outputs [L, W, T, D]; a window shorter than a single token is filled with zeros."""
        x = F.layer_norm(waveform, waveform.shape[1:]) if self.normalise else waveform
        x = F.pad(x, (0, max(0, self.grid.span - x.shape[1])))
        states, _ = self.model.extract_features(x)
        return torch.stack(states), None
