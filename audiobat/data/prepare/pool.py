"""Shards to processes, one at a time: a process that is killed is replaced; a clip that kills each is left out."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from audiobat.data.prepare.pack import Job, pack_shard
from audiobat.errors import AudiobatError

DEATHS = 2  # in a row at the same clip of a shard, after which the clip is to blame
KILLS = 4  # the same, where the system killed the process: for want of memory, perhaps another's
STARTS = 4  # processes that may die outside any clip, in a row for one shard


@dataclass
class Worker:
    """A process that writes shards, and the shard that it is at."""

    job: Job
    process: BaseProcess
    row: int | None = None  # that it reads
    rows: int = 0  # begun
    done: bool = False

    def give(self, job: Job, connection: Connection) -> None:
        """Hand it the next shard."""
        self.job, self.row, self.rows, self.done = job, None, 0, False
        tell(connection, job)


class Deaths:
    """Which clips processes died of. Who gets past a clip clears it: one that is to blame kills whoever comes."""

    def __init__(self) -> None:
        self._latest: dict[int, tuple[int | None, int]] = {}  # of each shard: row, and deaths there in a row

    def judge(self, worker: Worker) -> Job:
        """The job of a worker that died, to be done again: without the clip that has killed too many in a row.

        Raises:
            AudiobatError: processes die without having begun a clip.
        """
        job, row, cause = worker.job, worker.row, cause_of_death(worker.process.exitcode)
        before, count = self._latest.get(job.number, (row, 0))
        count = count + 1 if before == row else 1
        self._latest[job.number] = (row, count)
        if row is None and count == STARTS:
            raise AudiobatError(
                f"Processes cannot be started, or die outside any clip ({cause}): in a script of your own, call "
                'prepare under `if __name__ == "__main__":`; if memory ran out, use fewer --workers.'
            )
        if row is not None and count == (KILLS if cause == "SIGKILL" else DEATHS):
            reason = f"{count} processes died reading it ({cause}): if memory ran out, cut it with --window-seconds."
            job = replace(job, skip=job.skip | {row: reason})
        return job


def pack_shards(jobs: Iterable[Job], workers: int, advance: Callable[[int], None]) -> None:
    """Do the jobs, as many at once as there are `workers`; calls `advance` with clips begun (or, after a death, lost).

    Raises:
        AudiobatError: no process can be started.
        OSError: a shard cannot be written. Whatever is raised, no process is left.
    """
    context = worker_context()
    waiting = iter(jobs)
    again: deque[Job] = deque()
    crew: dict[Connection, Worker] = {}
    deaths = Deaths()

    def next_job() -> Job | None:
        job = next(waiting, None)
        return again.popleft() if job is None and again else job  # by then, what killed processes may have passed

    try:
        while True:
            while len(crew) < workers and (job := next_job()) is not None:
                connection, worker = hire(context, job)
                crew[connection] = worker  # before anything can fail
                worker.give(job, connection)
            if not crew:
                return
            for ready in wait(list(crew)):
                assert isinstance(ready, Connection)
                worker = crew[ready]
                alive = listen(ready, worker, advance)
                if alive and not worker.done:
                    continue
                if alive and (job := next_job()) is not None:
                    worker.give(job, ready)
                    continue
                tell(ready, None)
                del crew[ready]
                ready.close()
                worker.process.join()
                if not worker.done:
                    advance(-worker.rows)
                    again.append(deaths.judge(worker))
    finally:
        for worker in crew.values():
            worker.process.kill()
        for worker in crew.values():
            worker.process.join()


def worker_context() -> BaseContext:
    """How processes are made: forked from a small server that has imported what they need, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def hire(context: BaseContext, job: Job) -> tuple[Connection, Worker]:
    """A new process for a job, and the connection by which it gets that and reports."""
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,), daemon=True)  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    return ours, Worker(job, process)


def work(connection: Connection) -> None:
    """In a process of its own: write the shards that come, until None does.

    Reports each row before it is read (None: all are), and how each shard ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(EOFError, OSError):  # the main process is gone
        while (job := connection.recv()) is not None:
            try:
                pack_shard(job, connection.send)
            except BrokenPipeError:
                return
            except Exception as error:
                error.add_note(traceback.format_exc())  # of this process
                connection.send(error)
            else:
                connection.send("done")


def tell(connection: Connection, job: Job | None) -> None:
    """Send a shard, or None for no more; a process that is dead shows so when listened to."""
    with suppress(OSError):
        connection.send(job)


def listen(connection: Connection, worker: Worker, advance: Callable[[int], None]) -> bool:
    """Take one report; returns whether there will be more. Raises what the worker could not go on after."""
    try:
        report = connection.recv()
    except (EOFError, OSError):  # OSError: it was killed in the midst of a report
        return False
    if isinstance(report, Exception):
        raise report
    if report == "done":
        worker.done = True
    else:
        worker.row = report
        if report is not None:
            worker.rows += 1
            advance(1)
    return True


def cause_of_death(exit_code: int | None) -> str:
    """`SIGKILL`, or `exit code 1`."""
    return signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
