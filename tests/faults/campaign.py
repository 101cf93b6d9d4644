"""A verb is hurt at random instants, run again by the same command to its end, and held against an undisturbed run.

In: verbs, a kind of fault, rounds and a seed. Out: a row for each verb: injuries, restarts, and what did not hold.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGKILL
from time import monotonic

from audiobat.cli.verbs import VERBS as COMMANDS
from audiobat.errors import SKIPPED, STOPPED

from .injure import Ended, Injury, run
from .same import contents, differences
from .verbs import VERBS, make_small, make_world

Draw = Callable[[random.Random, Ended, Path], Injury]
UNHURT = Injury()
TOO_OFTEN = 40  # starts of a run that never ends
DONE = (0, SKIPPED)  # one of the world's recordings cannot be read


@dataclass
class Row:
    """What was done to a verb, and what did not hold, in words."""

    fault: str
    verb: str
    rounds: int = 0
    injuries: int = 0  # that struck: the process ended otherwise than an undisturbed one
    faults: list[str] = field(default_factory=list)
    codes: dict[int, int] = field(default_factory=dict)  # exit code -> how often

    def __str__(self) -> str:
        held = "held" if not self.faults else "; ".join(self.faults[:3])
        codes = " ".join(f"{code}:{count}" for code, count in sorted(self.codes.items()))
        return f"{self.fault:<10} {self.verb:<24} {self.rounds:>4} rounds {self.injuries:>4} injuries ({codes}): {held}"


STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def draw_kill(rng: random.Random, whole: Ended, out: Path, kinds: Sequence[signal.Signals] = (SIGKILL,)) -> Injury:
    """A signal at a random file event, or a random time after it."""
    seconds = rng.choice((0.0, rng.uniform(0.0, 0.1)))
    return Injury(signal=rng.choice(kinds), event=rng.randint(1, max(1, whole.events)), seconds=seconds)


def draw_full_disk(rng: random.Random, whole: Ended, out: Path) -> Injury:
    """No file can be made from a random event on, or none grows beyond a size that some file of the run has."""
    if rng.random() < 0.5:
        return Injury(full=True, event=rng.randint(1, max(1, whole.events)))
    size = rng.choice([path.stat().st_size for path in sorted(out.rglob("*")) if path.is_file()])
    return Injury(largest=rng.randint(0, max(0, size - 1)))


def draw_any(rng: random.Random, whole: Ended, out: Path) -> Injury:
    """An injury of a random kind."""
    return rng.choice((draw_kill, partial(draw_kill, kinds=STOPS), draw_full_disk))(rng, whole, out)


FAULTS: dict[str, Draw] = {
    "kill": draw_kill,
    "signal": partial(draw_kill, kinds=STOPS),
    "full disk": draw_full_disk,
    "any": draw_any,
}


def may_end_with(injury: Injury, verb: str) -> set[int]:
    """The exit codes that a process may have that was hurt so before it was done."""
    if injury.signal is None:
        return set() if injury == UNHURT else {2}
    if injury.signal != SIGKILL and COMMANDS[verb.partition(",")[0]].resumes:
        return {STOPPED}
    return {130} if injury.signal == signal.SIGINT else {-injury.signal}


def campaign(folder: Path, fault: str, verbs: Sequence[str], rounds: int, strikes: int, seed: int) -> Iterator[Row]:
    """A row for each verb, as soon as it is done.

    Args:
        folder: to work in.
        fault: one of FAULTS.
        verbs: names of VERBS.
        rounds: runs of each verb, from an empty folder to the end.
        strikes: injuries in each run, before it is left alone.
        seed: of the instants.
    """
    world = folder / "world"
    if not world.exists():
        make_world(world)
    make_small(world)
    draw = FAULTS[fault]
    for verb in verbs:
        rng = random.Random(f"{seed} {fault} {verb}")
        row = Row(fault, verb)
        place = folder / f"{fault} {verb}".replace(" ", "_").replace(",", "")
        out = place / "out"  # the same for all runs, as names of folders get into files

        def start(injury: Injury = UNHURT, out: Path = out, verb: str = verb) -> Ended:
            return run(lambda: VERBS[verb](world, out), out, injury)

        out.mkdir(parents=True)
        whole = start()
        if whole.code not in DONE:
            row.faults.append(f"an undisturbed run ends with {whole.code}: {whole.said[-600:]}")
            yield row
            continue
        kept = place / "undisturbed"
        shutil.copytree(out, kept, symlinks=True)
        wanted = contents(out)
        for number in range(rounds):
            shutil.rmtree(out)
            out.mkdir()
            trail: list[Injury] = []
            begun = monotonic()
            for attempt in range(TOO_OFTEN):
                injury = draw(rng, whole, kept) if attempt < strikes else UNHURT
                ended = start(injury)
                trail.append(injury)
                if ended.code in DONE or (ended.code == 2 and "exists: choose another" in ended.said):
                    break  # a table is finished once it has its name, whatever happens to the process after that
                row.injuries += 1
                row.codes[ended.code] = row.codes.get(ended.code, 0) + 1
                if ended.code not in may_end_with(injury, verb) or "Traceback" in ended.said:
                    row.faults.append(f"round {number} {trail}: exit code {ended.code}: {ended.said[-1500:]}")
                    break
            row.rounds += 1
            if found := differences(contents(out), wanted):
                row.faults.append(f"round {number} {trail} ({monotonic() - begun:.0f} s): {', '.join(found[:6])}")
                shutil.copytree(out, place / f"round {number}", symlinks=True)
        yield row
