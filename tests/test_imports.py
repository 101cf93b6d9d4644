"""The package's structure: import order, captions, and what may not be imported early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import audiobat

PACKAGE = Path(audiobat.__file__).parent
# A module may import only from its own place or above. A package's name stands for all of its modules.
ORDER = [
    *("errors", "config", "field_help", "recipes", "progress", "presets", "features"),
    *("codec", "audio", "frontend", "patches", "masking", "layers", "encoder"),
    *("decoder", "targets", "mixing", "objective", "plan"),
    *("heads", "tagger", "metrics", "results", "data", "train", "baselines"),
    *("tensors", "building", "card", "sharing", "hub"),
    *("feature_store", "feature_files", "cache", "adapters", "convert", "models"),
    *("analysis", "report", "commands", "integrations", "verbs", "flags", "cli"),
]
TOP = ("__init__", "__main__")  # stand last: they import everything on demand
EXTRAS = {"pyarrow", "sklearn", "av", "fsspec", "transformers"}  # imported inside functions only
ENGINE = {"errors", "progress"}  # train/ knows nothing of audio
HEADS = {"errors", "config", "features"}
REPORT = {"errors", "results", "features", "audio", "frontend"}
NARROW = {"train": ENGINE, "heads": HEADS, "report": REPORT}
# Inside functions: save_pretrained and from_pretrained are methods of the very thing that a release holds, and an
# integration is looked for when it is asked for.
LATE = {("encoder", "hub"), ("tagger", "hub"), ("commands", "integrations")}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def place(parts: tuple[str, ...]) -> str:
    return parts[0] if parts else "__init__"


def imported(tree: ast.AST, path: Path) -> set[tuple[str, ...]]:
    """Every audiobat module that `tree` imports, as its dotted parts below the package."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            below = PACKAGE.parent.joinpath(*(node.module or "").split("."))
            is_module = [(below / f"{a.name}.py").exists() or (below / a.name).is_dir() for a in node.names]
            names = [
                f"{node.module}.{a.name}" if m else str(node.module) for a, m in zip(node.names, is_module, strict=True)
            ]
        else:
            continue
        found |= {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "audiobat"}
    return found


def own_parts(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def breaches(own: tuple[str, ...], tree: ast.AST, path: Path) -> list[str]:
    """What a module imports against the order or beyond its narrow list."""
    if own[0] in TOP:
        return []
    found = []
    inside = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    at_top = imported(tree, path) - {parts for node in inside for parts in imported(node, path)}
    for parts in imported(tree, path):
        theirs = place(parts)
        if (own[0], theirs) in LATE and parts not in at_top:
            continue
        if theirs == "__init__":  # `from audiobat import __version__`
            continue
        if theirs != own[0] and (
            ORDER.index(theirs) > ORDER.index(own[0]) or theirs not in NARROW.get(own[0], set(ORDER))
        ):
            found.append(f"{'.'.join(own)} imports {'.'.join(parts)}")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_module_keeps_the_order_and_opens_with_a_caption(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = own_parts(path)
    assert own[0] in (*ORDER, *TOP), f"give {own[0]} its place in ORDER and in the README's tree"
    assert breaches(own, tree, path) == []
    caption = ast.get_docstring(tree)
    assert caption, f"{path} opens without a caption"
    assert len(caption.splitlines()[0]) <= 117


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (("audio",), "from audiobat.hub import load"),
        (("audio",), "import audiobat.hub"),
        (("audio",), "def f():\n    from audiobat import hub"),
        (("encoder",), "from audiobat.hub import load"),
        (("layers",), "def f():\n    from audiobat.hub import load"),
        (("train", "loop"), "from audiobat.audio import load_audio"),
        (("heads", "cgp"), "from audiobat.encoder import AudioEncoder"),
        (("report", "page"), "from audiobat.hub import load"),
    ],
)
def test_breaches_are_seen(own: tuple[str, ...], line: str):
    assert len(breaches(own, ast.parse(line), Path("x.py"))) == 1


def test_modules_of_one_package_may_import_each_other():
    assert breaches(("train", "loop"), ast.parse("from audiobat.train.logs import RunLog"), Path("x.py")) == []


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import audiobat", "import audiobat.cli", "import audiobat.cli; audiobat.cli.main(['--help'])"]
)
def test_the_door_opens_without_torch(statement: str):
    loaded = loaded_after(statement)
    assert not loaded & {"torch", "numpy", "matplotlib", "pyarrow", "soundfile", "sklearn", "rich", "huggingface_hub"}


def test_nothing_imports_an_extra_at_its_top():
    for path in [path for path in modules() if path.name != "remote_code.py"]:  # transformers runs it, nothing else
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            )
            assert not {name.split(".")[0] for name in names} & EXTRAS, path


def test_public_names_are_imported_on_demand():
    assert set(audiobat.__all__) <= set(dir(audiobat))
    for name in ("load", "embed", "finetune", "predict", "pretrain", "probe"):
        assert callable(getattr(audiobat, name))
    with pytest.raises(AttributeError, match="lode"):
        _ = audiobat.lode


def test_the_readme_lists_every_module_in_reading_order():
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    tree = readme.split("audiobat/\n", 1)[1].split("```", 1)[0]
    listed = [line.split()[0].rstrip("/").removesuffix(".py") for line in tree.splitlines() if line.startswith("  ")]
    assert [name for name in listed if name in ORDER] == ORDER
