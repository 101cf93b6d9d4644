"""The short form: files of each kind with a few bits turned over are refused, made again, or hold what they held."""

import os
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).parents[2]
SHORT = (
    "checkpoint;release, weights;release, head;scores beside a record;scores of a run;shard, FLAC;clip table of shards;"
    "part of a table"
)


def test_no_damaged_file_is_read_wrongly_without_a_word():
    command = [sys.executable, "-m", "tests.faults.damage", "--rounds", "8", "--kinds", SHORT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row[:24].strip() for row in done.stdout.splitlines()] == SHORT.split(";")
    assert done.stdout.count("refused") == len(SHORT.split(";")) - 1, "parts of a table are made again"
