"""What the source of a config class says: its docstring, and the comment beside each field, the help of the field."""

from __future__ import annotations

import ast
import functools
import inspect
import sys


def help_of(config_class: type, field: str) -> str:
    """The comment beside a field, or beside the one that it overrides; empty if there is none."""
    owners = [owner for owner in config_class.__mro__ if owner is not object]
    found = (comments(owner.__module__).get((owner.__name__, field)) for owner in owners)
    return next(filter(None, found), "")


def caption_of(config_class: type) -> str:
    """A config class's docstring in one line, or that of the class that it derives from."""
    own = (
        found for found in config_class.__mro__ if found.__doc__ and not found.__doc__.startswith(found.__name__ + "(")
    )
    return " ".join(str(next(own).__doc__).split())  # what begins so is the signature, by which dataclass fills a gap


@functools.cache
def comments(module: str) -> dict[tuple[str, str], str]:
    """The comment beside each field of the classes of a module, by (class, field); it may go on in the lines below."""
    source = inspect.getsource(sys.modules[module])
    lines = source.encode().splitlines()  # bytes, as `end_col_offset` counts them
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.end_lineno:
                words = [lines[part.end_lineno - 1][part.end_col_offset :]]
                for line in lines[part.end_lineno :]:
                    if not line.strip().startswith(b"#"):
                        break
                    words.append(line)
                text = " ".join(word.decode().strip().lstrip("# ") for word in words)
                found[node.name, part.target.id] = text.replace("None", "null").strip()
    return found
