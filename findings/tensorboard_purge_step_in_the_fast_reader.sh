#!/usr/bin/env bash
# TensorBoard's default reader shows values that a resumed run has withdrawn by `purge_step`; its slow reader does not.
#
# Guess before the run: both readers drop all values from the step on with which a second event file of the run begins
# (`SessionLog.START`, which torch's and tensorboardX's `SummaryWriter(purge_step=...)` write), for every curve.
# Seen with tensorboard 2.21.0 and tensorboard-data-server 0.7.2 (Python 3.11): `--load_fast false` does so. With
# `--load_fast true`, to which `auto` comes wherever the data server is installed, a curve keeps its withdrawn values until
# it gets a new one at a lower step. A curve that is written seldom, such as a validation, or no more since the run was
# resumed, shows values of steps that the run has not made; the other curves of the run look right.
#
# What to do: where a run resumes, write its event file anew (what audiobat does), or look with `--load_fast false`.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check tensorboard==2.21.0 tensorboard-data-server==0.7.2 \
  "setuptools<81"
cd "$work" && venv/bin/python - <<'P'
import json
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


def write(purge_step, values):
    writer = EventFileWriter("logs/run")
    writer.add_event(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
    for tag, steps in values.items():
        for step in steps:
            writer.add_event(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=step)])))
    writer.close()
    time.sleep(1.1)  # the files are read in the order of the seconds in their names


def ask(path):
    with urllib.request.urlopen(f"http://localhost:6123/data/plugin/scalars/{path}") as answer:
        return json.load(answer)


write(1, {"loss": [10, 20, 30, 40, 50, 60], "validation": [20, 40, 60]})
write(31, {"loss": [40]})  # resumed from step 30; the next validation is to come
shown = {}
for fast in ("true", "false"):
    command = ["venv/bin/tensorboard", "--logdir", "logs", "--port", "6123", "--load_fast", fast]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(120):
        time.sleep(1)
        try:
            if ask("tags"):
                break
        except URLError:
            pass
    time.sleep(3)
    shown[fast] = {tag: [int(value[1]) for value in ask(f"scalars?tag={tag}&run=run")] for tag in ("loss", "validation")}
    server.terminate()
    server.wait()
    print(f"load_fast {fast}: {shown[fast]}")
right = {"loss": [10, 20, 30, 40], "validation": [20]}
sys.exit(0 if shown["false"] == right and shown["true"] == {**right, "validation": [20, 40, 60]} else 1)
P
