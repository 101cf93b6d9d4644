"""A module of audiobat to the text of one file that runs without audiobat.

In: the name of a module, and the classes that its model has of kinds that a config names (frontend, head). Out: the
source of every definition that it uses, copied as it is, in the order of the imports; then the module's own.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from audiobat.config.user_files import file_of
from audiobat.errors import AudiobatError

# A model and no more: no files, no audio, no training. A method that needs anything else is left out.
PORTABLE = (
    *(
        "errors",
        "config",
        "engine.ranks",
        "engine.randomness",
        "engine.linear",
        "engine.chunks",
        "engine.row_layers",
        "audio.frontends",
    ),
    *(
        "models.features",
        "models.patches",
        "models.rotary",
        "models.attention",
        "models.layers",
        "models.encoder",
        "models.heads",
        "models.tagger",
    ),
    *("zoo.export.kinds",),
)
REGISTRY, KINDS = "audiobat.config.registry", "audiobat.zoo.export.kinds"  # functions of KINDS replace the registry's


def is_portable(module: str) -> bool:
    """Whether a module, by its full name, is a PORTABLE one of audiobat, or lies in one, or is a user's own file."""
    portable = tuple(f"audiobat.{name}." for name in PORTABLE)
    return module.split(".")[0] != "audiobat" or f"{module}.".startswith(portable)


def bundle(module: str, kinds: Mapping[tuple[str, str], type]) -> str:
    """The text of `audiobat.` `module` and, in front of it, of all that it uses.

    Args:
        module: the name without `audiobat.`.
        kinds: seam and kind, as a config names it, to the class; a class may come from a user's own file.

    Raises:
        AudiobatError: a function, or a method that is called, uses a module that is not PORTABLE; two modules define a
            name that both need; a user's file needs a file beside it.
    """
    modules: dict[str, Module] = {}
    kinds_module = open_module(KINDS, modules)
    for found in kinds.values():
        open_module(found.__module__, modules).need(found.__name__, modules)
    root = open_module(f"audiobat.{module}", modules)
    for name in root.definitions:
        root.need(name, modules)
    kinds_module.need("KINDS", modules)
    check_imports(modules.values())
    check_names(modules.values())
    check_methods(modules.values())
    imports = sorted({line for found in modules.values() for line in found.imports.values()})
    parts = ["from __future__ import annotations", "\n".join(imports)]
    parts += [found.text() for found in modules.values() if found.needed]
    entries = [f"    {key!r}: {found.__name__}," for key, found in kinds.items()]
    parts += ["\n".join(["KINDS |= {", *entries, "}"])]
    return "\n\n\n".join(parts) + "\n"


def check_imports(modules: Collection[Module]) -> None:
    """Raise an AudiobatError if the text would import audiobat, or a file that lies beside a user's own."""
    for module in modules:
        for line in module.imports.values():
            top = line.split()[1].split(".")[0]
            beside = [module.file.with_name(f"{top}.py"), module.file.with_name(top) / "__init__.py"]
            if top == "audiobat":
                raise AudiobatError(f"{module.shown} has `{line}`: to export it, write `from audiobat.X import Y`.")
            if module.shown != module.name and any(file.is_file() for file in beside):
                raise AudiobatError(f"{module.shown} has `{line}`: to export it, put that file's code into this file.")


def check_names(modules: Collection[Module]) -> None:
    """Raise an AudiobatError if a name stands for two things."""
    homes: dict[str, str] = {}
    for module in modules:
        kept = {name: module.name for name, node in module.definitions.items() if node in module.needed}
        for name, home in (kept | module.imports).items():
            if homes.setdefault(name, home) != home:
                raise AudiobatError(f"{name} is {homes[name]} and {home}: rename one.")


def check_methods(modules: Collection[Module]) -> None:
    """Raise an AudiobatError if a method that is left out is called."""
    called = {"__init__"}.union(*(module.attributes() for module in modules))
    for module in modules:
        for method in sorted(module.left_out & called):
            raise AudiobatError(f"{method} of {module.shown} is called, and uses a module that is not PORTABLE.")


class Module:
    """One module: its definitions, where its names come from, and what of it is needed."""

    def __init__(self, name: str) -> None:
        if name in sys.modules:  # as a user's own file is
            file = file_of(sys.modules[name])
        else:  # it is not imported for this
            spec = importlib.util.find_spec(name)
            assert spec is not None
            file = Path(str(spec.origin))
        self.name, self.file = name, file
        self.shown = name if name.startswith("audiobat.") else str(sys.modules[name].__file__)  # in errors
        self.lines = self.file.read_text(encoding="utf-8").splitlines()
        self.definitions: dict[str, ast.stmt] = {}
        self.own: dict[str, str] = {}  # name: the module of audiobat it is imported from
        self.foreign: dict[str, str] = {}  # name: the line that imports it
        self.needed: dict[ast.stmt, list[ast.stmt]] = {}  # definition: its methods that are left out
        self.imports: dict[str, str] = {}  # those of `foreign` that are needed
        for node in ast.parse("\n".join(self.lines)).body:
            is_own = isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "audiobat"
            if isinstance(node, ast.ImportFrom) and is_own and not any(alias.asname for alias in node.names):
                self.own |= {alias.name: str(node.module) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.foreign |= {a.asname or a.name: f"from {node.module} import {ast.unparse(a)}" for a in node.names}
            elif isinstance(node, ast.Import):
                self.foreign |= {a.asname or a.name.split(".")[0]: f"import {ast.unparse(a)}" for a in node.names}
            else:
                self.definitions |= dict.fromkeys(defined(node), node)

    def need(self, name: str, modules: dict[str, Module]) -> None:
        """Note that `name` is needed, and all that it uses; names of Python itself are in no module."""
        if name in self.foreign:
            self.imports[name] = self.foreign[name]
        elif name in self.own:
            home = self.own[name]
            found = open_module(home, modules) if is_portable(home) else None
            if found is None or name not in found.foreign.keys() | found.own.keys() | found.definitions.keys():
                raise AudiobatError(f"{self.shown} uses {name} of {home}, which is not PORTABLE.")
            found.need(name, modules)
        elif name in self.definitions and (node := self.definitions[name]) not in self.needed:
            methods = node.body if isinstance(node, ast.ClassDef) else []
            left_out = [method for method in methods if self.strangers(method)]
            if not methods and self.strangers(node):
                raise AudiobatError(f"{name} of {self.shown} uses {self.strangers(node)}, which is not PORTABLE.")
            self.needed[node] = left_out
            for used in sorted(uses(node, left_out)):
                self.need(used, modules)

    def strangers(self, node: ast.stmt) -> set[str]:
        """The modules of audiobat that a definition uses, by name or by an import inside it, and that stay behind."""
        inside = {str(n.module) for n in ast.walk(node) if isinstance(n, ast.ImportFrom)}
        theirs = {self.own[name] for name in uses(node, []) if name in self.own}
        return {m for m in inside | theirs if not is_portable(m)}

    @property
    def left_out(self) -> set[str]:
        """The names of the methods that are left out."""
        return {name for methods in self.needed.values() for method in methods for name in defined(method)}

    def attributes(self) -> set[str]:
        """Every name behind a dot in the definitions that are copied."""
        return {
            child.attr
            for node, left_out in self.needed.items()
            for part in ([b for b in node.body if b not in left_out] if isinstance(node, ast.ClassDef) else [node])
            for child in ast.walk(part)
            if isinstance(child, ast.Attribute)
        }

    def text(self) -> str:
        """The needed definitions in their order, each with the comments above it, without what is left out."""
        parts = [f"# {self.name}"]
        for node, left_out in sorted(self.needed.items(), key=lambda item: item[0].lineno):
            gone = {line for method in left_out for line in range(first_line(method) - 1, int(method.end_lineno or 0))}
            start = first_line(node) - 1
            while self.lines[start - 1].startswith("#"):
                start -= 1
            kept = range(start, int(node.end_lineno or 0))
            parts.append("\n".join(self.lines[i] for i in kept if i not in gone).rstrip())
        return "\n\n\n".join(parts)


def open_module(name: str, modules: dict[str, Module]) -> Module:
    """The module of that name, which comes behind those that it imports in `modules`."""
    if name not in modules:
        module = Module(name)
        for home in dict.fromkeys(module.own.values()):
            if is_portable(home):
                open_module(home, modules)
        if name == REGISTRY:
            module.own |= dict.fromkeys(Module(KINDS).definitions, KINDS)
        modules[name] = module
    return modules[name]


def defined(node: ast.stmt) -> list[str]:
    """The names that a statement at a module's top gives a meaning."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def uses(node: ast.AST, left_out: list[ast.stmt]) -> set[str]:
    """Every name in a definition, types included; those of parts that are left out do not count."""
    if node in left_out:
        return set()
    own = {node.id} if isinstance(node, ast.Name) else set()
    return own.union(*(uses(child, left_out) for child in ast.iter_child_nodes(node)))


def first_line(node: ast.stmt) -> int:
    """Where a definition starts, its decorators included."""
    decorators = getattr(node, "decorator_list", [])
    lines: list[int] = [decorator.lineno for decorator in decorators]
    return min([node.lineno, *lines])
