"""The work of one shard: decode clips, mix them to mono, resample, cut windows, encode, and write them with an index.

In: rows of a clip table. Out: a tar shard that any reader of WebDataset's format takes, and what the clip table needs.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiobat.audio.read import check_samples
from audiobat.data.clip import open_clip
from audiobat.data.clip_table import EVENT, ClipTable
from audiobat.data.columns import Ragged, Strings
from audiobat.data.prepare.shard_index import ShardIndex
from audiobat.data.prepare.shard_writer import ShardWriter
from audiobat.data.shards import PackSettings, ShardPlan
from audiobat.data.windows import Samples, cut_windows
from audiobat.errors import AudiobatError

# libFLAC's levels 0 to 8 as 0 to 1. On 10-s clips of the demo at 16 kHz, 0 gave 0.50 of PCM's size and decoded 5%
# faster than libsndfile's default 0.625, which gave 0.48; 1 gave 0.47 and encoded at half the speed.
FLAC_LEVEL = 0.0
FULL_SCALE = 2**15


@dataclass(frozen=True)
class Job:
    """One shard to write."""

    folder: Path  # the prepared folder
    number: int
    plan: ShardPlan
    table: ClipTable  # the shard's rows alone
    keys: list[str]  # under which the shard keeps them
    skip: dict[int, str] = field(default_factory=dict)  # rows of the source not to be tried, with the reason


class Clip(NamedTuple):
    """A clip as a shard gets it."""

    key: str
    start: int  # samples into the clip of the source
    samples: NDArray[np.int16]  # [S]
    loud: bool
    labels: NDArray[np.int32] | None
    events: NDArray[Any] | None


class Record(NamedTuple):
    """A row of the index."""

    row: int
    key: str
    start: int
    volume: int
    offset: int
    size: int
    length: int
    hash: NDArray[np.uint64]  # [2]
    loud: bool
    labels: NDArray[np.int32] | None
    events: NDArray[Any] | None


class UnreadableError(Exception):
    """A clip cannot be read; says why."""


def cut_table(table: ClipTable, rows: range) -> ClipTable:
    """Some rows of a table without the names of all other files: light enough to be sent to a process."""
    part = table.select(np.arange(rows.start, rows.stop))
    files, file_ids = np.unique(part.file_ids, return_inverse=True)
    return replace(part, files=part.files.take(files.astype(np.int64)), file_ids=file_ids.astype(np.int32))


def pack_shard(job: Job, began: Callable[[int | None], None]) -> None:
    """Write a shard and, last, its index; calls `began` with each row of the source before the row is read,
    and with None after the last.

    A recording of which any part cannot be read is skipped as a whole.

    Raises:
        OSError: nothing can be written, such as on a full disk; what was begun is removed.
    """
    records: list[Record] = []
    skipped: dict[int, str] = {}
    with ShardWriter(job.folder, job.number) as writer:
        for local, row in enumerate(job.plan.rows(job.number)):
            began(row)
            place, before = writer.begin(), len(records)
            try:
                for clip in read_row(job, local, row):
                    records.append(_write(writer, job, local, row, clip))
            except UnreadableError as error:
                writer.undo(place)
                del records[before:]
                skipped[row] = str(error).encode(errors="backslashreplace").decode()  # a name that is not UTF-8
        began(None)
        volumes = writer.finish()
    _index(job, records, skipped, volumes, writer.sizes).save(job.folder)


def read_row(job: Job, local: int, row: int) -> Iterator[Clip]:
    """The clip of row `local` of the job's table, or the windows of it.

    Raises:
        UnreadableError: it cannot be read from here on, or killed the process that read it.
    """
    if row in job.skip:
        raise UnreadableError(job.skip[row])
    window = job.plan.settings.window
    for number, (start, samples) in enumerate(_stretches(job, local)):
        key = job.keys[local] if window is None else f"{job.keys[local]}_{number:05d}"
        yield Clip(key, start, *to_int16(samples), *_cut_labels(job, local, start, len(samples)))


def _stretches(job: Job, local: int) -> Iterator[tuple[int, Samples]]:
    """(start, samples [S]) at the shard's rate: the whole clip, or its windows."""
    try:
        for start, samples in _cuts(job, local):
            yield start, check_samples(samples, f"{job.table.path(local)}, resampled,")  # large floats overflow there
    except MemoryError:
        raise UnreadableError("it does not fit into memory: cut it with --window-seconds.") from None
    except AudiobatError as error:
        raise UnreadableError(str(error)) from error
    except Exception as error:  # whatever a decoder may come up with: one odd file must not end a run of days
        raise UnreadableError(f"{type(error).__name__}: {error}") from error


def _cuts(job: Job, local: int) -> Iterator[tuple[int, Samples]]:
    settings = job.plan.settings
    with open_clip(job.table, local) as clip:
        if settings.window is not None and settings.hop is not None:
            windows = cut_windows(clip.blocks(settings.sample_rate), settings.window, settings.hop)
            if (first := next(windows, None)) is not None:
                yield from itertools.chain([first], windows)
                return
        yield 0, clip.read(settings.sample_rate)  # also of less than a sample, which it rounds up


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
    """Those of a clip's EVENTs that sound in its window from `start` on, for `seconds`, in the window's own time."""
    inside = (events["onset"] < start + seconds) & (np.maximum(events["offset"], events["onset"] + 1e-9) > start)
    cut: NDArray[Any] = events[inside].copy()
    cut["onset"] = np.maximum(cut["onset"] - start, 0.0)
    cut["offset"] = np.minimum(cut["offset"] - start, seconds)
    return cut


def _cut_labels(job: Job, local: int, start: int, length: int) -> tuple[NDArray[np.int32] | None, NDArray[Any] | None]:
    """Labels and events of a clip, or of a window: a label that has events holds where one of them sounds."""
    table, settings = job.table, job.plan.settings
    labels = None if table.labels is None else table.labels.row(local)
    events = None if table.events is None else table.events.row(local)
    if settings.window is None or events is None:
        return labels, events
    cut = cut_events(events, start / settings.sample_rate, length / settings.sample_rate)
    if labels is not None:
        labels = labels[~np.isin(labels, events["label"]) | np.isin(labels, cut["label"])]
    return labels, cut


def _write(writer: ShardWriter, job: Job, local: int, row: int, clip: Clip) -> Record:
    """Add the clip's two members."""
    settings = job.plan.settings
    audio = encode(clip.samples, settings)
    volume, offset = writer.add(f"{clip.key}.{settings.encoding}", audio)
    text = json.dumps(describe_clip(job.table, local, clip, settings), sort_keys=True, ensure_ascii=False)
    writer.add(f"{clip.key}.json", text.encode())
    found = sample_hash(clip.samples)
    place = (volume, offset, len(audio), len(clip.samples))
    return Record(row, clip.key, clip.start, *place, found, clip.loud, clip.labels, clip.events)


def encode(samples: NDArray[np.int16], settings: PackSettings) -> bytes:
    """Samples [S] as the bytes of a member."""
    if settings.encoding == "pcm":
        return samples.astype("<i2").tobytes()
    held = io.BytesIO()
    soundfile.write(held, samples, settings.sample_rate, "PCM_16", format="FLAC", compression_level=FLAC_LEVEL)
    return held.getvalue()


def describe_clip(table: ClipTable, local: int, clip: Clip, settings: PackSettings) -> dict[str, Any]:
    """What KEY.json says: all that is known of the clip, by name; the source's own columns win over ours."""
    location = table.location(local)
    fields: dict[str, Any] = {
        "key": clip.key,
        "source": table.files[int(table.file_ids[local])],
        "start": location.begin + clip.start / settings.sample_rate,
        "seconds": len(clip.samples) / settings.sample_rate,
        "sample_rate": settings.sample_rate,
    }
    if clip.labels is not None:
        fields["labels"] = [table.classes[label] for label in clip.labels.tolist()]
    if clip.events is not None:
        fields["events"] = [
            {"label": table.classes[label], "onset": onset, "offset": offset}
            for label, onset, offset in clip.events.tolist()
        ]
    if table.splits is not None:
        fields["split"] = str(table.splits[local])
    if table.folds is not None:
        fields["fold"] = int(table.folds[local])
    return fields | {name: column[local] for name, column in table.columns.items()}


def _index(
    job: Job, records: list[Record], skipped: dict[int, str], volumes: list[str], sizes: list[int]
) -> ShardIndex:
    column = {name: [getattr(record, name) for record in records] for name in Record._fields}

    def numbers(values: Iterable[int]) -> NDArray[np.int64]:
        return np.array(list(values), np.int64)

    return ShardIndex(
        plan=job.plan.digest,
        number=job.number,
        volumes=Strings.of_texts(volumes),
        volume_sizes=numbers(sizes),
        keys=Strings.of_texts(column["key"]),
        rows=numbers(column["row"]),
        starts=numbers(column["start"]),
        volume_ids=numbers(column["volume"]),
        offsets=numbers(column["offset"]),
        sizes=numbers(column["size"]),
        lengths=numbers(column["length"]),
        hashes=np.array(column["hash"], np.uint64).reshape(-1, 2),
        loud=np.array(column["loud"], np.bool_),
        labels=None if job.table.labels is None else Ragged.of([v.tolist() for v in column["labels"]], np.int32),
        events=None if job.table.events is None else Ragged.of([v.tolist() for v in column["events"]], EVENT),
        skipped=numbers(skipped),
        reasons=Strings.of_texts(skipped.values()),
    )
