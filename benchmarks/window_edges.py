"""How to run the columns of a clip that lie behind its last whole window: three ways, on real audio.

    python benchmarks/window_edges.py [FOLDER]      (bat_nano, windows of 13 columns; some 15 minutes of one core)

In: scenes of the demo, longer than a window by some columns. Out, for `alone` (the columns by themselves), `moved` (a
whole window that ends with the clip, of which the new columns are used) and `even` (windows of equal lengths):

- how far the tail's tokens of the last block are from those of the same audio in the middle of a whole window;
- the same for cls, weighted by new columns, from that of a clip a column shorter, at the lengths around a window;
- macro mAP of CGP on the tokens, and of a linear probe of the cls token, on scenes longer than a window.
"""

import itertools
import sys
import tempfile

import torch

import audiobat
from audiobat.config.recipes import load_recipe
from audiobat.data.loader import load_clips
from audiobat.data.scenes import write_scenes
from audiobat.data.sources.read import read_labelled_clips
from audiobat.models.encoder import BaseEncoder
from audiobat.models.features import LayerFeatures, block_numbers

WAYS = ("alone", "moved", "even")
COLUMN = 0.32  # seconds of one of bat_nano's
SEED = 1  # of scenes: those of seed 0 are the demo's test


def cut(columns, table, way):
    """(start, end, first column that is used) of each window over a clip of `columns`."""
    if way == "even":
        count = -(-columns // table)
        edges = [round(i * columns / count) for i in range(count + 1)]
        return [(start, end, start) for start, end in itertools.pairwise(edges)]
    found = []
    for first in range(0, columns, table):
        end = min(first + table, columns)
        found.append((max(0, end - table) if way == "moved" else first, end, first))
    return found


class LongClips(BaseEncoder):
    """bat_nano on clips of one length, which runs their windows as `way` has it."""

    def __init__(self, way):
        super().__init__()
        self.way, self.model = way, audiobat.load("bat_nano").eval()
        self.sample_rate, self.dim, self.depth = self.model.sample_rate, self.model.dim, self.model.depth
        self.frames, self.table = self.model.config.encoder.patch_size[0], self.model.config.grid[0]

    @property
    def freq_patches(self):
        return self.model.freq_patches

    def blocks(self, spectrogram):
        """Tokens of a window [L, B, 1 + N, D]."""
        return torch.stack([x for x, _ in self.model.run_blocks(self.model.embed_patches(spectrogram))])

    def forward_intermediates(self, waveform, lengths=None, indices=None):
        spectrogram, _ = self.model.frontend(waveform)
        columns = spectrogram.shape[1] // self.frames
        patches, cls = [], 0.0
        for start, end, first in cut(columns, self.table, self.way):
            tokens = self.blocks(spectrogram[:, start * self.frames : end * self.frames])
            patches.append(tokens[:, :, 1 + (first - start) * self.freq_patches :])
            cls = cls + tokens[:, :, 0] * (end - first) / columns
        chosen = block_numbers(self.depth, indices)
        tokens, valid = torch.cat(patches, 2)[chosen], torch.ones(len(waveform), columns * self.freq_patches)
        times = torch.arange(columns) * COLUMN
        return LayerFeatures(tokens, cls[chosen], (columns, self.freq_patches), valid.bool(), times)


def scenes(folder, seconds, train, test):
    return write_scenes(f"{folder}/{seconds:g}_{train}", train, test, SEED, seconds)


def waveforms(table, count):
    (batch,) = load_clips(table, 16_000, [torch.arange(count).numpy()])
    return batch.waveform


def apart(found, wanted):
    """Mean distance, relative to the norm, of vectors [..., D]."""
    return ((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).mean().item()


@torch.inference_mode()
def distances(folder):
    """The first two tables: of the tokens of tails of k columns, and of cls as a clip grows by a column."""
    encoders = {way: LongClips(way) for way in WAYS}
    one = encoders["alone"]
    spectrogram, _ = one.model.frontend(waveforms(read_labelled_clips(scenes(folder, 10.0, 0, 100)), 100))
    table, rows, frames = one.table, one.freq_patches, one.frames

    def run(start, end):
        return one.blocks(spectrogram[:, start * frames : end * frames])[-1]

    print(
        "| columns behind a window | " + " | ".join(WAYS) + " | a whole window a column aside |\n" + "| --- " * 5 + "|"
    )
    for k in (1, 2, 3, 4, 6, 8, 10, 12):
        columns = table + k
        middle = columns - k - (table - k) // 2  # where a window begins in whose middle the tail lies

        def tail(start, end, first=table, last=columns):
            """Tokens of columns `first` to `last` from a window over `start` to `end`."""
            return run(start, end)[:, 1 + (first - start) * rows : 1 + (last - start) * rows]

        wanted = tail(middle, middle + table)
        values = [apart(tail(*cut(columns, table, way)[-1][:2]), wanted) for way in WAYS]
        print(
            f"| {k} | " + " | ".join(f"{v:.3f}" for v in values),
            f"| {apart(tail(middle - 1, middle - 1 + table), wanted):.3f} |",
        )
    print("\n| from columns to columns | " + " | ".join(f"{way}, cls" for way in WAYS) + " |\n" + "| --- " * 4 + "|")
    for columns in (table - 1, table, table + 1, table + 5, 2 * table - 1, 2 * table, 2 * table + 1):

        def cls(way, columns):
            windows = cut(columns, table, way)
            return sum(run(start, end)[:, 0] * (end - first) / columns for start, end, first in windows)

        values = [apart(cls(way, columns + 1), cls(way, columns)) for way in WAYS]
        print(f"| {columns} to {columns + 1} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


def probes(folder):
    """Macro mAP on scenes that are k columns longer than a window."""
    settings = {"heads": ["cgp", "linear"], "by_kind": {"linear": {"head": {"pool": "cls"}}}, "workers": 0}
    print("\n| columns behind a window | way | CGP | linear, cls |\n| --- | --- | --- | --- |")
    for k in (1, 3, 8):
        data = scenes(folder, (13 + k) * COLUMN, 1200, 400)
        for way in WAYS:
            records = audiobat.probe(LongClips(way), data, load_recipe("demo_probe") | settings, device="cpu")
            values = [record.metrics["map"] for record in records]
            cells = " | ".join(f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" for m in values)
            print(f"| {k} | {way} | {cells} |", flush=True)


def main():
    with tempfile.TemporaryDirectory() as made:
        folder = sys.argv[1] if len(sys.argv) > 1 else made
        distances(folder)
        probes(folder)


if __name__ == "__main__":
    main()
