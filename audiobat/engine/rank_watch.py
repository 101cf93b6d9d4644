"""Whether all ranks are alive: a thread beside each rank, which ends its process with a sentence once another is not.

In: this rank's number, a store in which rank 0 leaves its address, and after how many seconds of silence a rank counts
as stopped. Out: nothing while all is well; else one sentence on every rank, and exit code 2 for a user's mistake or 69.

A rank that waits for others in a collective hears no exception, and cannot tell one that computes for an hour from one
that is dead. So every rank holds a connection to rank 0 as well. The system closes it when a process ends, however it
ends; a process that is stopped keeps it, and is silent. Through it go lines: an empty one each second, `bye` at the end
of the work, and a failure as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any, cast

from torch.distributed import DistError, Store  # type: ignore[attr-defined]

from audiobat.errors import INTERRUPTED, LOST, REFUSED, STOPPED, AudiobatError, Stopped

BEAT = 1.0  # seconds between two signs of life
COME = 5  # times as long as a rank may be silent it may take to start: its imports may come from a slow disk
SURE = 3.0  # seconds in which an error of a collective turns out to be another rank's end, if it is
PASS_ON = 5.0  # seconds that ranks have to say that they know of a failure
LINGER = 10.0  # seconds that they wait for the end of the rank that failed, so that it is the first to end
ANSWER = 20.0  # seconds that rank 0 has to answer a rank that comes
LONGEST, SHOWN = 65_536, 4_000  # bytes of a line; characters of a sentence in it
ADDRESS = "watch"  # under which rank 0's address is in the store
ALIVE, BYE = b"", b"bye"  # lines

_sockets: set[socket.socket] = set()  # open in this process


def _close_all() -> None:
    while _sockets:
        _sockets.pop().close()


if hasattr(os, "register_at_fork"):  # a worker that outlives its killed rank would keep the connections open
    os.register_at_fork(after_in_child=_close_all)


@dataclass(frozen=True)
class Failure:
    """Why all ranks end, and with which exit code."""

    sentence: str
    code: int

    def line(self) -> bytes:
        """As it goes through a connection."""
        return json.dumps(asdict(self)).encode()


@dataclass(eq=False)
class _Member:
    """What a connection leads to: another rank, or the main thread of this one."""

    socket: socket.socket
    name: str | None = None  # None: it has not said who it is
    silent: float = 0.0  # seconds since the last line
    left: bool = False  # it said bye
    knows: bool = False  # of a failure
    gone: bool = False  # the connection is closed
    rest: bytes = b""  # the start of a line

    def send(self, line: bytes) -> None:
        """Send a line as far as that goes without waiting; whoever is gone is found out by reading."""
        with suppress(OSError):
            self.socket.send(line + b"\n")

    def lines(self) -> Iterator[bytes]:
        """The lines that have come; notes the end of the connection."""
        try:
            data = self.socket.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.silent = 0.0
        *lines, self.rest = (self.rest + data).split(b"\n")
        yield from lines
        self.gone = self.gone or not data or len(self.rest) > LONGEST


class RankWatch:
    """Watches the ranks from `with` to its end, at which every rank waits for all others.

    A rank that leaves by an error ends them all: an AudiobatError is every rank's sentence.

    Args:
        store: the ranks' own, on the machine `address`.
        rank: of this process, among `world_size`.
        timeout: seconds without a sign of life after which a rank counts as stopped.
        go_on: says what to do when a rank is lost, such as from which checkpoint the command goes on.
    """

    def __init__(
        self, store: Store, address: str, rank: int, world_size: int, timeout: float, go_on: Callable[[], str]
    ) -> None:
        self._rank, self._world_size, self._timeout, self._go_on = rank, world_size, timeout, go_on
        self._absent = set(range(1, world_size)) if rank == 0 else set()  # ranks that have not come
        self._awaited = 0.0  # seconds for which rank 0 has been there
        self._ending, self._over = threading.Event(), threading.Event()  # another rank has failed; the thread has ended
        self._selector = selectors.DefaultSelector()
        inner, self._main_end = socket.socketpair()
        _sockets.add(self._main_end)
        self._main = self._add(inner, f"Rank {rank}")  # the main thread, which is heard as other ranks are
        self._ranks: list[_Member] = []
        self._token = secrets.token_hex(16)  # tells ranks from strangers
        if rank == 0:
            self._listen(store, address)
        else:
            self._connect(store)

    def __enter__(self) -> None:
        threading.Thread(target=self._run, name="rank watch", daemon=True).start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or (isinstance(error, Stopped) and not str(error)):  # on which the ranks have agreed
            self._main_end.sendall(BYE + b"\n")
            self._join()
            self._selector.close()
            _close_all()
            return
        if not isinstance(error, AudiobatError):  # it may follow from the end of another rank
            with suppress(Stopped):
                self._ending.wait(SURE)
        if not self._ending.is_set():
            self._main_end.sendall(self._failure_of(error).line() + b"\n")
        self._join()
        for member in self._ranks:  # the others wait for the end of this process, at which the system closes them
            member.socket.detach()

    def _join(self) -> None:
        """Wait for the end of the thread, which may be the end of the process, whatever signals come."""
        while not self._over.is_set():  # not by `join`: interrupted once, it takes the thread for ended (Python 3.11)
            with suppress(Stopped):
                self._over.wait()

    def _failure_of(self, error: BaseException) -> Failure:
        if isinstance(error, AudiobatError):
            return Failure(str(error)[:SHOWN], REFUSED)
        if isinstance(error, Stopped):
            return Failure(str(error), STOPPED)
        if not isinstance(error, Exception):
            return Failure(f"{self._name()} was interrupted. {self._advice()}", INTERRUPTED)
        what = (str(error).strip().splitlines() or [""])[0][:SHOWN]
        return Failure(f"{self._name()} failed by {type(error).__name__}: {what}. {self._advice()}", LOST)

    def _name(self) -> str:
        return f"Rank {self._rank} (process {os.getpid()} on {socket.gethostname()})"

    def _advice(self) -> str:
        try:
            return self._go_on()
        except Exception:  # whatever is the matter with the run folder, this process is about to end
            return ""

    def _add(self, connection: socket.socket, name: str | None = None) -> _Member:
        connection.setblocking(False)
        _sockets.add(connection)
        member = _Member(connection, name)
        self._selector.register(connection, selectors.EVENT_READ, member)
        return member

    def _listen(self, store: Store, address: str) -> None:
        """Wait for the other ranks at an address that the store tells them."""
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        listener = socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=dual)
        listener.setblocking(False)
        _sockets.add(listener)
        self._selector.register(listener, selectors.EVENT_READ)  # with no member: it accepts
        store.set(ADDRESS, json.dumps([own_addresses(address), listener.getsockname()[1], self._token, self._name()]))

    def _connect(self, store: Store) -> None:
        """Come to rank 0."""
        try:
            hosts, port, token, name = json.loads(store.get(ADDRESS))
        except DistError:
            raise AudiobatError(f"{self._name()} has waited in vain for rank 0: look at its output.") from None
        hello = json.dumps([token, self._rank, self._name()]).encode() + b"\n"
        for host in hosts:
            try:
                connection = socket.create_connection((host, port), timeout=ANSWER)
                connection.sendall(hello)
                if connection.recv(1):  # on another machine the same address may lead to a stranger
                    self._ranks.append(self._add(connection, name))
                    return
                connection.close()
            except OSError:
                continue
        raise AudiobatError(
            f"{self._name()} cannot reach rank 0 at {' or '.join(hosts)}, port {port}: let the machines of a job "
            "connect to each other's ports."
        )

    def _welcome(self, member: _Member, line: bytes) -> None:
        """Take a rank's word who it is; a stranger is sent away."""
        try:
            token, rank, name = json.loads(line)
            if token != self._token or rank not in self._absent:
                raise ValueError
        except (ValueError, TypeError, RecursionError):
            member.gone = True
            return
        member.name = str(name)
        member.send(ALIVE)
        self._ranks.append(member)
        self._absent.discard(rank)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        _sockets.discard(connection)
        connection.close()

    def _run(self) -> None:
        """The thread."""
        beat = monotonic()
        while not self._all_left():
            found = self._look(BEAT)
            if found is None and monotonic() - beat >= BEAT:
                found = self._beat(monotonic() - beat)
                beat = monotonic()
            if found is not None:
                self._end(*found)
                break
        else:
            for member in self._ranks if self._rank == 0 else ():
                member.send(BYE)
        self._over.set()

    def _all_left(self) -> bool:
        """Whether every rank said bye, as far as this one knows: rank 0 hears all, and says bye when all did."""
        if self._rank == 0:
            return self._main.left and not self._absent and all(member.left for member in self._ranks)
        return self._ranks[0].left

    def _received(self, seconds: float) -> Iterator[tuple[_Member, bytes]]:
        """Lines that come within some seconds, or none."""
        for key, _ in self._selector.select(seconds):
            member: _Member | None = key.data
            if member is None:
                with suppress(OSError):  # who came has gone again
                    self._add(cast(socket.socket, key.fileobj).accept()[0])
                continue
            for line in member.lines():
                yield member, line
            if member.gone:
                self._drop(member.socket)

    def _look(self, seconds: float) -> tuple[Failure, _Member | None] | None:
        """Hear the ranks and the main thread; what failed, and of whom that was heard."""
        for member, line in self._received(seconds):
            if member is self._main and self._rank:
                self._ranks[0].send(line)  # of two failures at once rank 0 decides which ends the job
            if member.name is None:
                self._welcome(member, line)
            elif line == BYE:
                member.left = True
            elif line != ALIVE and (self._rank == 0 or member is not self._main):
                return Failure(**json.loads(line)), member
        for member in self._ranks:
            if member.gone and not member.left:
                return Failure(f"{member.name} is gone: it crashed or was killed. {self._advice()}", LOST), member
        return None

    def _beat(self, elapsed: float) -> tuple[Failure, _Member | None] | None:
        """Give a sign of life, and see who has given none for too long."""
        # As much as this process was awake for: if the whole job was stopped for an hour, nobody was silent for it.
        elapsed = min(elapsed, 2 * BEAT)
        for member in self._ranks:
            if self._rank == 0 or not self._main.left:
                member.send(ALIVE)
            member.silent += elapsed
            if member.silent > self._timeout + BEAT and not member.left:
                member.gone = True
                sentence = f"{member.name} has given no sign of life for {self._timeout:g} s (train.timeout): it is "
                return Failure(f"{sentence}stopped, or its machine is. {self._advice()}", LOST), None
        self._awaited += elapsed
        if self._absent and self._awaited > COME * self._timeout:
            ranks = f"Rank {min(self._absent)} of {self._world_size} has"
            sentence = f"{ranks} not come for {COME * self._timeout:g} s ({COME} times train.timeout): "
            return Failure(f"{sentence}start {self._world_size} processes, and look at its own output.", LOST), None
        return None

    def _end(self, failure: Failure, source: _Member | None) -> None:
        """End this process, when all know why, and after that of the rank that failed.

        Where that is this one, it is left to its main thread.
        """
        others = [member for member in self._ranks if member is not source]
        for member in others:
            member.send(failure.line())
        if source is not self._main:
            self._ending.set()
            _in_time(lambda: print(f"audiobat: {' '.join(failure.sentence.split())}", file=sys.stderr, flush=True))
        self._wait(lambda: not self._absent and all(member.knows or member.gone for member in others), PASS_ON, failure)
        if source is self._main:
            return
        if source is not None:
            source.send(BYE)
            self._wait(lambda: source.gone, LINGER, failure)
        for child in multiprocessing.active_children():  # that load data
            child.kill()
        _in_time(lambda: sys.stdout.flush())
        os._exit(failure.code)

    def _wait(self, done: Callable[[], bool], seconds: float, failure: Failure) -> None:
        """Hear the ranks until `done`, for some seconds at most; who comes late is told of the failure, too."""
        until = monotonic() + seconds
        while not done() and (left := until - monotonic()) > 0:
            for member, line in self._received(left):
                if member.name is None:
                    self._welcome(member, line)
                    member.send(failure.line())
                else:  # any line but a sign of life, such as a failure of its own, says that it knows
                    member.knows = member.knows or line != ALIVE


def own_addresses(master: str) -> list[str]:
    """Under which other machines may reach this one, which is likely `master` itself; the likeliest first."""
    found = []
    with suppress(OSError):
        family = socket.getaddrinfo(master, 9)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((master, 9))  # sends nothing: it only asks which address of this machine leads there
            found.append(probe.getsockname()[0])
    return list(dict.fromkeys([*found, master, socket.gethostname()]))


def _in_time(write: Callable[[], Any]) -> None:
    """Call what writes to a stream, and go on after two seconds: the main thread may hold the stream for ever."""
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(2)
