"""A small set of real speech with its words: python benchmarks/spoken_set.py PACKAGE OUT.csv [--language es]

PACKAGE is the folder into which Debian's package tuxpaint-stamps-default (2022.06.04-1, GPL-2) was unpacked by
`dpkg -x`. Each of its pictures has its name in many languages in NAME.txt, and spoken by one volunteer a language in
NAME_desc_LANGUAGE.ogg. Written: path (absolute), text, split, seconds. A fifth of the texts tests and a tenth
validates, by a hash, so that no text is on two sides; the speaker is the same on all. Left out, and counted: texts
with digits or signs that are read as words, which nobody wrote down; recordings of fewer than 5 or more than 25
characters a second, which are not of their text; copies.
"""

import argparse
import csv
import hashlib
import re
from collections import Counter
from pathlib import Path

import soundfile

SLOWEST, FASTEST = 5, 25  # characters a second
READ_AS_WORDS = re.compile(r"[\d$€£%&+=/]")


def texts_of(path, language):
    """The text of a picture in a language; None: it has none."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
        name, equals, text = line.partition(".utf8=")
        if equals and name == language:
            return " ".join(text.split())
    return None


def split_of(text):
    """The side of all recordings of a text."""
    place = int(hashlib.sha256(text.lower().encode()).hexdigest(), 16) % 10
    return "test" if place < 2 else "valid" if place == 2 else "train"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--language", default="es")
    arguments = parser.parse_args()
    rows, left_out, heard = [], Counter(), set()
    for path in sorted(arguments.package.absolute().rglob("*.txt")):
        audio = path.with_name(f"{path.stem}_desc_{arguments.language}.ogg")
        text = texts_of(path, arguments.language)
        if text is None or not audio.exists():
            continue
        content = audio.read_bytes()
        seconds = soundfile.info(audio).duration
        if READ_AS_WORDS.search(text):
            left_out["digits or signs in the text"] += 1
        elif not SLOWEST * seconds <= len(text) <= FASTEST * seconds:
            left_out["too slow or too fast for its text"] += 1
        elif content in heard:
            left_out["a recording that was there before"] += 1
        else:
            heard.add(content)
            rows.append([audio.as_posix(), text, split_of(text), f"{seconds:.3f}"])
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "text", "split", "seconds"], *rows])
    counts = Counter(row[2] for row in rows)
    minutes = sum(float(row[3]) for row in rows) / 60
    print(f"{len(rows)} recordings, {minutes:.1f} minutes: {dict(counts)}; left out: {dict(left_out)}")


if __name__ == "__main__":
    main()
