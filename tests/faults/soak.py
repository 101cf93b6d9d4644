"""`python -m tests.faults.soak --minutes 60`: two ranks of pre-training, killed and stopped at random to their end.

First the two ranks run undisturbed, while their memory and open files are sampled; then the same run is disturbed, and
started again each time by the same command, to its end: both must hold the same weights. At last one process with two
loading workers runs undisturbed, sampled in the same way. `--write` makes docs/results/soak.md of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import torch
import torch._dynamo  # a second of work that DDP would do in every process

from audiobat.cli.command import main
from audiobat.engine.checkpoint import latest
from audiobat.errors import LOST, STOPPED

from .injure import forked
from .same import contents, differences, without_times
from .verbs import make_world

PAGE = Path(__file__).parents[2] / "docs" / "results" / "soak.md"
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
REST = (3.0, 20.0)  # seconds between the start of the ranks and what befalls them
BOUND = 180.0  # seconds after which ranks that still live hang
BYTES_A_STEP = 100.0  # that memory may grow by: what a thousandth of a number more in a log or a list would be
LEAST = 2 * 2**20  # bytes that memory may grow by in any run
ROWS, ROUNDING = "metrics.jsonl differs", 1e-6
WARM = 0.3  # of the samples, that do not count: caches fill


@dataclass
class Samples:
    """Resident memory, in bytes, and open files of one process over time."""

    rss: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def growth(self) -> float:
        """Bytes from the first sample after the warm-up to the last, along the line through all."""
        kept = self.rss[int(WARM * len(self.rss)) :]
        return float(np.polyfit(np.arange(len(kept)), kept, 1)[0]) * len(kept) if len(kept) > 2 else 0.0

    def more_files(self) -> int:
        """The median of open files in the last third, less that of the first third after the warm-up."""
        kept = self.files[int(WARM * len(self.files)) :]
        third = max(1, len(kept) // 3)
        return round(np.median(kept[-third:]) - np.median(kept[:third]))


@dataclass
class Processes:
    """The ranks of one start, and how they ended."""

    ids: list[int]
    codes: dict[int, int] = field(default_factory=dict)

    def reap(self) -> int:
        """Note who has ended; how many have not."""
        for process in set(self.ids) - set(self.codes):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                self.codes[process] = os.waitstatus_to_exitcode(status)
        return len(self.ids) - len(self.codes)

    def wait(self, seconds: float, left: int = 0) -> bool:
        """Wait for all to end, or all but some; whether they did so in time."""
        until = monotonic() + seconds
        while self.reap() > left:
            if monotonic() > until:
                return False
            sleep(0.05)
        return True

    def send(self, number: int, ranks: Sequence[int]) -> None:
        """Send a signal to some of the ranks, in case they still live."""
        for rank in ranks:
            if self.ids[rank] not in self.codes:
                with suppress(ProcessLookupError):
                    os.kill(self.ids[rank], number)


def start(ranks: int, words: Sequence[str], said: Path) -> Processes:
    """Fork the ranks of one command; they write what they say to the file `said`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run_rank(rank: int) -> int:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as a terminal's, though the soak itself may run under nohup
        if ranks > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return main(list(words))

    processes = [forked(partial(run_rank, rank), file) for rank in range(ranks)]
    os.close(file)
    return Processes(processes)


def sampled(processes: Processes, seconds: float = 2.0) -> list[Samples]:
    """Wait for the end of processes and sample each of them every few seconds."""
    samples = [Samples() for _ in processes.ids]
    while not processes.wait(seconds):
        for process, own in zip(processes.ids, samples, strict=True):
            with suppress(OSError, StopIteration):
                status = Path(f"/proc/{process}/status").read_text().splitlines()
                own.rss.append(1024 * int(next(line for line in status if line.startswith("VmRSS")).split()[1]))
                own.files.append(len(os.listdir(f"/proc/{process}/fd")))
    return samples


def strike(rng: random.Random, processes: Processes) -> tuple[str, bool]:
    """Do something to one rank or to all; what it was, in words, and whether all ended in time.

    A rank that is stopped (SIGSTOP) cannot end: it is killed, as a scheduler would, once the other has ended.
    """
    ranks = list(range(len(processes.ids)))
    one = rng.choice(ranks)
    number = rng.choice((signal.SIGKILL, signal.SIGKILL, *rng.sample(STOPS, 2), signal.SIGSTOP))
    hit = [one] if number == signal.SIGSTOP else rng.choice(([one], ranks))
    processes.send(number, hit)
    if number == signal.SIGSTOP:
        ended = processes.wait(BOUND, left=1)
        processes.send(signal.SIGKILL, hit)
        processes.wait(BOUND)
    else:
        ended = processes.wait(BOUND)
    return f"{number.name} to {'all ranks' if hit == ranks else 'one rank'}", ended


@dataclass
class Report:
    """The lines of the table, and what did not hold."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def tell(self, what: str, found: str) -> None:
        self.lines.append((what, found))
        print(f"{what:<40} {found}", flush=True)

    def check(self, what: str, samples: Samples, steps: int) -> None:
        """A line about the memory and files of one undisturbed process."""
        growth, files = samples.growth(), samples.more_files()
        held = growth < max(LEAST, BYTES_A_STEP * steps * (1 - WARM)) and files <= 0
        self.tell(
            what,
            f"{samples.rss[-1] / 2**20:.0f} MiB at the end, {growth / 2**20:+.2f} MiB along {steps * (1 - WARM):,.0f} "
            f"steps ({growth / steps / (1 - WARM):+.1f} bytes a step), {files:+d} open files",
        )
        if not held:
            self.faults.append(f"{what}: memory or open files grow")


def command(folder: Path, out: Path, steps: int, workers: int) -> list[str]:
    """The pre-training of so many steps."""
    words = ["pretrain", "--config", folder / "world/pretrain.yaml", "--data", folder / "world/audio", "--out", out]
    own = {"steps": steps, "save_every": max(1, steps // 200), "log_every": max(1, steps // 1000), "timeout": 20}
    words += [word for name, value in own.items() for word in (f"--train.{name}", value)]
    return [str(word) for word in [*words, "--data.workers", workers]]


def steps_a_second(folder: Path, ranks: int, workers: int, seconds: float) -> float:
    """What the machine does now, measured for some seconds."""
    out = folder / f"speed of {ranks}"
    processes = start(ranks, [*command(folder, out, 10**6, workers), "--max-seconds", str(seconds)], folder / "said")
    processes.wait(10 * seconds + BOUND)
    done = latest(out)
    assert done is not None, (folder / "said").read_text()
    return int(done.name.partition("_")[2]) / seconds


def disturb(folder: Path, out: Path, words: Sequence[str], rng: random.Random, report: Report) -> None:
    """Run two ranks to the end, whatever happens to them on the way."""
    said, struck, codes, hung, starts = folder / "said", Counter[str](), Counter[int](), 0, 0
    while True:
        starts += 1
        processes = start(2, words, said)
        if not processes.wait(rng.uniform(*REST)):
            what, ended = strike(rng, processes)
            struck[what] += 1
            if not ended:
                hung += 1
                processes.send(signal.SIGKILL, range(len(processes.ids)))
                processes.wait(BOUND)
        codes.update(processes.codes.values())
        if unknown := set(processes.codes.values()) - {0, LOST, STOPPED, -signal.SIGKILL}:
            report.faults.append(f"exit code {unknown}")
            break
        if set(processes.codes.values()) == {0}:
            break
    report.tell("struck", ", ".join(f"{count} x {what}" for what, count in sorted(struck.items())))
    report.tell("starts of the same command", str(starts))
    report.tell("exit codes of ranks", ", ".join(f"{code}: {count}" for code, count in sorted(codes.items())))
    report.tell("ranks that hung", str(hung))
    tracebacks = said.read_text(errors="replace").count("Traceback")
    report.tell("tracebacks", str(tracebacks))
    if hung or tracebacks:
        report.faults.append(f"{hung} hung, {tracebacks} tracebacks: see what they said")


def rows_alike(ours: Path, theirs: Path) -> bool:
    """Whether two runs have the same rows of numbers, to rounding.

    A checkpoint in the middle of a row keeps the mean of the ranks' sums, so that a resumed row adds in another order.
    """
    numbers = []
    for run in (ours, theirs):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        numbers.append([[value for name, value in sorted(without_times(row).items())] for row in rows])
    return np.shape(numbers[0]) == np.shape(numbers[1]) and np.allclose(*numbers, rtol=ROUNDING, atol=ROUNDING)


def soak(folder: Path, minutes: float, seed: int) -> Report:
    """Both legs, in about so many minutes."""
    report, rng = Report(), random.Random(seed)
    make_world(folder / "world")
    rate = steps_a_second(folder, 2, 0, min(20.0, 6 * minutes))
    steps = max(50, round(rate * 60 * minutes * 0.3))
    out = folder / "run"  # the same place for both, as its name gets into files
    words = command(folder, out, steps, 0)
    samples = sampled(start(2, words, folder / "said"))
    for rank, own in enumerate(samples):
        report.check(f"undisturbed, rank {rank} of 2", own, steps)
    wanted = contents(out)
    out.rename(folder / "undisturbed")
    begun = monotonic()
    disturb(folder, out, words, rng, report)
    found = differences(contents(out), wanted)
    if ROWS in found and rows_alike(out, folder / "undisturbed"):
        found.remove(ROWS)
        report.tell("rows of numbers", f"the same to {ROUNDING:g}: means over ranks are summed in another order")
    report.tell("the disturbed run", f"{steps:,} steps in {(monotonic() - begun) / 60:.0f} minutes")
    report.tell("files that differ from the undisturbed run", ", ".join(found) or "none")
    report.faults += found
    rate = steps_a_second(folder, 1, 2, min(20.0, 6 * minutes))
    steps = max(50, round(rate * 60 * minutes * 0.15))
    [own] = sampled(start(1, command(folder, folder / "alone", steps, 2), folder / "said"))
    report.check("one process with two loading workers", own, steps)
    return report


def write_page(report: Report, minutes: float, seed: int) -> None:
    """The record of a soak."""
    lines = [
        "# A soak of two ranks",
        "",
        f"`python -m tests.faults.soak --minutes {minutes:g} --seed {seed} --write`, torch {torch.__version__}, gloo, "
        f"on {os.cpu_count()} cores that other work shared. Memory may grow by {BYTES_A_STEP:g} bytes a step (of a "
        f"short run by {LEAST / 2**20:g} MiB), the number of open files not at all.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {what} | {found} |" for what, found in report.lines),
        "",
        f"Held: {'all' if not report.faults else 'not ' + '; '.join(report.faults)}.",
        "",
    ]
    PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    options.add_argument("--minutes", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, help="kept; by default a temporary one")
    options.add_argument("--write", action="store_true", help=f"write docs/results/{PAGE.name}")
    given = options.parse_args()
    torch.set_num_threads(1)
    os.nice(5)
    with tempfile.TemporaryDirectory() as temporary:
        result = soak(given.folder or Path(temporary), given.minutes, given.seed)
    if given.write:
        write_page(result, given.minutes, given.seed)
    print("held" if not result.faults else "\n".join(result.faults))
    sys.exit(bool(result.faults))
