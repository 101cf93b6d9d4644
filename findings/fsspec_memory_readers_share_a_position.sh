#!/usr/bin/env bash
# fsspec's `memory://` hands every reader of a file the same file object, so two readers move one position between them.
#
# Guess before the run: each `open` gives a reader of its own, as it does for local files, s3:// and http://.
# Seen with fsspec 2026.9.0, soundfile 0.14.0 and NumPy 2.4.6 (Python 3.11): `open` twice returns one object. Two plain
# readers that read 4 bytes each get bytes 0-3 and 4-7. Two decoders of one 2-s WAV, read block by block in turn: the
# first gives all 32,000 samples, the second gives 30,400 and they are not the file's, and neither raises. Whoever reads a
# recording twice at once (two threads of a loader, two windows of one file) trains on sound that is in no file.
#
# What to do: give each thread its own copy of the bytes, or read by ranges (`cat_file(path, start, end)`).
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check fsspec==2026.9.0 soundfile==0.14.0 numpy==2.4.6
"$work/venv/bin/python" - <<'P'
import sys

import fsspec
import numpy as np
import soundfile

memory = fsspec.filesystem("memory")
with memory.open("/bytes.bin", "wb") as file:
    file.write(bytes(range(100)))
first, second = memory.open("/bytes.bin", "rb"), memory.open("/bytes.bin", "rb")
same = first is second
got = first.read(4), second.read(4)
first.seek(50)
moved = second.tell()
print("one object:", same, "| bytes:", list(got[0]), list(got[1]), "| position of the second after the first seeks:", moved)

times = np.arange(32_000) / 16_000
with memory.open("/tone.wav", "wb") as file:
    soundfile.write(file, np.sin(2 * np.pi * 440 * times).astype("f4"), 16_000, format="WAV", subtype="FLOAT")
whole, _ = soundfile.read(memory.open("/tone.wav", "rb"), dtype="float32")
one, two = (soundfile.SoundFile(memory.open("/tone.wav", "rb")) for _ in range(2))
blocks = [[], []]
for _ in range(20):  # two decoders, block by block in turn
    for decoder, own in zip((one, two), blocks, strict=True):
        own.append(decoder.read(1_600, dtype="float32"))
right = [np.array_equal(np.concatenate(own), whole) for own in blocks]
print("two decoders in turn give the file's own samples:", right, [len(np.concatenate(own)) for own in blocks])
expected = same and got == (bytes(range(4)), bytes(range(4, 8))) and moved == 50 and right == [True, False]
sys.exit(0 if expected else 1)
P
