"""A user's own Python file: `my_file.py:MyClass` to the class, the file's hash, and errors that name its line.

In: such a name. Out: what the file defines under it. A file is run once for each content, and exactly the bytes that
were hashed are run.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from audiobat.errors import AudiobatError, did_you_mean

_modules: dict[Path, ModuleType] = {}  # each user's file that was run, by its full path: the newest content


def is_user_class(kind: object) -> bool:
    """Whether a kind is a class of a user's own, `FILE.py:CLASS`."""
    return isinstance(kind, str) and kind.rpartition(":")[0].endswith(".py")


def split_name(kind: str) -> tuple[Path, str]:
    """`FILE.py:CLASS` to the file and the class's name."""
    file, _, name = kind.rpartition(":")
    return Path(file), name


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(read_file(file)).hexdigest()


def read_file(file: Path) -> bytes:
    """The bytes of a user's file; AudiobatError if there is none."""
    if not file.is_file():
        raise AudiobatError(f"There is no file {file}: give FILE.py:CLASS, its path relative to {Path.cwd()}.")
    return file.read_bytes()


def find_in_file(file: Path, name: str) -> Any:
    """Run the Python file and return what it defines as `name`; AudiobatError if it fails or defines no such name."""
    module = run_file(file)
    if not hasattr(module, name):
        known = [word for word in vars(module) if not word.startswith("_")]
        raise AudiobatError(f"{file} defines no {name}{did_you_mean(name, known)}: give {file}:NAME.")
    return getattr(module, name)


def run_file(file: Path) -> ModuleType:
    """The module that a Python file makes, with its folder on the path while it runs, so that it finds its neighbours.

    The same file with the same content is the same module, so that classes compare equal wherever they are asked for.
    """
    source = read_file(file)
    name = f"audiobat_user_{file.stem}_{hashlib.sha256(str(file.resolve()).encode() + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses look their module up
    _modules[file.resolve()] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)  # no importlib: its cached bytecode may be stale
    except Exception as error:
        del sys.modules[name]
        raise failure(error, file, "running it") from error
    finally:
        sys.path.pop(0)
    return module


def failure(error: BaseException, file: Path, action: str) -> AudiobatError:
    """The sentence for an exception that a user's code raised during `action`, with the last line of his that ran."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if _is_same(frame.filename, file)]
    if isinstance(error, SyntaxError) and error.filename and _is_same(error.filename, file):
        lines.append(error.lineno)
    line = f" line {lines[-1]}" if lines else ""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return AudiobatError(f"{file}{line}: {action} fails ({reason}): fix it.")


@contextmanager
def errors_of_user_code() -> Iterator[None]:
    """Turn an exception that comes out of a user's file into one sentence with its line; others pass unchanged."""
    try:
        yield
    except AudiobatError:
        raise
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        for frame in reversed(frames):  # the innermost frame of a user's file is where he has to look
            for module in _modules.values():
                if frame.f_globals is vars(module):
                    raise failure(error, Path(str(module.__file__)), f"{frame.f_code.co_qualname}") from error
        raise


def _is_same(name: str, file: Path) -> bool:
    """Whether a traceback's file name is this file."""
    return Path(name).resolve() == file.resolve()
