"""Ranks that refuse, fail, die, stop or take long: how the others end, or that they do not.

Run as a program this file forks the ranks of every job below, all jobs at once, and leaves in a folder how they ended.
"""

import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from rank_processes import free_ports, run_program

from audiobat.cli import command
from audiobat.engine import rank_watch
from audiobat.engine import ranks as ranks_module
from audiobat.engine.ranks import Ranks, launch
from audiobat.engine.signals import raised
from audiobat.errors import AudiobatError, Stopped

HANGS = 120  # seconds after which a job that has not ended is taken to hang
RANKS = 3
LOST = 69  # exit code where another rank is gone
REFUSAL, GO_ON = "no such thing: use another.", "The same command goes on from step_7."


def wait(ranks):
    """In C++, where no exception reaches a rank."""
    ranks.barrier()


def sleep(seconds, ranks):
    """In Python, far from any collective."""
    time.sleep(seconds)


def busy(ranks):
    """For longer than any job may last."""
    time.sleep(10 * HANGS)


def refuse(ranks):
    raise AudiobatError(REFUSAL)


def fail(ranks):
    raise KeyError("x")


def agree_to_stop(ranks):
    raise Stopped


def stop(ranks):
    raise Stopped("stopped by SIGTERM: the same command goes on from here.")


def end(ranks):
    """Nothing more to do."""


def take(seconds, ranks):
    """Long, while others wait."""
    time.sleep(seconds)
    ranks.barrier()


def take_until_hit(ranks):
    """Long enough for the signal to come before the end."""
    while not Path(os.environ["FOLDER"], "hit").exists():
        time.sleep(0.05)
    ranks.barrier()


def listen_to_strangers(ranks):
    """Two strangers talk nonsense to rank 0, and a third one says nothing."""
    ends = [end for end in rank_watch._sockets if end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
    strangers = [socket.create_connection(("127.0.0.1", ends[0].getsockname()[1]), timeout=HANGS) for _ in range(3)]
    strangers[0].sendall(b'["token", 1, "Rank 1"]\n')
    strangers[1].sendall(b"[" * 50_000 + b"\n")
    assert [stranger.recv(1) for stranger in strangers[:2]] == [b"", b""]  # they are sent away
    ranks.barrier()


@dataclass(frozen=True)
class Job:
    """What each rank does once all have come, and which signal then reaches which of them."""

    acts: tuple[Callable[[Ranks], None], ...]
    signal: int = 0
    hit: tuple[int, ...] = ()
    timeout: float = 10 * HANGS
    workers: bool = False  # every rank has a process of its own, as to load data
    early: bool = False  # the signal comes while the others look for rank 0, which is late


JOBS = {
    "refused by 0": Job((refuse, wait, busy)),
    "refused by 1": Job((wait, refuse, busy)),
    "refused by all": Job((refuse, refuse, refuse)),
    "defect of 2": Job((wait, busy, fail)),
    "agreed to stop": Job((agree_to_stop, agree_to_stop, agree_to_stop)),
    "signal to 1": Job((wait, stop, busy)),
    "signal to 1 before 0 is there": Job((wait, wait, busy), signal.SIGTERM, (1,), early=True),
    "killed 0": Job((wait, wait, busy), signal.SIGKILL, (0,)),
    "killed 1": Job((wait, busy, busy), signal.SIGKILL, (1,), workers=True),
    "killed 1 and 2": Job((busy, busy, wait), signal.SIGKILL, (1, 2)),
    "killed after others have ended": Job((end, busy, end), signal.SIGKILL, (1,)),
    "silent 0": Job((wait, wait, busy), signal.SIGSTOP, (0,), timeout=6.0),
    "silent 1": Job((wait, wait, busy), signal.SIGSTOP, (1,), timeout=6.0),
    "one does not come": Job((wait, wait), timeout=3.0),
    "long on 0": Job((partial(take, 12.0), wait, wait), timeout=8.0),
    "one after the other": Job((end, partial(sleep, 3.0), partial(sleep, 1.0))),
    "all are stopped and go on": Job((take_until_hit, wait, wait), signal.SIGSTOP, (0, 1, 2), timeout=8.0),
    "strangers": Job((listen_to_strangers, wait, wait)),
}


def be_a_rank(job, rank, folder):
    """The work of one process of a job, by way of the command line's `main`."""

    def come(*arguments):
        (folder / f"{rank}.here").touch()
        while rank == 0 and not (folder / "hit").exists():
            time.sleep(0.05)
        return store_of(*arguments)

    store_of = ranks_module.store_of
    if job.early:
        ranks_module.store_of = come

    def work(arguments):
        with raised(), launch("cpu", job.timeout, lambda: GO_ON) as ranks:
            if job.workers:
                worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(10 * HANGS,), daemon=True)
                worker.start()
                (folder / f"{rank}.worker").write_text(str(worker.pid))
            (folder / f"{rank}.here").touch()
            job.acts[rank](ranks)
        return 0

    command.run = work
    os.dup2(os.open(folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT), 2)
    torch.set_num_threads(1)
    try:
        return command.main([])
    except BaseException:
        traceback.print_exc()
        return 1


def start(job, folder):
    """Fork the ranks of a job; the process ids."""
    folder.mkdir()
    port = free_ports(1)[0]
    processes = []
    for rank in range(len(job.acts)):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "FOLDER": str(folder)}
        process = os.fork()
        if not process:
            os._exit(be_a_rank(job, rank, folder))
        processes.append(process)
    return processes


class Running:
    """A job that runs: its processes, and how they ended."""

    def __init__(self, job, folder):
        self.job, self.folder = job, folder
        self.processes = start(job, folder)
        self.codes = [None] * len(self.processes)
        self.due = self.hit_at = None  # when the signal is to be sent, and when it was

    def look(self):
        """Note who has ended, and send what signals are due."""
        for rank, process in enumerate(self.processes):
            if self.codes[rank] is None:
                done, status = os.waitpid(process, os.WNOHANG)
                self.codes[rank] = os.waitstatus_to_exitcode(status) if done else None
        now = time.monotonic()
        if self.job.hit and self.due is None and len(list(self.folder.glob("*.here"))) == RANKS:
            self.due = now + 0.5  # by then those that wait in a collective are most likely there
        if self.hit_at is None and self.due is not None and now > self.due:
            self.send(self.job.signal)
            (self.folder / "hit").touch()
            self.hit_at = now
        if self.job.signal == signal.SIGSTOP and self.hit_at is not None:
            others = [code for rank, code in enumerate(self.codes) if rank not in self.job.hit]
            if now > self.hit_at + 12 if not others else None not in others:
                self.send(signal.SIGCONT)

    def send(self, number):
        for rank in self.job.hit:
            if self.codes[rank] is None:
                os.kill(self.processes[rank], number)


def main(folder):
    """Run all jobs, and write for each rank its exit code; None, if it did not end."""
    running = {name: Running(job, folder / name) for name, job in JOBS.items()}
    until = time.monotonic() + HANGS
    while any(None in job.codes for job in running.values()) and time.monotonic() < until:
        for job in running.values():
            job.look()
        time.sleep(0.1)
    alive = {name: [rank for rank in range(RANKS) if lives(folder / name / f"{rank}.worker")] for name in JOBS}
    for job in running.values():
        for rank, process in enumerate(job.processes):
            if job.codes[rank] is None:
                os.kill(process, signal.SIGKILL)
    for file in folder.glob("*/*.worker"):
        with suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)
    ended = {name: {"codes": job.codes, "workers": alive[name]} for name, job in running.items()}
    (folder / "ended.json").write_text(json.dumps(ended))


def lives(file):
    """Whether the process whose number is in a file is there."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(file.read_text()), 0)
        return True
    return False


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """For a job's name: its ranks' exit codes, what each wrote to stderr, and whose workers are left."""
    folder = tmp_path_factory.mktemp("jobs")
    run_program(__file__, folder)
    found = json.loads((folder / "ended.json").read_text())
    for name, job in JOBS.items():
        found[name]["said"] = [(folder / name / f"{rank}.err").read_text() for rank in range(len(job.acts))]
    return found


@pytest.mark.parametrize("name", ["refused by 0", "refused by 1", "refused by all"])
def test_a_refusal_ends_every_rank_with_its_sentence_alone(ended, name):
    assert ended[name]["codes"] == [2, 2, 2]
    assert ended[name]["said"] == [f"audiobat: {REFUSAL}\n"] * 3


def test_a_defect_of_one_rank_ends_the_others_and_keeps_its_traceback(ended):
    assert ended["defect of 2"]["codes"] == [LOST, LOST, 1]
    for said in ended["defect of 2"]["said"][:2]:
        assert re.fullmatch(rf"audiobat: Rank 2 \(process \d+ on .*\) failed by KeyError: 'x'. {GO_ON}\n", said)
    assert "KeyError: 'x'" in ended["defect of 2"]["said"][2]


def test_a_stop_on_which_the_ranks_agree_is_no_failure(ended):
    assert ended["agreed to stop"] == {"codes": [75, 75, 75], "said": ["", "", ""], "workers": []}


@pytest.mark.parametrize("name", ["signal to 1", "signal to 1 before 0 is there"])
def test_a_signal_to_one_rank_outside_the_step_loop_stops_all(ended, name):
    assert ended[name]["codes"] == [75, 75, 75]
    last = {said.splitlines()[-1] for said in ended[name]["said"]}  # torch warns of the connection that took longer
    assert last == {"audiobat: stopped by SIGTERM: the same command goes on from here."}


@pytest.mark.parametrize(("name", "killed"), [("killed 0", 0), ("killed 1", 1), ("killed after others have ended", 1)])
def test_the_death_of_a_rank_ends_the_others_with_its_name_and_what_to_do(ended, name, killed):
    assert ended[name]["codes"] == [-signal.SIGKILL if rank == killed else LOST for rank in range(3)]
    for rank in {0, 1, 2} - {killed}:
        sentence = rf"audiobat: Rank {killed} \(process \d+ on .*\) is gone: it crashed or was killed. {GO_ON}\n"
        assert re.fullmatch(sentence, ended[name]["said"][rank])


def test_of_two_deaths_at_once_one_is_named(ended):
    assert ended["killed 1 and 2"]["codes"] == [LOST, -signal.SIGKILL, -signal.SIGKILL]
    assert re.match(r"audiobat: Rank [12] .* is gone", ended["killed 1 and 2"]["said"][0])


def test_who_ends_ends_its_workers_and_those_of_the_dead_rank_hide_its_death_from_nobody(ended):
    assert ended["killed 1"]["workers"] == [1]  # audiobat's own loaders notice by themselves; this one sleeps


@pytest.mark.parametrize(("name", "silent"), [("silent 0", 0), ("silent 1", 1)])
def test_a_rank_that_is_stopped_ends_the_others_and_then_itself(ended, name, silent):
    assert ended[name]["codes"] == [LOST] * 3
    for rank in {0, 1, 2} - {silent}:
        sentence = rf"audiobat: Rank {silent} \(.*\) has given no sign of life for 6 s \(train.timeout\): .* {GO_ON}\n"
        assert re.fullmatch(sentence, ended[name]["said"][rank])


def test_a_rank_that_does_not_come_is_named(ended):
    assert ended["one does not come"]["codes"] == [LOST, LOST]
    for said in ended["one does not come"]["said"]:
        assert "Rank 2 of 3 has not come for 15 s" in said


@pytest.mark.parametrize("name", ["long on 0", "one after the other", "all are stopped and go on", "strangers"])
def test_nothing_else_is_taken_for_death(ended, name):
    """Ranks that compute for longer than the limit, or end before others; a pause of the whole job; visitors."""
    assert ended[name] == {"codes": [0, 0, 0], "said": ["", "", ""], "workers": []}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
