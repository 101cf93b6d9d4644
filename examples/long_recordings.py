"""Search a long recording for a sound by an example of it, in memory that does not grow with the recording's length.

    python examples/long_recordings.py         # ten minutes of a forest, with three calls of cattle somewhere in it
    python examples/long_recordings.py 3600    # an hour

Shows `audiobat.embed` on one long file in overlapping windows, and how rows lead back to seconds. To name sounds
instead, fine-tune a tagger (finetune.py) and give its folder to `audiobat predict`.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import audiobat
from audiobat.audio.read import load_audio
from audiobat.data.scenes import demo_folder

RATE = 16_000
FOREST = [f"unlabelled/ambient_ee364f5e_{part}.ogg" for part in range(6)]  # a minute, repeated as often as it takes
EXAMPLE = "events/cattle_00.ogg"
CALLS = {"events/cattle_01.ogg": 0.21, "events/cattle_03.ogg": 0.55, "events/cattle_05.ogg": 0.83}  # where they begin


def main(seconds: str | float = 600) -> list[float]:
    """Print the three moments that sound most like the example; returns the seconds at which they start."""
    length = int(float(seconds) * RATE)
    recording = np.resize(np.concatenate([load_audio(demo_folder() / path, RATE) for path in FOREST]), length)
    for path, where in CALLS.items():
        call = load_audio(demo_folder() / path, RATE)
        at = int(where * length)
        recording[at : at + len(call)] += 0.5 * call

    # Windows about as long as the sound, each half over the next, so that no call is cut in two by all of them.
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "forest.flac"
        soundfile.write(file, recording / np.abs(recording).max(), RATE)
        out = audiobat.embed("bat_nano", file, Path(name) / "forest.npz", window_seconds=2, hop_seconds=1)
        rows = dict(np.load(out))

    mean = rows["embedding"].mean(axis=0)  # of the forest: what is left tells a window from the rest of the recording
    windows = rows["embedding"] - mean
    example = audiobat.load("bat_nano").embed(demo_folder() / EXAMPLE).numpy() - mean
    similarity = windows @ example / np.linalg.norm(windows, axis=1) / np.linalg.norm(example)

    found: list[float] = []
    for row in np.argsort(-similarity):
        start = float(rows["start"][row])
        if all(abs(start - other) > 5 for other in found):  # neighbours of a window found already say nothing new
            found.append(start)
            print(f"{start:7.1f} s to {rows['end'][row]:7.1f} s, cosine {similarity[row]:.2f}")
        if len(found) == len(CALLS):
            break
    print("hidden at", ", ".join(f"{where * float(seconds):.1f} s" for where in CALLS.values()))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
