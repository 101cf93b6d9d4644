"""Write the tables of this folder with the libraries themselves: python make_tables.py FOLDER.

They were written by crowsetta 5.1.2, opensoundscape 0.13.2 and BirdNET-Analyzer 2.4.0, of which the functions ran that
write results, and no model. `a.wav` lasts 10 s, `b.wav` holds nothing.
"""

import sys
from pathlib import Path

import crowsetta
import numpy as np
import pandas as pd
import soundfile

EVENTS = [("owl", 0.5, 1.25), ("NA", 2.0, 4.75), ("007", 3.0, 6.0)]


def by_crowsetta(folder: Path) -> None:
    onsets, offsets = np.array([e[1] for e in EVENTS]), np.array([e[2] for e in EVENTS])
    labels = np.array([e[0] for e in EVENTS])
    simple = crowsetta.formats.seq.SimpleSeq(onsets, offsets, labels, folder / "simple.csv")
    simple.to_file(folder / "simple.csv")
    sequence = crowsetta.Sequence.from_keyword(labels=labels, onsets_s=onsets, offsets_s=offsets)
    annot = crowsetta.Annotation(annot_path="a.csv", notated_path="a.wav", seq=sequence)
    crowsetta.formats.seq.GenericSeq([annot]).to_file(folder / "generic.csv")
    track = pd.DataFrame({"start_time": onsets, "end_time": offsets, "label": labels})
    crowsetta.formats.seq.AudSeq(onsets, offsets, labels, folder / "audseq.txt").to_file(folder / "audseq.txt")
    boxes = track.rename(columns={"start_time": "begin_time_s", "end_time": "end_time_s", "label": "annotation"})
    boxes = boxes.assign(low_freq_hz=100.5, high_freq_hz=400.5)
    crowsetta.formats.bbox.Raven(boxes, folder / "raven.txt", "annotation").to_file(folder / "raven.txt")


def by_opensoundscape(folder: Path) -> None:
    from opensoundscape.annotations import BoxedAnnotations

    rows = [("a.wav", "", label, onset, offset, 100.0, 400.0) for label, onset, offset in EVENTS]
    names = ["audio_file", "annotation_file", "annotation", "start_time", "end_time", "low_f", "high_f"]
    frame = pd.DataFrame([*rows, ("b.wav", "", np.nan, np.nan, np.nan, np.nan, np.nan)], columns=names)
    boxed = BoxedAnnotations(frame, annotation_files=[], audio_files=["a.wav", "b.wav"])
    boxed.to_csv(folder / "boxes.csv")
    boxed.to_raven_files(folder, audio_files=["a.wav", "b.wav"])


def by_birdnet(folder: Path) -> None:
    import birdnet_analyzer.config as cfg
    from birdnet_analyzer.analyze import utils

    cfg.TRANSLATED_LABELS, cfg.LABELS, cfg.CODES = [], [f"Strix {e[0]}_{e[0]}" for e in EVENTS], {}
    cfg.OUTPUT_PATH, cfg.ADDITIONAL_COLUMNS = str(folder), []
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, np.zeros(80_000), 8000)
    spans = [f"{e[1]}-{e[2]}" for e in EVENTS]
    found = {span: [(label, 0.75)] for span, label in zip(spans, cfg.LABELS, strict=True)}
    stem = str(folder / "a.BirdNET")
    utils.generate_raven_table(spans, found, "/field/a.wav", f"{stem}.selection.table.txt")
    utils.generate_audacity(spans, found, f"{stem}.results.txt")
    utils.generate_kaleidoscope(spans, found, "/field/day/a.wav", f"{stem}.results.kaleidoscope.csv")
    utils.generate_csv(spans, found, "/field/a.wav", f"{stem}.results.csv")
    utils.generate_raven_table([], {}, "/field/b.wav", str(folder / "b.BirdNET.selection.table.txt"))
    for name in ("a.wav", "b.wav"):
        (folder / name).unlink()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for name, write in (("crowsetta", by_crowsetta), ("opensoundscape", by_opensoundscape), ("birdnet", by_birdnet)):
        (target / name).mkdir(parents=True, exist_ok=True)
        write(target / name)
