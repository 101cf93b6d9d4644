"""The members of a tar file, from its headers alone: what each is called, and where its bytes are.

In: a function that reads a range of the file, so that it may lie on a disk or behind a URL. Out: members in order, and
notes on what was passed over: links, sparse files, damaged headers. Headers are those of POSIX.1-1988 (ustar) and
POSIX.1-2001 (pax), of GNU tar and of Unix V7. Nothing is unpacked.

Python's tarfile does not read them: in Python 3.11.7 and 3.12.1 it hangs on some damaged pax headers and passes over
others without a word, and in 3.13 too it misnames members of GNU tar's incremental archives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from audiobat.errors import AudiobatError

BLOCK = 512  # bytes of a header; what follows is padded to a multiple of it
LONGEST = 1 << 20  # bytes of a long name or of pax records: no name is longer, a damaged size may be
LARGEST = 1 << 62  # bytes of a member; more is damage
WINDOW = 1 << 12  # bytes that are read at once: the next header often lies among them
ZEROS = bytes(BLOCK)
COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
}

Read = Callable[[int, int], bytes]  # (first byte, number of bytes) -> bytes, fewer where the file ends


class Notes:
    """What a reader of tars passed over or had to guess: how often, with one example each."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, example: str, count: int = 1) -> None:
        """Count `count` more of the kind `what`, such as `links are left out`."""
        before, first = self.found.get(what, (0, example))
        self.found[what] = (before + count, first)

    def join(self, other: Notes) -> None:
        """Count all that `other` has."""
        for what, (count, example) in other.found.items():
            self.add(what, example, count)

    def lines(self) -> list[str]:
        """A line for each kind."""
        return [f"{what}: {count:,}, such as {example}" for what, (count, example) in self.found.items()]


class Member(NamedTuple):
    """A regular file inside a tar."""

    name: str  # as the header has it; bytes that are no UTF-8 are escaped
    offset: int  # of its first byte
    size: int  # bytes


class DamagedHeader(Exception):
    """A block that is no header, or one whose header goes on beyond the end of the file.

    Attributes:
        last: of several headers that belong together, the place of the last that is whole: another member can begin
            only behind it. To look from each of them again would take the square of their number.
    """

    last = 0


class Window:
    """Reads pieces of a file, ahead in steps of `length` bytes."""

    def __init__(self, read: Read, length: int = WINDOW) -> None:
        self._read, self._length = read, length
        self._start, self._held = 0, b""

    def __call__(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on; fewer where the file ends."""
        at = start - self._start
        if not 0 <= at <= at + count <= len(self._held):
            self._start, self._held, at = start, self._read(start, max(count, self._length)), 0
        return self._held[at : at + count]


def list_members(read: Read, size: int, name: str, notes: Notes) -> Iterator[Member]:
    """The regular files of a tar of `size` bytes, in order; all else is counted in `notes`.

    Several tars in one file, one behind the other, are read as one. Behind a damaged header the list goes on with the
    next header that is whole. A file of which the end is missing is listed, with the size that its header tells.

    Raises:
        AudiobatError: the file is compressed, or does not begin as a tar does.
    """
    position, ended, headers = 0, False, 0
    damaged: int | None = None  # where the header is from which on another is looked for
    while position < size:
        block = read(position, BLOCK)
        if block == ZEROS:  # the end of an archive, or the padding behind it
            ended, position = True, position + BLOCK
            continue
        try:
            entry = _Entry(read, position, block)
        except DamagedHeader as error:
            if not headers and damaged is None and block[257:262] != b"ustar":
                raise _no_tar(name, block) from None
            if ended:  # whatever follows the end is no second tar
                return
            if damaged is None:
                damaged = position
                notes.add("headers are damaged, so that members are missing", f"the one at byte {position} of {name}")
            position = max(position, error.last) + BLOCK
            continue
        if ended:
            notes.add("tars follow another in the same file, and are read too", f"the one at byte {position} of {name}")
        ended, damaged, headers = False, None, headers + 1
        position = entry.end
        if entry.kind == "file":
            if entry.offset + entry.size > size:
                notes.add("members are cut short by the end of their tar", f"{entry.name} in {name}")
            yield Member(entry.name, entry.offset, entry.size)
        elif entry.kind in LEFT_OUT:
            notes.add(LEFT_OUT[entry.kind], f"{entry.name} in {name}")
    if not ended and damaged is None and position <= size:
        notes.add("tars have no end, and may have been cut short", name)


LEFT_OUT = {
    "link": "links in tars are left out",
    "sparse": "sparse files in tars, whose bytes are not in one piece, are left out",
}
KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"1": "link", b"2": "link", b"S": "sparse"}
EMPTY = b"123456"  # types behind whose header no bytes follow, whatever its size says: links, devices, folders


class _Entry:
    """One member: its headers, which may be several, read and joined."""

    def __init__(self, read: Read, position: int, block: bytes) -> None:
        self._last = position  # the place of the last header that is whole
        try:
            self._read(read, position, block)
        except DamagedHeader as error:
            error.last = self._last
            raise

    def _read(self, read: Read, position: int, block: bytes) -> None:
        long_name, records = "", dict[str, str]()
        while True:
            size = _check(block)
            self._last, kind = position, block[156:157]
            if kind not in b"LKxXg":
                break
            if size > LONGEST:
                raise DamagedHeader
            data = read(position + BLOCK, size)
            if len(data) < size:
                raise DamagedHeader
            if kind == b"L":
                long_name = _text(data)
            elif kind in b"xX":
                records = _pax_records(data)
            position += BLOCK + _padded(size)
            block = read(position, BLOCK)
        size = _whole(records.get("size"), size)
        self.name = records.get("GNU.sparse.name") or records.get("path") or long_name or _name(block)
        if kind == b"\0" and self.name.endswith("/"):
            kind = b"5"  # a folder, as Unix V7 has it
        self.kind = KINDS.get(kind, "other")
        if any(key.startswith("GNU.sparse.") for key in records):
            self.kind = "sparse"
        self.offset = position + BLOCK
        if kind == b"S":
            more = block[482]  # whether another block of the list of pieces follows
            while more:
                block = read(self.offset, BLOCK)
                if len(block) < BLOCK:
                    raise DamagedHeader
                self._last, self.offset, more = self.offset, self.offset + BLOCK, block[504]
        self.size = size
        self.end = self.offset + (0 if kind in EMPTY else _padded(size))


def _check(block: bytes) -> int:
    """The size that a header tells; DamagedHeader unless its checksum is right."""
    if len(block) < BLOCK:
        raise DamagedHeader
    rest = block[:148] + block[156:]
    told = _number(block[148:156])
    total = sum(rest) + 8 * 0x20  # the checksum's own eight bytes count as spaces
    if told != total and told != total - 256 * sum(byte > 127 for byte in rest):  # some old tars add signed bytes
        raise DamagedHeader
    return _number(block[124:136])


def _number(field: bytes) -> int:
    """An octal number in ASCII or, as GNU tar writes large ones, the number itself behind a byte of 128."""
    if field[0] == 0x80:
        if (number := int.from_bytes(field[1:])) > LARGEST:
            raise DamagedHeader
        return number
    digits = field.split(b"\0", 1)[0].strip()
    if digits.strip(b"01234567"):
        raise DamagedHeader
    return int(digits or b"0", 8)


def _name(block: bytes) -> str:
    """The name in a header; ustar's has its first part in a field of its own."""
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _pax_records(data: bytes) -> dict[str, str]:
    """`30 path=...` and a line feed, again and again; the number is the length of the whole record."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at] != 0:
        digits, blank, _ = data[at : at + 20].partition(b" ")
        if not (blank and digits.isdigit()):
            raise DamagedHeader
        end = at + int(digits)
        key, equals, value = data[at + len(digits) + 1 : end].partition(b"=")
        if not equals or end > len(data) or not value.endswith(b"\n"):
            raise DamagedHeader
        found[_text(key)] = _text(value[:-1])
        at = end
    return found


def _whole(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise DamagedHeader
    return int(text)


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="backslashreplace")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _no_tar(name: str, block: bytes) -> AudiobatError:
    for magic, (format_name, program) in COMPRESSED.items():
        if block.startswith(magic):
            return AudiobatError(
                f"{name} is compressed by {format_name}, so that no clip in it can be read alone: unpack it once with "
                f"`{program}`, and give the .tar."
            )
    return AudiobatError(f"{name} is no tar file: check the path, or download it again.")
