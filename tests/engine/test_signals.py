import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from audiobat.engine.signals import STOPPING, handled, leave_to_parent, noted, raised
from audiobat.errors import Stopped


@pytest.fixture(autouse=True)
def hangups_count() -> Iterator[None]:
    """Also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(each) for each in STOPPING]
    with noted() as note:
        assert not note.came
        os.kill(os.getpid(), number)
        assert note.came
    assert [signal.getsignal(each) for each in STOPPING] == before


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_raised_once_so_that_what_tidies_up_is_not_broken_off(number):
    tidied = []

    @raised()
    def work():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            tidied.append(True)

    with pytest.raises(Stopped, match=f"{signal.Signals(number).name}: the same command"):
        work()
    assert tidied


@pytest.mark.parametrize("how", [noted, raised])
def test_a_second_ctrl_c_ends_at_once(how):
    def work():
        with how():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert not isinstance(caught.value, Stopped)


def test_under_nohup_a_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raised():
            os.kill(os.getpid(), signal.SIGHUP)
        with noted() as note:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not note.came
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("leaves", [False, True], ids=["forked", "which leaves them"])
def test_a_worker_outlives_all_but_sigterm(leaves):
    """It is the parent that ends its workers, after it has saved."""
    ready, tell = os.pipe()
    with handled(lambda number: None):
        worker = os.fork()
        if not worker:
            if leaves:
                leave_to_parent()
            os.write(tell, b".")
            while True:
                time.sleep(0.01)
        os.read(ready, 1)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            os.kill(worker, number)
            time.sleep(0.05)
        assert os.waitpid(worker, os.WNOHANG) == (0, 0)
        os.kill(worker, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(worker, 0)[1]) == signal.SIGTERM


PROGRAM = """
import signal, sys, time
import audiobat
from audiobat.cli import command

def work(**_):
    print("at work", flush=True)
    time.sleep(600)

vars(audiobat)[sys.argv[1]] = work
sys.exit(command.main(sys.argv[1:]))
"""
EMBED = ["embed", "--model", "m", "--data", "d", "--out", "o"]


@pytest.mark.parametrize(
    ("argv", "number", "code"),
    [
        (EMBED, signal.SIGTERM, 75),
        (EMBED, signal.SIGINT, 75),
        (EMBED, signal.SIGUSR1, 75),
        (EMBED, signal.SIGHUP, 75),
        (["doctor"], signal.SIGTERM, -signal.SIGTERM),  # it has nothing to go on from
    ],
)
def test_a_verb_that_can_go_on_says_try_again(argv, number, code):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *argv], stdout=-1, stderr=-1, text=True)
    assert process.stdout.readline() == "at work\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=300)
    assert process.returncode == code
    if code == 75:
        assert told == f"audiobat: stopped by {signal.Signals(number).name}: the same command goes on from here.\n"
