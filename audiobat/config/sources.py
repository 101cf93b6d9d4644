"""Where the value of each field of a recipe comes from: the comments in YAML files and in config classes.

In: a recipe. Out: every field of its config with its value and the source of the value, in the order of the classes. A
value that a YAML file sets has its source in the comment behind it, else above it, else on its group; where there is
none, or it names no source, in the heading of the file. A default has it in the field's help, else in the part of the
paper that its class names.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from audiobat.config.field_help import caption_of, help_of
from audiobat.config.finetune import FinetuneConfig
from audiobat.config.plain import flatten, from_dict, to_dict
from audiobat.config.pretrain import PretrainConfig
from audiobat.config.probe import ProbeConfig
from audiobat.config.recipes import RecipeFile, kind_of, merged, parse_yaml, recipe_files, recipe_names
from audiobat.errors import AudiobatError

CONFIGS: dict[str, type[Any]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "probe": ProbeConfig}
REFERENCE = re.compile(r"(?:Table|Section|Eq\.|Fig\.) \d+(?:\.\d+)*(?:(?:-|, )\d+)*")  # to the paper
ORIGIN = re.compile(r"\b(?:Table|Section|paper|authors|released?|EAT|SSLAM|Audio-MAE|data2vec|BEATs|[Oo]urs?)\b")
CLAUSES = re.compile(r";\s*(?![^()]*\))")  # what divides help: semicolons outside brackets
OF_VALUE = re.compile(r"([^():]+): (.+)")  # a clause on one value: `sample: BAT's release`
BRACKETS = re.compile(r"\([^()]*\)")
TITLE_END = re.compile("[:;] ")  # of a heading: what it is about
SENTENCES = re.compile(r"(?<=\.)\s+(?=[A-Z])")
HEADING = ""  # the field under which `comments_of` keeps a file's first sentence


@dataclass(frozen=True)
class Setting:
    """The value of a field, and where it comes from."""

    value: Any  # as YAML holds it
    source: str


def settings_of(recipe: str | Path, kind: str | None = None) -> dict[str, Setting]:
    """Every field of a recipe by its dotted name, such as `encoder.depth`; `kind` as `shared_kind` gives it.

    Raises:
        AudiobatError: an unknown recipe, a bad value, or a recipe that lists runs and so has no settings.
    """
    files = recipe_files(recipe)
    config = config_of(files, shared_kind(recipe) if kind is None else kind)
    given = [(flatten(file.fields), comments_of(file.text), file.name) for file in files]
    values, groups = flatten(to_dict(config)), merged(files)
    found = {}
    for path, owner in owners(config):
        setting = [(comments, name) for fields, comments, name in given if path in fields]
        if setting:
            comments, name = setting[-1]
            source = source_in_file(comments.get(path, ""), comments[HEADING])
            source = source if source and name == files[-1].name else f"{source} ({name})".lstrip()
        elif values[path] != default_of(owner, path) and path.split(".")[0] in groups:
            source = f"follows from the other fields of {path.rpartition('.')[0]}"
        else:
            source = source_of_default(type(config), owner, path, values[path])
        found[path] = Setting(values[path], source)
    return found


def shared_kind(*recipes: str | Path) -> str:
    """What recipes are for, all of them alike: pretrain, finetune or probe.

    A recipe of the package, or one based on such, is of its kind; another file may be of any kind that has its groups,
    and is then of the first that takes its values.

    Raises:
        AudiobatError: recipes of different kinds, or one that lists runs and so has no settings.
    """
    chains = [recipe_files(recipe) for recipe in recipes]
    possible = [kinds_of(files) for files in chains]
    shared = [kind for kind in CONFIGS if all(kind in kinds for kinds in possible)]
    if not shared:
        one, other = (f"{name} to {' or '.join(kinds)}" for name, kinds in zip(recipes, possible, strict=True))
        raise AudiobatError(f"{one} and {other} are recipes of different kinds: give two of one kind.")
    return next((kind for kind in shared if all(takes(kind, files) for files in chains)), shared[0])


def kinds_of(files: Sequence[RecipeFile]) -> list[str]:
    """What a recipe may be for; raises an AudiobatError for one that lists runs."""
    named = [kind_of(file.name) for file in files if file.name in recipe_names()]
    if named and named[0] not in CONFIGS:
        raise AudiobatError(
            f"{files[-1].name} lists runs and has no settings of its own: give a recipe to {', '.join(CONFIGS)}."
        )
    if named:
        return [named[0]]
    groups = {kind: {f.name for f in dataclasses.fields(config)} for kind, config in CONFIGS.items()}
    known = {kind: len(groups[kind] & set(merged(files))) for kind in CONFIGS}
    return [kind for kind in CONFIGS if known[kind] == max(known.values())]


def takes(kind: str, files: Sequence[RecipeFile]) -> bool:
    """Whether the config of a kind takes the values of a recipe."""
    try:
        config_of(files, kind)
    except AudiobatError:
        return False
    return True


def config_of(files: Sequence[RecipeFile], kind: str) -> Any:
    """The config of a recipe; an error begins with the recipe's name."""
    try:
        return from_dict(CONFIGS[kind], merged(files))
    except AudiobatError as error:
        raise AudiobatError(f"{files[-1].name}: {error}") from None


def owners(config: Any, prefix: str = "") -> Iterator[tuple[str, type[Any]]]:
    """Each field's dotted name and the class that has it; groups are entered, and so are mappings."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from owners(value, f"{prefix}{f.name}.")
        elif isinstance(value, Mapping):
            yield from ((f"{prefix}{f.name}.{name}", type(config)) for name in flatten(value))
        else:
            yield prefix + f.name, type(config)


def source_in_file(comment: str, heading: str) -> str:
    """The source of a value that a file sets: the comment on it, if that names a source; else the file's title, too."""
    title = TITLE_END.split(heading)[0]
    return comment if ORIGIN.search(comment) else ": ".join(filter(None, (title, comment)))


def default_of(owner: type[Any], path: str) -> Any:
    """The default that a class gives to the field with this dotted name, as YAML holds it."""
    name = path.rpartition(".")[2]
    default = next(f.default for f in dataclasses.fields(owner) if f.name == name)
    return list(default) if isinstance(default, tuple) else default


def source_of_default(root: type[Any], owner: type[Any], path: str, value: Any) -> str:
    """The source of a default: of class `owner`, or, of a whole group, of the config class `root`."""
    group, name = path.split(".")[0], path.split(".")[-1]
    help = help_of(owner, name) if value == default_of(owner, path) else help_of(root, group)
    source = origin(help, value)
    if source:
        return f"default: {source}"
    references = REFERENCE.findall(caption_of(owner))
    return f"default ({', '.join(references)})" if references else "default"


def origin(help: str, value: Any) -> str:
    """What a field's help says of the source of `value`: clauses that name a source and are on no other value.

    A name in brackets does not count: it belongs to what stands before it, which may be another value.
    """
    found = []
    for clause in CLAUSES.split(help):
        of_value = OF_VALUE.fullmatch(clause)
        if of_value and of_value[1] == as_yaml(value):
            found.append(of_value[2])
        elif not of_value:
            found.append(clause)
    return "; ".join(clause for clause in found if ORIGIN.search(BRACKETS.sub("", clause)))


def comments_of(text: str) -> dict[str, str]:
    """The comment on each field of a YAML text by its dotted name, on groups too; its first sentence by HEADING.

    A comment is the one behind a value and its continuation in the lines below that are indented deeper than the field;
    else the one above the field; else that on its group. A field without any is left out.
    """
    lines = text.splitlines()
    found = {HEADING: SENTENCES.split(preface(text))[0].rstrip(".")}
    root = yaml.compose(text, yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        read_comments(root, lines, "", "", found)
    return found


def read_comments(group: yaml.MappingNode, lines: Sequence[str], prefix: str, own: str, found: dict[str, str]) -> None:
    """Add the comments on the fields of a group to `found`; `own` is that on the group itself."""
    for key, value in group.value:
        is_block = value.style in ("|", ">") if isinstance(value, yaml.ScalarNode) else not value.flow_style
        end = key.end_mark if is_block else value.end_mark  # a block ends where the next field begins
        comment = behind(lines, end.line, end.column, key.start_mark.column)
        comment = comment or above(lines, key.start_mark.line) or own
        if comment:
            found[prefix + key.value] = comment
        if isinstance(value, yaml.MappingNode):
            read_comments(value, lines, f"{prefix}{key.value}.", comment, found)


def behind(lines: Sequence[str], line: int, column: int, indent: int) -> str:
    """The comment behind a place of a line, and the comments in the lines below that are indented by more."""
    comment = re.match(r":?\s+#(.*)", lines[line][column:])
    if comment is None:
        return ""
    words = [comment[1]]
    for below in lines[line + 1 :]:
        if re.match(rf"\s{{{indent + 1},}}#", below) is None:
            break
        words.append(below)
    return as_sentence(words)


def above(lines: Sequence[str], line: int) -> str:
    """The lines of comments right above a line; those at the head of the file are the file's."""
    start = line
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return as_sentence(lines[start:line]) if start else ""


def preface(text: str) -> str:
    """The comment at the head of a YAML text; empty if there is none."""
    return as_sentence(list(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())))


def as_sentence(lines: Sequence[str]) -> str:
    """Lines of a comment as one."""
    return " ".join(line.strip().lstrip("# ") for line in lines).strip()


def as_yaml(value: Any) -> str:
    """A value on one line, as a user would write it in YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"\w[\w./-]*", value) and parse_yaml(value, "") == value
        return value if plain else json.dumps(value)
    if isinstance(value, float):
        return re.sub(r"e([-+])0", r"e\1", str(value))
    return json.dumps(value)  # null, true, false, whole numbers
