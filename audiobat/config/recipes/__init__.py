"""Recipes: YAML files that list only what they change.

In: the name of a recipe of this folder, or the path of a YAML file. Out: the fields of its config as plain dicts, over
those of the recipe that its line `base:` names.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import yaml

from audiobat.config.plain import from_dict, merged_over
from audiobat.errors import AudiobatError, did_you_mean

FOLDER = Path(__file__).parent
Recipe: TypeAlias = str | Path | Mapping[str, Any]  # name or path of a recipe, or its fields
C = TypeVar("C")


@dataclass(frozen=True)
class RecipeFile:
    """A YAML file as it stands: what it changes in its base."""

    name: str  # as a user or the line `base:` names it
    text: str
    fields: dict[str, Any]  # nested; without its base


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but 5e-4 is a number, as everybody who writes a learning rate means it.

    A key that comes twice in a group is an error; YAML's own loader silently drops the fields of the first.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} comes twice", key.start_mark)
            names.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """The value that the YAML `text` holds; an AudiobatError that names `where`, a file or a flag, if it is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise AudiobatError(f"{where}{line} is not valid YAML: {getattr(error, 'problem', error)}.") from None


def recipe_names(kind: str | None = None) -> list[str]:
    """The names of the package's recipes, such as `bat_base` or `ladder/7_bat`: all, or those of a kind."""
    names = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
    return [name for name in names if kind in (None, kind_of(name))]


def kind_of(name: str) -> str:
    """The kind of a recipe of the package: `finetune`, `benchmark`, `probe` or `pretrain`."""
    if name.startswith(("finetune/", "benchmark/", "probe/")):
        return name.partition("/")[0]
    return "probe" if name.endswith("_probe") else "pretrain"


def check_recipe(name: str, kind: str | None = None) -> None:
    """Raise an AudiobatError for a name that is neither a file nor a recipe of this kind; None: of any kind."""
    names = recipe_names(kind)
    if name in names or (Path(name).is_file() and name not in recipe_names()):
        return
    tails = {other.split("/")[-1]: other for other in names}  # `demo` may mean finetune/demo
    tail = name.split("/")[-1]
    exists = name in recipe_names()
    near = [t for t in tails if t.startswith(tail)] or ([] if exists else difflib.get_close_matches(tail, tails, n=1))
    hint = f" (did you mean {tails[near[0]]}?)" if near else ""
    what = f"Recipe {name} is one to {kind_of(name)}" if exists else f"No recipe {name!r}"
    raise AudiobatError(f"{what}{hint}: give a YAML file or one of {', '.join(names)}.")


def load_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """The fields of a recipe, given its name or the path of a YAML file, over those of its base.

    Raises AudiobatError for an unknown recipe, bad YAML, or a recipe that is its own base.
    """
    return merged(recipe_files(name_or_path))


def recipe_files(name_or_path: str | Path) -> list[RecipeFile]:
    """A recipe's file, last, after those that it is based on in turn; raises as `load_recipe` does."""
    return _files(str(name_or_path), FOLDER, ())


def merged(files: Iterable[RecipeFile]) -> dict[str, Any]:
    """The fields of recipe files, each over those before it."""
    nothing: dict[str, Any] = {}
    return functools.reduce(merge, (file.fields for file in files), nothing)


def base_of(name: str) -> str | None:
    """The recipe that a recipe names as its base; None if it has no base."""
    files = recipe_files(name)
    return files[-2].name if len(files) > 1 else None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `base` with `changes` on top, group by group.

    What `changes` say of all heads also replaces what the base's `by_kind` says of the heads of one kind.
    """
    if isinstance(kinds := base.get("by_kind"), Mapping):
        base = {**base, "by_kind": {kind: _without(own, changes) for kind, own in kinds.items()}}
    return merged_over(base, changes)


def _without(fields: Any, others: Any) -> Any:
    """Nested fields without those that others have, too."""
    if not isinstance(fields, Mapping) or not isinstance(others, Mapping):
        return fields
    return {
        name: _without(value, others.get(name, {}))
        for name, value in fields.items()
        if name not in others or isinstance(value, Mapping)
    }


def make_config(cls: type[C], config: C | Recipe | None, below: Mapping[str, Any] | None = None) -> C:
    """A config as a function takes it: a `cls` as it is; a recipe's name or path, or fields by name, over `below`.

    Raises AudiobatError for an unknown recipe or field, or a bad value.
    """
    if isinstance(config, cls):
        return config
    fields = load_recipe(config) if isinstance(config, str | Path) else config or {}
    return from_dict(cls, merge(below or {}, fields))  # type: ignore[arg-type]  # mypy: C may be another class still


def _files(name: str, beside: Path, heirs: tuple[Path, ...]) -> list[RecipeFile]:
    """The file of recipe `name` after those of its bases; `heirs` are the files that are based on it, in turn."""
    path = _find(name, beside)
    if path in heirs:
        raise AudiobatError(f"Recipe {path} is its own base: remove one `base:` line.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AudiobatError(f"Recipe {path} cannot be read: {error}.") from None
    fields = parse_yaml(text, str(path))
    if fields is None:
        fields = {}
    if not isinstance(fields, dict):
        raise AudiobatError(f"Recipe {path} holds no fields: write `group:` and below it `  field: value`.")
    fields.pop("files", None)  # of the config.yaml of a run: hashes of the user's own files
    base = fields.pop("base", None)
    before = [] if base is None else _files(str(base), path.parent, (*heirs, path))
    return [*before, RecipeFile(name, text, fields)]


def _find(name: str, beside: Path) -> Path:
    """The file of recipe `name`: of a recipe of the package, else a path, also relative to `beside`."""
    if name in recipe_names():
        return FOLDER / f"{name}.yaml"
    for path in (Path(name), beside / name):
        if path.is_file():
            return path.resolve()
    names = recipe_names()
    raise AudiobatError(
        f"No recipe {name!r}{did_you_mean(name, names)}: give a YAML file or one of {', '.join(names)}."
    )
