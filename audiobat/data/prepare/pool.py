"""Shards to processes, one each: a process that dies is replaced, a clip that kills one after another is skipped.

A decoder in C may crash on a damaged file, and the system kills processes for want of memory: neither may end a run of
days. That is why this is no pool of the standard library, which gives up when one of its processes dies.
"""

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
from time import sleep

from audiobat.data.prepare.pack import Job, pack_shard
from audiobat.engine.signals import leave_to_parent
from audiobat.errors import AudiobatError

DEATHS = 2  # in a row at the same clip of a shard, after which the clip is to blame
KILLS = 4  # the same, where the system killed the process: for want of memory, perhaps another process's
STARTS = 4  # processes that may die outside any clip, in a row for one shard; attempts to start one
PAUSE = 0.5  # seconds between these, in which a killed server ends, so that another one is started
NO_PROCESSES = (
    "Processes cannot be started, or die outside any clip ({}): in a script of your own, call prepare under "
    '`if __name__ == "__main__":`; if memory ran out, use fewer --workers.'
)


@dataclass
class Worker:
    """A process that writes one shard."""

    job: Job
    process: BaseProcess
    clip_id: int | None = None  # the clip that it reads; None: none
    begun: int = 0  # clips of the shard
    done: bool = False


class Blame:
    """Counts the processes that died at each clip, to find clips that kill.

    Only deaths at the same clip in a row count: where another process got past the clip, the clip was not the cause.
    """

    def __init__(self) -> None:
        self._latest: dict[int, tuple[int | None, int]] = {}  # of each shard: clip_id, and deaths there in a row

    def job_again(self, worker: Worker) -> Job:
        """The job of a worker that died, to be done again: without the clip at which too many have died in a row.

        Raises:
            AudiobatError: processes die without having begun a clip.
        """
        job, clip_id, code = worker.job, worker.clip_id, worker.process.exitcode
        cause = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        before, count = self._latest.get(job.number, (clip_id, 0))
        count = count + 1 if before == clip_id else 1
        self._latest[job.number] = (clip_id, count)
        if clip_id is None and count == STARTS:
            raise AudiobatError(NO_PROCESSES.format(cause))
        if clip_id is not None and count == (KILLS if cause == "SIGKILL" else DEATHS):
            reason = f"{count} processes died reading it ({cause}): if memory ran out, cut it with --window-seconds."
            job = replace(job, skip=job.skip | {clip_id: reason})
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
    running: dict[Connection, Worker] = {}
    blame = Blame()

    def next_job() -> Job | None:
        job = next(waiting, None)
        return again.popleft() if job is None and again else job  # last: by then, memory may be free again

    try:
        while True:
            while len(running) < workers and (job := next_job()) is not None:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, theirs), daemon=True)  # type: ignore[attr-defined]
                running[ours] = Worker(job, process)  # before anything can fail
                start(process)
                theirs.close()  # else the end of the process would not be seen
            if not running:
                return
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                worker = running[ready]
                if receive(ready, worker, advance):
                    continue
                del running[ready]
                ready.close()
                worker.process.join()
                if not worker.done:
                    advance(-worker.begun)
                    again.append(blame.job_again(worker))
    finally:
        started = [worker.process for worker in running.values() if worker.process.pid is not None]
        for process in started:
            process.kill()
        for process in started:
            process.join()


def start(process: BaseProcess) -> None:
    """Start a process, again where the server that forks it was killed: the next attempt starts another server.

    Raises:
        AudiobatError: no attempt succeeds.
    """
    for attempt in range(1, STARTS + 1):
        try:
            process.start()
        except (EOFError, ConnectionError) as error:
            if attempt == STARTS:
                raise AudiobatError(NO_PROCESSES.format("what forks them was killed")) from error
            sleep(PAUSE)
        else:
            return


def worker_context() -> BaseContext:
    """How processes are made: forked from a small server that has imported what they need, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _work(job: Job, reports: Connection) -> None:
    """In a process of its own: write a shard.

    Reports each clip_id before the clip is read (None: all are), and at the end "done", or the error.
    """
    leave_to_parent()
    with suppress(OSError):  # the main process is gone
        try:
            pack_shard(job, reports.send)
        except BrokenPipeError:
            return
        except Exception as error:
            error.add_note(traceback.format_exc())  # of this process
            reports.send(error)
        else:
            reports.send("done")


def receive(connection: Connection, worker: Worker, advance: Callable[[int], None]) -> bool:
    """Take one report of a worker and return True; False once it has ended. Raises the error that it reports."""
    try:
        report = connection.recv()
    except (EOFError, OSError):  # OSError: it was killed in the midst of a report
        return False
    if isinstance(report, Exception):
        raise report
    if report == "done":
        worker.done = True
    else:
        worker.clip_id = report
        if report is not None:
            worker.begun += 1
            advance(1)
    return True
