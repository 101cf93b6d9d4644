"""Files behind URLs such as `s3://bucket/key` or `hf://datasets/...`, through fsspec (extra `remote`).

Every function raises an AudiobatError where fsspec, or what drives this kind of URL, is missing, and where the store
has no such file or refuses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from audiobat.errors import AudiobatError

IN_MEMORY = 64 << 20  # bytes of a remote file that are held in memory; a larger file is copied to the disk

# What stores call the time of the last change, or a digest of the content.
VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "created", "generation", "checksum", "oid")


def is_remote(path: object) -> bool:
    """Whether `path` is a URL."""
    return "://" in str(path)


def read_range(url: str, start: int | None = None, size: int | None = None) -> bytes:
    """Read `size` bytes from byte `start` on, or the whole file; fewer where the file ends sooner."""
    store, path = _locate(url)
    end = None if start is None or size is None else start + size
    with _errors(url):
        data: bytes = store.cat_file(path, start=start, end=end)
    if size is not None and len(data) > size:  # some web servers pass over what part is asked for
        raise AudiobatError(f"{url}: its server sends whole files only: download the file, or use a server of ranges.")
    return data


def size_and_version(url: str) -> tuple[int, str]:
    """Bytes of a remote file, and a text that is another one once the file has changed, if its store tells so."""
    store, path = _locate(url)
    with _errors(url):
        about = store.info(path)
    if about.get("size") is None:
        raise AudiobatError(f"{url}: its server does not tell the size of the file: download it.")
    return int(about["size"]), " ".join(f"{name} {about[name]}" for name in VERSIONS if name in about)


@contextmanager
def fetched(url: str) -> Iterator[BinaryIO]:
    """A copy of a remote file to read and seek in, in memory or on the disk; every byte crosses the network once."""
    store, path = _locate(url)
    with _errors(url):
        size = store.info(path)["size"]
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as copy:
        if size is None or size <= IN_MEMORY:  # None: some web servers do not tell
            copy.write(read_range(url))
        else:
            for start in range(0, size, IN_MEMORY):
                copy.write(read_range(url, start, min(IN_MEMORY, size - start)))
        if size is not None and copy.tell() != size:
            raise AudiobatError(f"{url} ended after {copy.tell()} of its {size} bytes: read it again.")
        copy.seek(0)
        yield cast(BinaryIO, copy)


def open_url(url: str) -> BinaryIO:
    """Open a remote file for reading with seeks, of which only the parts that are read are fetched."""
    store, path = _locate(url)
    with _errors(url):
        file: BinaryIO = store.open(path, "rb")
    return file


def exists(url: str) -> bool:
    """Whether there is such a file."""
    store, path = _locate(url)
    with _errors(url):
        return bool(store.exists(path))


def _locate(url: str) -> tuple[Any, str]:
    """The file system of a URL, one for each process, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise AudiobatError(f"{url}: object stores need fsspec: pip install 'audiobat[remote]'.") from None
    try:
        store, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # s3:// needs s3fs, and so on
        raise AudiobatError(f"{url} cannot be reached ({error}): install the package that it names.") from None
    return store, path


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turn what a store raises, each kind its own exceptions, into one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise AudiobatError(f"There is no file {url}: check the address.") from error
    except Exception as error:
        kind = type(error).__name__
        raise AudiobatError(f"{url} cannot be read ({kind}: {error}): check the address and your access.") from error
