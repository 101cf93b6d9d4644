"""Changes to bat_nano at equal cost: python benchmarks/nano_trials.py CLIPS SCENES OUT NAME [FIELD=VALUE ...]

Measures the CPU seconds of a step, pre-trains for as many steps as fit into `BUDGET` CPU seconds of one thread, with
the whole schedule shortened to them, and probes by CGP. Appends a line to OUT/trials.jsonl: what was changed, steps,
seconds, macro mAP with its interval. Choose on scenes of a seed that no result is shown on.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

BUDGET = 600.0  # CPU seconds, of training alone
SHORT, LONG = 10, 50  # steps of the two runs that are timed: their difference is free of the start


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def call(log, *words):
    """Run `audiobat WORDS` on one thread; returns its CPU seconds."""
    before = children_seconds()
    command = [sys.executable, "-m", "audiobat", *map(str, words)]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log, check=True)
    return children_seconds() - before


def pretrain(log, clips, out, steps, changes):
    fields = {
        "train.steps": steps,
        "train.precision": "bf16",
        "train.save_every": steps,
        "optim.warmup_steps": max(1, steps // 12),
        "target.ema_steps": steps,
        "target.ema_end": 0.998,
        "data.workers": 1,
        **changes,
    }
    flags = [word for name, value in fields.items() for word in (f"--{name}", value)]
    return call(log, "pretrain", "--config", "bat_nano", "--data", clips, "--out", out, *flags)


def main(clips, scenes, out, name, *words):
    changes = dict(word.split("=", 1) for word in words)
    folder = Path(out) / name
    folder.mkdir(parents=True)
    with (folder / "log.txt").open("w") as log:
        short, long = (pretrain(log, clips, folder / f"timed_{n}", n, changes) for n in (SHORT, LONG))
        step = (long - short) / (LONG - SHORT)
        steps = round(BUDGET / step)
        spent = pretrain(log, clips, folder / "run", steps, changes)
        probe = ("--out", folder / "probe", "--config", "demo_probe", "--head.kind", "cgp")
        call(log, "probe", "--model", folder / "run", "--data", scenes, *probe)
    record = json.loads((folder / "probe/results/run_cgp_0.json").read_text())
    found = {key: round(record["metrics"]["map"][key], 3) for key in ("value", "low", "high")}
    line = {"name": name, "changes": changes, "steps": steps, "cpu_seconds": round(spent), "map": found}
    with (Path(out) / "trials.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
