"""Files behind URLs such as `s3://bucket/key` or `hf://datasets/...`, through fsspec (extra `remote`)."""

from __future__ import annotations

from typing import Any, BinaryIO

from audiobat.errors import AudiobatError


def is_remote(path: object) -> bool:
    """Whether `path` is a URL."""
    return "://" in str(path)


def read_range(url: str, start: int | None = None, size: int | None = None) -> bytes:
    """Read `size` bytes from byte `start` on, or the whole file; fewer where the file ends sooner.

    Raises:
        AudiobatError: no fsspec, or nothing to drive this kind of URL; no such file; the store refused.
    """
    store, path = _locate(url)
    end = None if start is None or size is None else start + size
    try:
        data: bytes = store.cat_file(path, start=start, end=end)
    except Exception as error:  # each kind of store raises its own
        raise _failed(url, error) from error
    return data


def open_url(url: str) -> BinaryIO:
    """Open a remote file for reading with seeks."""
    store, path = _locate(url)
    try:
        file: BinaryIO = store.open(path, "rb")
    except Exception as error:
        raise _failed(url, error) from error
    return file


def exists(url: str) -> bool:
    """Whether there is such a file."""
    store, path = _locate(url)
    try:
        return bool(store.exists(path))
    except Exception as error:
        raise _failed(url, error) from error


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


def _failed(url: str, error: Exception) -> AudiobatError:
    if isinstance(error, FileNotFoundError):
        return AudiobatError(f"There is no file {url}: check the address.")
    return AudiobatError(f"{url} cannot be read ({type(error).__name__}: {error}): check the address and your access.")
