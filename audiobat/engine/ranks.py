"""Rank, device and precision of this process: the launcher's environment and two flags in, `Ranks` and a type out.

A run passes its `Ranks` on. The functions at the end are for what stands deep in a model: they ask torch whether this
process is one of several, and change nothing in one that is alone. By them a step is the same on any number of ranks: a
function of the global batch, which is the ranks' batches in the order of the ranks.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import HashStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _get_default_store
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton

from audiobat.config import TrainConfig
from audiobat.engine.rank_watch import COME, RankWatch
from audiobat.engine.signals import held
from audiobat.errors import AudiobatError

NEVER = timedelta(days=365)  # until a collective ends by itself: it is no sign of death that a rank is long in coming
SHELL = 0xFFFFFFF0  # from here on SLURM numbers what is no step of srun: the shells of a job, and the like
LAUNCHES = count()  # of this process
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

    def shared(self) -> Store:
        """A store of numbers and words for one use: what a rank puts there all see, and none waits for another."""
        return HashStore() if self.world_size == 1 else PrefixStore("shared", _get_default_store())

    def largest(self, value: int) -> int:
        """The largest `value` of any rank. It is exchanged between CPUs, so that nothing waits for the device."""
        return value if self.world_size == 1 else int(self.reduce(torch.tensor(value), "max"))

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world_size > 1:
            dist.barrier()


@dataclass(frozen=True)
class Place:
    """This process among those of its job, and the address of rank 0's store, or of torchrun's."""

    rank: int = 0
    local_rank: int = 0  # among the processes of this machine
    world_size: int = 1
    address: str = ""
    port: int = 0


def find_place(environment: Mapping[str, str]) -> Place:
    """The place of this process, by the variables of torchrun or else of a step of SLURM (`srun`); alone without any.

    Raises:
        AudiobatError: variables that are missing beside those that are set, or make no sense.
    """
    if not (environment.get("RANK") or environment.get("WORLD_SIZE")):
        place = place_in_slurm(environment)
    elif (world_size := whole_number(environment, "WORLD_SIZE")) == 1:
        place = Place(local_rank=whole_number(environment, "LOCAL_RANK", 0))
    else:
        address, port = variable(environment, "MASTER_ADDR"), whole_number(environment, "MASTER_PORT")
        rank, local_rank = whole_number(environment, "RANK"), whole_number(environment, "LOCAL_RANK", 0)
        place = Place(rank, local_rank, world_size, address, port)
    if not 0 <= place.rank < place.world_size:
        raise AudiobatError(f"Rank {place.rank} of {place.world_size} is none: ranks count from 0, up to one less.")
    return place


def place_in_slurm(environment: Mapping[str, str]) -> Place:
    """The place of this process in a step of SLURM; alone in the shell of a job, where no other ranks will come.

    The shell of `sbatch` has a number of tasks and the number 0, too, but no step around it. That of `salloc` may be a
    step, of one task.
    """
    step = whole_number(environment, "SLURM_STEP_ID", SHELL)
    world_size = whole_number(environment, "SLURM_STEP_NUM_TASKS", whole_number(environment, "SLURM_NTASKS", 1))
    if step >= SHELL or world_size == 1:
        return Place()
    nodes = environment.get("SLURM_STEP_NODELIST") or variable(environment, "SLURM_JOB_NODELIST")
    port = (
        10_000 + (7 * whole_number(environment, "SLURM_JOB_ID") + step) % 20_000
    )  # below those that systems give away
    own_gpu = environment.get("CUDA_VISIBLE_DEVICES", ",").count(",") == 0  # --gpus-per-task: each sees one, number 0
    return Place(
        whole_number(environment, "SLURM_PROCID"),
        0 if own_gpu else whole_number(environment, "SLURM_LOCALID"),
        world_size,
        environment.get("MASTER_ADDR") or first_host(nodes),
        whole_number(environment, "MASTER_PORT", port),
    )


def first_host(nodes: str) -> str:
    """The first host of a list as SLURM writes it: `gpu[003-007,012],login1` begins with gpu003."""
    ranges = re.compile(r"\[(\w+)[^\]]*\]")
    return ranges.sub(r"\1", nodes).split(",")[0]


def variable(environment: Mapping[str, str], name: str) -> str:
    """A variable; AudiobatError where it is not set."""
    if not (value := environment.get(name)):
        known = " and ".join(known for known in ("RANK", "WORLD_SIZE", "SLURM_STEP_ID") if environment.get(known))
        hint = "start ranks by torchrun or srun, which set all that they need, or unset these variables"
        raise AudiobatError(f"{name} is not set in the environment, though {known} is: {hint}.")
    return value


def whole_number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A variable that is a whole number; AudiobatError where it is none, or not set without a default."""
    if default is not None and not environment.get(name):
        return default
    value = variable(environment, name)
    try:
        return int(value)
    except ValueError:
        raise AudiobatError(f"{name} is {value!r}: it must be a whole number.") from None


def check_batch(batch_size: int, ranks: Ranks) -> None:
    """Raise an AudiobatError unless every rank gets the same number of clips."""
    if batch_size % ranks.world_size:
        raise AudiobatError(f"train.batch_size is {batch_size}: make it a multiple of the {ranks.world_size} ranks.")


@contextmanager
def launch(
    device: str = "auto",
    timeout: float = TrainConfig.timeout,
    go_on: Callable[[], str] = lambda: "The same command goes on from what is done.",
) -> Iterator[Ranks]:
    """The ranks that torchrun or srun started, or this process alone; a process group is only made of more than one.

    Several ranks end together: an error on one ends the others with its sentence. So do the death of one and its
    silence for `timeout` seconds, with what `go_on` says. Their processes end in the midst of what they do (see
    `rank_watch.py`). How long a collective takes does not matter.
    """
    place = find_place(os.environ)
    if place.world_size == 1:
        yield Ranks(pick_device(device, place.local_rank))
        return
    with ExitStack() as watched:
        with held():  # a rank that left before the others know it would be waited for
            store = store_of(place, COME * timeout)
            watched.enter_context(RankWatch(store, place.address, place.rank, place.world_size, timeout, go_on))
            chosen = pick_device(device, place.local_rank)
            if chosen.type == "cuda":
                torch.cuda.set_device(chosen)
            backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
            dist.init_process_group(backend, None, NEVER, place.world_size, place.rank, store)
        yield Ranks(chosen, place.rank, place.world_size)
    dist.destroy_process_group()  # where a rank has failed, it could wait for ever; its process is about to end


def store_of(place: Place, seconds: float) -> Store:
    """What the ranks find each other by, with names for this `launch` alone.

    Raises:
        AudiobatError: rank 0 is not there for so many seconds, or its port is taken.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = tcp_store(place, os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True", seconds)
    return PrefixStore(f"audiobat/{attempt}/{next(LAUNCHES)}", store)


@cache
def tcp_store(place: Place, by_agent: bool, seconds: float) -> Store:
    """The store at an address, which torchrun's agent or rank 0 holds for as long as its process lasts."""
    own = place.rank == 0 and not by_agent
    try:
        return TCPStore(
            place.address, place.port, None, own, timedelta(seconds=seconds), wait_for_workers=False, multi_tenant=True
        )
    except dist.DistError as error:
        why = f"({(str(error).splitlines() or [''])[0]})"
        if own:
            hint = f"cannot listen there {why}: give another MASTER_PORT"
        else:
            hint = f"does not find it there {why}: start all {place.world_size} ranks, and look at the output of rank 0"
        raise AudiobatError(f"Rank 0 is at {place.address}, port {place.port}, and rank {place.rank} {hint}.") from None


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
