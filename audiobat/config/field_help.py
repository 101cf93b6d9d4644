"""The line of help of every config field: the comment that stands beside it in the code."""

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


@functools.cache
def comments(module: str) -> dict[tuple[str, str], str]:
    """(class, field) of a module to its comment, which may go on in the lines below."""
    source = inspect.getsource(sys.modules[module])
    lines = source.encode().splitlines()  # the tree counts bytes
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
