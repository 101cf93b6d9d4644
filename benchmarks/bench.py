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
COMMANDS = (
    f"step.py --sizes tiny --precisions fp32 --rounds 3 --kernels --against {BEFORE}",
    "step.py --sizes nano small --rounds 3 --kernels",
    "step.py --sizes nano --precisions fp32 --rounds 3 --compiled",
    f"head_step.py --rounds 5 --against {BEFORE}",
    "predict.py --clips 32 --rounds 3",
    "onnx_file.py",
    "calibrate.py",
    "gpu.py --out runs/gpu",
)


def run(words: str) -> list[str]:
    """Run one script, show what it prints, and return its rows."""
    script, *arguments = words.split()
    command = [sys.executable, str(FOLDER / script), *arguments]
    print(f"\n$ python benchmarks/{words}", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    rows = []
    assert process.stdout
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(MARK):
            rows.append(line.removeprefix(MARK).strip())
    return rows if process.wait() == 0 else [*rows, f"{script} | failed | | missed"]


def main(scripts: list[str]) -> None:
    chosen = [words for words in COMMANDS if not scripts or words.split()[0] in scripts]
    rows = [row for words in chosen for row in run(words)]
    print("\n| what | found | target | |", "| --- | --- | --- | --- |", *(f"| {row} |" for row in rows), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
