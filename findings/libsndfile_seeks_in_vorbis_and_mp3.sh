#!/usr/bin/env bash
# libsndfile 1.2.2: after a seek, Ogg Vorbis and MP3 give other samples than the whole decode has at that place.
#
# Guess: `seek(n)`, `read(m)` gives the slice [n, n + m) of what one read of the whole file gives, as it does
# for WAV and FLAC; soundfile's documentation says nothing else.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2, mpg123 in it):
# - Vorbis: once something was read, a seek forwards by up to about two seconds leads to unrelated sound, for thousands of
#   samples. Seeks backwards, and seeks that start from sample 0, are right. In the last page all miss by the samples that the
#   page lacks to a full one (here 104), as the end's granule position is taken for that of the last whole block.
# - MP3 of MPEG 2 (24 kHz and below): the first few hundred samples after a seek are wrong by up to 0.25 of full scale, as
#   frames there are small and the seek goes back too few of them for the bit reservoir. At 44.1 kHz no place was off.
#
# What to do: of Vorbis, seek to 0 first, and never into the last page, but to before it, and read on; of MP3 (and Opus, which
# is off by 0.001), half a second before the place. `tests/audio/test_contents.py` holds audiobat's reader to the slices.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
"$work/venv/bin/python" - <<'P'
import io
import sys

import numpy as np
import soundfile

rng, rate = np.random.default_rng(0), 44_100
t = np.arange(6 * rate) / rate
sound = 0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t) + 0.05 * rng.standard_normal(len(t)) * (1 + np.sin(t))


def wrong(kind, rate, places, read_first):
    """How many of these places are not the slice of the whole after a seek on a handle that has read so much."""
    file = io.BytesIO()
    soundfile.write(file, sound[: 6 * rate], rate, format=kind)
    data = file.getvalue()
    whole = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    count = 0
    for place in places:
        handle = soundfile.SoundFile(io.BytesIO(data))
        handle.read(read_first)
        handle.seek(place)
        part = handle.read(300, dtype="float32")
        count += np.abs(part - whole[place : place + 300][: len(part)]).max() > 1e-3
    return int(count)


forwards = wrong("OGG", rate, range(5000, 60_000, 5000), 1000)
fresh = wrong("OGG", rate, range(5000, 200_000, 5000), 0)
last = wrong("OGG", rate, [263_000], 0)
flac = wrong("FLAC", rate, range(5000, 200_000, 5000), 1000)
small, large = wrong("MP3", 24_000, range(5000, 140_000, 1000), 0), wrong("MP3", rate, range(5000, 200_000, 1000), 0)
print(f"libsndfile {soundfile.__libsndfile_version__}: wrong places of Vorbis: {forwards} of 11 forwards, {fresh} of 39 fresh,",
      f"{last} of 1 in the last page; of FLAC {flac} of 39; of MP3 {small} of 135 at 24 kHz, {large} of 195 at 44.1 kHz")
seen = forwards > 3 and fresh == 0 and last == 1 and flac == 0 and small > 0
sys.exit(0 if seen or soundfile.__libsndfile_version__ != "1.2.2" else 1)
P
