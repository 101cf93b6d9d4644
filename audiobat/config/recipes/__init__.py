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

from audiobat.config.checks import LONGEST_NUMBER, is_deep
from audiobat.config.plain import flatten, from_dict, merged_over, to_dict
from audiobat.errors import AudiobatError, did_you_mean

FOLDER = Path(__file__).parent
Recipe: TypeAlias = str | Path | Mapping[str, Any]  # name or path of a recipe, or its fields
MOST_VALUES = 1_000_000  # of a YAML text
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
C = TypeVar("C")


@dataclass(frozen=True)
class RecipeFile:
    """A YAML file as it stands: what it changes in its base."""

    name: str  # as a user or the line `base:` names it
    text: str
    fields: dict[str, Any]  # nested; without its base


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but 5e-4 is a number, as everybody who writes a learning rate means it. There are no dates.

    A key that comes twice in a group is an error; YAML's own loader silently drops the fields of the first. So is a
    number that is too long to be computed with or printed, and a text whose aliases stand for very many values.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {})
        return node

    def _count(self, node: yaml.Node, known: dict[yaml.Node, int]) -> int:
        """How many values a node stands for, its aliases written out; a node in itself stands for too many."""
        if node not in known:
            known[node] = MOST_VALUES
            inner: Iterable[yaml.Node] = ()
            if isinstance(node, yaml.SequenceNode):
                inner = node.value
            elif isinstance(node, yaml.MappingNode):
                inner = (part for pair in node.value for part in pair)
            known[node] = 1 + sum(self._count(part, known) for part in inner)
            if known[node] > MOST_VALUES:
                raise yaml.constructor.ConstructorError(None, None, "it stands for too many values", node.start_mark)
        return known[node]

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(None, None, "a number has too many digits", node.start_mark)
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} comes twice", key.start_mark)
            names.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back: a text such as 5e-4 gets quotes."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)
for _own in (_Loader, _Dumper):
    _own.add_implicit_resolver(
        NUMBERS[1], re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def parse_yaml(text: str, where: str) -> Any:
    """The value that the YAML `text` holds; an AudiobatError that names `where`, a file or a flag, if it is no YAML."""
    try:
        value = yaml.load(text, _Loader)
        if is_deep(value):
            raise RecursionError
        return value
    except RecursionError:
        raise AudiobatError(f"{where} is not valid YAML: groups within groups without end.") from None
    except Exception as error:  # PyYAML makes values of `!!int x` and the like with errors of any kind
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise AudiobatError(f"{where}{line} is not valid YAML: {problem}.") from None


def write_yaml(fields: Mapping[str, Any]) -> str:
    """Plain fields as YAML, in their order. Raises yaml.YAMLError for a value that is not plain."""
    return yaml.dump(dict(fields), Dumper=_Dumper, sort_keys=False)


def read_fields(file: Path, hint: str) -> dict[str, Any]:
    """The fields in a YAML file; an AudiobatError with a hint if it cannot be read or holds anything else."""
    return _as_fields(parse_yaml(_read(file, hint), str(file)), file, hint)


def _read(file: Path, hint: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AudiobatError(f"{file} cannot be read ({error}): {hint}.") from None


def _as_fields(value: Any, file: Path, hint: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise AudiobatError(f"{file} holds no fields: {hint}.")
    return value


def recipe_names(kind: str | None = None) -> list[str]:
    """The names of the package's recipes, such as `bat_base` or `ladder/7_bat`: all, or those of a kind."""
    names = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
    return [name for name in names if kind in (None, kind_of(name))]


def kind_of(name: str) -> str:
    """The kind of a recipe of the package: `finetune`, `benchmark`, `suite`, `probe` or `pretrain`."""
    if name.startswith(("finetune/", "benchmark/", "suite/", "probe/")):
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
    if isinstance(config, str | Path):
        fields: Mapping[str, Any] = load_recipe(config)
    else:
        fields = with_warmup(cls, below or {}, config or {})  # type: ignore[arg-type]  # mypy: C may be another class
    return from_dict(cls, merge(below or {}, fields))


def with_warmup(cls: type[Any], before: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Changes to the fields `before` of a `cls`: if they shorten a training, its warm-up as well, by as much.

    A warm-up that the changes name stays as they have it, and so does that of fields `before` that are no config.
    """
    given = flatten(dict(changes))
    steps = given.get("train.steps")
    if not isinstance(steps, int):
        return changes
    try:
        known = flatten(to_dict(from_dict(cls, before)))
    except AudiobatError:  # which is for whoever makes the whole config to say
        return changes
    for group in ("optim", "train"):
        warmup = known.get(f"{group}.warmup_steps")
        if warmup and f"{group}.warmup_steps" not in given and 0 < steps < known["train.steps"]:
            changes = merge(changes, {group: {"warmup_steps": warmup * steps // known["train.steps"]}})
    return changes


def _files(name: str, beside: Path, heirs: tuple[Path, ...]) -> list[RecipeFile]:
    """The file of recipe `name` after those of its bases; `heirs` are the files that are based on it, in turn."""
    path = _find(name, beside)
    if path in heirs:
        raise AudiobatError(f"Recipe {path} is its own base: remove one `base:` line.")
    text = _read(path, "name a YAML file")
    value = parse_yaml(text, str(path))
    fields = _as_fields({} if value is None else value, path, "write `group:` and below it `  field: value`")
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
