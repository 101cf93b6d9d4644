"""`audiobat recipes`: which recipes there are, every field of one, and the fields in which two differ, with sources.

In: names or paths of recipes. Out: the settings in which two differ, with both values and the source of each; or text.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from audiobat.config.checks import check_one_of
from audiobat.config.plain import to_dict
from audiobat.config.recipes import kind_of, recipe_files, recipe_names
from audiobat.config.sources import (
    CONFIGS,
    HEADING,
    Setting,
    as_yaml,
    comments_of,
    config_of,
    preface,
    settings_of,
    shared_kind,
)
from audiobat.errors import AudiobatError

EXAMPLES = {"list": (), "show": ("eat_base",), "diff": ("bat_base", "bat_base_released")}  # of what an action takes
ABSENT = Setting(None, "not set")  # of a field that the other recipe alone has: of a kind, or in a mapping
DEFAULTS = (
    "A default is the paper's (Table 6, or the part in brackets); where it is silent, its authors' release decides."
)


def recipes(action: Literal["list", "show", "diff"] = "list", names: Sequence[str | Path] | str | Path = ()) -> None:
    """Print the recipes by kind, every field of one, or the fields in which two differ, with the source of each value.

    Args:
        action: list the recipes; show every field of one, as YAML that is a recipe, too; or diff two.
        names: the recipe to show, or the two to compare: names, or paths of YAML files, such as the config.yaml that a
            pre-training writes.

    Raises:
        AudiobatError: more or fewer recipes than the action takes, an unknown one, a bad value, or two of different
            kinds.
    """
    check_one_of(tuple(EXAMPLES), "action", action)
    asked = [names] if isinstance(names, str | Path) else names
    wanted = EXAMPLES[action]
    if len(asked) != len(wanted):
        example = " ".join(["audiobat recipes", action, *wanted])
        plural = "" if len(wanted) == 1 else "s"
        raise AudiobatError(f"{action} takes {len(wanted)} recipe{plural}, not {len(asked)}: as in `{example}`.")
    if action == "list":
        print(overview())
    elif action == "show":
        print(as_recipe(asked[0]))
    else:
        print(as_table(*asked))


def differences(a: str | Path, b: str | Path) -> dict[str, tuple[Setting, Setting]]:
    """The fields in which two recipes differ, by dotted name, and the setting of each recipe.

    The field in which a recipe of fine-tuning names itself is left out.

    Raises:
        AudiobatError: an unknown recipe, a bad value, or recipes of different kinds.
    """
    kind = shared_kind(a, b)
    of_a, of_b = settings_of(a, kind), settings_of(b, kind)
    pairs = {field: (of_a.get(field, ABSENT), of_b.get(field, ABSENT)) for field in [*of_a, *of_b] if field != "recipe"}
    return {field: (x, y) for field, (x, y) in pairs.items() if x.value != y.value or (x is ABSENT) != (y is ABSENT)}


def as_table(a: str | Path, b: str | Path) -> str:
    """The fields in which two recipes differ; below each field a line for each recipe, with value and source."""
    found = differences(a, b)
    if not found:
        return f"{a} and {b} have the same settings."
    values = [as_yaml(setting.value) for pair in found.values() for setting in pair]
    name_width, value_width = max(len(str(a)), len(str(b))), max(map(len, values))
    lines = []
    for field, pair in found.items():
        lines.append(field)
        for name, setting in zip((a, b), pair, strict=True):
            start = f"  {name!s:<{name_width}}  {as_yaml(setting.value):<{value_width}}  "
            lines.append(filled(start, setting.source))
    return "\n".join([*lines, "", DEFAULTS])


def as_recipe(name: str | Path) -> str:
    """Every field of a recipe as YAML that is a recipe again: what its file says first, and each value's source."""
    files = recipe_files(name)
    fields = to_dict(config_of(files, shared_kind(name)))
    lines = ["# " + line for line in textwrap.wrap(preface(files[-1].text), 118)]
    return "\n".join([*lines, f"# Every field of {name}. {DEFAULTS}", *yaml_lines(fields, settings_of(name))])


def yaml_lines(
    fields: Mapping[str, Any], settings: Mapping[str, Setting], prefix: str = "", indent: str = ""
) -> Iterator[str]:
    """The lines of nested fields; `prefix` is the dotted name of their group, and its dot."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            inside = list(yaml_lines(value, settings, f"{prefix}{name}.", indent + "  "))
            yield from [f"{indent}{as_yaml(name)}:", *inside] if inside else []
        else:
            yield f"{indent}{name}: {as_yaml(value)}  # {settings[prefix + name].source}"


def overview() -> str:
    """Every recipe with the first sentence of its file, below what it is for."""
    names = {kind: recipe_names(kind) for kind in dict.fromkeys([*CONFIGS, *map(kind_of, recipe_names())])}
    lines = []
    for kind, of_kind in names.items():
        width = max(map(len, of_kind))
        lines.append(f"{kind}:")
        lines += [filled(f"  {name:<{width}}  ", comments_of(recipe_files(name)[-1].text)[HEADING]) for name in of_kind]
    return "\n".join(
        [*lines, "", "`audiobat recipes show NAME` prints every field, `audiobat recipes diff A B` the differences."]
    )


def filled(start: str, text: str) -> str:
    """A line that begins with `start`, under whose end `text` goes on in further lines, as wide as the terminal."""
    columns = max(shutil.get_terminal_size().columns, len(start) + 30)
    return textwrap.fill(text, columns, initial_indent=start, subsequent_indent=" " * len(start)) if text else start
