"""A clip table of two million clips: how long it takes to open, and how much memory a loading process needs with it.

    python benchmarks/clip_table.py [--clips 2000000]

Beside it the plain way: one list of Python dictionaries from the same columns in a CSV. Both run in fresh processes.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from audiobat.data.clip_table import ClipTable
from audiobat.data.columns import Ragged, Strings

SHARD_CLIPS = 2000
CLIP_BYTES = 150_000
LETTERS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-", np.uint8)

MEASURE = """
import sys, time
def memory():
    fields = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
    return [int(fields[name].split()[0]) / 1024 for name in ("Rss", "Pss", "Anonymous")]
import numpy, torch
from torch.utils.data import DataLoader, Dataset
from audiobat.data.clip_table import open_table
from audiobat.data.sampler import ClipOrder
class Lookups(Dataset):
    def __init__(self, table):
        self.table, self.order = table, ClipOrder(len(table), 0)
    def __len__(self):
        return len(self.table) // 48
    def __getitem__(self, step):
        if step < 0:
            return memory()
        for clip_id in self.order.batch_indices(step, 48).tolist():
            self.table.location(clip_id), self.table.keys[clip_id]
        return memory() if step % 100 == 0 else None
base = memory()
start = time.perf_counter()
table = open_table(sys.argv[1], "/data")
opened = time.perf_counter() - start
lookups = Lookups(table)
start = time.perf_counter()
for step in range(100):
    lookups[step]
per_clip = (time.perf_counter() - start) / 100 / 48
print(f"open {opened:.3f} s; place and key of a clip {per_clip * 1e6:.1f} us; the process {base[0]:.0f} MB before")
found = [m for m in DataLoader(Lookups(table), batch_size=None, num_workers=2, collate_fn=lambda x: x) if m]
for name, place in (("first batches", 0), ("half an epoch", len(found) // 2), ("an epoch", -1)):
    rss, pss, own = found[place]
    print(f"a worker, {name:>14}: resident {rss:.0f} MB, its share {pss:.0f} MB, not of a file {own:.0f} MB")
"""

PLAIN = """
import csv, sys, time, numpy, torch
def memory():
    fields = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
    return [int(fields[name].split()[0]) / 1024 for name in ("Rss", "Anonymous")]
start = time.perf_counter()
rows = list(csv.DictReader(open(sys.argv[1])))
rss, own = memory()
print(f"plain list of dictionaries: open {time.perf_counter() - start:.1f} s, resident {rss:.0f} MB, own {own:.0f} MB")
"""


def generate(clips: int, seed: int = 0) -> ClipTable:
    """Clips named as AudioSet's, 2.7 labels each, in shards of 2,000."""
    rng = np.random.default_rng(seed)
    names = rng.integers(0, 64, (clips, 12))
    numbers = np.arange(clips)[:, None] // 64 ** np.arange(5) % 64
    names[:, :5] = numbers  # unique
    keys = Strings(np.arange(clips + 1) * 12, LETTERS[names].reshape(-1))
    shards = -(-clips // SHARD_CLIPS)
    counts = rng.integers(1, 5, clips)
    ends = np.concatenate([[0], np.cumsum(counts)])
    return ClipTable(
        keys=keys,
        files=Strings.of_texts([f"shards/{i:05d}.tar" for i in range(shards)]),
        file_ids=(np.arange(clips) // SHARD_CLIPS).astype(np.int32),
        offsets=np.arange(clips) % SHARD_CLIPS * CLIP_BYTES,
        sizes=np.full(clips, CLIP_BYTES - 2048),
        seconds=np.full(clips, 10.0),
        sample_rates=np.full(clips, 16_000, np.int32),
        labels=Ragged(ends, rng.integers(0, 527, ends[-1]).astype(np.int32)),
        classes=tuple(f"class {i}" for i in range(527)),
        splits=np.where(np.arange(clips) % 100 == 0, "test", "train"),
        hashes=rng.integers(0, 2**63, (clips, 2)).astype(np.uint64),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2_000_000)
    clips = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as folder:
        table = generate(clips)
        table.save(Path(folder) / "clips")
        size = sum(file.stat().st_size for file in (Path(folder) / "clips").iterdir()) / 1e6
        print(f"{clips:,} clips, {size:.0f} MB on disk", flush=True)
        run(MEASURE, Path(folder) / "clips")
        listed = Path(folder) / "clips.csv"
        with listed.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "seconds", "label", "split"])
            labels = (";".join(map(str, table.labels.row(i))) for i in range(clips)) if table.labels else ()
            writer.writerows((key, 10.0, label, "train") for key, label in zip(table.keys, labels, strict=True))
        run(PLAIN, listed)


def run(code: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


if __name__ == "__main__":
    main()
