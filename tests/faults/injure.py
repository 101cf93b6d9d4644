"""How a process is hurt: by a signal, by a kill or by a full disk, at an instant that its own work decides; and a file.

Instants are counted in file events of the process: a file of its folder opened to write, renamed, made or removed. So a
seed names the same instants on a fast machine and on a slow one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
NO_LIMIT = resource.RLIM_INFINITY


@dataclass(frozen=True)
class Injury:
    """What is done to a process, and when.

    Attributes:
        signal: sent to the process; None: none.
        event: the file event at which the signal comes, or from which on no file can be opened to write.
        seconds: the signal comes so long after the event.
        full: the disk is full from the event on.
        largest: bytes that no file grows beyond, as on a disk that fills up in the midst of a write.
    """

    signal: signal.Signals | None = None
    event: int = 0
    seconds: float = 0.0
    full: bool = False
    largest: int = NO_LIMIT


@dataclass(frozen=True)
class Ended:
    """How a process ended: the exit code, negative after a deadly signal; its file events; what it printed."""

    code: int
    events: int
    said: str


def run(work: Callable[[], int], folder: Path, injury: Injury) -> Ended:
    """Do `work`, which writes below `folder`, in a forked process that is hurt on its way."""
    said, counted = Pipe(), Pipe()
    process = forked(lambda: _hurt(work, folder, injury, counted), said.write)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Ended(code, int(counted.read() or 0), said.read())


class Pipe:
    """A pipe that holds all that a process says, as no file may grow where the disk is full."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        fcntl.fcntl(self.write, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(self._read, False)

    def read(self) -> str:
        """What is in it, after the process has ended; those that it started may have it open for longer."""
        os.close(self.write)
        said = b""
        with suppress(BlockingIOError):
            while part := os.read(self._read, 1 << 20):
                said += part
        os.close(self._read)
        return said.decode(errors="replace")


def _hurt(work: Callable[[], int], folder: Path, injury: Injury, counted: Pipe) -> int:
    """Do `work` while a watch counts and does harm; its exit code."""
    watch = Watch(folder, injury)
    sys.addaudithook(watch)
    if injury.largest != NO_LIMIT:
        resource.setrlimit(resource.RLIMIT_FSIZE, (injury.largest, NO_LIMIT))
    code = work()
    os.write(counted.write, str(watch.events).encode())
    return code


def forked(work: Callable[[], int], said: int) -> int:
    """The id of a forked process that does `work`, prints to the descriptor `said`, ends with the code of `work`."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Watch:
    """An audit hook that counts the file events below a folder, and does harm at one of them."""

    def __init__(self, folder: Path, injury: Injury) -> None:
        self.injury, self.events = injury, 0
        self._folder, self._process = str(folder), os.getpid()

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if event not in EVENTS or os.getpid() != self._process:
            return
        if event == "open" and not int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR):  # type: ignore[call-overload]
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        if path.startswith("/") and not path.startswith(self._folder + "/"):
            return
        self.events += 1
        injury = self.injury
        if injury.full and self.events >= injury.event and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if injury.signal is not None and self.events == injury.event:
            if injury.seconds:
                threading.Thread(target=self._later, args=(injury,), daemon=True).start()
            else:
                os.kill(os.getpid(), injury.signal)

    def _later(self, injury: Injury) -> None:
        sleep(injury.seconds)
        assert injury.signal is not None
        os.kill(self._process, injury.signal)


def flip(path: Path, rng: random.Random) -> int:
    """Turn one bit of a file over; returns the byte's place."""
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return place


def cut(path: Path, rng: random.Random) -> int:
    """Cut a file off at a random byte; returns its new length."""
    length = rng.randrange(path.stat().st_size)
    os.truncate(path, length)
    return length
