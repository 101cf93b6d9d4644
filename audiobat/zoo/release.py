"""Releases: folders of config.json, model.safetensors, README.md, and head.safetensors where there is a head.

In: a release folder, a run folder or the name of shipped weights. Out: an encoder, or a Tagger (encoder with head).
And back: a model is written as a release folder, whole or not at all.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from audiobat.config import ModelConfig, PretrainConfig, TaggerConfig, from_dict, to_dict
from audiobat.config.recipes import read_fields
from audiobat.config.user_files import CODE, to_share, with_copies
from audiobat.engine.checkpoint import Checkpoint, checkpoint_of_step, load_checkpoint
from audiobat.engine.files import errors_of_writing, read_json, replacing, restore, write_atomic
from audiobat.engine.ranks import pick_device
from audiobat.engine.tensors import check_values, read_tensors, write_tensors
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.models.building import build, build_tagger
from audiobat.models.encoder import AudioEncoder, BaseEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo.card import Facts, write_card
from audiobat.zoo.hf_hub import fetch, is_shared

FORMAT = 1
WEIGHTS = Path(__file__).parent / "weights"
READERS = {  # model_type in config.json, where it is another's: the module whose `read` builds the encoder
    "bat": "audiobat.zoo.convert.bat",
    "audiobat_beats": "audiobat.zoo.convert.beats",
}
FIELDS = ("model_type", "format", "frontend", "encoder", "tagger", "extra", "files")
RELEASE = "release"  # the folder in a fine-tuning run that holds the model it trained
TEACHER = ":teacher"  # after a name: the EMA copy in place of the student
ELSEWHERE = ("hf:", "timm:", "torchaudio:", "avex:", "baseline:")  # how names begin that only `zoo.load.load` knows
STEP = re.compile(r"(.+)@(\d{1,18})", re.DOTALL)  # RUN@STEP
TEACHER_WEIGHTS = "teacher.encoder."  # with this the names of an EMA teacher's weights begin in a checkpoint
LONGEST = 400  # characters of an error that quotes a config, whose values may be of any length


class Place(NamedTuple):
    """A folder with weights, and which of them are meant, where that is a run of pre-training."""

    folder: Path
    step: int | None = None  # of the checkpoint; None: the newest one
    teacher: bool = False  # the teacher's in place of the student's


def load(path_or_name: str | Path, device: str = "cpu", trust_remote_code: bool = False) -> BaseEncoder:
    """Load an encoder, in eval mode on `device`, as `zoo.load.load` does, but of no file of another project.

    Of a run of pre-training it is the student of the newest checkpoint, unless `RUN@STEP` or `RUN:teacher` says other;
    a head that is there is left out.
    """
    place = locate(path_or_name)
    if (place.folder / "config.json").exists():
        encoder = read_release(place.folder, trust_remote_code)
    else:
        encoder, _ = encoder_of_run(place, trust_remote_code)
    return encoder.to(pick_device(device)).eval()


def load_tagger(path_or_name: str | Path, device: str = "cpu", trust_remote_code: bool = False) -> Tagger:
    """Load an encoder with its head, in eval mode on `device`: what `audiobat finetune` wrote.

    Args:
        path_or_name: a release folder with a head, the run folder that holds it, or `hub:OWNER/NAME`.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.
        trust_remote_code: run the Python files that came with the model, if it has any; read them first.

    Raises:
        AudiobatError: as for `load`; a release without a head.
    """
    folder = locate(path_or_name).folder
    file = folder / "config.json"
    config = read_json(file) if file.exists() else {}
    if "tagger" not in config:
        raise AudiobatError(why_no_head(folder))
    encoder, weights = read_release(folder, trust_remote_code), folder / "head.safetensors"
    try:
        config = with_copies(config, folder, trust_remote_code)
        described = from_dict(TaggerConfig, config["tagger"], "tagger")
        tagger = build_tagger(encoder, described, read_tensors(weights), weights)
    except AudiobatError as error:
        raise with_file(file, error) from None
    return tagger.to(pick_device(device)).eval()


def why_no_head(folder: Path) -> str:
    """The sentence for a folder without a head: what it holds instead, and the hint."""
    hint = "make one with `audiobat finetune`"
    if (folder / "config.json").exists():
        return f"{folder} holds an encoder and no head: {hint}."
    if (folder / "config.yaml").exists():
        return why_no_release(folder) or f"{folder} is a run of pre-training, whose encoder has no head: {hint}."
    if any(folder.glob("results/*.json")):
        return f"{folder} is the output of `audiobat probe`, whose results keep neither encoder nor head: {hint}."
    return f"{folder} has neither config.json (a release) nor config.yaml (a run): give one of these."


def why_no_release(run: Path) -> str:
    """The sentence for a fine-tuning run without a release of its own; empty for a run of another kind."""
    if "model" not in run_fields(run):
        return ""
    folds = sorted(path.parent.name for path in run.glob(f"folds/*/{RELEASE}"))
    if folds:
        return f"{run} holds a release for each of its folds: name one of them, such as {run / 'folds' / folds[0]}."
    return (
        f"{run} is a fine-tuning that has written no {RELEASE} yet: run the same `audiobat finetune` again, it goes on."
    )


def shipped_names() -> list[str]:
    """Names of the weights inside the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def split_name(name: str | Path) -> Place:
    """`RUN@STEP:teacher` in its parts; a path that is there means itself, whatever its name. Nothing is checked."""
    text = str(name)
    if is_shared(text) or Path(text).exists():
        return Place(Path(text))
    bare = text.removesuffix(TEACHER)
    parts = None if Path(bare).exists() else STEP.fullmatch(bare)
    folder, step = (bare, None) if parts is None else (parts[1], int(parts[2]))
    return Place(Path(folder), step, bare != text)


def locate(path_or_name: str | Path) -> Place:
    """The folder that `path_or_name` names, as `find` does, and which of a run's weights are meant.

    Raises:
        AudiobatError: nothing there; a step or a teacher of what is no run of pre-training.
    """
    if is_shared(path_or_name):
        return Place(find(path_or_name))
    place = split_name(path_or_name)
    folder = find(place.folder)
    if (folder / "config.json").exists() and (place.step is not None or place.teacher):
        suffix = str(path_or_name).removeprefix(str(place.folder))
        raise AudiobatError(
            f"{folder} is a release, which has one set of weights, and no run of pre-training: leave {suffix} out."
        )
    return place._replace(folder=folder)


def find(path_or_name: str | Path) -> Path:
    """The folder that `path_or_name` names; a shipped name comes before a folder, a run's release before the run."""
    if is_shared(path_or_name):
        return fetch(str(path_or_name))
    names = shipped_names()
    if str(path_or_name) in names:
        return WEIGHTS / str(path_or_name)
    path = Path(path_or_name)
    if path.is_file():
        raise AudiobatError(
            f"{path} is a file: give the folder that holds it; of a checkpoint `audiobat export` makes a folder."
        )
    if not path.is_dir():
        if str(path_or_name).startswith(ELSEWHERE):
            raise AudiobatError(
                f"{path_or_name} is no model of audiobat's own, as is needed here: give a release or a run."
            )
        run = re.split("[@:]", str(path))[0]
        if run != str(path) and Path(run).is_dir():
            raise AudiobatError(
                f"{path} is none: behind a run, here {run}, stand @STEP, :teacher or both, as in {run}@20000:teacher."
            )
        shipped = f"the shipped names are {', '.join(names)}" if names else "no weights are shipped"
        owned = re.fullmatch(r"[\w.-]+/[\w.-]+", str(path_or_name)) and not path.parent.is_dir()  # not runs/tpyo
        hub = f"; a model of the Hugging Face Hub is hf:{path}, a release of this package there hub:{path}"
        shipped += hub if owned else ""
        raise AudiobatError(f"No such folder or name: {path}{did_you_mean(str(path), names)}; {shipped}.")
    return path / RELEASE if (path / RELEASE / "config.json").exists() else path


def read_release(folder: Path, trust: bool = False) -> BaseEncoder:
    """Build the encoder of a release folder, in this project's layout or in one that READERS lists."""
    file = folder / "config.json"
    config = read_json(file)
    model_type = config.get("model_type")
    try:
        if isinstance(model_type, str) and model_type in READERS:
            encoder: BaseEncoder = importlib.import_module(READERS[model_type]).read(folder, config)
            return encoder
        if "auto_map" in config:
            raise AudiobatError("it was made for transformers: load it there, or give what it was exported from.")
        check_fields(config, "audiobat", FIELDS)
        config = with_copies(config, folder, trust)
        model = from_dict(ModelConfig, {name: config[name] for name in ("frontend", "encoder") if name in config})
        return build(model, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    except AudiobatError as error:
        raise with_file(file, error) from None


def check_fields(config: Mapping[str, Any], model_type: str, fields: Collection[str]) -> None:
    """Raise an AudiobatError unless a release's config is of this type, of our format and of `fields` alone."""
    if config.get("model_type") != model_type:
        known = " or ".join(("audiobat", *READERS))
        hint = "write hf: before the folder of a model of transformers"
        raise AudiobatError(f"model_type is {config.get('model_type')!r}: it must be {known}; {hint}.")
    found = config.get("format")
    if type(found) is not int or found != FORMAT:
        raise AudiobatError(f"format is {found!r}, but this version reads {FORMAT}: upgrade audiobat.")
    for name in config:
        if name not in fields:
            raise AudiobatError(f"unknown field {name}{did_you_mean(name, fields)}.")


def with_file(file: Path, error: AudiobatError) -> AudiobatError:
    """The same error on one line, cut where a config has made it too long, and with the name of `file` in it."""
    sentence = " ".join(str(error).split())
    if len(sentence) > LONGEST:
        sentence = f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"
    return AudiobatError(sentence if str(file.parent) in sentence else f"{file}: {sentence}")


def run_fields(run: Path) -> dict[str, Any]:
    """The fields in config.yaml of a run; AudiobatError if it cannot be read."""
    file = run / "config.yaml"
    try:
        return read_fields(file, "copy the run again")
    except AudiobatError as error:
        raise with_file(file, error) from None


def encoder_of_run(place: Place, trust: bool = False) -> tuple[AudioEncoder, Checkpoint]:
    """The student or the teacher of a checkpoint of a run of pre-training, and that checkpoint.

    Raises:
        AudiobatError: no run, a fine-tuning, no such checkpoint, no teacher, or anything damaged.
    """
    folder = place.folder
    file = folder / "config.yaml"
    if not file.exists():
        if any(folder.glob("results/*.json")):
            raise AudiobatError(
                f"{folder} is the output of `audiobat probe`, which keeps no model: give the one that was probed."
            )
        raise AudiobatError(f"{folder} has neither config.json (a release) nor config.yaml (a run): give one of these.")
    if why := why_no_release(folder):
        raise AudiobatError(why)
    try:
        config = from_dict(PretrainConfig, with_copies(run_fields(folder), folder, trust))
    except AudiobatError as error:
        raise with_file(file, error) from None
    checkpoint = load_checkpoint(folder) if place.step is None else checkpoint_of_step(folder, place.step)
    if checkpoint is None:
        raise AudiobatError(f"Run {folder} has no checkpoint yet: let it train until its first save.")
    prefix = checkpoint.extra.get("encoder", "student.")  # checkpoints of before 0.2 name none
    if place.teacher:
        prefix = TEACHER_WEIGHTS
    weights = {name.removeprefix(prefix): t for name, t in checkpoint.model.items() if name.startswith(prefix)}
    if place.teacher and not weights:
        raise AudiobatError(f"Run {folder} keeps no EMA teacher: leave {TEACHER} out.")
    return build(config.model, weights, checkpoint.path), checkpoint


def save_new(folder: str | Path, model: BaseEncoder | Tagger, overwrite: bool = False) -> None:
    """Write a release with the card that the model alone can fill; what is there stays unless `overwrite`."""
    folder = Path(folder)
    if not overwrite and folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise AudiobatError(f"{folder} exists: give a new folder, or overwrite=True to replace a release.")
    save_release(folder, model)


def save_release(
    folder: str | Path,
    model: BaseEncoder | Tagger,
    card: str = "",
    extra: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a release folder, whole or not at all.

    Args:
        folder: where; an older release there is replaced, any other folder that is not empty is refused.
        model: an encoder, which `load(folder)` gives back, bit for bit; or one with a head, for `load_tagger(folder)`.
        card: text of README.md; by default what the model is and how to load it.
        extra: plain values to keep in config.json beside the model's fields, such as how it was trained.
        files: what else lies beside, by name, such as a figure of the card.

    Raises:
        AudiobatError: other files in `folder`; weights that are not finite; a disk that is full or not to be written.
    """
    folder = Path(folder)
    encoder, tagger = (model.encoder, model) if isinstance(model, Tagger) else (model, None)
    check_values(model.state_dict(), f"The model for {folder}", model.state_dict())
    restore(folder)
    if folder.exists() and not (folder / "config.json").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise AudiobatError(f"{folder} holds other files and no release: give a new folder.")
    config = encoder.release_fields()
    if tagger is not None:
        config["tagger"] = to_dict(tagger.config)
    if extra:
        config["extra"] = dict(extra)
    config, code = to_share(config)  # classes of the user's own travel with the release
    with errors_of_writing(folder, "fix that, or give another folder"), replacing(folder) as beside:
        beside.mkdir()
        write_atomic(beside / "config.json", json.dumps(config, indent=2) + "\n")
        write_tensors(beside / "model.safetensors", encoder)
        if tagger is not None:
            write_tensors(beside / "head.safetensors", tagger.head)
        for name, content in (files or {}).items():
            write_atomic(beside / name, content)
        for name, content in code.items():
            (beside / CODE).mkdir(exist_ok=True)
            write_atomic(beside / CODE / name, content)
        write_atomic(beside / "README.md", card or write_card(folder.name, model, Facts()))
