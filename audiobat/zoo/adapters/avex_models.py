"""`avex:esp_aves2_sl_beats_bio`: models of the Earth Species Project's package avex, and its YAML files with weights.

In: a name that avex knows, or a YAML file of its form; behind it, `:LAYER,LAYER` as avex names them, or `:all`. Out: an
encoder of what the model gives as features, or of what these layers give, with times that are measured as a file's are.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from audiobat.errors import AudiobatError, reason_of
from audiobat.zoo.adapters.files import FileEncoder
from audiobat.zoo.adapters.runtimes import Runtime

FEATURES = "features"  # what the model gives where no layer is named


def load_avex(source: str) -> FileEncoder:
    """The model `NAME` or `NAME:LAYERS`, on the CPU, in eval mode.

    Raises:
        AudiobatError: avex is missing or cannot be loaded; no such model or layer; weights that cannot be had; a model
            that does not say its sample rate.
    """
    name, _, layers = source.partition(":")
    try:
        avex = importlib.import_module("avex")
    except ModuleNotFoundError as error:
        raise AudiobatError(f'"avex:{name}" needs {error.name}: pip install avex.') from None
    except Exception as error:  # OSError: of torchaudio, which avex imports, built for another PyTorch
        raise AudiobatError(
            f"avex is installed and cannot be loaded ({reason_of(error)}): torchaudio and torchvision must be the ones "
            "of your PyTorch, from the index that it came from."
        ) from error
    if not name.endswith((".yml", ".yaml")) and avex.get_model_spec(name) is None:
        raise AudiobatError(f"avex has no model {name}: avex.list_models() prints which there are.")
    try:
        model = avex.load_model(name, device="cpu", return_features_only=True)
    except Exception as error:  # of the network, of avex's settings, of the weights
        raise AudiobatError(f"avex cannot load {name} ({reason_of(error)}).") from error
    rate = getattr(getattr(model, "audio_processor", None), "sr", None)
    if not rate:
        raise AudiobatError(f"avex's {name} has no sample_rate in its audio_config: give it one in its YAML file.")
    return FileEncoder(AvexModel(f"avex:{name}", model, layers.split(",") if layers else []), int(rate)).eval()


class AvexModel(Runtime):
    """A model of avex as the files of `runtimes.py` are: waveforms to the tensors that are named."""

    def __init__(self, place: str, model: Any, layers: Sequence[str]) -> None:
        super().__init__(place, layers)
        self.model = model.eval()
        self.hooked = bool(layers)
        if self.hooked:
            try:
                self.names = list(model.register_hooks_for_layers(list(layers)))
            except ValueError as error:
                listed = ", ".join(model.get_model_layers())
                raise AudiobatError(f"{place}: {str(error).rstrip('.')}: it has {listed}.") from None
        else:
            self.names = [FEATURES]

    def run(self, waveform: Tensor) -> list[Tensor]:
        """Waveform [W, S] to the features, or to the output of each layer that was named."""
        try:
            found = self.model.extract_embeddings(waveform) if self.hooked else self.model(waveform)
        except Exception as error:
            raise self.failed(f"avex fails on a waveform {list(waveform.shape)}", error) from error
        return list(found) if isinstance(found, list | tuple) else [found]
