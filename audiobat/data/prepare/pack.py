"""The work of one shard: decode clips, mix them to mono, resample, cut windows, encode, and write them with an index.

In: some clips of the source's table. Out: a tar shard that any reader of WebDataset's format takes, and its index, from
which the clip table is made. Each clip is opened once.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiobat.data.clip import open_clip
from audiobat.data.clip_table import EVENT, ClipTable
from audiobat.data.columns import Ragged, Strings
from audiobat.data.prepare.shard import ShardIndex, ShardWriter
from audiobat.data.shards import PackSettings, ShardPlan, member_stem
from audiobat.data.windows import Samples, cut_windows
from audiobat.errors import AudiobatError

# libFLAC's levels 0 to 8 as 0 to 1. On 10-s clips of the demo at 16 kHz, 0 gave 0.50 of PCM's size and decoded 5%
# faster than libsndfile's default 0.625, which gave 0.48; 1 gave 0.47 and encoded at half the speed.
FLAC_LEVEL = 0.0
FULL_SCALE = 2**15
LEAST_SECONDS = 0.16  # of a clip's last window, a patch of the paper's frontend: from less no model learns


@dataclass(frozen=True)
class Job:
    """One shard to write."""

    folder: Path  # the prepared folder
    number: int
    plan: ShardPlan
    table: ClipTable  # the clips of this shard alone
    keys: list[str]  # the names of their members
    skip: dict[int, str] = field(default_factory=dict)  # clip_ids of the source not to be tried, with the reason


class Piece(NamedTuple):
    """A clip, or a window of it, as the shard gets it."""

    key: str
    start: int  # samples into the clip of the source
    samples: NDArray[np.int16]  # [S]
    loud: bool  # whether samples beyond full scale were cut off there
    labels: NDArray[np.int32] | None
    events: NDArray[Any] | None


class UnreadableError(Exception):
    """A clip cannot be read; says why."""


def cut_table(table: ClipTable, clip_ids: range) -> ClipTable:
    """Some clips of a table without the names of all other files: light enough to be sent to a process."""
    part = table.select(np.arange(clip_ids.start, clip_ids.stop))
    files, file_ids = np.unique(part.file_ids, return_inverse=True)
    return replace(part, files=part.files.take(files.astype(np.int64)), file_ids=file_ids.astype(np.int32))


def pack_shard(job: Job, began: Callable[[int | None], None]) -> None:
    """Write a shard and, last, its index. A recording of which any part cannot be read is skipped as a whole.

    Args:
        job: the shard.
        began: is called with each clip_id of the source before the clip is read, and with None after the last.

    Raises:
        OSError: nothing can be written, such as on a full disk; what was begun is removed.
    """
    settings = job.plan.settings
    rows: list[dict[str, Any]] = []  # the index's entry of each piece, by the names of the index's columns
    skipped: dict[int, str] = {}
    with ShardWriter(job.folder, job.number) as writer:
        for i, clip_id in enumerate(job.plan.clip_ids(job.number)):
            began(clip_id)
            position, before = writer.begin(), len(rows)
            try:
                for piece in read_pieces(job, i, clip_id):
                    audio = encode(piece.samples, settings)
                    stem = member_stem(piece.key)
                    volume, offset = writer.add(f"{stem}.{settings.encoding}", audio)
                    text = json.dumps(describe_piece(job.table, i, piece, settings), sort_keys=True, ensure_ascii=False)
                    writer.add(f"{stem}.json", text.encode())
                    rows.append(
                        {
                            "clip_ids": clip_id,
                            "keys": piece.key,
                            "starts": piece.start,
                            "volume_ids": volume,
                            "offsets": offset,
                            "sizes": len(audio),
                            "lengths": len(piece.samples),
                            "hashes": sample_hash(piece.samples),
                            "loud": piece.loud,
                            "labels": piece.labels,
                            "events": piece.events,
                        }
                    )
            except UnreadableError as error:
                writer.undo(position)
                del rows[before:]
                skipped[clip_id] = str(error).encode(errors="backslashreplace").decode()  # a name that is not UTF-8
        began(None)
        volumes = writer.finish()
    numbers = ("clip_ids", "starts", "volume_ids", "offsets", "sizes", "lengths")
    ShardIndex(
        plan=job.plan.digest,
        number=job.number,
        volumes=Strings.of_texts(volumes),
        volume_sizes=np.array(writer.sizes, np.int64),
        keys=Strings.of_texts(row["keys"] for row in rows),
        hashes=np.array([row["hashes"] for row in rows], np.uint64).reshape(-1, 2),
        loud=np.array([row["loud"] for row in rows], np.bool_),
        labels=None if job.table.labels is None else Ragged.of([row["labels"].tolist() for row in rows], np.int32),
        events=None if job.table.events is None else Ragged.of([row["events"].tolist() for row in rows], EVENT),
        skipped=np.array(list(skipped), np.int64),
        reasons=Strings.of_texts(skipped.values()),
        **{name: np.array([row[name] for row in rows], np.int64) for name in numbers},
    ).save(job.folder)


def read_pieces(job: Job, i: int, clip_id: int) -> Iterator[Piece]:
    """Clip i of the job's table (`clip_id` in the source's), or its windows, up to an UnreadableError."""
    if clip_id in job.skip:
        raise UnreadableError(job.skip[clip_id])
    try:
        for number, (start, samples) in enumerate(_spans(job, i)):
            key = job.keys[i] if job.plan.settings.window is None else f"{job.keys[i]}_{number:05d}"
            yield Piece(key, start, *to_int16(samples), *_cut_labels(job, i, start, len(samples)))
    except MemoryError:
        raise UnreadableError("it does not fit into memory: cut it with --window-seconds.") from None
    except AudiobatError as error:
        raise UnreadableError(str(error)) from error
    except Exception as error:  # whatever a decoder may raise: one odd file must not end a run of days
        raise UnreadableError(f"{type(error).__name__}: {error}") from error


def _spans(job: Job, i: int) -> Iterator[tuple[int, Samples]]:
    """(start, samples [S]) at the shard's rate: the whole clip, or its windows."""
    settings = job.plan.settings
    with open_clip(job.table, i) as clip:
        if settings.window is not None and settings.hop is not None:
            least = round(LEAST_SECONDS * settings.sample_rate)
            windows = cut_windows(clip.blocks(settings.sample_rate), settings.window, settings.hop, least)
            if (first := next(windows, None)) is not None:
                yield from itertools.chain([first], windows)
                return
        yield 0, clip.read(settings.sample_rate)  # also of less than a sample, which is rounded up to one


def to_int16(samples: Samples) -> tuple[NDArray[np.int16], bool]:
    """Samples [S] rounded to 16 bit, and whether any lay beyond full scale, [-1, 1), and was set to its edge."""
    scaled = np.rint(np.clip(samples, -2, 2) * np.float32(FULL_SCALE))
    limited = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1)
    return limited.astype(np.int16), bool((limited != scaled).any())


def sample_hash(samples: NDArray[np.int16]) -> NDArray[np.uint64]:
    """128 bits, [2], of samples [S]: equal where the audio is."""
    digest = hashlib.blake2b(samples.astype("<i2").tobytes(), digest_size=16).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)


def cut_events(events: NDArray[Any], start: float, seconds: float) -> NDArray[Any]:
    """Those EVENTs of a clip that sound in its window from `start` on, for `seconds`, in the window's own time."""
    inside = (events["onset"] < start + seconds) & (np.maximum(events["offset"], events["onset"] + 1e-9) > start)
    cut: NDArray[Any] = events[inside].copy()
    cut["onset"] = np.maximum(cut["onset"] - start, 0.0)
    cut["offset"] = np.minimum(cut["offset"] - start, seconds)
    return cut


def _cut_labels(job: Job, i: int, start: int, length: int) -> tuple[NDArray[np.int32] | None, NDArray[Any] | None]:
    """Labels and events of a clip, or of a window, which keeps a label that has events where one of them sounds."""
    table, settings = job.table, job.plan.settings
    labels = None if table.labels is None else table.labels.row(i)
    events = None if table.events is None else table.events.row(i)
    if settings.window is None or events is None:
        return labels, events
    cut = cut_events(events, start / settings.sample_rate, length / settings.sample_rate)
    if labels is not None:
        labels = labels[~np.isin(labels, events["label"]) | np.isin(labels, cut["label"])]
    return labels, cut


def encode(samples: NDArray[np.int16], settings: PackSettings) -> bytes:
    """Samples [S] as the bytes of a member."""
    if settings.encoding == "pcm":
        return samples.astype("<i2").tobytes()
    held = io.BytesIO()
    soundfile.write(held, samples, settings.sample_rate, "PCM_16", format="FLAC", compression_level=FLAC_LEVEL)
    return held.getvalue()


def describe_piece(table: ClipTable, i: int, piece: Piece, settings: PackSettings) -> dict[str, Any]:
    """The content of KEY.json: all that is known of the clip, by name; the source's own columns win over ours."""
    fields: dict[str, Any] = {
        "key": piece.key,
        "source": table.files[int(table.file_ids[i])],
        "start": table.location(i).begin + piece.start / settings.sample_rate,
        "seconds": len(piece.samples) / settings.sample_rate,
        "sample_rate": settings.sample_rate,
    }
    if piece.labels is not None:
        fields["labels"] = [table.classes[label] for label in piece.labels.tolist()]
    if piece.events is not None:
        fields["events"] = [
            {"label": table.classes[label], "onset": onset, "offset": offset}
            for label, onset, offset in piece.events.tolist()
        ]
    if table.splits is not None:
        fields["split"] = str(table.splits[i])
    if table.folds is not None:
        fields["fold"] = int(table.folds[i])
    return fields | {name: column[i] for name, column in table.columns.items()}
