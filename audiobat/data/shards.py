"""The layout of a prepared folder, and how it is opened: the plan, the shards with their indexes, the clip table.

prepared.json               the plan: settings, digest of the source, which clips go to which shard
shards/00000.tar            KEY.flac or KEY.pcm, then KEY.json; one that grows beyond 1 GB goes on in 00000-1.tar
shards/00000.index.npz      what the shard holds; written last: with it, the shard is done
clips/                      the clip table; written last of all: with it, the folder is done
skipped.csv duplicates.csv  clips left out, with the reason; clips with the audio of an earlier one
wids.json                   the shards and their lengths, as the library wids takes them
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from audiobat.config import from_dict
from audiobat.data.clip_table import HEADER, ClipTable, open_table, table_files
from audiobat.data.remote import exists, is_remote, read_range
from audiobat.engine.files import read_json, write_atomic
from audiobat.errors import AudiobatError

FORMAT = "audiobat-shards-1"
PLAN, SHARDS, CLIPS = "prepared.json", "shards", "clips"
SKIPPED, DUPLICATES, WIDS = "skipped.csv", "duplicates.csv", "wids.json"
NAME_BYTES = 100  # of a member in a tar header: names that are longer are kept in ways that not every reader knows
UNFINISHED = ".part"  # in the names of files under way, which begin with a dot
RUN = secrets.token_hex(4)  # of this process: on machines that share a folder, process ids may be the same


@dataclass(frozen=True)
class PackSettings:
    """How clips are written; files of other settings never mix."""

    sample_rate: int  # Hz
    encoding: str  # flac: 16 bit; pcm: headerless 16-bit little-endian samples
    window_seconds: float | None  # None: clips stay whole
    hop_seconds: float | None  # between the starts of two windows

    @property
    def window(self) -> int | None:
        """Samples of a window."""
        return None if self.window_seconds is None else max(1, round(self.window_seconds * self.sample_rate))

    @property
    def hop(self) -> int | None:
        """Samples between the starts of two windows."""
        return None if self.hop_seconds is None else max(1, round(self.hop_seconds * self.sample_rate))


@dataclass(frozen=True)
class ShardPlan:
    """Which clips of a source go to which shard: a function of the source and the settings alone; prepared.json."""

    sha256: str  # of the source
    clips: int  # of the source
    settings: PackSettings
    first_rows: tuple[int, ...]  # the first clip_id of each shard

    def __len__(self) -> int:
        return len(self.first_rows)

    def clip_ids(self, number: int) -> range:
        """The clips of the source's table that go to shard `number`."""
        return range(self.first_rows[number], (*self.first_rows, self.clips)[number + 1])

    @property
    def digest(self) -> str:
        """A digest that the shards of this plan carry, and no others."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path, source: str) -> None:
        """Write it as FOLDER/prepared.json; `source` is for people to read."""
        fields = {"format": FORMAT, "source": source, **asdict(self)}
        text = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
        write_shared(folder / PLAN, text.encode(errors="backslashreplace"))  # a name that is not UTF-8, as JSON says it

    def check_begun(self, folder: Path) -> None:
        """Raise an AudiobatError, which names the difference, if `folder` was begun with another plan."""
        begun = load_plan(folder)
        for name, value in asdict(self.settings).items():
            if (before := getattr(begun.settings, name)) != value:
                raise AudiobatError(
                    f"{folder} was begun with --{name.replace('_', '-')} {before}, not {value}: "
                    "use the same, another folder, or --overwrite."
                )
        if begun != self:
            raise AudiobatError(
                f"{folder} was begun with another source (of {begun.clips} clips, sha256 {begun.sha256[:12]}; now "
                f"{self.clips}, {self.sha256[:12]}): give that one, another folder, or --overwrite."
            )


def load_plan(folder: Path) -> ShardPlan:
    """The plan of a prepared folder, finished or not."""
    try:
        fields = read_json(folder / PLAN)
        if fields.pop("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        del fields["source"]
        return from_dict(ShardPlan, fields)
    except (ValueError, KeyError, TypeError) as error:
        raise AudiobatError(f"{folder / PLAN} is no readable plan ({error}): prepare anew, with --overwrite.") from None


def index_path(folder: Path, number: int) -> Path:
    """The index of shard `number`."""
    return folder / SHARDS / f"{number:05d}.index.npz"


def volume_path(folder: Path, number: int, volume: int) -> Path:
    """Volume `volume` of shard `number`; most have one."""
    return folder / SHARDS / (f"{number:05d}-{volume}.tar" if volume else f"{number:05d}.tar")


def member_stem(key: str) -> str:
    """The name of a clip's members, without extension: its key; of a long one its beginning, and a digest of it all."""
    data, longest = key.encode(), NAME_BYTES - len(".flac")
    if len(data) <= longest:
        return key
    digest = "-" + hashlib.sha256(data).hexdigest()[:16]
    return data[: longest - len(digest)].decode(errors="ignore") + digest  # no part of a letter


def beside(path: Path) -> Path:
    """Where a file or folder is written before it is renamed to `path`: a name of this process alone."""
    return path.with_name(f".{path.name}.{os.getpid()}-{RUN}{UNFINISHED}")


def write_shared(path: Path, data: bytes) -> None:
    """Write a file of a folder that several machines may write at the same moment."""
    try:
        write_atomic(path, data, beside(path))
    except BaseException:
        beside(path).unlink(missing_ok=True)  # nobody else would write, or remove, a file of this name
        raise


def is_unfinished(path: Path) -> bool:
    """Whether a killed process left it, or one still writes it."""
    return path.name.startswith(".") and UNFINISHED in path.name


def remove_unfinished(folder: Path, numbers: Iterable[int]) -> None:
    """Remove what killed processes left of these shards."""
    ours = {f".{number:05d}" for number in numbers}
    for path in (folder / SHARDS).glob(f".*{UNFINISHED}"):
        if path.name.split(".tar")[0].split(".index")[0].split("-")[0] in ours:
            path.unlink(missing_ok=True)


def is_prepared(source: str | Path) -> bool:
    """Whether `source` is a folder, or a URL, that `audiobat prepare` wrote to."""
    if is_remote(source):
        return exists(f"{str(source).rstrip('/')}/{PLAN}")
    return os.path.isfile(os.path.join(source, PLAN))


def open_prepared(source: str | Path) -> ClipTable:
    """The clip table of a prepared folder or URL; raises an AudiobatError if it is not finished, or damaged."""
    root = str(source).rstrip("/") if is_remote(source) else os.path.abspath(source)
    clips = fetch_table(f"{root}/{CLIPS}") if is_remote(source) else Path(root, CLIPS)
    if clips is None or not clips.is_dir():
        raise AudiobatError(f"{source} is not finished: run the same `audiobat prepare` command again.")
    return open_table(clips, root)


def fetch_table(url: str) -> Path | None:
    """A local copy of a remote clip table, as columns are to be mapped, kept for the next time; None: none there."""
    if not exists(f"{url}/{HEADER}"):
        return None
    header = read_range(f"{url}/{HEADER}")
    folder = cache_folder("tables", url.encode() + header)
    if (folder / HEADER).exists():
        return folder
    with filling(folder) as own:
        own.mkdir()
        for name in table_files(header):
            (own / name).write_bytes(read_range(f"{url}/{name}"))
        (own / HEADER).write_bytes(header)
    return folder


def cache_folder(kind: str, identity: bytes) -> Path:
    """The folder in the user's cache for what `identity` alone decides."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "audiobat" / kind / hashlib.sha256(identity).hexdigest()[:32]


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a path to write a folder to, which becomes `folder` unless another process was faster."""
    own = beside(folder)
    own.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield own
        with suppress(OSError):  # the other process's folder is there
            os.replace(own, folder)
    finally:
        shutil.rmtree(own, ignore_errors=True)
