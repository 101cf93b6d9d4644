"""What a run begins with in place of random weights (`init`): a model, a run of pre-training, or a whole file of EAT's.

In: a config and the objective made of it. Out: the objective with the source's weights, a sentence on what came along,
and the state of the source's optimizer. The encoder has to be the one that the config describes: equal shapes do not
make the weights of another frontend, or of other heads, mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from audiobat.config import PretrainConfig, flatten, to_dict
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.objectives.base import Objective
from audiobat.zoo import release as release_io
from audiobat.zoo.convert import convert_pair, is_foreign
from audiobat.zoo.hf_hub import is_shared
from audiobat.zoo.load import load_encoder

FREE = (  # settings that may differ between a source and a config, as the weights mean the same
    *("encoder.max_frames", "encoder.position_frames"),  # the length of clips, and of the table of positions
    *("encoder.pad", "frontend.pad_seconds"),  # what follows their end
    *("encoder.init", "encoder.patch_init", "encoder.drop_path"),  # of training alone
    *("frontend.statistics", "frontend.mean", "frontend.std"),  # of other recordings, as where EAT is fine-tuned
)
POSITIONS = "pos_embed"  # the tables that are as long as the clips
ROUNDING = 1e-3  # more than fp16 has rounded positions by


class Source(NamedTuple):
    """The parts of a model to begin with."""

    encoder: AudioEncoder
    parts: Mapping[str, Mapping[str, Any]]  # the tensors of other parts, under the names that an objective gives them
    fields: Mapping[str, Any] = {}  # a run's config
    optimizer: Mapping[str, Any] | None = None  # the state of a run's


class Beginning(NamedTuple):
    """What a run begins with beside the weights that its objective has."""

    sentence: str  # for the log: which parts came along
    optimizer: Mapping[str, Any] | None  # the state with which the optimizer goes on; None: it is new


def begin(objective: Objective, config: PretrainConfig) -> Beginning | None:
    """Give an objective the weights of the model that `config.init` names, if it names one.

    Every encoder takes the source's; a teacher takes the source's teacher where there is one. Another part, such as the
    decoder, comes along where the source has it with the same settings and shapes, and is new otherwise. For clips of
    another length, tables of positions stay as the config makes them.

    Raises:
        AudiobatError: nothing there, no encoder of this package's, or one whose weights would mean something else.
    """
    if config.init is None:
        return None
    source = read_source(config.init)
    check_same_encoder(source.encoder, objective.encoder, config.init)
    for module in objective.modules():
        if isinstance(module, AudioEncoder):
            load_but_positions(module, source.encoder.state_dict())
    taken, new, is_whole = ["encoder"], [], True
    for name, part in objective.named_children():
        if part is objective.encoder or not part.state_dict():
            continue
        why = other_settings(name, source, config) or why_new(part, source.parts.get(name))
        if not why:
            load_but_positions(part, source.parts[name])
            taken.append(name)
        elif any(isinstance(module, AudioEncoder) for module in part.modules()):
            new.append(f"{name} (a copy of the encoder)")
        else:
            new.append(f"{name} ({why})")
            is_whole = is_whole and not any(parameter.requires_grad for parameter in part.parameters())
    if why := why_new_optimizer(source, config, is_whole):
        new.append(f"optimizer ({why})")
    else:
        taken.append("optimizer")
    sentence = f"Begins with {config.init}: {', '.join(taken)}. New: {', '.join(new) or 'nothing'}."
    return Beginning(sentence, None if why else source.optimizer)


def read_source(name: str) -> Source:
    """The parts of a model: all of a run of pre-training and of a file of EAT's or SSLAM's, else the encoder.

    Raises:
        AudiobatError: nothing there, or no encoder of this package's.
    """
    parts: dict[str, dict[str, Any]] = {}
    fields: dict[str, Any] = {}
    optimizer = None
    run = release_io.split_name(name).folder
    if not is_shared(name) and is_foreign(name):
        student, teacher = convert_pair(name)
        encoder: object = student.encoder
        parts["decoder"] = dict(student.decoder)
        if teacher is not None:
            parts["teacher"] = {f"encoder.{inner}": tensor for inner, tensor in teacher.state_dict().items()}
    elif (run / "config.yaml").is_file() and not ((place := release_io.locate(name)).folder / "config.json").exists():
        encoder, checkpoint = release_io.encoder_of_run(place)
        fields = release_io.run_fields(run)
        optimizer = None if place.teacher else checkpoint.optimizer  # whose moments are the student's
        for full, value in checkpoint.model.items():
            part, _, inner = full.partition(".")
            parts.setdefault(part, {})[inner] = value
    else:
        encoder = load_encoder(name)
    if not isinstance(encoder, AudioEncoder):
        raise AudiobatError(f"init {name} is a {type(encoder).__name__}: name a model of audiobat's own kind.")
    return Source(encoder, parts, fields, optimizer)


def check_same_encoder(source: AudioEncoder, own: AudioEncoder, init: str) -> None:
    """Raise an AudiobatError that says how two encoders differ, unless weights mean the same in both."""
    theirs, ours = flatten(to_dict(source.config)), flatten(to_dict(own.config))
    apart = [difference(name, theirs.get(name), ours.get(name)) for name in theirs | ours if name not in FREE]
    if any(apart):
        raise AudiobatError(
            f"init {init} was trained with other settings, with which its weights mean something else: "
            f"{'; '.join(filter(None, apart))}. Use its settings, or another init."
        )
    shared = min(source.pos_embed.shape[1], own.pos_embed.shape[1])
    is_as_long = source.pos_embed.shape == own.pos_embed.shape
    if not is_as_long and (source.pos_embed[:, :shared] - own.pos_embed[:, :shared]).abs().max() > ROUNDING:
        length = source.config.encoder.max_frames
        raise AudiobatError(f"init {init} has positions of its own, for one length: use encoder.max_frames {length}.")


def difference(name: str, theirs: Any, ours: Any) -> str | None:
    """How a field differs, if it does. A class of a user's own is known by its name, as its file may have moved."""
    if isinstance(theirs, str) and isinstance(ours, str) and Path(theirs).name == Path(ours).name:
        return None
    return None if theirs == ours else f"{name} is {theirs} there and {ours} here"


def other_settings(name: str, source: Source, config: PretrainConfig) -> str | None:
    """How the settings of a part, or one of them by its dotted name, differ in a run's config, if it is known."""
    theirs, ours = flatten(source.fields), flatten(to_dict(config))
    below = [key for key in theirs if key == name or key.startswith(f"{name}.")]
    return next(filter(None, (difference(key, theirs[key], ours.get(key)) for key in below)), None)


def why_new(part: nn.Module, theirs: Mapping[str, Any] | None) -> str | None:
    """Why a part cannot take tensors: there are none, or of other names or shapes; None if it can."""
    ours = part.state_dict()
    if not theirs:
        return "not in the source"
    for name in ours | dict(theirs):
        if name not in ours or name not in theirs:
            return f"{name} is in one of them alone"
        shapes = [list(value.shape) for value in (theirs[name], ours[name]) if isinstance(value, Tensor)]
        if shapes[1:] and shapes[0] != shapes[1] and not name.endswith(POSITIONS):
            return f"{name} is {shapes[0]} there and {shapes[1]} here"
    return None


def why_new_optimizer(source: Source, config: PretrainConfig, is_whole: bool) -> str | None:
    """Why the optimizer does not go on; None if it does. `is_whole`: all parts that are trained came along."""
    if config.init_optimizer == "new":
        return "as init_optimizer says"
    if source.optimizer is None:
        return "not in the source"
    return other_settings("optim.decay_1d", source, config) if is_whole else "of other parts"


def load_but_positions(part: nn.Module, state: Mapping[str, Any]) -> None:
    """Load the tensors of a part; tables of positions of another length stay as they are."""
    own = part.state_dict()
    longer = {name for name in own if name.endswith(POSITIONS) and own[name].shape != state[name].shape}
    part.load_state_dict({name: own[name] if name in longer else value for name, value in state.items()})
