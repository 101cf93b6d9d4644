"""The help of a flag is the whole comment beside its field, of which nothing may stand where it is not looked for."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

from audiobat.config import field_help

FILES = sorted(Path(field_help.__file__).parent.glob("*.py"))


def comments_inside(text: str) -> list[str]:
    """Comments that begin before the end of a field's value, as where a formatter has put it into parentheses."""
    fields = [
        part
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, ast.AnnAssign)
    ]
    return [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
        and any((part.lineno, 0) < token.start < (part.end_lineno, part.end_col_offset) for part in fields)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_comment_of_a_field_is_lost(path: Path):
    assert comments_inside(path.read_text(encoding="utf-8")) == []


def test_a_comment_inside_a_value_is_found():
    assert comments_inside("class A:\n    x: int = (\n        1  # half\n    )  # of it\n") == ["# half"]
