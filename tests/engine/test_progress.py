"""Progress: what it prints where there is no terminal, and what the bar says where there is one."""

import io
import sys

import pytest

from audiobat.engine import progress
from audiobat.engine.progress import Progress, duration


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_plain_lines_come_first_last_and_every_ten_seconds(clock, capsys):
    with Progress("embed", 100, "clip") as bar:
        for _ in range(100):
            clock.now += 0.25
            bar.advance()
    assert lines(capsys) == [
        "embed: 0/100 clips",
        "embed: 40/100 clips, 4 clips/s, 15 s left",
        "embed: 80/100 clips, 4 clips/s, 5 s left",
        "embed: 100/100 clips, finished after 25 s",
    ]


def test_a_resumed_phase_counts_only_its_own_steps_in_the_rate(clock, capsys):
    with Progress("pre-train", 1000, done=900) as bar:
        clock.now = 10.0
        bar.advance(20, note="loss 0.5")
    assert lines(capsys)[1] == "pre-train: 920/1000 steps, 2 steps/s, 40 s left, loss 0.5"


def test_the_time_limit_bounds_the_time_left(clock, capsys):
    with Progress("pre-train", 1000, limit=30.0) as bar:
        clock.now = 10.0
        bar.advance(10)
    assert "20 s left" in lines(capsys)[1]


def test_under_a_time_limit_the_end_is_what_the_rate_will_reach(clock, capsys):
    with Progress("pre-train", 1000, done=5, limit=30.0) as bar:
        clock.now = 10.0
        bar.advance(20)
        clock.now = 20.0
        bar.advance(40)
        clock.now = 31.0  # the last step ended late
        bar.advance(30)
    assert lines(capsys) == [
        "pre-train: 5/1000 steps",
        "pre-train: 25 of about 65 steps, 2 steps/s, 20 s left",
        "pre-train: 65 of about 95 steps, 3 steps/s, 10 s left",
        "pre-train: 95 of about 95 steps, 2.9 steps/s, 0 s left",
        "pre-train: 95/1000 steps, stopped after 31 s",
    ]


def test_a_limit_that_leaves_time_for_all_changes_nothing(clock, capsys):
    with Progress("pre-train", 100, limit=60.0) as bar:
        clock.now = 10.0
        bar.advance(50)
    assert lines(capsys)[1] == "pre-train: 50/100 steps, 5 steps/s, 10 s left"


def fail_after_one(bar, clock):
    bar.advance()
    clock.now += 61.0
    raise OSError("gone")


def test_a_phase_that_breaks_off_says_stopped_and_lets_the_error_out(clock, capsys):
    bar = Progress("embed", 3, "clip")
    with pytest.raises(OSError, match="gone"), bar:
        fail_after_one(bar, clock)
    assert lines(capsys)[-1] == "embed: 1/3 clips, stopped after 1 min 01 s"


def test_nothing_to_do_is_finished(clock, capsys):
    with Progress("embed", 0, "clip"):
        pass
    assert lines(capsys) == ["embed: 0/0 clips", "embed: 0/0 clips, finished after 0 s"]


def test_other_ranks_are_silent(clock, capsys):
    with Progress("pre-train", 3, shown=False) as bar:
        clock.now = 99.0
        bar.advance(3)
    assert lines(capsys) == []


def test_a_terminal_gets_a_bar_with_the_same_words(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("pre-train", 4) as bar:
        bar.advance(2, note="loss 0.25")
        bar.advance(2)
    shown = terminal.getvalue()
    assert "\x1b[" in shown  # drawn in place
    assert "pre-train" in shown
    assert "4/4 steps, finished after 0 s, loss 0.25" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (86_400 + 7 * 3600, "1 d 07 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words
