"""Facts about a checkpoint or a folder: which model it is, what it holds, and whether it is safe to load elsewhere.

In: a path. Out: pairs of a name and a fact. Nothing in the file is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from audiobat.audio.read import AUDIO_EXTENSIONS
from audiobat.config.user_files import CODE, user_classes
from audiobat.engine.files import read_json
from audiobat.errors import AudiobatError
from audiobat.models.encoder import BaseEncoder
from audiobat.zoo.convert import Converted, convert_file, hugging_face, layout_of, survey_file
from audiobat.zoo.convert.pickles import Stub, shown
from audiobat.zoo.convert.reading import TensorInfo
from audiobat.zoo.convert.weights import split
from audiobat.zoo.release import load, load_tagger, locate, run_fields, split_name

SHOWN = 6  # names in a line
LISTS = (".csv", ".parquet", ".txt")
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
USUAL = (  # beginnings of names that trainers leave in checkpoints, and that do nothing when they are loaded
    *("argparse.Namespace", "types.SimpleNamespace", "functools.partial", "pathlib.P", "datetime.", "collections."),
    *("numpy.core.multiarray.", "numpy._core.multiarray.", "numpy.dtype", "numpy.ndarray", "numpy.float"),
    *("numpy.int", "torch._utils.", "torch.nn.", "torch.optim.", "torch.device", "torch.Tensor"),
    *("torch.storage.UntypedStorage", "builtins.object", "builtins.complex", "builtins.slice", "builtins.range"),
    *("copyreg._reconstructor", "fairseq.", "omegaconf.", "lightning.", "pytorch_lightning.", "lightning_fabric."),
    *("yacs.",),
)
HARMFUL = {  # modules by which code reaches files, the network or the interpreter
    *("os", "posix", "nt", "subprocess", "commands", "sys", "socket", "shutil", "io", "_io", "builtins", "importlib"),
    *("runpy", "pickle", "_pickle", "ctypes", "webbrowser", "urllib", "requests", "http", "ftplib", "smtplib", "pty"),
    *("asyncio", "multiprocessing", "threading", "code", "pdb", "timeit", "operator", "functools", "types"),
    *("tempfile", "platform", "glob", "zipfile", "tarfile", "ssl", "signal", "mmap", "marshal", "imp", "pip"),
    *("cProfile", "profile"),
}


def facts_of_file(path: Path) -> Iterator[tuple[str, str]]:
    """Facts about a checkpoint or a folder, line by line; one that begins with `!` asks for care.

    Raises AudiobatError for a file that is damaged, that names what would reach the machine, or that is no known model.
    """
    if path.suffix in (".onnx", ".tflite"):
        raise AudiobatError(f"{path} is a model for another program: check it as an encoder, by --model {path}@RATE.")
    if split_name(path).folder.is_dir():
        yield from facts_of_folder(path)
        return
    if not path.exists():
        folder = path.absolute().parent
        raise AudiobatError(f"There is no file or folder {path} ({folder} {found_there(folder)}): check the path.")
    if path.suffix.lower() in (*AUDIO_EXTENSIONS, *LISTS):
        raise AudiobatError(
            f"{path} is no model: `audiobat prepare SOURCE --dry-run` describes a folder or list of clips."
        )
    survey = survey_file(path)
    yield "file", f"{path}, {path.stat().st_size / 2**20:,.1f} MiB, {survey.format}"
    if not isinstance(survey.tree, Mapping):
        yield "holds", f"a {type(survey.tree).__name__}"
    elif all(isinstance(value, TensorInfo) for value in survey.tree.values()):
        yield "holds", tensors(survey.tree)
    else:
        yield "holds", listed([f"{shown(name)} ({kind_of(value)})" for name, value in survey.tree.items()])
    unknown = [name for name in survey.stubs if not name.startswith(USUAL)]
    harmful = [name for name in unknown if name.split(".")[0] in HARMFUL]
    if harmful:
        yield "safe", f"! no: it names {listed(harmful)}, which reaches the machine; nothing of it was run here"
        raise AudiobatError(
            f"{path} names {listed(harmful)}: a reader of pickles would run that. audiobat did not; trust the file not."
        )
    if unknown:
        became = "became stubs, which do nothing; a reader of pickles would import and run them"
        yield "safe", f"! here: {listed(unknown)} {became}"
    elif survey.stubs:
        yield "safe", f"yes: {listed(survey.stubs)}, as trainers leave them, became stubs, which do nothing"
    else:
        yield "safe", "yes: tensors and plain containers alone"
    weights = split(path, survey.tree)
    yield "is", f"{layout_of(weights).LAYOUT}: {tensors(weights.student)}"
    if weights.teacher is not None:
        yield "teacher", f"{tensors(weights.teacher)}; --model {path}:teacher takes it"
    config = path.with_name("config.json")
    if path.name == "model.safetensors" and config.is_file() and read_json(config).get("model_type") == "audiobat":
        yield "belongs to", f"the release {config.parent}, which is what --model takes"
        yield from facts_of_folder(config.parent)
    else:
        yield from facts_of_model(convert_file(path))


def facts_of_folder(folder: Path) -> Iterator[tuple[str, str]]:
    """Facts about a release, a run, or a model in the layout of Hugging Face."""
    if hugging_face(folder):
        yield "folder", f"{folder}, as Hugging Face keeps models"
        yield from facts_of_model(convert_file(folder))
        return
    place = locate(folder).folder
    is_release = (place / "config.json").exists()
    if not is_release and not (place / "config.yaml").exists():
        raise AudiobatError(
            f"{folder} is no release, run or model of Hugging Face, and {found_there(folder)}: "
            f"name one of those; `audiobat prepare {folder} --dry-run` describes a folder of clips."
        )
    kind = "a release" if is_release else "a run"
    yield "folder", f"{folder}, {kind}" + (f" in {place}" if place != folder else "")
    fields = read_json(place / "config.json") if is_release else run_fields(place)
    if classes := user_classes(fields):
        yield "code", f"! {listed(classes)}: Python of its own in {place / CODE}, which was not run; read it first"
        return
    yield "loads", size_of(load(folder))
    if is_release and "tagger" in fields:
        tagger = load_tagger(folder).config
        yield "head", f"{tagger.head.kind}, {len(tagger.classes)} classes: {listed(tagger.classes)}"


def facts_of_model(converted: Converted) -> Iterator[tuple[str, str]]:
    """Facts about what was built of a file: encoder, head, and tensors that were left out."""
    yield "loads", size_of(converted.encoder)
    if converted.head is not None:
        yield "head", f"{len(converted.head.config.classes)} classes: {listed(converted.head.config.classes)}"
    if converted.left:
        yield "left out", f"{len(converted.left)} tensors that are no part of the encoder: {listed(converted.left)}"


def size_of(encoder: BaseEncoder) -> str:
    """How large an encoder is, and its sample rate."""
    count = sum(parameter.numel() for parameter in encoder.parameters())
    return f"{count / 1e6:.2f}M parameters, {encoder.depth} blocks of {encoder.dim}, {encoder.sample_rate} Hz"


def found_there(folder: Path) -> str:
    """Which checkpoints a folder holds, to end a sentence."""
    if not folder.is_dir():
        return "is not there either"
    files = sorted(path.name for path in folder.iterdir() if path.suffix in CHECKPOINTS)
    return f"holds {listed(files)}" if files else "holds no checkpoint"


def kind_of(value: Any) -> str:
    """A value in a word or two."""
    if isinstance(value, TensorInfo):
        return f"{list(value.shape)}"
    if isinstance(value, Mapping) and any(isinstance(inner, TensorInfo) for inner in value.values()):
        return tensors(value)
    return value.name if isinstance(value, Stub) else type(value).__name__


def tensors(found: Mapping[Any, Any]) -> str:
    """How many tensors and values there are, and of which types."""
    all_of = [value for value in found.values() if isinstance(value, TensorInfo)]
    types = sorted({str(value.dtype).removeprefix("torch.") for value in all_of})
    return f"{len(all_of)} tensors, {sum(prod(value.shape) for value in all_of) / 1e6:,.2f}M values, {', '.join(types)}"


def listed(names: Any) -> str:
    """The first names, and how many more there are."""
    found = [shown(name) for name in names]
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more
