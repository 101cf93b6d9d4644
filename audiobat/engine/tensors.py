"""Files of named tensors: read, checked against the shapes that a config asks for, written, digested.

Nothing here knows a model: `models/building.py` makes one from these tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError, did_you_mean

DIGEST = "audiobat_sha256"  # in the metadata of a safetensors file: of its tensors
FLOATS = (torch.float32, torch.float16, torch.bfloat16)  # these become float32 without a loss


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; AudiobatError if it is missing or damaged.

    The format has no checksum: of a file that `write_tensors` made, values are held against the digest there.
    """
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is no plain file")
        with safetensors.safe_open(file, "pt") as opened:
            digest = (opened.metadata() or {}).get(DIGEST)
        tensors = safetensors.torch.load_file(file)
        if digest is not None and digest != sha256_of(tensors):
            raise ValueError("its tensors do not match their checksum")
        return tensors
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise AudiobatError(f"{file} cannot be read as safetensors ({error}): copy or download it again.") from None


def write_tensors(file: Path, module: nn.Module) -> None:
    """Write a module's parameters and buffers as safetensors, with their digest."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_atomic(file, safetensors.torch.save(tensors, metadata={"format": "pt", DIGEST: sha256_of(tensors)}))


def count_blocks(tensors: Mapping[str, Tensor]) -> int:
    """How many different `blocks.N` there are among the names."""
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


def check_values(tensors: Mapping[str, Tensor], where: object, wanted: Mapping[str, Tensor] | None = None) -> None:
    """Raise an AudiobatError that names the first tensor that is of another type than weights are, or not finite.

    `wanted`: tensors whose whole numbers may be whole numbers, such as the count of batches that a norm keeps.
    """
    for name, tensor in tensors.items():
        if wanted is not None and name in wanted and not wanted[name].is_floating_point():
            fits = tensor.dtype == wanted[name].dtype
        else:
            fits = tensor.dtype in FLOATS
        if not fits:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise AudiobatError(f"{where}: {name} holds {kind} numbers, where weights are float32: export it again.")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise AudiobatError(
                f"{where}: {name} holds NaN or infinity: the training that made it has failed; use an earlier "
                "checkpoint."
            )


def weights_sha256(module: nn.Module) -> str:
    """Digest of a module's parameters and buffers: names, types, shapes and values."""
    return sha256_of(module.state_dict())


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Digest of named tensors: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(safetensors.torch.save({"": tensor.detach().cpu().contiguous()}))
    return digest.hexdigest()
