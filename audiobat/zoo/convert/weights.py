"""A checkpoint's nested dicts to the tensors of a student and a teacher; and the result of a converter.

In: the dicts that `reading` gives, with tensors or with their shapes. Out: tensors under the names that the file's
project gives them, without the prefixes of trainers.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.engine.files import read_json
from audiobat.engine.tensors import count_blocks
from audiobat.errors import AudiobatError
from audiobat.models.building import build
from audiobat.models.encoder import AudioEncoder, BaseEncoder
from audiobat.models.heads import build_head
from audiobat.models.tagger import Tagger
from audiobat.zoo.convert.pickles import Stub, shown
from audiobat.zoo.convert.reading import TensorInfo

LIGHTNING = "student.encoder."  # prefix in BAT's Lightning checkpoints; their name for the teacher is not known
AUDIOSET = 527  # classes
DEEPEST = 16  # levels at which tensors are looked for
HEAD_DIM = 64  # of attention, in every published model of these families
HEADS = ("num_heads", "num_attention_heads", "heads", "encoder_attention_heads")  # names of this number in configs


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, or their `TensorInfo`; names may still have a project's own prefixes."""

    path: Path
    student: Mapping[str, Any]
    teacher: Mapping[str, Any] | None  # where the file keeps one
    config: Mapping[str, Any] = field(default_factory=dict)  # the values beside the tensors, such as its config
    left: tuple[str, ...] = ()  # names of tensors in other parts of the file, such as an optimizer's

    def chosen(self, teacher: bool) -> dict[str, Tensor]:
        """The student's tensors, or the teacher's; AudiobatError if there is none."""
        if not teacher:
            return dict(self.student)
        if self.teacher is None:
            raise AudiobatError(f"{self.path} holds no teacher beside the student: leave :teacher out.")
        return dict(self.teacher)

    def unchosen(self, teacher: bool) -> tuple[str, ...]:
        """The names of the other network's tensors, which are left out."""
        whose, other = ("student", self.student) if teacher else ("teacher", self.teacher or {})
        return tuple(f"{whose}.{name}" for name in other)


@dataclass(frozen=True)
class Head:
    """A linear classifier that came with an encoder."""

    config: TaggerConfig
    module: nn.Module  # LayerFeatures to logits


@dataclass(frozen=True)
class Converted:
    """The result of a converter."""

    layout: str  # the project that the file is of
    encoder: BaseEncoder
    head: Head | None = None
    left: tuple[str, ...] = ()  # names of tensors that are not used, each known to be no part of the encoder
    decoder: Mapping[str, Tensor] = field(default_factory=dict)  # of these, those of a decoder that we have, too

    def tagger(self) -> Tagger:
        """The encoder with its head; AudiobatError if the file has none."""
        if self.head is None:
            raise AudiobatError(f"{self.layout}: there is no head in this file; fine-tune one.")
        tagger = Tagger(self.encoder, self.head.config)
        tagger.head.load_state_dict(self.head.module.state_dict())
        return tagger


def split(path: Path, tree: Any) -> Weights:
    """Find student and teacher in the nested dicts of a file.

    Known are a dict of tensors; `model` of fairseq and others, with a teacher in `_ema` inside it; `encoder` and
    `ema_encoder` of BAT's training script; and a Lightning `state_dict`. Raises AudiobatError for any other file.
    """
    if not isinstance(tree, Mapping):
        raise AudiobatError(f"{path} holds a {type(tree).__name__} and no dict of tensors: it is no checkpoint.")
    rest = {name: value for name, value in tree.items() if isinstance(name, str)}
    teacher: Mapping[str, Any] | None = None
    left: list[str] = []
    if holds_tensors(rest.get("encoder")):
        student = rest.pop("encoder")
        teacher = rest.pop("ema_encoder", None)
    elif holds_tensors(rest.get("model")):
        student = dict(rest.pop("model"))
        teacher = student.pop("_ema", None)
    elif holds_tensors(rest.get("state_dict")):
        state = rest.pop("state_dict")
        check_tensors(state, path)
        student = {n.removeprefix(LIGHTNING): t for n, t in state.items() if n.startswith(LIGHTNING)} or state
        left += [n for n in state if student is not state and not n.startswith(LIGHTNING)]
    elif holds_tensors(rest):
        student = {name: value for name, value in rest.items() if is_tensor(value)}
        rest = {name: value for name, value in rest.items() if not is_tensor(value)}
    else:
        top = ", ".join(shown(name) for name in list(rest)[:8]) or "nothing"
        raise AudiobatError(f"{path} holds no weights of a model that is known here: at its top are {top}.")
    for network in (student, teacher if holds_tensors(teacher) else {}):
        check_tensors(network or {}, path)
    left += [f"{name}.{inner}" if inner else name for name, value in rest.items() for inner in tensors_below(value)]
    return Weights(path, student, teacher if holds_tensors(teacher) else None, rest, tuple(left))


def check_tensors(network: Mapping[Any, Any], path: Path) -> None:
    """Raise an AudiobatError unless a network holds only tensors, under names that can be printed."""
    for name, value in network.items():
        if not is_tensor(value):
            kind = value.name if isinstance(value, Stub) else type(value).__name__
            raise AudiobatError(f"{path}: {shown(name)} is no tensor but a {kind}.")
        if not isinstance(name, str) or shown(name) != name:
            raise AudiobatError(f"{path}: {shown(name)} is no name of a tensor.")


def with_config(weights: Weights) -> Weights:
    """`weights`, and for a safetensors file, which holds only tensors, the config.json beside it.

    Raises AudiobatError if that is a release of this package: its tensors look like those of BAT's own files.
    """
    file = weights.path.with_name("config.json")
    if weights.path.suffix != ".safetensors" or not file.is_file():
        return weights
    config = read_json(file)
    if config.get("model_type") == "audiobat":
        raise AudiobatError(f"{weights.path} belongs to the release {file.parent}: give that folder.")
    return replace(weights, config=config)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor, or the `TensorInfo` of one."""
    return isinstance(value, Tensor | TensorInfo)


def holds_tensors(value: Any) -> bool:
    """Whether a value is a dict with tensors in it."""
    return isinstance(value, Mapping) and any(is_tensor(inner) for inner in value.values())


def tensors_below(value: Any) -> Iterator[str]:
    """Dotted names of all tensors inside plain containers, of which each is entered once, to a depth of DEEPEST."""
    todo: list[tuple[tuple[str, ...], Any]] = [((), value)]
    seen = set()
    while todo:
        names, item = todo.pop()
        if is_tensor(item):
            yield ".".join(names)
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen and len(names) < DEEPEST:
            seen.add(id(item))
            inner = item.items() if isinstance(item, Mapping) else enumerate(item)
            todo += [((*names, shown(key)), part) for key, part in inner]


def attention_heads(weights: Weights, dim: int) -> int:
    """The number of attention heads in the file's config, in any known place; otherwise heads of 64 dimensions."""
    # It stands at the top, in fairseq's `cfg.model`, or in the pre-trained model's config inside that.
    config: Any = weights.config
    for keys in ((), ("cfg", "model"), ("pretrained_model_args", "model")):
        for key in keys:
            config = config.get(key) if isinstance(config, Mapping) else None
        if not isinstance(config, Mapping):
            break
        for name in HEADS:
            if name in config:
                value = config[name]
                if type(value) is not int or value < 1 or dim % value:
                    raise AudiobatError(
                        f"{weights.path}: {name} is {shown(reprlib.repr(value))}: it must divide the width {dim}."
                    )
                return value
    return max(1, dim // HEAD_DIM)


def vit(weights: Weights, tensors: Mapping[str, Tensor], frontend: FrontendConfig, **more: bool | str) -> AudioEncoder:
    """The encoder of tensors under our names; every size that the file's config does not name is read off them.

    `more` are fields of EncoderConfig in which the project differs from ours. Raises AudiobatError for a tensor that is
    missing, unexpected or of a shape that does not fit.
    """
    dim, _, patch_frames, patch_bins = size(tensors, "patch_embed.proj.weight", 4, weights.path)
    _, patches, _ = size(tensors, "pos_embed", 3, weights.path)
    hidden, _ = size(tensors, "blocks.0.mlp.fc1.weight", 2, weights.path)
    fields = {
        "dim": dim,
        "depth": count_blocks(tensors),
        "heads": attention_heads(weights, dim),
        "mlp_ratio": hidden / dim,
        "patch_size": (patch_frames, patch_bins),
        "max_frames": patches * patch_bins // frontend.mel_bins * patch_frames,
        "pad": "grid",  # how all of these were trained: zeros to the full length, attended to
    }
    return build(ModelConfig(frontend, EncoderConfig(**fields, **more)), tensors, weights.path)  # type: ignore[arg-type]


def linear_head(
    tensors: dict[str, Tensor],
    names: tuple[str, str | None],
    encoder: tuple[int, int],
    pool: str,
    classes: Mapping[str, Any],
    path: Path,
) -> Head | None:
    """Take a head out of `tensors`: a matrix with bias, and the LayerNorm before it if the file has one.

    `names` are those of the matrix and, if there may be one, of the norm; `encoder` is its width and depth; `pool` is
    the token of the last block that the head reads, `cls` or the `mean` of the patches; `classes` is `{0: name}` or
    `{"0": name}`, and a class without a name is called by its number. None if the file has no head.
    """
    matrix, norm = names
    if f"{matrix}.weight" not in tensors:
        return None
    weight, bias = (tensors.pop(f"{matrix}.{part}").float() for part in ("weight", "bias"))
    if weight.ndim != 2 or weight.shape[1] != encoder[0] or bias.shape != weight.shape[:1]:
        raise AudiobatError(f"{path}: {matrix}.weight has shape {list(weight.shape)}: it does not fit {encoder[0]}.")
    state = {"classifier.weight": weight, "classifier.bias": bias}
    has_norm = norm is not None and f"{norm}.weight" in tensors
    if has_norm:
        state |= {f"norm.{part}": tensors.pop(f"{norm}.{part}").float() for part in ("weight", "bias")}
        for part in ("weight", "bias"):
            if state[f"norm.{part}"].shape != weight.shape[1:]:
                shape = list(state[f"norm.{part}"].shape)
                raise AudiobatError(f"{path}: {norm}.{part} has shape {shape}: it does not fit {encoder[0]}.")
    named = [classes.get(str(n), classes.get(n, n)) for n in range(len(weight))]  # type: ignore[call-overload]
    config = TaggerConfig(
        head=HeadConfig(kind="linear", pool=pool, norm="scaled_layer" if has_norm else "none"),  # type: ignore[arg-type]
        classes=tuple(shown(name) for name in named),
        multi_label=len(weight) == AUDIOSET,  # no file says so; their other data sets have one label
    )
    module = build_head(config.head, *encoder, len(weight))
    module.load_state_dict(state)
    return Head(config, module.eval())


def size(tensors: Mapping[str, Any], name: str, dims: int, path: Path) -> tuple[int, ...]:
    """The shape of tensor `name`; AudiobatError if it is missing, empty or has not `dims` dimensions."""
    if name not in tensors:
        raise AudiobatError(f"{path} has no tensor {name}, which this kind of model has.")
    found = tuple(tensors[name].shape)
    if len(found) != dims or min(found) == 0:
        raise AudiobatError(f"{path}: {name} has shape {list(found)}, but it must have {dims} dimensions.")
    return found
