"""Weights of other projects to encoders: a file or a Hugging Face folder is read, and nothing in it is run.

pickles.py      a pickle's bytes to plain values; nothing in it is run
reading.py      a checkpoint file to plain values and tensors
weights.py      a checkpoint's tree to student and teacher
eat.py          EAT and SSLAM
bat.py          BAT's release
audio_mae.py    Audio-MAE
beats_encoder.py  BEATs' network
beats.py        BEATs
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from audiobat.engine.files import read_json
from audiobat.errors import AudiobatError
from audiobat.models.encoder import BaseEncoder
from audiobat.zoo import release as release_io
from audiobat.zoo.convert import audio_mae, bat, beats, eat
from audiobat.zoo.convert.reading import read, survey_file
from audiobat.zoo.convert.weights import Converted, Weights, split, with_config

__all__ = ["TEACHER", "Converted", "convert_file", "convert_pair", "is_foreign", "layout_of", "read", "survey_file"]

LAYOUTS: tuple[ModuleType, ...] = (eat, bat, audio_mae, beats)
WEIGHTS = "model.safetensors"
TEACHER = release_io.TEACHER


def is_foreign(source: str | Path) -> bool:
    """Whether `convert_file` takes `source`: a file, or a Hugging Face folder with weights of a known project."""
    path = Path(str(source).removesuffix(TEACHER))
    return path.is_file() or hugging_face(path)


def hugging_face(folder: Path) -> bool:
    """Whether a folder holds another project's weights in the layout of Hugging Face, which `release` does not read.

    An unknown model_type decides nothing, as makers may write there what they like: then the names of tensors decide.
    """
    file, weights = folder / "config.json", folder / WEIGHTS
    if not file.is_file():
        return False
    config = read_json(file)
    kind = config.get("model_type")
    if kind in ("audiobat", *release_io.READERS) or "format" in config:  # all of our releases have a format
        return False
    if kind in ("eat", "sslam"):
        return True
    names = survey_file(weights).tree if weights.is_file() else ()
    return any(layout.matches(names) for layout in LAYOUTS)


def convert_file(source: str | Path) -> Converted:
    """Make an encoder, and a head if there is one, of a checkpoint file or a Hugging Face folder.

    Args:
        source: the file or folder; with `:teacher` behind it, the EMA copy that some files hold beside the student.

    Raises:
        AudiobatError: nothing there; a file that is damaged, made to do harm or of no known kind; a tensor too many or
            too few.
    """
    return convert_one(read_weights(source), teacher=str(source).endswith(TEACHER))


def convert_pair(source: str | Path) -> tuple[Converted, BaseEncoder | None]:
    """As `convert_file`, and also the teacher where the file holds one: all that a training goes on with."""
    weights = read_weights(source)
    teacher = None if weights.teacher is None else convert_one(weights, teacher=True).encoder
    return convert_one(weights, teacher=str(source).endswith(TEACHER)), teacher


def read_weights(source: str | Path) -> Weights:
    """The tensors of a file or a Hugging Face folder."""
    path = Path(str(source).removesuffix(TEACHER))
    file = path / WEIGHTS if path.is_dir() else path
    return with_config(split(file, read(file)))


def convert_one(weights: Weights, teacher: bool) -> Converted:
    """The student of a file's tensors, or its teacher."""
    try:
        converted: Converted = layout_of(weights).convert(weights, teacher)
    except AudiobatError as error:
        file = weights.path
        raise AudiobatError(str(error) if str(file) in str(error) else f"{file}: {error}") from None
    return replace(converted, left=(*converted.left, *weights.unchosen(teacher)))


def layout_of(weights: Weights) -> ModuleType:
    """The converter whose layout has these tensors, or their `TensorInfo`."""
    for layout in LAYOUTS:
        if layout.matches(weights.student):
            return layout
    shown = ", ".join(list(weights.student)[:4])
    raise AudiobatError(
        f"{weights.path} holds {len(weights.student)} tensors of no model that is known here ({shown}, ...): known are "
        f"{', '.join(layout.LAYOUT for layout in LAYOUTS)}."
    )
