"""Embed a folder of recordings and find, for each one, the recording that sounds most like it.

    python examples/embed.py                    # the 554 short sounds that the package carries: seconds on a laptop
    python examples/embed.py my_recordings/     # yours: any format, rate and length

Shows `audiobat.embed`: one row for each window, and how rows are compared.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import audiobat
from audiobat.data.scenes import demo_folder

EVENTS = demo_folder() / "events"  # name_NUMBER.ogg


def main(recordings: str | Path = EVENTS) -> float:
    """Print who is next to whom; returns the share of recordings next to one whose name begins alike."""
    with tempfile.TemporaryDirectory() as folder:
        table = np.load(audiobat.embed("bat_nano", recordings, Path(folder) / "embeddings.npz"))
        paths, vectors = table["path"], table["embedding"]  # [R], [R, D]

    # A coordinate that is large everywhere would decide every comparison: subtract the mean, then compare by angle.
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T  # [R, R], cosines
    same_file = paths[:, None] == paths[None, :]  # a long recording has several windows
    nearest = np.where(same_file, -np.inf, similarity).argmax(axis=1)

    for row in range(0, len(paths), max(1, len(paths) // 12)):
        other = nearest[row]
        print(f"{paths[row]:<36} {paths[other]:<36} {similarity[row, other]:.2f}")

    kinds = np.array([path.rpartition("_")[0] for path in paths])  # cattle_03.ogg -> cattle
    share = float((kinds == kinds[nearest]).mean())
    chance = float(np.mean([(kinds == kind).sum() - 1 for kind in kinds])) / (len(kinds) - 1)
    print(f"{share:.0%} have a recording of the same name and another number next to them; by chance {chance:.0%}.")
    return share


if __name__ == "__main__":
    main(*sys.argv[1:])
