"""What a run takes of memory at the least, held against what the machine has, before anything of that size is made.

In: what takes memory, each with its bytes and the settings that make it smaller. Out: nothing, or an AudiobatError that
names the largest. Bytes are lower bounds, so that nothing is refused that would fit. What runs out of memory all the
same is an error of an allocator, whose sentence is here, too.
"""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from audiobat.errors import AudiobatError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

FLOAT, INDEX = 4, 8  # bytes of a float32 and of an int64
WORKER = 5 * 2**20  # bytes that a process of its own takes, at the least, of what others do not share
OWN_GROUPS = Path("/proc/self/cgroup")  # the control groups of this process, one in a line
CGROUPS = (  # what such a line holds, where it has its folder, and the file of the limit
    ("0::", Path("/sys/fs/cgroup"), "memory.max"),
    (":memory:", Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
)
ALLOCATORS = (  # what errors of torch's allocators, which are plain RuntimeErrors, say
    *("can't allocate memory", "not enough memory", "Cannot allocate memory", "out of memory", "ALLOC_FAILED"),
    "Storage size calculation overflowed",
)


class Need(NamedTuple):
    """Something that takes memory."""

    what: str  # as in "masks"
    bytes: float
    settings: str  # that make it smaller, as in "mask.clones or train.batch_size"
    is_own: bool = True  # in the address space of this process, not of those that it starts


class Room(NamedTuple):
    """The memory that there is for a run."""

    bytes: float
    words: str  # as in "this machine has 23.4 GiB"


def workers_need(count: int, name: str) -> Need:
    """The processes that the setting `name` asks for."""
    return Need("processes", count * WORKER, name, is_own=False)


def check_fits(what: str, on_device: Iterable[Need], device: torch.device, in_ram: Iterable[Need] = ()) -> None:
    """Raise an AudiobatError that says what exceeds the memory of a device, or of the machine (see `shortage`)."""
    if sentence := shortage(what, on_device, device, in_ram):
        raise AudiobatError(sentence)


def shortage(what: str, on_device: Iterable[Need], device: torch.device, in_ram: Iterable[Need] = ()) -> str | None:
    """A sentence on the largest need of `what` if they all are more memory than there is; None if they fit.

    Ranks of one machine, if they compute on its CPU, share its memory.
    """
    is_gpu, ranks = device.type == "cuda", int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_device, in_ram = list(on_device), list(in_ram)
    if is_gpu and (sentence := excess(what, on_device, [free_on(device)])):
        return sentence
    needs = in_ram if is_gpu else [*on_device, *in_ram]
    return excess(what, needs, limits_of_machine(), ranks) or excess(
        what, [need for need in needs if need.is_own], limits_of_process()
    )


def excess(what: str, needs: Sequence[Need], rooms: Iterable[Room], times: int = 1) -> str | None:
    """A sentence if `needs`, as many `times`, are more than the smallest of `rooms`; None if they fit."""
    total, room = times * sum(need.bytes for need in needs), min(rooms, default=None)
    if room is None or total <= room.bytes:
        return None
    largest = max(needs, key=lambda need: need.bytes)
    share = "" if len(needs) == 1 else f", most of it for {largest.what}"
    return f"{what} takes {in_words(total)} of memory or more{share}, and {room.words}: lower {largest.settings}."


def free_on(device: torch.device) -> Room:
    """What is free of a GPU's memory, and what this process holds there without use."""
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Room(free, f"{torch.cuda.get_device_name(device)} has {in_words(free)} free")


def room_in_ram() -> float:
    """Bytes that this process may take of the machine's memory at the most; infinite where nothing says so."""
    return min((room.bytes for room in (*limits_of_machine(), *limits_of_process())), default=math.inf)


def limits_of_machine() -> Iterator[Room]:
    """What all processes together may take: memory and swap of the machine, or of the control group (a container)."""
    swap = first_number(r"SwapTotal:\s+(\d+)", Path("/proc/meminfo")) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + swap
        yield Room(have, f"this machine has {in_words(have)}")
    for line in OWN_GROUPS.read_text().splitlines() if OWN_GROUPS.exists() else ():
        for mark, root, name in CGROUPS:
            if mark in line:
                folder = root / line.partition(mark)[2].lstrip("/")
                for place in (folder, *folder.parents):  # a group is held to the limits of all that it lies in
                    if place.is_relative_to(root) and (limit := first_number(r"^(\d+)$", place / name)):
                        yield Room(limit + swap, f"its control group (a container's) may take {in_words(limit + swap)}")


def limits_of_process() -> Iterator[Room]:
    """What this process may still take by its own limit (`ulimit -v`)."""
    limit = -1 if resource is None else resource.getrlimit(resource.RLIMIT_AS)[0]
    if resource is not None and limit != resource.RLIM_INFINITY:
        left = max(limit - first_number(r"VmSize:\s+(\d+)", Path("/proc/self/status")) * 1024, 0)
        yield Room(left, f"this process may take {in_words(left)} more (ulimit -v)")


def first_number(pattern: str, path: Path) -> int:
    """The number that a pattern finds in a file; 0 if there is none, or no such file."""
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def in_words(count: float) -> str:
    """Bytes as people read them: 1.5 GiB."""
    units = ("MiB", "GiB", "TiB", "PiB")
    power = min(max(int(math.log2(max(count, 1)) // 10) - 2, 0), len(units) - 1)
    size = count / 2 ** (10 * (power + 2))
    if size >= 1e6:
        return f"over a million {units[power]}"
    return f"{size:,.0f} {units[power]}" if size >= 100 else f"{size:.3g} {units[power]}"


def ran_out(error: BaseException) -> str | None:
    """What has run out, if an error of Python, numpy, torch or the system says that memory has, or processes; or None.

    An example: `Memory ran out where 7.3 TiB more were wanted`.
    """
    if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.EMFILE, errno.ENFILE):
        return f"No more processes or files can be opened ({error.strerror})"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "No more threads can be started"
    by_torch = isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATORS)
    by_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (by_torch or by_system or isinstance(error, torch.OutOfMemoryError | MemoryError)):
        return None
    where = "The GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "Memory"
    asked = re.search(r"allocate ([\d.]+) (bytes|\w?iB)", str(error))
    if asked is None:
        return f"{where} ran out"
    size = in_words(float(asked[1])) if asked[2] == "bytes" else f"{asked[1]} {asked[2]}"
    return f"{where} ran out where {size} more were wanted"
