"""A checkpoint file to plain values and tensors, whoever made it: torch's two formats, a bare pickle, or safetensors.

A file is surveyed before any of it is loaded: no entry is packed, every tensor lies inside the file, and its pickle is
read by `pickles.Machine`, which imports and calls nothing. Errors name the entry or the name that is at fault.
"""

from __future__ import annotations

import io
import json
import mmap
import pickle
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import torch
from torch import Tensor

from audiobat.engine.tensors import read_tensors
from audiobat.errors import AudiobatError
from audiobat.zoo.convert.pickles import LONGEST, Fault, Machine, Storage, View, shown

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's format before 1.6
SAFE = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    "BOOL": torch.bool,
}
LARGEST_HEADER = 10_000_000  # of safetensors, bytes: some hundred thousand tensors
Make = Callable[[View], Any]


class TensorInfo(NamedTuple):
    """A tensor in a survey."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class Place(NamedTuple):
    """Where in a file the bytes of a storage lie."""

    start: int
    size: int


NOWHERE = Place(0, 0)


@dataclass(frozen=True)
class Survey:
    """What a file holds, before any tensor is read."""

    path: Path
    format: Literal["torch", "torch (legacy)", "pickle", "safetensors"]
    tree: Any  # plain containers; a TensorInfo for each tensor, a Stub for any object of another kind
    stubs: Mapping[str, int] = field(default_factory=dict)  # the names of those kinds, and how often each is named
    places: Mapping[str, Place] = field(default_factory=dict)  # of the storages, by key
    pickle: Place = NOWHERE


def read(path: str | Path) -> Any:
    """The value in a checkpoint: plain containers and tensors on the CPU, and a `Stub` for any other object.

    torch's own loader with `weights_only=True` reads a file in which the survey has found nothing but tensors and plain
    containers (without a survey it could be made to ask for any amount of memory); `Machine` reads the others. Tensors
    may be views of the file: copy what you keep.

    Raises:
        AudiobatError: no such file, one of another format, or one that is cut, damaged or made to do harm.
    """
    survey = survey_file(path)
    if survey.format == "safetensors":
        return read_tensors(survey.path)
    if not survey.stubs and survey.format != "pickle":
        try:
            return torch.load(survey.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError):
            pass  # it takes no defaultdict, say, and no archive without its version
    with survey.path.open("rb") as file:
        data = mapped(file)  # never closed here: the tensors look into it, and it goes with the last of them
    flat: dict[str, Tensor] = {}  # the values of each storage

    def make(view: View) -> Tensor:
        (key, dtype, numel), (start, size) = view.storage, survey.places[view.storage.key]
        if key not in flat and numel == 0:
            flat[key] = torch.empty(0, dtype=dtype)
        elif key not in flat and start % dtype.itemsize:  # some processors read whole words only
            flat[key] = torch.frombuffer(bytearray(data[start : start + size]), dtype=dtype)
        elif key not in flat:
            flat[key] = torch.frombuffer(data, dtype=dtype, count=numel, offset=start)
        return flat[key].as_strided(view.shape, view.stride, view.offset)

    start, size = survey.pickle
    return run(io.BytesIO(data[start : start + size]), make, survey.path, "its pickle")[0]


def survey_file(path: str | Path) -> Survey:
    """Look into a checkpoint without loading a tensor. Raises AudiobatError as `read` does."""
    path = Path(path)
    if not path.is_file():
        raise AudiobatError(f"There is no file {path}: check the path.")
    with path.open("rb") as file:
        start = file.read(9)
        size = path.stat().st_size
        if start.startswith(ZIP):
            return survey_zip(path)
        if start.startswith(PICKLE):
            with mapped(file) as data:
                return survey_legacy(path, data)
        if start[8:] == b"{" and 8 + int.from_bytes(start[:8], "little") <= size:
            return survey_safetensors(path, file)
    raise AudiobatError(f"{path} is neither a checkpoint of torch nor safetensors, or its beginning is lost.")


def survey_zip(path: Path) -> Survey:
    """torch's format since 1.6: a zip archive of a pickle and one entry for each storage."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = check_entries(archive, path)
            root = next(name for name in entries if name.endswith("data.pkl")).removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in entries and archive.read(order) != b"little":
                raise AudiobatError(f"{path} was written by a big-endian machine: save it again on another.")
            file, places = cast(BinaryIO, archive.fp), {}
            for name, header in entries.items():  # bytes lie behind a header whose length the index does not tell
                file.seek(header.header_offset + 26)
                start = header.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
                places[name] = Place(start, header.file_size)
            name = f"{root}data.pkl"
            tree, stubs, storages = run(io.BytesIO(archive.read(name)), info, path, f"entry {shown(name)}")
            damaged = archive.testzip()
    except AudiobatError:
        raise
    except Exception as error:  # a damaged archive can fail anywhere in the reader
        raise AudiobatError(
            f"{path} is cut or damaged ({error}{last_entry(path)}): copy or download it again."
        ) from None
    if damaged is not None:
        raise AudiobatError(f"{path}: entry {shown(damaged)} does not match its checksum: copy or download it again.")
    for key, storage in storages.items():
        entry = f"{root}data/{key}"
        check_size(path, f"entry {shown(entry)}", places.get(entry, NOWHERE).size, storage)
    found = {key: places[f"{root}data/{key}"] for key in storages}
    return Survey(path, "torch", tree, stubs, found, places[name])


def check_entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries by name: stored as they are, each name once, and together no more than the file."""
    if any(name.endswith("/constants.pkl") for name in archive.namelist()):
        raise AudiobatError(
            f"{path} is a TorchScript program (it has constants.pkl): give a file of weights, or the rate in Hz that "
            f"the program takes, as --model {path.name}@16000."
        )
    entries: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    left = path.stat().st_size
    for entry in archive.infolist():
        name = entry.filename
        left -= entry.file_size
        if entry.compress_type != zipfile.ZIP_STORED or left < 0:
            raise AudiobatError(
                f"{path}: entry {shown(name)} unpacks to {entry.file_size:,} bytes; no checkpoint is packed."
            )
        if name.lower() in seen:  # torch's reader does not tell cases apart
            raise AudiobatError(f"{path} has two entries {shown(name)}: which one counts depends on who reads it.")
        seen.add(name.lower())
        entries[name] = entry
    if sum(name.count("/") == 1 and name.endswith("/data.pkl") for name in entries) != 1:
        raise AudiobatError(f"{path} is a zip archive without one data.pkl: it is no checkpoint of torch.")
    return entries


def last_entry(path: Path) -> str:
    """The last entry that begins in an archive, for a sentence: what is cut has no list of its entries."""
    with path.open("rb") as file, mapped(file) as data:
        start = data.rfind(ZIP)
        header = data[start : start + 30 + LONGEST]
    name = header[30 : 30 + int.from_bytes(header[26:28], "little")].decode("latin-1")
    return f"; the last entry that begins is {shown(name)}" if name else ""


def survey_legacy(path: Path, data: mmap.mmap) -> Survey:
    """torch's format before 1.6: five pickles, then the storages; or, if there is no such beginning, a bare pickle."""
    stream = cast(BinaryIO, data)
    first, _, _ = run(stream, info, path, "its first pickle")
    if first != LEGACY_MAGIC:
        data.seek(0)
        tree, stubs, _ = run(stream, info, path, "its pickle")
        return Survey(path, "pickle", tree, stubs, {}, Place(0, data.tell()))
    for what in ("its version", "the description of its machine"):
        run(stream, info, path, what)
    start = data.tell()
    tree, stubs, storages = run(stream, info, path, "its pickle")
    here = Place(start, data.tell() - start)
    order, _, _ = run(stream, info, path, "the list of its storages")
    places = {}
    for key in order if isinstance(order, list) else ():
        storage = storages.get(key)
        numel = int.from_bytes(data.read(8), "little")
        if storage is None or numel != storage.numel:
            raise AudiobatError(
                f"{path}: storage {shown(key)} has {numel:,} values and no tensor, or another number of them."
            )
        places[key] = Place(data.tell(), numel * storage.dtype.itemsize)
        check_size(path, f"storage {shown(key)}", len(data) - data.tell(), storage)
        data.seek(places[key].size, io.SEEK_CUR)
    lost = [key for key in storages if key not in places]
    if lost:
        raise AudiobatError(f"{path} has no storage {shown(lost[0])}: copy or download it again.")
    return Survey(path, "torch (legacy)", tree, stubs, places, here)


def survey_safetensors(path: Path, file: BinaryIO) -> Survey:
    """safetensors: a JSON object of types and shapes, then bytes; its own reader checks that they fit."""
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    if size > LARGEST_HEADER:
        raise AudiobatError(f"{path}: its header has {size:,} bytes: no checkpoint needs more than {LARGEST_HEADER:,}.")
    try:
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        tree = {name: TensorInfo(SAFE[entry["dtype"]], tuple(entry["shape"])) for name, entry in header.items()}
        there = path.stat().st_size - 8 - size
        lost = [name for name, entry in header.items() if entry["data_offsets"][1] > there]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise AudiobatError(f"{path}: its header is damaged ({type(error).__name__}: {error}).") from None
    if lost:
        raise AudiobatError(f"{path} is cut: tensor {shown(lost[0])} ends behind it: copy or download it again.")
    return Survey(path, "safetensors", tree)


def run(stream: BinaryIO, make: Make, path: Path, what: str) -> tuple[Any, Counter[str], dict[str, Storage]]:
    """Run the pickle at `stream`: its value, what it names that a stub stands for, and the storages it refers to."""
    storages: dict[str, Storage] = {}

    def keep(view: View) -> Any:
        known = storages.setdefault(view.storage.key, view.storage)
        if known != view.storage:
            raise Fault(f"it speaks of storage {shown(known.key)} in two ways")
        return make(view)

    machine = Machine(keep)
    try:
        value = machine.run(stream)
    except Fault as fault:
        named = f" It names {', '.join(sorted(machine.stubs)[:3])}, none of which was run." if machine.stubs else ""
        raise AudiobatError(f"{path} cannot be read: in {what}, {fault}.{named}") from None
    return value, machine.stubs, storages


def check_size(path: Path, what: str, there: int, storage: Storage) -> None:
    """Raise an AudiobatError unless `there` bytes hold `storage`."""
    needed = storage.numel * storage.dtype.itemsize
    if there < needed:
        raise AudiobatError(f"{path} is cut: {what} has {there:,} bytes of {needed:,}: copy or download it again.")


def info(view: View) -> TensorInfo:
    """A tensor, described."""
    return TensorInfo(view.storage.dtype, view.shape)


def mapped(file: BinaryIO) -> mmap.mmap:
    """A file as memory that is read when it is looked at; what is written to it stays out of the file."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
