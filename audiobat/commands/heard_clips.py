"""The test clips that let one hear what a head knows and what it does not: WAV, spectrogram, a list; for reports."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import soundfile
import torch
from torch import Tensor

from audiobat.config import FrontendConfig
from audiobat.data.index import ClipTable
from audiobat.data.store import read_clip
from audiobat.errors import AudiobatError
from audiobat.frontend import MelFrontend
from audiobat.metrics import average_precision
from audiobat.report import figures
from audiobat.report.clips import FOLDER, LIST, HeardClip, listed, merged, read_heard
from audiobat.train.logs import write_atomic

SECONDS = 10.0  # of a clip are kept
CLASSES = 3  # best ones and worst ones
GUESSES = 5


def save_clips(
    out: str | Path, record: str, table: ClipTable, rows: Sequence[int], scores: Tensor, *, notice: str = ""
) -> Path:
    """Write OUT/clips: for the classes that scores know best and worst, the clip that shows it; returns the folder.

    Of a class it knows best, the clip that it is surest of; of one it knows worst, the clip that has the class and that
    it is least sure of, and the one that it is wrongly surest of. Clips of other records in that folder stay.

    Args:
        out: the run folder.
        record: name of the record file of these scores, without .json.
        table: clips with labels.
        rows: rows of the test clips, n of them.
        scores: probabilities [n, C].
        notice: licence or source of the recordings, a line of Markdown.

    Raises:
        AudiobatError: scores that are not of these rows; a clip that cannot be read.
    """
    folder = Path(out) / FOLDER
    targets = torch.from_numpy(table.targets()[list(rows)])
    if scores.shape != targets.shape:
        raise AudiobatError(
            f"scores is {list(scores.shape)} and the clips' labels {list(targets.shape)}: give one form."
        )
    clips = []
    for side, label, ap, place, why in chosen(scores, targets):
        row = int(rows[place])
        likeliest = scores[place].argsort(descending=True)[:GUESSES].tolist()
        clips.append(
            HeardClip(
                record=record,
                file=write_media(folder, table, row),
                key=table.keys[row],
                label=table.classes[label],
                side=side,
                average_precision=ap,
                why=why,
                labels=tuple(name for name, there in zip(table.classes, targets[place].tolist(), strict=True) if there),
                predictions=tuple((table.classes[i], float(scores[place, i])) for i in likeliest),
            )
        )
    write_atomic(folder / LIST, listed(merged(read_heard(folder), record, clips, notice)))
    return folder


def chosen(scores: Tensor, targets: Tensor) -> list[tuple[Literal["best", "worst"], int, float, int, str]]:
    """(side, class, its average precision, place of the clip among the n, why) for scores and targets [n, C]."""
    ap = average_precision(scores, targets)
    known = [c for c in ap.argsort(descending=True, stable=True).tolist() if not ap[c].isnan()]
    best, worst = known[:CLASSES], known[CLASSES:][::-1][:CLASSES]
    found: list[tuple[Literal["best", "worst"], int, float, int, str]] = []
    for c in best:
        right = scores[:, c].masked_fill(~targets[:, c], -torch.inf)
        found.append(("best", c, float(ap[c]), int(right.argmax()), "has the class, surest of it"))
    for c in worst:
        missed = scores[:, c].masked_fill(~targets[:, c], torch.inf)
        found.append(("worst", c, float(ap[c]), int(missed.argmin()), "has the class, least sure of it"))
        if not targets[:, c].all():
            false = scores[:, c].masked_fill(targets[:, c], -torch.inf)
            found.append(("worst", c, float(ap[c]), int(false.argmax()), "lacks the class, surest of it"))
    return found


def write_media(folder: Path, table: ClipTable, row: int) -> str:
    """KEY.wav and KEY.png of a clip, unless they are there; returns KEY."""
    key = table.keys[row]
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', Path(key).stem)[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    if not (folder / f"{name}.png").exists():
        folder.mkdir(parents=True, exist_ok=True)
        mel = MelFrontend(FrontendConfig())
        rate = mel.config.sample_rate
        waveform = torch.from_numpy(read_clip(table, row, rate))[: int(SECONDS * rate)]
        soundfile.write(folder / f"{name}.wav", waveform.numpy(), rate, subtype="PCM_16")
        picture = figures.png(figures.thumbnail(mel(waveform[None])[0][0].numpy(), mel))
        (folder / f"{name}.png").write_bytes(picture)  # last: where it is, the sound is
    return name
