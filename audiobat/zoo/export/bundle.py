"""A module of audiobat to the text of one file that does without audiobat, for those who run a model elsewhere.

In: the name of a module. Out: all that it uses of PORTABLE, each definition as it stands there, then the module's own.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Collection
from pathlib import Path

# A model and no more: no files, no audio, no training. A method that needs anything else is left out.
PORTABLE = (
    *("errors", "config", "audio.frontend", "models.features", "models.patches", "models.layers", "models.encoder"),
    *("models.heads", "models.tagger"),
)


def is_portable(module: str) -> bool:
    """Whether a module of audiobat, by its full name, is one of PORTABLE or lies in one."""
    return f"{module}.".startswith(tuple(f"audiobat.{name}." for name in PORTABLE))


def bundle(module: str) -> str:
    """The text of `audiobat.` `module` and, in front of it, of what it uses.

    Raises ValueError if a function, or a method that is called, uses what is not PORTABLE, or if two modules define a
    name that both need.
    """
    modules: dict[str, Module] = {}
    root = open_module(f"audiobat.{module}", modules)
    for name in root.definitions:
        root.need(name, modules)
    check_names(modules.values())
    check_methods(modules.values())
    imports = sorted({line for found in modules.values() for line in found.imports.values()})
    parts = ["from __future__ import annotations", "\n".join(imports)]
    parts += [found.text() for found in modules.values() if found.needed]
    return "\n\n\n".join(parts) + "\n"


def check_names(modules: Collection[Module]) -> None:
    """Raise ValueError if a name stands for two things."""
    homes: dict[str, str] = {}
    for module in modules:
        kept = {name: module.name for name, node in module.definitions.items() if node in module.needed}
        for name, home in (kept | module.imports).items():
            if homes.setdefault(name, home) != home:
                raise ValueError(f"{name} is {homes[name]} and {home}: rename one.")


def check_methods(modules: Collection[Module]) -> None:
    """Raise ValueError if a method that is left out is called."""
    called = {"__init__"}.union(*(module.attributes() for module in modules))
    for module in modules:
        for method in sorted(module.left_out & called):
            raise ValueError(f"{method} of {module.name} is called, and uses what is not PORTABLE.")


class Module:
    """One module: its definitions, where its names come from, and what of it is needed."""

    def __init__(self, name: str) -> None:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        self.name = name
        self.lines = Path(spec.origin).read_text(encoding="utf-8").splitlines()
        self.definitions: dict[str, ast.stmt] = {}
        self.own: dict[str, str] = {}  # name: the module of audiobat it is imported from
        self.foreign: dict[str, str] = {}  # name: the line that imports it
        self.needed: dict[ast.stmt, list[ast.stmt]] = {}  # definition: its methods that are left out
        self.imports: dict[str, str] = {}  # those of `foreign` that are needed
        for node in ast.parse("\n".join(self.lines)).body:
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "audiobat":
                self.own |= {alias.name: str(node.module) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.foreign |= {a.asname or a.name: f"from {node.module} import {ast.unparse(a)}" for a in node.names}
            elif isinstance(node, ast.Import):
                self.foreign |= {a.asname or a.name.split(".")[0]: f"import {ast.unparse(a)}" for a in node.names}
            else:
                self.definitions |= dict.fromkeys(defined(node), node)

    def need(self, name: str, modules: dict[str, Module]) -> None:
        """Note that `name` is needed, and all that it uses."""
        if name in self.foreign:
            self.imports[name] = self.foreign[name]
        elif name in self.own:
            open_module(self.own[name], modules).need(name, modules)
        elif name in self.definitions and (node := self.definitions[name]) not in self.needed:
            methods = node.body if isinstance(node, ast.ClassDef) else []
            left_out = [method for method in methods if self.strangers(method)]
            if not methods and self.strangers(node):
                raise ValueError(f"{self.name}.{name} uses {self.strangers(node)}, which is not PORTABLE.")
            self.needed[node] = left_out
            for used in sorted(uses(node, left_out)):
                self.need(used, modules)

    def strangers(self, node: ast.stmt) -> set[str]:
        """The modules of audiobat, not PORTABLE, that a definition uses, by name or by an import inside it."""
        inside = {str(n.module) for n in ast.walk(node) if isinstance(n, ast.ImportFrom)}
        theirs = {self.own[name] for name in uses(node, []) if name in self.own}
        return {m for m in inside | theirs if m.split(".")[0] == "audiobat" and not is_portable(m)}

    @property
    def left_out(self) -> set[str]:
        """The names of the methods that stay behind."""
        return {name for methods in self.needed.values() for method in methods for name in defined(method)}

    def attributes(self) -> set[str]:
        """Every name behind a dot in what comes along."""
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
    """The module of that name, once, after those that it imports."""
    if name not in modules:
        module = Module(name)
        for home in dict.fromkeys(module.own.values()):
            if is_portable(home):
                open_module(home, modules)
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
