"""README and docs: commands parse, links lead somewhere, Python runs, the tutorial's commands run, nothing is left out.

In a fence without a language, or of bash, lines that begin with `audiobat` are commands. Python blocks of a page run
one after the other in a folder with recordings, clips and runs; a block marked ```` ```python compile ```` is compiled,
and its imports are made.
"""

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

import audiobat
from audiobat.cli import command as cli
from audiobat.cli import parse as cli_parse
from audiobat.cli.verbs import VERBS
from audiobat.config import FinetuneConfig, ProbeConfig, from_dict, recipes
from audiobat.data.scenes import demo_folder, write_scenes
from audiobat.data.sources.catalog import data_sets
from audiobat.errors import AudiobatError

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
SHELL = ("", "bash", "sh", "shell", "console")
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
LOAD_RECIPE = recipes.load_recipe
for holder in (ROOT / "audiobat").rglob("*.py"):  # a module that is imported first while `workplace` lasts would keep
    if "load_recipe" in holder.read_text(encoding="utf-8"):  # the shortened recipes for all tests after it
        importlib.import_module(".".join(holder.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
HOLDER = re.compile(r"^(torchrun (--[\w-]+ \S+ )*-m |srun (--[\w-]+ \S+ )*)")  # what may stand before `audiobat`


@dataclass(frozen=True)
class Block:
    page: Path
    info: str
    code: str

    @property
    def language(self):
        return self.info.split(" ")[0]


def blocks(page):
    return [Block(page, found["info"].strip(), found["code"]) for found in FENCE.finditer(page.read_text("utf-8"))]


def commands(page):
    """The command lines of a page as lists of words, `audiobat` left out."""
    found = []
    for block in blocks(page):
        if block.language in SHELL:
            lines = [HOLDER.sub("", line) for line in block.code.replace("\\\n", " ").splitlines()]
            found += [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("audiobat ")]
    return found


def python(page):
    return [block for block in blocks(page) if block.language == "python"]


def prose(page):
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page):
    """What GitHub and mkdocs make of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def shortened(name):
    """A recipe whose training is over in two steps."""
    fields = LOAD_RECIPE(name)
    short = {"train": {"steps": 2, "batch_size": 4}, "optim": {"warmup_steps": 1}}
    if "head" in fields and "optim" not in fields:  # a probe's
        short = {"train": {"steps": 2, "warmup_steps": 1, "batch_size": 4}, "head": {"prototypes": 8}}
    return recipes.merge(fields, short)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """What pages take for granted: recordings/, recording.wav, clips.csv, runs/probe and runs/tagger."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "recordings").mkdir()
    for name in ("cattle_00", "cattle_01", "goat_00", "goat_01"):
        samples, rate = soundfile.read(demo_folder() / f"events/{name}.ogg")
        soundfile.write(folder / "recordings" / f"{name}.wav", samples, rate)
        soundfile.write(folder / "recording.wav", samples, rate)
    table = write_scenes(folder / "scenes", clips_train=160, clips_test=24)
    clips = folder / "clips.csv"
    clips.write_text(table.read_text().replace("audio/", "scenes/audio/"))
    audiobat.probe("bat_nano", clips, from_dict(ProbeConfig, shortened("demo_probe")), out=folder / "runs/probe")
    tune = from_dict(FinetuneConfig, shortened("finetune/demo"))
    audiobat.finetune("bat_nano", clips, folder / "runs/tagger", tune)
    return folder


@pytest.fixture
def workplace(material, tmp_path, monkeypatch):
    """A copy of the material as the working folder, where training is short."""
    for name in ("recordings", "recording.wav", "scenes", "clips.csv"):
        (tmp_path / name).symlink_to(material / name)
    shutil.copytree(material / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    for module in (cli_parse, recipes):
        monkeypatch.setattr(module, "load_recipe", shortened)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "words"), [(page, words) for page in PAGES for words in commands(page)], ids=lambda value: str(value)[-70:]
)
def test_a_command_parses(page, words):
    if not {"-h", "--help", "--help-all"} & set(words):
        cli.parse(words[0], words[1:])
    assert words[0] in VERBS


@pytest.mark.parametrize("page", [page for page in DOCS if page.stem in VERBS], ids=lambda page: page.stem)
def test_the_page_of_a_verb_shows_command_and_python(page):
    assert any(words[0] == page.stem for words in commands(page))
    assert any(re.search(rf"\b{page.stem}\(", block.code) for block in python(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_data_set_that_is_named_is_one(page):
    names = re.findall(r"\b([\w-]+):(?:FOLDER\b|/data\b)", page.read_text())
    assert set(names) <= {"NAME", *data_sets()}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"], ids=lambda p: p.name
)
def test_links_and_anchors_lead_somewhere(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"\w+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize(
    "page", [page for page in PAGES if python(page) and page.stem != "tutorial"], ids=lambda p: p.name
)
def test_python_runs(page, workplace, request):
    if any("transformers" in block.code for block in python(page)):
        request.getfixturevalue("own_remote_modules")
    if any("audiobat.finetune(" in block.code for block in python(page)):
        shutil.rmtree("runs")  # the page makes its own
    names = {"waveform": torch.randn(1, 32_000) / 10}
    for block in python(page):
        if block.info == "python compile":
            import_all(block)
        else:
            assert block.info == "python"
            if named := re.match(r"# (\w+\.py)\n", block.code):  # a file that the reader writes
                Path(named[1]).write_text(block.code)
            exec(compile(block.code, page.name, "exec"), names)


def import_all(block):
    tree = ast.parse(block.code, block.page.name)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {}
    exec(compile(ast.Module(imports, []), block.page.name, "exec"), names)
    for node in ast.walk(tree):  # audiobat.NAME exists
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "audiobat":
            assert hasattr(audiobat, node.attr), node.attr


def test_the_tutorial_runs(workplace, capsys):
    shutil.rmtree("runs")
    names = {}
    for block in blocks(ROOT / "docs/tutorial.md"):
        if block.language == "python":
            code = re.sub(r"clips_train=\d+, clips_test=\d+", "clips_train=160, clips_test=24", block.code)
            exec(compile(code, "tutorial.md", "exec"), names)
        elif block.language in SHELL:
            for line in block.code.splitlines():
                if line.startswith("audiobat "):
                    assert cli.main(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)
    assert Path("report/index.html").exists()
    assert Path("labels.csv").read_text().startswith("file,start,end,label,score")
    assert Path("test_00000.txt").exists()


def test_the_reading_order_holds_every_page_once():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert sorted(nav) == [page.name for page in DOCS]
    index = prose(ROOT / "docs/index.md")
    order = [target for target in LINK.findall(index) if target.endswith(".md")]
    assert ["index.md", *order] == nav


def test_pages_below_folders_are_marked_as_outside_the_reading_order():
    """A page in neither list is a warning, and `make docs` stops at a warning."""
    outside = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["not_in_nav"].split()
    for page in set((ROOT / "docs").rglob("*.md")) - set(DOCS):
        assert f"/{page.relative_to(ROOT / 'docs').as_posix()}".startswith(tuple(outside)), page


def script(name):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_recipes_are_those_of_the_recipes_today():
    fresh = script("make_recipes").page()
    assert (ROOT / "docs/recipes.md").read_text("utf-8") == fresh, "run `python docs/make_recipes.py`"
    assert fresh.count("\n### ") == sum(map(len, script("make_recipes").PAIRS.values()))


def test_the_site_leaves_out_the_scripts():
    left_out = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["exclude_docs"].split()
    assert sorted(left_out) == sorted(path.name for path in (ROOT / "docs").glob("*.py"))


def test_the_site_has_no_links_out_of_docs_and_no_words_for_tests():
    hooks = script("hooks")
    page = "[a](../a.md), ![b](c.png), [d](e.md#f)\n```python compile\n1\n```\n"
    assert hooks.on_page_markdown(page) == "a, ![b](c.png), [d](e.md#f)\n```python\n1\n```\n"


def test_a_wrong_flag_and_a_wrong_recipe_would_be_found():
    for words in (["--model", "m", "--data", "d", "--out", "o", "--no-such", "1"], ["--config", "no_such"]):
        with pytest.raises(AudiobatError):
            cli.parse("probe", words)
