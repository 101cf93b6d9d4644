#!/usr/bin/env bash
# crowsetta's `aud-bbox` loses the last label of an Audacity track if it is the only one without a line of frequencies.
#
# Guess before the run: a track in which some labels have frequencies and some have none is refused, wherever those stand.
# Seen with crowsetta 5.1.2 (Python 3.11): the reader takes lines in pairs, and what is left over at the end goes without
# a word. A label without frequencies before others is refused (`could not convert string to float`), the last one is lost.
# Audacity writes such tracks: a label drawn in the spectrogram has frequencies, one drawn in the waveform has none. So a
# call that was marked last, in the other view, is missing from counts and from training.
#
# What to do: give every label frequencies or none (`aud-seq` reads the latter), or count lines that begin with a number.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check crowsetta==5.1.2
cd "$work" && venv/bin/python - <<'P'
import sys

import crowsetta

frequencies = "\\\t100.5\t400.5\n"
tracks = {
    "owl, bat": "0.5\t1.25\towl\n" + frequencies + "1.5\t2.5\tbat\n" + frequencies,
    "owl, then bat without": "0.5\t1.25\towl\n" + frequencies + "1.5\t2.5\tbat\n",
    "bat without, then owl": "0.5\t1.25\tbat\n" + "1.5\t2.5\towl\n" + frequencies,
}
found = {}
for name, text in tracks.items():
    with open("track.txt", "w") as file:
        file.write(text)
    try:
        boxes = crowsetta.formats.bbox.AudBBox.from_file("track.txt").to_annot().bboxes
        found[name] = [box.label for box in boxes]
    except ValueError as error:
        found[name] = str(error)
    print(f"{name}: {found[name]}")
sys.exit(0 if found["owl, then bat without"] == ["owl"] else 1)
P
