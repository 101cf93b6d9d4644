"""What embed and predict listen to: one or several sources to one clip table; and the window they default to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.read import read_clips
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder

CLIP_SECONDS = 10.0  # window of an encoder that names no longest clip


def list_clips(data: str | Path | Sequence[str | Path]) -> ClipTable:
    """The clips of an audio file, a .txt list of files, or whatever `read_clips` takes; or of several of these.

    The clips of several sources are called by their paths.

    Raises:
        AudiobatError: as for `read_clips`; nothing given; one source of several has clips inside other files.
    """
    if isinstance(data, str | Path):
        return _list_source(data)
    if not data:
        raise AudiobatError("--data names nothing: give files or folders of audio.")
    if len(data) == 1:
        return _list_source(data[0])
    paths: dict[str, None] = {}
    for source in data:
        table = _list_source(source)
        if table.offsets is not None or table.begins is not None:
            raise AudiobatError(f"--data {source} has its clips inside other files: give it alone.")
        paths |= dict.fromkeys(table.path(row) for row in range(len(table)))
    return clip_table("", list(paths))


def _list_source(data: str | Path) -> ClipTable:
    source = Path(data)
    if not source.is_file() or source.suffix.lower() in (".csv", ".parquet"):
        return read_clips(data)
    if source.suffix.lower() != ".txt":
        return clip_table("", [str(source)])
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AudiobatError(f"{source} is not UTF-8 text (byte {error.start}): save it in UTF-8.") from None
    files = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not files:
        raise AudiobatError(f"{source} lists no files: write one path on each line.")
    if not any("://" in file or (source.parent / file).exists() for file in files):
        raise AudiobatError(
            f"{source} is a list of files, none of which is there, such as {files[0]!r}: write one path on each line."
        )
    return clip_table(source.parent, files)


def longest_clip(encoder: Encoder) -> float:
    """Seconds of the longest clip that fits the encoder at once, in whole hundredths."""
    samples = getattr(encoder, "max_samples", None)
    return CLIP_SECONDS if samples is None else math.floor(samples / encoder.sample_rate * 100) / 100
