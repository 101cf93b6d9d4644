"""Releases: config.json, model.safetensors, README.md, and head.safetensors where there is a head.

In: a folder, a run folder or a name. Out: an AudioEncoder, or a Tagger, which is one with its head.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

from audiobat.config import ModelConfig, PretrainConfig, TaggerConfig, from_dict, to_dict
from audiobat.encoder import AudioEncoder
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.tagger import Tagger
from audiobat.train.checkpoint import load_checkpoint
from audiobat.train.dist import pick_device
from audiobat.train.logs import write_atomic

FORMAT = 1
WEIGHTS = Path(__file__).parent / "weights"
FOREIGN = {"bat": "audiobat.convert.bat"}  # model_type in config.json: the module whose `read` builds the encoder
FIELDS = ("model_type", "format", "frontend", "encoder", "tagger", "extra")
RELEASE = "release"  # the folder, inside a fine-tuning run, of what it made

HEAD_CARD = """
On it sits a head of kind {kind} that labels each {task} with {classes} classes, whose names config.json lists:

```python
from audiobat.hub import load_tagger

tagger = load_tagger("{name}")
probabilities = tagger.scores(tagger(waveform))  # waveform [B, S] to [B, {classes}]
```
"""


def load(path_or_name: str | Path, device: str = "cpu") -> AudioEncoder:
    """Load an encoder, in eval mode on `device`.

    Args:
        path_or_name: the name of shipped weights (`bat_nano`), a release folder, a folder in the public BAT layout, or
            a run folder: of pre-training, whose latest checkpoint's student it is then, or of fine-tuning. A head that
            is there is left out.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.

    Raises:
        AudiobatError: nothing there; a file that is missing, damaged or does not fit the others.
    """
    folder = find(path_or_name)
    encoder = read_release(folder) if (folder / "config.json").exists() else read_run(folder)
    return encoder.to(pick_device(device)).eval()


def load_tagger(path_or_name: str | Path, device: str = "cpu") -> Tagger:
    """Load an encoder with its head, in eval mode on `device`: what `audiobat finetune` wrote.

    Args:
        path_or_name: a release folder with a head, or the run folder that holds it.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.

    Raises:
        AudiobatError: as for `load`; a release without a head.
    """
    folder = find(path_or_name)
    file = folder / "config.json"
    if not file.exists() or "tagger" not in (config := read_json(file)):
        raise AudiobatError(f"{folder} holds an encoder and no head: make one with `audiobat finetune`.")
    encoder, weights = read_release(folder), folder / "head.safetensors"
    try:
        described = from_dict(TaggerConfig, config["tagger"], "tagger")
        tagger = build_tagger(encoder, described, read_tensors(weights), weights)
    except AudiobatError as error:
        raise AudiobatError(str(error) if str(folder) in str(error) else f"{file}: {error}") from None
    return tagger.to(pick_device(device)).eval()


def shipped_names() -> list[str]:
    """Names of the weights inside the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def find(path_or_name: str | Path) -> Path:
    """The folder that `path_or_name` means; a shipped name comes before a folder, a run's release before the run."""
    names = shipped_names()
    if str(path_or_name) in names:
        return WEIGHTS / str(path_or_name)
    path = Path(path_or_name)
    if path.is_file():
        raise AudiobatError(f"{path} is a file: give the folder that holds it.")
    if not path.is_dir():
        shipped = f"the shipped names are {', '.join(names)}" if names else "no weights are shipped"
        raise AudiobatError(f"No such folder or name: {path}{did_you_mean(str(path), names)}; {shipped}.")
    return path / RELEASE if (path / RELEASE / "config.json").exists() else path


def read_release(folder: Path) -> AudioEncoder:
    """Build the encoder of a release folder, of this project's layout or one that FOREIGN lists."""
    file = folder / "config.json"
    config = read_json(file)
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in FOREIGN:
        converter = importlib.import_module(FOREIGN[model_type])
        foreign: AudioEncoder = converter.read(folder, config)
        return foreign
    if model_type != "audiobat":
        raise AudiobatError(f"{file}: model_type is {model_type!r}: it must be audiobat, {' or '.join(FOREIGN)}.")
    if config.get("format") != FORMAT:
        raise AudiobatError(
            f"{file}: format is {config.get('format')!r}, but this version reads {FORMAT}: upgrade audiobat."
        )
    for name in config:
        if name not in FIELDS:
            raise AudiobatError(f"{file}: unknown field {name}{did_you_mean(name, FIELDS)}.")
    parts = {name: config[name] for name in ("frontend", "encoder") if name in config}
    try:
        model = from_dict(ModelConfig, parts)
    except AudiobatError as error:
        raise AudiobatError(f"{file}: {error}") from None
    return build(model, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")


def read_run(folder: Path) -> AudioEncoder:
    """Build the student of the latest checkpoint of a run folder."""
    file = folder / "config.yaml"
    if not file.exists():
        raise AudiobatError(f"{folder} has neither config.json (a release) nor config.yaml (a run): give one of these.")
    try:
        fields = yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(fields, dict) and "model" in fields:
            raise AudiobatError(f"a fine-tuning that has written no {RELEASE} yet: let it end")
        config = from_dict(PretrainConfig, fields)
    except (AudiobatError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AudiobatError(f"{file}: {error}") from None
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        raise AudiobatError(f"Run {folder} has no checkpoint yet: let it train until its first save.")
    prefix = "student."
    student = {name.removeprefix(prefix): t for name, t in checkpoint.model.items() if name.startswith(prefix)}
    return build(config.model, student, checkpoint.path)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; AudiobatError if it holds anything else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AudiobatError(f"{file} cannot be read as JSON ({error}): copy or download it again.") from None
    if not isinstance(value, dict):
        raise AudiobatError(f"{file} holds no JSON object: copy or download it again.")
    return value


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; AudiobatError if it is missing or damaged."""
    try:
        return safetensors.torch.load_file(file)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise AudiobatError(f"{file} cannot be read as safetensors ({error}): copy or download it again.") from None


def build(config: ModelConfig, tensors: Mapping[str, Tensor], where: Path) -> AudioEncoder:
    """An encoder of `config` with `tensors`, read from `where`, as its weights: none missing, none left over.

    The sizes in `config` are held against the tensors before anything of that size is made.
    """
    columns, rows = config.grid
    dim, encoder = config.encoder.dim, config.encoder
    hidden = int(dim * encoder.mlp_ratio)
    blocks = count_blocks(tensors)
    if blocks != encoder.depth:
        raise AudiobatError(f"{where} holds {blocks} blocks, but the config says encoder.depth {encoder.depth}.")
    sizes = {
        "pos_embed": (1, columns * rows, dim),
        "patch_embed.proj.weight": (dim, 1, *encoder.patch_size),
        "blocks.0.mlp.fc1.weight": (hidden, dim),
    }
    found = shapes_of(tensors)
    check_shapes({name: found[name] for name in sizes if name in found}, sizes, where)
    model = AudioEncoder(config)
    check_shapes(found, shapes_of(model.state_dict()), where)
    model.load_state_dict(tensors)
    return model


def build_tagger(encoder: AudioEncoder, config: TaggerConfig, tensors: Mapping[str, Tensor], where: Path) -> Tagger:
    """`encoder` with a head of `config` and of `tensors`, read from `where`: none missing, none left over."""
    with torch.device("meta"):  # a config may ask for any size: nothing of it is made before the tensors agree
        wanted = shapes_of(Tagger(encoder, config).head.state_dict())
    check_shapes(shapes_of(tensors), wanted, where)
    tagger = Tagger(encoder, config)
    tagger.head.load_state_dict(tensors)
    return tagger


def count_blocks(tensors: Mapping[str, Tensor]) -> int:
    """How many different `blocks.N` the names speak of."""
    return len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_shapes(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], where: Path) -> None:
    """Raise an AudiobatError that names the first tensor that is missing, unexpected or of another shape."""
    for name, shape in wanted.items():
        if name not in found:
            raise AudiobatError(f"{where} has no tensor {name}, which its config calls for{did_you_mean(name, found)}.")
        if found[name] != shape:
            raise AudiobatError(
                f"{where}: {name} has shape {list(found[name])}, but its config asks for {list(shape)}."
            )
    for name in found:
        if name not in wanted:
            raise AudiobatError(f"{where} has a tensor {name}, which its config has no place for.")


def save_release(
    folder: str | Path, model: AudioEncoder | Tagger, card: str = "", extra: Mapping[str, Any] | None = None
) -> None:
    """Write a release folder, whole or not at all.

    Args:
        folder: where; an older release there is replaced, any other folder that is not empty is refused.
        model: an encoder, which `load(folder)` gives back, bit for bit; or one with a head, for `load_tagger(folder)`.
        card: text of README.md; by default what the model is and how to load it.
        extra: plain values to keep in config.json beside the model's fields, such as how it was trained.
    """
    folder = Path(folder)
    encoder, tagger = (model.encoder, model) if isinstance(model, Tagger) else (model, None)
    if folder.exists() and not (folder / "config.json").exists() and any(folder.iterdir()):
        raise AudiobatError(f"{folder} holds other files and no release: give a new folder.")
    beside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    config = {"model_type": "audiobat", "format": FORMAT, **to_dict(encoder.config)}
    if tagger is not None:
        config["tagger"] = to_dict(tagger.config)
        write_tensors(beside / "head.safetensors", tagger.head)
    if extra:
        config["extra"] = dict(extra)
    write_atomic(beside / "config.json", json.dumps(config, indent=2) + "\n")
    write_tensors(beside / "model.safetensors", encoder)
    write_atomic(beside / "README.md", card or model_card(folder.name, model))
    if folder.exists():
        old = folder.with_name(folder.name + ".old.tmp")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        beside.rename(folder)
        shutil.rmtree(old)
    else:
        beside.rename(folder)


def write_tensors(file: Path, module: nn.Module) -> None:
    """Write a module's parameters and buffers as safetensors."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_atomic(file, safetensors.torch.save(tensors, metadata={"format": "pt"}))


def model_card(name: str, model: AudioEncoder | Tagger) -> str:
    """The README.md of a release that brings none."""
    if isinstance(model, Tagger):
        encoder, origin = model.encoder, "fine-tuned on labelled clips"
        head = HEAD_CARD.format(name=name, kind=model.config.head.kind, classes=len(model.classes), task=model.task)
    else:
        encoder, origin, head = model, "trained without labels", ""
    config = encoder.config
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    return f"""---
library_name: audiobat
tags: [audio, self-supervised-learning]
---

# {name}

An audio encoder {origin}: {parameters / 1e6:.2f}M parameters, {encoder.depth} blocks of {encoder.dim}
dimensions, {encoder.sample_rate} Hz, {config.frontend.mel_bins} mel bins, clips of up to \
{encoder.max_samples / encoder.sample_rate:g} s at once.

```python
import audiobat

encoder = audiobat.load("{name}")
vector = encoder.embed("recording.wav")  # [{encoder.dim}]
```
{head}
sha256 of the weights: `{weights_sha256(model)}`
"""


def weights_sha256(module: nn.Module) -> str:
    """Digest of a module's parameters and buffers: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(safetensors.torch.save({"": tensor.detach().cpu().contiguous()}))
    return digest.hexdigest()
