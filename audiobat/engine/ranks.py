"""Rank, device and precision of this process: torchrun's environment and two flags in, `Ranks` and a type out.

A run passes its `Ranks` on. The functions at the end are for what stands deep in a model: they ask torch whether this
process is one of several, and change nothing in one that is alone. By them a step is the same on any number of ranks: a
function of the global batch, which is the ranks' batches in the order of the ranks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton

from audiobat.errors import AudiobatError

REDUCTIONS = {"mean": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


@dataclass(frozen=True)
class Ranks:
    """This process among `world_size` processes that train one model; rank 0 writes."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` itself, or with several ranks DDP around it, which averages gradients over the ranks."""
        if self.world_size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def reduce(self, value: Tensor, how: Literal["mean", "max", "min"]) -> Tensor:
        """The mean, maximum or minimum of `value` over the ranks; every rank must call it at the same point."""
        if self.world_size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value, REDUCTIONS[how])
        return value / self.world_size if how == "mean" else value

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every rank, in their order; every rank must call it at the same point."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def largest(self, value: int) -> int:
        """The largest `value` of any rank. It is exchanged between CPUs, so that nothing waits for the device."""
        return value if self.world_size == 1 else int(self.reduce(torch.tensor(value), "max"))

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world_size > 1:
            dist.barrier()


def check_batch(batch_size: int, ranks: Ranks) -> None:
    """Raise an AudiobatError unless every rank gets the same number of clips."""
    if batch_size % ranks.world_size:
        raise AudiobatError(f"train.batch_size is {batch_size}: make it a multiple of the {ranks.world_size} ranks.")


@contextmanager
def launch(device: str = "auto") -> Iterator[Ranks]:
    """The ranks that torchrun started, or this process alone; a process group is made only for more than one."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world_size == 1:
        yield Ranks(chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(chosen, rank, world_size)
    finally:
        dist.destroy_process_group()


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The device called `name`: `auto` (a GPU if there is one, else the CPU), `cpu`, `cuda`, `cuda:1`, ...

    `auto` and `cuda` take the GPU whose number is `local_rank`. Raises AudiobatError for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise AudiobatError(f"--device {name!r} is no device: use auto, cpu, cuda or cuda:0.") from None
    if device.type != "cuda":
        try:
            if device.type == "meta":
                raise RuntimeError("it holds no values")
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ImportError):  # as torch says that it was built without it
            raise AudiobatError(f"--device {name!r} is not here: use auto, cpu, cuda or cuda:0.") from None
        return device
    index = local_rank if device.index is None else device.index
    count = torch.cuda.device_count()
    if index >= count:
        raise AudiobatError(f"--device {name!r} asks for GPU {index}, but {count} are here: use --device cpu.")
    return torch.device("cuda", index)


def pick_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast type for `auto`, `fp32` or `bf16`; None means fp32 without autocast.

    `auto` is bf16 where the device computes in it natively; elsewhere bf16 would be many times slower than fp32.
    """
    if name not in ("auto", "fp32", "bf16"):
        raise AudiobatError(f"--precision {name!r} is unknown: use auto, fp32 or bf16.")
    native = False
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # torch has no public question for CPUs; where this private one is gone, fp32 is the safe answer.
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if name == "bf16" or (name == "auto" and native) else None


def pick_compile(name: str, device: torch.device) -> bool:
    """Whether steps on a device run by torch.compile, for `auto` (on a GPU for which it can), `on` or `off`.

    Raises AudiobatError for `on` where torch.compile lacks what it builds kernels with.
    """
    if name == "off" or (name == "auto" and device.type != "cuda"):
        return False
    if device.type == "cuda":
        able, missing = has_triton(), "the package triton"
    else:
        compilers = (os.environ.get("CXX"), "g++", "clang++", "cl")
        able, missing = any(shutil.which(compiler) for compiler in compilers if compiler), "a C++ compiler"
    if not able and name == "on":
        raise AudiobatError(f"--train.compile on needs {missing}, which is not here: install it, or use off.")
    return able


def place() -> tuple[int, int]:
    """Rank of this process and the number of ranks; 0 of 1 in a process that is alone."""
    grouped = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)


def own_rows(rows: Tensor) -> Tensor:
    """This rank's rows of those of the global batch, [G, ...] to [G / ranks, ...]."""
    rank, ranks = place()
    share = len(rows) // ranks
    return rows[rank * share : (rank + 1) * share]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks in their order, [B, ...] to [ranks * B, ...], without gradient; every rank must call it."""
    ranks = place()[1]
    if ranks == 1:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(ranks)]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def counts_of_ranks(count: int) -> list[int]:
    """The `count` of every rank, in their order; every rank must call it at the same point.

    It is exchanged between CPUs, so that nothing waits for the device.
    """
    return gather_rows(torch.tensor([count])).tolist()


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of every rank's `value`, without gradient; every rank must call it at the same point."""
    if place()[1] == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_ranks(mean: Tensor, count: Tensor | int) -> Tensor:
    """This rank's part of the mean over all ranks' items, from its own `mean` over `count` items, both scalars.

    The log averages the ranks' losses, and DDP their gradients, as if each rank had as many items. So each mean is
    weighted by its rank's share of the items: the average of the parts is then the mean over all items. No items at all
    give 0. Every rank must call it at the same point.
    """
    ranks = place()[1]
    if ranks == 1:
        return mean
    if isinstance(count, int):
        count = torch.full((), count, device=mean.device)  # filled on the device: a copy to it would wait for it
    count = count.double()  # which holds any count
    return mean * (count * ranks / sum_over_ranks(count).clamp(min=1)).to(mean.dtype)


def any_rank(here: bool) -> bool:
    """Whether something is so on any rank; every rank must call it at the same point."""
    return any(counts_of_ranks(here))
