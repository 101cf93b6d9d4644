"""An encoder, or an encoder with its head, as a folder that transformers 5 loads with `trust_remote_code=True`.

The folder needs no audiobat: its modeling_audiobat.py is copied from audiobat's own sources, so that no second version
of the model has to be maintained. Weights have the names of `AudioEncoder` and `Tagger`, the encoder's with `encoder.`
in front.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from audiobat import __version__
from audiobat.config import to_dict
from audiobat.engine.files import errors_of_writing, replacing, restore, write_atomic
from audiobat.engine.tensors import check_values, write_tensors
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo.card import Facts, write_card
from audiobat.zoo.export.bundle import bundle
from audiobat.zoo.export.onnx import encoder_of

CODE = "modeling_audiobat"
HEADER = '"""The model of this folder for transformers, copied by audiobat {version} from its sources (MIT licence)."""'


def export_transformers(model: AudioEncoder | Tagger, folder: str | Path, card: str = "") -> None:
    """Write a folder for AutoModel, AutoFeatureExtractor and, of a tagger, AutoModelForAudioClassification.

    Args:
        model: it stays as it is, where it is.
        folder: where; an older folder of this kind is replaced, any other that is not empty is refused.
        card: text of README.md; by default what the model is and how to load it.

    Raises:
        AudiobatError: a folder with other files; an encoder of another class, such as BEATs's; a frontend or head whose
            code cannot be copied; weights that are not finite; a choice among one class, which transformers does not
            know; a disk that is full or not to be written. The folder is as it was then.
    """
    folder = Path(folder)
    restore(folder)
    if folder.exists() and not (folder / f"{CODE}.py").exists() and any(folder.iterdir()):
        raise AudiobatError(f"{folder} holds other files and no model for transformers: give a new folder.")
    config = model_config(model)
    check_values(model.state_dict(), f"The model for {folder}", model.state_dict())
    root = model if isinstance(model, Tagger) else nn.ModuleDict({"encoder": model})
    extractor = {
        "auto_map": {"AutoFeatureExtractor": f"{CODE}.AudiobatFeatureExtractor"},
        "feature_extractor_type": "AudiobatFeatureExtractor",
        "feature_size": 1,
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": model.sample_rate,
    }
    card = card or write_card(folder.name, model, Facts(), "transformers")
    files = {f"{CODE}.py": source_of(model), "README.md": card}
    for name, fields in (("config.json", config), ("preprocessor_config.json", extractor)):
        files[name] = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    with errors_of_writing(folder), replacing(folder) as beside:
        beside.mkdir()
        for name, text in files.items():
            write_atomic(beside / name, text)
        write_tensors(beside / "model.safetensors", root)


def source_of(model: AudioEncoder | Tagger) -> str:
    """The text of the Python file: the classes for transformers, and the model's own frontend and head."""
    encoder = encoder_of(model)
    kinds: dict[tuple[str, str], type] = {("frontend", encoder.config.frontend.kind): type(encoder.frontend)}
    if isinstance(model, Tagger):
        kinds["head", model.config.head.kind] = type(model.head)
    return HEADER.format(version=__version__) + "\n\n" + bundle("zoo.export.remote_code", kinds)


def model_config(model: AudioEncoder | Tagger) -> dict[str, Any]:
    """The fields of config.json."""
    encoder = encoder_of(model)
    classes = {"AutoConfig": "AudiobatConfig", "AutoModel": "AudiobatModel"}
    fields: dict[str, Any] = {}
    if isinstance(model, Tagger):
        if len(model.classes) == 1 and not model.multi_label:
            raise AudiobatError(
                f"Its head chooses among one class, {model.classes[0]}, which transformers does not know: fine-tune it "
                "with a second class, or with several labels a clip."
            )
        classes["AutoModelForAudioClassification"] = "AudiobatForAudioClassification"
        fields = {
            "head": to_dict(model.config.head),
            "task": model.task,
            "problem_type": f"{'multi' if model.multi_label else 'single'}_label_classification",
            "id2label": {str(i): name for i, name in enumerate(model.classes)},
            "label2id": {name: i for i, name in enumerate(model.classes)},
        }
        if model.config.thresholds:
            fields["thresholds"] = list(model.config.thresholds)
    return {
        "architectures": [list(classes.values())[-1]],
        "auto_map": {auto: f"{CODE}.{name}" for auto, name in classes.items()},
        "model_type": "audiobat",
        "dtype": str(next(encoder.parameters()).dtype).removeprefix("torch."),
        **to_dict(encoder.config),
        **fields,
    }
