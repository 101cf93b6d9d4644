"""`python -m tests.faults [--fault KIND] [--verbs "A;B"] [--rounds N] [--seed N]`: a table of what held."""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from .campaign import FAULTS, campaign
from .verbs import VERBS

options = argparse.ArgumentParser(prog="python -m tests.faults")
options.add_argument("--fault", choices=FAULTS, action="append")
options.add_argument("--verbs", default=";".join(VERBS), help="separated by semicolons")
options.add_argument("--rounds", type=int, default=20)
options.add_argument("--strikes", type=int, default=4, help="injuries in a round")
options.add_argument("--seed", type=int, default=0)
options.add_argument("--folder", type=Path, help="kept; by default a temporary one")
given = options.parse_args()
verbs = given.verbs.split(";")
if unknown := set(verbs) - set(VERBS):
    options.error(f"no such verbs: {'; '.join(sorted(unknown))}; there are {'; '.join(VERBS)}")
torch.set_num_threads(1)
bad = 0
with tempfile.TemporaryDirectory() as temporary:
    folder = given.folder or Path(temporary)
    for fault in given.fault or [name for name in FAULTS if name != "any"]:
        for row in campaign(folder, fault, verbs, given.rounds, given.strikes, given.seed):
            print(row, flush=True)
            bad += bool(row.faults)
sys.exit(bad != 0)
