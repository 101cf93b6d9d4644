"""A model divided over the ranks (`train.shard: fsdp2`): each holds its rows of weights, gradients and moments.

In: a model and its optimizer, whole on every rank. Out: the same two with torch's `DTensor`s in place of parameters,
and a module that trains them by `fully_shard`. The weights come together for a step, from the forward pass to the end
of the backward pass, as chunks of a batch run backward within the forward pass; `whole` brings them together outside.
Files of a divided model are written and read by torch.distributed.checkpoint: safetensors, in which no code can hide.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from audiobat.errors import AudiobatError

# torch's modules of divided tensors take two seconds to import: only functions that divide or join import them.


class Sharded(nn.Module):
    """A model within the module that `fully_shard` works on, so that the model keeps its own class and has no hooks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> Any:
        """What the model returns, made with whole weights."""
        return self.model(*args)


def shard(model: nn.Module, optimizer: Optimizer) -> nn.Module:
    """Divide `model` and the state of `optimizer` over the ranks; the module that computes the loss of a step.

    Raises:
        AudiobatError: a part of the model has an optimizer of its own, which would go on with whole weights; a
            parameter [], which `fully_shard` refuses.
    """
    from torch.distributed.fsdp import fully_shard

    for name, module in model.named_modules():
        if any(isinstance(value, Optimizer) for value in vars(module).values()):
            part = f"{type(model).__name__}.{name}" if name else type(model).__name__
            raise AudiobatError(f"train.shard is fsdp2, and {part} has an optimizer of its own: use ddp.")
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise AudiobatError(f"train.shard is fsdp2, and the parameter {name} is a single number: use ddp.")
    names = {parameter: name for name, parameter in model.named_parameters()}
    hooks = {module: set(module._load_state_dict_post_hooks) for module in model.modules()}
    root = Sharded(model)
    fully_shard(root, reshard_after_forward=False)
    for module, own in hooks.items():  # a hook for each parameter is left, which fails once the model is whole again
        for hook in module._load_state_dict_post_hooks.keys() - own:
            del module._load_state_dict_post_hooks[hook]
    now = dict(model.named_parameters())
    _replace_parameters(optimizer, {old: now[name] for old, name in names.items()})
    return root


def unshard(model: nn.Module, optimizer: Optimizer) -> None:
    """Make a divided model and its optimizer whole again; every rank must call it at the same point."""
    old = dict(model.named_parameters())
    _join_parameters(model)
    _replace_parameters(optimizer, {old[name]: parameter for name, parameter in model.named_parameters()})


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Within it `module` has whole weights, to be read; every rank must enter it at the same point."""
    divided = _join_parameters(module)
    try:
        yield
    finally:
        for part, name, parameter in divided:
            part._parameters[name] = parameter


def is_divided(value: object) -> bool:
    """Whether this is a tensor of which each rank holds its rows."""
    return hasattr(value, "full_tensor")


def join(tensor: Tensor) -> Tensor:
    """A tensor whole, on every rank, all of which must call it at the same point."""
    return tensor.full_tensor() if is_divided(tensor) else tensor  # type: ignore[attr-defined]


def own_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: its rows of a divided one, all of a whole one."""
    return tensor.to_local() if is_divided(tensor) else tensor  # type: ignore[attr-defined]


def write_parts(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write divided tensors into `folder`, a file a rank; every rank must call it, and finds all files written."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    own: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        place = own_part(tensor).data_ptr()
        own[name] = tensor.clone() if place in places else tensor  # safetensors refuses one tensor with two names
        places.add(place)
    try:
        save(own, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:  # on every rank, with what went wrong on any, such as a full disk
        raise next(iter(error.failures.values()))[0] from None


def read_parts(folder: Path) -> dict[str, Tensor]:
    """The tensors that `write_parts` wrote, whole, by any number of ranks or none."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    sizes: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(size.size, dtype=size.properties.dtype) for name, size in sizes.items()}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # which says that this process reads alone
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in `folder`, by name."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _join_parameters(module: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Put whole parameters in the places of divided ones: module, name, divided parameter."""
    divided = [
        (part, name, parameter)
        for part in module.modules()
        for name, parameter in part._parameters.items()
        if parameter is not None and is_divided(parameter)
    ]
    joined: dict[nn.Parameter, nn.Parameter] = {}  # one may be in several places
    for part, name, parameter in divided:
        if parameter not in joined:
            joined[parameter] = nn.Parameter(join(parameter.detach()), parameter.requires_grad)
        part._parameters[name] = joined[parameter]
    return divided


def _replace_parameters(optimizer: Optimizer, by: Mapping[Any, nn.Parameter]) -> None:
    """Let `optimizer` train other parameters of the same values; its moments become whole or divided as these are."""
    for group in optimizer.param_groups:
        group["params"] = [by[parameter] for parameter in group["params"]]
    for parameter, state in list(optimizer.state.items()):
        new = by[parameter]
        optimizer.state[new] = {
            name: _divided_as(new, value) if isinstance(value, Tensor) and value.shape == new.shape else value
            for name, value in state.items()
        }
        del optimizer.state[parameter]


def _divided_as(parameter: nn.Parameter, moment: Tensor) -> Tensor:
    if not is_divided(parameter):
        return join(moment)
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    # Every rank has the whole moment, so that none needs to be sent its rows.
    return distribute_tensor(moment, mesh, placements, src_data_rank=None)
