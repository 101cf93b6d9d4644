"""Signals that ask work to stop: noted by a training, which saves first; raised as `Stopped` in all other work.

While ranks meet signals are held: one that left before the others know it would be waited for.

SIGTERM, SIGINT (Ctrl-C), SIGUSR1 and SIGHUP are what schedulers send before they take a machine away, or what a user
sends. A forked process that loads data inherits the handlers: there these signals are its parent's business, except
SIGTERM, with which the parent ends it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from audiobat.errors import Stopped

# Windows has no SIGUSR1 and no SIGHUP.
STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]


class Note:
    """Whether a signal has come."""

    came = False


@contextmanager
def noted() -> Iterator[Note]:
    """Note the signals instead of dying of them; a second Ctrl-C raises KeyboardInterrupt."""
    note = Note()

    def handle(number: int) -> None:
        if note.came and number == signal.SIGINT:
            raise KeyboardInterrupt
        note.came = True
        if hasattr(signal, "SIGCHLD"):
            # The signal may end the loading workers too: keep torch from raising for that in the middle of a step.
            # (By a function: Python complains of a default that comes between a signal and its handling.)
            signal.signal(signal.SIGCHLD, lambda number, frame: None)

    with handled(handle):
        yield note


@contextmanager
def raised() -> Iterator[None]:
    """Raise `Stopped` where the first signal finds this process; a second Ctrl-C raises KeyboardInterrupt."""
    came: list[int] = []

    def handle(number: int) -> None:
        came.append(number)
        if len(came) == 1:  # another one would break off what the first has to tidy up
            raise Stopped(f"stopped by {signal.Signals(number).name}: the same command goes on from here.")
        if number == signal.SIGINT:
            raise KeyboardInterrupt

    with handled(handle):
        yield


@contextmanager
def held() -> Iterator[None]:
    """Keep the first signal until the end of the block, where it goes to the handler of before.

    A second Ctrl-C raises KeyboardInterrupt at once. Where the block ends by an error, that error says enough.
    """
    came: list[int] = []

    def handle(number: int) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    with handled(handle):
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Let `handle` have the signals that reach this process; the old handlers come back at the end."""
    process = os.getpid()

    def of_this_process(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            handle(number)
        elif number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():  # only the main one may handle signals
        yield
        return
    before = {}
    for number in STOPPING:
        if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
            continue  # under nohup: the work is to outlive its terminal
        before[number] = signal.signal(number, of_this_process)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def leave_to_parent() -> None:
    """In a process that works for another one: die of SIGTERM, by which the parent ends it, and of nothing else."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
