"""Does `pretrain --dry-run --calibrate` foretell what a run takes? Predicted and real time and memory of three sizes.

    python benchmarks/calibrate.py [--seconds 40] [--device cpu]

Each size is calibrated and then trained by the same command line, on the same folder of noise, in processes of their
own. The real time is the mean of all steps but the first five, the real memory what the system says of the process
after its end (on a GPU it is not compared). This program imports no torch: a process inherits the peak of the one that
starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from targets import say

SIZES = {
    "bat_nano, 32 clips x 4 clones": ["--config", "bat_nano"],
    "bat_tiny, 2 clips x 4 clones": ["--config", "bat_tiny", "--train.batch_size", "2", "--mask.clones", "4"],
    "bat_small, 2 clips x 2 clones": ["--config", "bat_small", "--train.batch_size", "2", "--mask.clones", "2"],
}
WARM = 5  # steps of a real run that do not count


def audiobat(*words: str) -> tuple[str, float]:
    """What a command line prints to stdout, and the peak memory of its process in MiB."""
    process = subprocess.Popen([sys.executable, "-m", "audiobat", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"audiobat {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}.")
    return told, usage.ru_maxrss / 1024


def predicted(told: str) -> tuple[float, float]:
    """Seconds a step and MiB of a calibration."""
    seconds = re.search(r"measured +([\d.e-]+) s a step", told)
    memory = re.search(r"peak memory +([\d.]+) GiB", told)
    if seconds is None or memory is None:
        raise SystemExit(told)
    return float(seconds[1]), 1024 * float(memory[1])


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each real run")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print("| size | s a step, predicted | real | ratio | peak MiB, predicted | real | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        rng = np.random.default_rng(0)
        for clip in range(64):
            (Path(name) / "clips").mkdir(exist_ok=True)
            soundfile.write(Path(name) / "clips" / f"{clip}.wav", rng.normal(scale=0.1, size=11 * 16_000), 16_000)
        for number, (size, words) in enumerate(SIZES.items()):
            run = Path(name) / f"run{number}"
            words = ["pretrain", *words, "--data", f"{name}/clips", "--device", options.device, "--out", str(run)]
            seconds, memory = predicted(audiobat(*words, "--dry-run", "--calibrate")[0])
            _, peak = audiobat(*words, "--train.log_every", "1", "--max-seconds", str(options.seconds))
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            if len(rows) <= WARM:
                raise SystemExit(
                    f"{size}: {len(rows)} steps in {options.seconds:g} s are too few; give more --seconds."
                )
            real = (rows[-1]["seconds"] - rows[WARM - 1]["seconds"]) / (len(rows) - WARM)
            parts = [size, f"{seconds:.3f}", f"{real:.3f}", f"{seconds / real:.2f}"]
            parts += [f"{memory:.0f}", f"{peak:.0f}", f"{memory / peak:.2f}" if options.device == "cpu" else ""]
            print(f"| {' | '.join(parts)} |", flush=True)
            off = max(seconds / real, real / seconds) - 1
            say(f"calibrate, {size}: step time off by", f"{off:.0%}", "at most 20%", off <= 0.2)
            if options.device == "cpu":
                off = max(memory / peak, peak / memory) - 1
                say(f"calibrate, {size}: peak memory off by", f"{off:.0%}", "at most 15%", off <= 0.15)


if __name__ == "__main__":
    main()
