"""The house: rooms, the order of imports between them and inside them, captions, and what may not be imported early."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import audiobat
from audiobat.config.registry import SEAMS

PACKAGE = Path(audiobat.__file__).parent
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
TOP = ("__init__", "__main__")  # stand last: they import everything on demand
# imported inside functions only
EXTRAS = {"pyarrow", "scipy", "sklearn", "av", "fsspec", "transformers", "onnx", "onnxruntime", "openTSNE", "usearch"}
EXTRAS |= {"tensorboard", "wandb"}
NARROW = {  # what these rooms and folders may know of the others
    "engine": {"errors", "config"},
    "audio": {"errors", "config"},
    "models.heads": {"errors", "config", "engine.linear", "engine.row_layers", "models.features"},
    "evaluation.report": {"errors", "config", "engine", "audio", "data.csv_text", "models.features", "evaluation"},
}
# Inside functions only: save_pretrained and from_pretrained are methods of the very thing that a release holds; and a
# run that is watched has its encoder probed, by probes that know nothing of how it is trained.
LATE = {
    ("models.encoder", "zoo.release"),
    ("models.tagger", "zoo.release"),
    ("pretraining.run", "probing.online"),
}


def rooms_of_readme() -> list[str]:
    """The rooms and the files at the top, in the order of the README's tree."""
    tree = README.split("audiobat/\n", 1)[1].split("```", 1)[0]
    return [line.split()[0].rstrip("/").removesuffix(".py") for line in tree.splitlines() if line.startswith("  ")]


def entries(caption: str) -> list[str]:
    """The files and folders that a room's caption lists, in its order."""
    lines = [line.split()[0] for line in caption.splitlines() if re.match(r"\s*\w+(\.py|/)\s\s", line)]
    return [name.rstrip("/").removesuffix(".py") for name in lines]


def caption_of(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""


def contents(folder: Path) -> set[str]:
    """The Python files and packages of a folder."""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


def order_of(parts: tuple[str, ...]) -> list[str]:
    """What a folder of the package holds, in the order in which it may import."""
    return rooms_of_readme() if not parts else entries(caption_of(PACKAGE.joinpath(*parts)))


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def folders() -> list[Path]:
    return sorted({path.parent for path in modules()} - {PACKAGE})


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported(tree: ast.AST, path: Path) -> set[str]:
    """Every audiobat module that `tree` imports, as its dotted name below the package."""
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
        found |= {name.partition(".")[2] for name in names if name.split(".")[0] == "audiobat"}
    return found - {""}  # `from audiobat import __version__`


def is_below(name: str, folder: str) -> bool:
    return f"{name}.".startswith(f"{folder}.")


def may_import(own: str, theirs: str, orders: dict[tuple[str, ...], list[str]]) -> bool:
    """Whether the module `own` may import `theirs`: it, or the folder that holds it, stands above where they part."""
    mine, other = tuple(own.split(".")), tuple(theirs.split("."))
    shared = 0
    while shared < min(len(mine), len(other)) and mine[shared] == other[shared]:
        shared += 1
    if shared == len(mine):  # a folder's caption gathers what is in it
        return True
    if shared == len(other):  # a file that asks its own folder's caption
        return False
    order = orders[mine[:shared]]
    places = {name: place for place, name in enumerate(order)}
    # A kind of a seam is not in its folder's caption: it stands below the shared files, and beside all other kinds.
    return places.get(other[shared], len(order)) < places.get(mine[shared], len(order))


ORDERS = {tuple(folder.relative_to(PACKAGE).parts): order_of(folder.relative_to(PACKAGE).parts) for folder in folders()}
ORDERS[()] = rooms_of_readme()


def breaches(own: str, tree: ast.AST, path: Path) -> list[str]:
    """What a module imports against the order or beyond what its room may know."""
    if own in TOP:
        return []
    found = []
    inside = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    at_top = imported(tree, path) - {name for node in inside for name in imported(node, path)}
    for theirs in sorted(imported(tree, path)):
        if (own, theirs) in LATE and theirs not in at_top:
            continue
        narrow = [known for room, known in NARROW.items() if is_below(own, room) and not is_below(theirs, room)]
        known = all(any(is_below(theirs, k) for k in known) for known in narrow)
        if not may_import(own, theirs, ORDERS) or not known:
            found.append(f"{own} imports {theirs}")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_module_keeps_the_order_and_opens_with_a_caption(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert breaches(name_of(path), tree, path) == []
    caption = ast.get_docstring(tree)
    assert caption, f"{path} opens without a caption"
    assert len(caption.splitlines()[0]) <= 117


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.relative_to(PACKAGE).as_posix())
def test_a_rooms_caption_lists_what_is_in_it_and_there_is_not_too_much(folder: Path):
    listed = entries(caption_of(folder))
    seams = {seam.folder: set(seam.shared) for seam in SEAMS.values()}
    required = seams.get(folder.relative_to(PACKAGE).as_posix(), contents(folder))  # of a seam: what its kinds share
    assert sorted(listed) == sorted(required), "list each file once, in reading order"
    assert len(listed) <= 20


def test_the_way_of_a_clip_is_at_most_ten_files_and_each_is_there():
    way = README.split("To follow a clip", 1)[1].split("\n\n", 1)[0]
    files = re.findall(r"`(\w+(?:/\w+)*\.py)`", way)
    assert 5 < len(files) <= 10
    assert [file for file in files if not (PACKAGE / file).is_file()] == []


def test_the_readme_lists_every_room_and_there_are_few():
    assert sorted(rooms_of_readme()) == sorted(contents(PACKAGE) - set(TOP))
    here = [path for path in PACKAGE.iterdir() if not path.name.startswith(("_", "."))]
    assert len([path for path in here if path.is_dir()]) <= 13
    assert len(list(PACKAGE.glob("*.py"))) <= 4


@pytest.mark.parametrize(
    ("own", "line"),
    [
        ("audio.read", "from audiobat.zoo.release import load"),
        ("audio.read", "import audiobat.zoo.release"),
        ("audio.read", "def f():\n    from audiobat.zoo import release"),
        ("models.encoder", "from audiobat.zoo.release import load"),
        ("models.layers", "def f():\n    from audiobat.zoo.release import load"),
        ("models.layers", "from audiobat.models.encoder import AudioEncoder"),
        ("engine.loop", "from audiobat.audio.read import load_audio"),
        ("engine.optim", "from audiobat.engine.loop import fit"),
        ("models.heads.cgp", "from audiobat.models.encoder import AudioEncoder"),
        ("models.heads.cgp", "from audiobat.models.patches import PatchEmbed"),
        ("models.heads.cgp", "from audiobat.models.heads.knn import KNNProbe"),
        ("models.heads.cgp", "from audiobat.models.heads import build_head"),
        ("evaluation.report.run", "from audiobat.zoo.release import load"),
        ("pretraining.decoders.vit", "from audiobat.pretraining.decoders.cnn import CNNDecoder"),
        ("pretraining.decoders.base", "from audiobat.pretraining.decoders.cnn import CNNDecoder"),
        ("probing.run", "from audiobat.finetuning.run import finetune"),
    ],
)
def test_breaches_are_seen(own: str, line: str):
    assert len(breaches(own, ast.parse(line), Path("x.py"))) == 1


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import audiobat", "import audiobat.cli.command", "import audiobat.cli.command as c; c.main(['--help'])"],
)
def test_the_door_opens_without_torch(statement: str):
    loaded = loaded_after(statement)
    assert not loaded & {
        "torch",
        "numpy",
        "matplotlib",
        "pyarrow",
        "soundfile",
        "scipy",
        "sklearn",
        "rich",
        "huggingface_hub",
    }


def test_nothing_imports_an_extra_at_its_top():
    for path in [path for path in modules() if path.name != "remote_code.py"]:  # transformers runs it, nothing else
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            )
            assert not {name.split(".")[0] for name in names} & EXTRAS, path


def test_public_names_are_imported_on_demand():
    assert set(audiobat.__all__) <= set(dir(audiobat))
    for name in set(audiobat.__all__) - {"__version__"}:
        assert callable(getattr(audiobat, name)), name
    with pytest.raises(AttributeError, match="lode"):
        _ = audiobat.lode
