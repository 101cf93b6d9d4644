"""`python -m tests.faults.damage --rounds 200`: files with a bit turned over, or cut off, at random places.

In: kinds of files and a seed. Out: a row for each: how often it was refused in a sentence, read as if nothing had been
(what was hurt bears no content, or is made again), or read wrongly, which must not be.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from audiobat.errors import AudiobatError

from .files import KINDS
from .injure import cut, flip
from .verbs import make_small, make_world


@dataclass
class Row:
    """What became of the damaged files of a kind."""

    kind: str
    ends: Counter[str] = field(default_factory=Counter)  # refused, same, wrong, crashed
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ends.items()))
        return "\n    ".join([f"{self.kind:<24} {ends}", *self.faults[:5]])


def damage(folder: Path, kind: str, rounds: int, seed: int) -> Row:
    """Hurt the files of a kind so many times, one place in one file each time, and read them."""
    about, rng, row = KINDS[kind], random.Random(f"{seed} {kind}"), Row(kind)
    home = folder / kind.replace(" ", "_")
    whole, first = home / "whole", home / "first"
    about.make(folder / "world", whole)
    shutil.copytree(whole, first)
    wanted = about.read(folder / "world", first)
    for number in range(rounds):
        hurt = home / f"hurt{number}"  # another name each time, as a process keeps shards open
        shutil.copytree(whole, hurt)
        path = rng.choice(sorted(hurt.glob(about.files)))
        how = rng.choice((flip, flip, flip, cut))
        place = how(path, rng)
        what = f"{path.relative_to(hurt)}: {how.__name__} at {place}"
        try:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                end = "same" if about.read(folder / "world", hurt) == wanted else "wrong"
        except AudiobatError as error:
            end = "refused"
            if about.again:
                row.faults.append(f"{what}: {error}")
        except Exception as error:
            end = "crashed"
            row.faults.append(f"{what}: {type(error).__name__}: {error}")
        if end == "wrong" and about.checked:
            row.faults.append(f"{what}: another content, without a word")
        row.ends[end] += 1
        shutil.rmtree(hurt)
    return row


def rows(folder: Path, rounds: int, seed: int, kinds: list[str]) -> Iterator[Row]:
    """A row for each kind."""
    make_small(make_world(folder / "world"))
    for kind in kinds:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            row = damage(folder, kind, rounds, seed)
        yield row


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m tests.faults.damage")
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kinds", default=";".join(KINDS), help="separated by semicolons")
    given = options.parse_args()
    torch.set_num_threads(1)
    bad = False
    with tempfile.TemporaryDirectory() as temporary:
        for row in rows(Path(temporary), given.rounds, given.seed, given.kinds.split(";")):
            print(row, flush=True)
            bad |= bool(row.faults)
    sys.exit(bad)
