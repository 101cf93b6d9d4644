"""A user's own Python files: `my_file.py:MyClass` to the class; their hashes and copies beside what was made with them.

In: such a name, or the fields of a config that hold some. Out: what the file defines under the name, or files to keep.
A file is run once for each content, and the bytes that are kept are exactly those that were run. Code that comes with
a run or a release is never run unless the user allows it.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from audiobat.errors import AudiobatError, did_you_mean

KIND_FIELDS = ("kind", "source")  # of configs: the fields that name a kind of a seam
KIND_LISTS = ("heads", "tasks")  # of a probe: the fields that name several
CODE = "code"  # the folder, in a run or a release, of the files that it was made with
_modules: dict[Path, ModuleType] = {}  # each user's file that was run, by its full path: the newest content
_sources: dict[Path, bytes] = {}  # its bytes


def is_user_class(kind: object) -> bool:
    """Whether a kind is a class of a user's own, `FILE.py:CLASS`."""
    return isinstance(kind, str) and kind.rpartition(":")[0].endswith(".py")


def split_name(kind: str) -> tuple[Path, str]:
    """`FILE.py:CLASS` to the file and the class's name."""
    file, _, name = kind.rpartition(":")
    return Path(file), name


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
    if name in sys.modules:  # perhaps of a content that the file had before the last one
        _modules[file.resolve()], _sources[file.resolve()] = sys.modules[name], source
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)  # as it was given, for messages
    sys.modules[name] = module  # dataclasses look their module up
    _modules[file.resolve()], _sources[file.resolve()] = module, source
    sys.path.insert(0, str(file.resolve().parent))
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)  # no importlib: its cached bytecode may be stale
    except Exception as error:
        del sys.modules[name]
        raise failure(error, file, "running it") from error
    finally:
        sys.path.pop(0)
    return module


def file_of(module: ModuleType) -> Path:
    """The absolute path of the file that made a module, whose `__file__` may be relative to a folder left since."""
    return next((file for file, made in _modules.items() if made is module), Path(str(module.__file__)))


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
                    raise failure(error, Path(str(module.__file__)), frame.f_code.co_qualname) from error
        # A method that the package cannot call has no frame of its own. Of classes of one name the newest is meant.
        for module in reversed(_modules.values()):
            for found in [value for value in vars(module).values() if isinstance(value, type)]:
                if isinstance(error, TypeError) and str(error).startswith(f"{found.__qualname__}."):
                    sentence = f"{place_of(found)}: {error}: docs/variants.md has the arguments."
                    raise AudiobatError(sentence) from error
        raise


def place_of(found: type[Any], field: str = "") -> str:
    """`FILE line N` of a user's class, or of one of its fields, such as `Mine.Config` and `hidden`."""
    module = sys.modules[found.__module__]
    node: Any = ast.parse(file_of(module).read_bytes())
    line = 1
    for name in [*found.__qualname__.split("."), *filter(None, [field])]:
        named = [part for part in node.body if name in (getattr(part, "name", ""), _target(part))]
        if not named:  # made by other means, such as a decorator
            break
        node, line = named[-1], named[-1].lineno
    return f"{module.__file__} line {line}"


def described(found: type[Any]) -> str:
    """A class as errors name it: `my.py line 3: Mine` if it is a user's own."""
    is_users = any(vars(module).get(found.__name__) is found for module in _modules.values())
    return f"{place_of(found)}: {found.__name__}" if is_users else found.__name__


def _target(part: ast.stmt) -> str:
    """The name that a statement `name: type = value` sets."""
    return part.target.id if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) else ""


def _is_same(name: str, file: Path) -> bool:
    """Whether a traceback's file name is this file."""
    return Path(name).resolve() == file.resolve()


def user_classes(fields: Mapping[str, Any]) -> list[str]:
    """Every `FILE.py:CLASS` that the fields of a config hold as a kind, at any depth, each once."""
    found = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found += user_classes(value)
        elif name in KIND_FIELDS and is_user_class(value):
            found.append(value)
        elif name in KIND_LISTS and isinstance(value, list | tuple):
            found += [kind for kind in value if is_user_class(kind)]
    return list(dict.fromkeys(found))


def files_used(fields: Mapping[str, Any]) -> dict[str, bytes]:
    """The user's files that the fields of a config name, as they name them: the bytes that were run.

    Raises AudiobatError for two files of one name, whose copies would lie in one place.
    """
    files: dict[str, bytes] = {}
    for kind in user_classes(fields):
        file, _ = split_name(kind)
        twin = next((other for other in files if Path(other).name == file.name and other != str(file)), None)
        if twin is not None:
            raise AudiobatError(f"{twin} and {file} have one name: rename one, as both are copied into {CODE}/.")
        files[str(file)] = _sources.get(file.resolve()) or read_file(file)
    return files


def hashes_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file, in hexadecimal, by its name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def without_files(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recorded fields of a run or a release without `files`, and these: the hashes of the user's files by name."""
    files = fields.get("files") or {}
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files):
        raise AudiobatError("files must name the user's own files with their hashes.")
    return {name: value for name, value in fields.items() if name != "files"}, files


def with_copies(fields: dict[str, Any], folder: Path, trust: bool) -> dict[str, Any]:
    """The fields of a run or a release, `files` taken out, with each `FILE.py:CLASS` pointing to the copy in `folder`.

    Raises:
        AudiobatError: there are such classes and `trust` is False; a copy that is missing, or has another hash than was
            recorded.
    """
    fields, recorded = without_files(fields)
    classes = user_classes(fields)
    copies = {kind: (folder / CODE / split_name(kind)[0].name).resolve() for kind in classes}
    if classes and not trust:
        shown = ", ".join(sorted({str(copy) for copy in copies.values()}))
        raise AudiobatError(
            f"{folder} needs Python code that came with it: read {shown}, and if you trust it, allow it by "
            "--trust-remote-code (in Python trust_remote_code=True)."
        )
    for kind, copy in copies.items():
        wanted = recorded.get(str(split_name(kind)[0]))
        if not copy.is_file() or hashlib.sha256(copy.read_bytes()).hexdigest() != wanted:
            raise AudiobatError(f"{copy} is not the file that {folder} was made with: copy the folder again.")
    renamed = {kind: f"{copy}:{split_name(kind)[1]}" for kind, copy in copies.items()}
    return with_kinds(fields, renamed)


def to_share(fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The fields as a release keeps them, `FILE.py:CLASS` without folders and hashes as `files`; and the files."""
    files = {Path(name).name: content for name, content in files_used(fields).items()}
    if not files:
        return fields, {}
    kinds = [(kind, *split_name(kind)) for kind in user_classes(fields)]
    renamed = {kind: f"{file.name}:{name}" for kind, file, name in kinds}
    return with_kinds(fields, renamed) | {"files": hashes_of(files)}, files


def with_kinds(fields: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The fields with other names for some kinds."""
    return {
        name: with_kinds(value, renamed)
        if isinstance(value, Mapping)
        else [renamed.get(kind, kind) for kind in value]
        if name in KIND_LISTS and isinstance(value, list | tuple)
        else renamed.get(value, value)
        if name in KIND_FIELDS and isinstance(value, str)
        else value
        for name, value in fields.items()
    }
