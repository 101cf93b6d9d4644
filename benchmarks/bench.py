"""`make bench`: what the project promises about speed, each promise beside what this machine reaches.

    python benchmarks/bench.py [SCRIPT ...]

Runs the benchmarks that have targets, or those named, with quick settings, and ends with a table of their rows. Rows
that take a GPU say "not measured" where there is none. It is some minutes' work for a machine that does nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from targets import MARK

FOLDER = Path(__file__).parent
BEFORE = "a4e5865"  # the commit before the work on speed
COMMANDS = {
    "step": ["--sizes", "tiny", "nano", "small", "--rounds", "3", "--kernels", "--against", BEFORE],
    "predict": ["--clips", "32", "--rounds", "3"],
    "gpu": ["--out", "runs/gpu"],
}


def run(script: str) -> list[str]:
    """Run one script, show what it prints, and return its rows."""
    command = [sys.executable, str(FOLDER / f"{script}.py"), *COMMANDS[script]]
    print(f"\n$ {' '.join(command[1:])}", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    rows = []
    assert process.stdout
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(MARK):
            rows.append(line.removeprefix(MARK).strip())
    return rows if process.wait() == 0 else [*rows, f"{script}.py | failed | |"]


def main(scripts: list[str]) -> None:
    rows = [row for script in scripts for row in run(script)]
    print("\n| what | found | target | |", "| --- | --- | --- | --- |", *(f"| {row} |" for row in rows), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(COMMANDS))
