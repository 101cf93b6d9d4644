"""The short form: each verb once, killed, stopped or out of disk at random instants, to an undisturbed run's result."""

import os
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).parents[2]
SHORT = "pretrain;pretrain, two workers;finetune;finetune, folds;embed;predict;probe;prepare"


def test_whatever_befalls_a_verb_the_same_command_ends_with_the_same_result():
    command = ["-m", "tests.faults", "--fault", "any", "--verbs", SHORT, "--rounds", "1", "--strikes", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=HOUSE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.splitlines()
    assert [row[11:35].strip() for row in rows] == SHORT.split(";")
    assert sum(int(row.split(" injuries")[0].split()[-1]) for row in rows) >= len(rows) // 2, "many strike"
