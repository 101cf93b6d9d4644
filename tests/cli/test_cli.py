"""The command line: what flags, recipes and defaults become, and what a user's mistake prints."""

import dataclasses
import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

import audiobat
from audiobat.cli import command as cli
from audiobat.cli import flags, verbs
from audiobat.config import (
    DecoderConfig,
    FinetuneConfig,
    LabelConfig,
    PretrainConfig,
    ProbeConfig,
    from_dict,
    recipes,
    to_dict,
)
from audiobat.config.benchmark import BenchmarkConfig, SuiteConfig
from audiobat.config.plain import flatten
from audiobat.errors import AudiobatError


@pytest.fixture
def called(monkeypatch):
    """The arguments with which the verb's function was called, in place of the call."""
    calls = {}

    def recorder(verb: str):
        return lambda **arguments: calls.update({verb: arguments})

    monkeypatch.setattr(audiobat, "__getattr__", recorder)
    return calls


def sentence(capsys) -> str:
    """The one line on stderr; nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("audiobat: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "usage" not in err
    return err


def test_flags_win_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path, called):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("encoder:\n  depth: 3\n  dim: 24\n  heads: 2\ndecoder:\n  heads: 2\noptim:\n  lr: 3e-4\n")
    argv = ["pretrain", "--config", str(recipe), "--out", str(tmp_path / "run"), "--encoder.depth", "6", "--seed", "7"]
    assert cli.main([*argv, "--data", "clips", "--optim.betas", "[0.8, 0.9]", "--dry-run"]) == 0
    config = called["pretrain"].pop("config")
    wanted = {"resume": "auto", "overwrite": False, "dry_run": True, "calibrate": False, "max_seconds": None}
    assert called["pretrain"] == {"out": tmp_path / "run", **wanted}
    wanted = to_dict(PretrainConfig())
    wanted["encoder"] |= {"depth": 6, "dim": 24, "heads": 2}
    wanted["decoder"]["heads"] = 2
    wanted["optim"] |= {"lr": 3e-4, "betas": [0.8, 0.9]}
    wanted["train"]["seed"] = 7
    wanted["data"]["path"] = "clips"
    assert to_dict(config) == wanted


def test_dashes_underscores_and_equals_are_all_understood(called):
    base = ["probe", "--model=m", "--data", "d", "--out", "o", "--head.kind", "linear"]
    assert cli.main([*base, "--cache-gb=2", "--test_fold", "3", "--head.layer=-1", "--train.weight-decay", "null"]) == 0
    assert called["probe"] == {
        "model": "m",
        "data": "d",
        "out": Path("o"),
        "folds": None,
        "test_fold": 3,
        "device": "auto",
        "trust_remote_code": False,
        "overwrite": False,
        "config": from_dict(ProbeConfig, {"cache_gb": 2.0, "head": {"kind": "linear"}}),
    }


@pytest.mark.parametrize("turn", [1, -1])
def test_a_shortcut_and_the_fields_of_its_group_do_not_replace_each_other(called, turn: int):
    pairs = [["--data", "clips"], ["--data.workers", "3"], ["--data.clip_seconds", "2.5"]][::turn]
    assert cli.main(["pretrain", *(word for pair in pairs for word in pair)]) == 0
    data = called["pretrain"]["config"].data
    assert (data.path, data.workers, data.clip_seconds) == ("clips", 3, 2.5)


def test_text_stays_text_where_text_is_asked_for(called):
    assert cli.main(["embed", "--model", "1e3", "--data", "2024", "--out", "on.csv", "--layer", "-1"]) == 0
    assert called["embed"]["model"] == "1e3"
    assert called["embed"]["data"] == "2024"
    assert called["embed"]["layer"] == -1
    assert called["embed"]["window_seconds"] is None


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("pretran", ["'pretran'", "did you mean pretrain?"]),
        ("pretrain --encoder.dept 6 --out x", ["--encoder.dept", "did you mean --encoder.depth?"]),
        ("pretrain --depth 6 --out x", ["--depth", "--encoder.depth or --decoder.depth"]),
        ("pretrain --encoder.depth six --out x", ["encoder.depth", "'six'", "int"]),
        ("pretrain --encoder.depth 6.5 --out x", ["encoder.depth", "6.5", "int"]),
        ("pretrain --encoder.gated_attention maybe --out x", ["encoder.gated_attention", "'maybe'", "bool"]),
        ("pretrain --frontend.kind mel --out x", ["kind", "'mel'", "did you mean mel_db?"]),
        ("pretrain --encoder.patch_size [8 --out x", ["--encoder.patch_size", "YAML"]),
        ("pretrain --encoder.patch_size 8 --out x", ["encoder.patch_size", "2 values"]),
        ("pretrain --encoder.heads 7 --out x", ["encoder.heads", "7", "divide"]),
        ("pretrain --resume maybe --out x", ["resume", "'maybe'", "auto, never"]),
        ("pretrain --encoder.depth", ["--encoder.depth", "expected one argument"]),
        ("embed --model m --data d", ["--out", ".parquet"]),
        ("probe --data d --out o", ["--model", "release or run folder"]),
        ("embed out.csv", ["out.csv", "--device"]),
        ("embed --model m --data d --out o --pool max", ["pool", "'max'", "cls"]),
        ("embed --model m --data d --out o --layer last", ["layer", "'last'", "int"]),
        ("embed --config bat_base", ["--config"]),
        ("pretrain --out x --config no_such_recipe", ["no_such_recipe", "YAML file"]),
        (
            "finetune --model m --data d --out x --config demo",
            ["is one to pretrain", "mean finetune/demo?"],
        ),
        ("finetune --model m --data d --out x --config as2k", ["No recipe 'as2k'", "did you mean finetune/as20k?"]),
        ("pretrain --config finetune/as20k --out x", ["finetune/as20k is one to finetune: give a YAML file"]),
        (
            "probe --model m --data d --out x --config demo",
            ["is one to pretrain", "mean demo_probe?"],
        ),
        ("probe --model m --data d --out x --heads cgp,liner", ["heads is 'liner'", "did you mean linear?"]),
        (
            "probe --model m --data d --out x --heads cgp,mine.py:Mine --head.looks 2",
            ["no flag --head.looks (for a setting of mine.py:Mine give --head.kind mine.py:Mine, too)"],
        ),
        (
            "probe --model m --data d --out x --tasks kshot --by_task.retrieval.corpus train",
            ["no flag --by_task.retrieval.corpus (a setting of the task retrieval, which --tasks must name)"],
        ),
        ("probe --model m --data d --out x --tasks kshot --by_task.kshot.shot 2", ["mean --by_task.kshot.shots?"]),
        ("probe --model m --data d --out x --tasks label", ["choose one of labels, asr", "did you mean labels?"]),
        ("pretrain --out x --train.steps 8 --optim.warmup_steps 9", ["--optim.warmup_steps 0 for none"]),
        ("probe --model m --data d --out x --head.kind liner", ["head.kind is 'liner'", "did you mean linear?"]),
        (
            "pretrain --out x --train.steps 500 --optim.warmup_steps 900",
            ["optim.warmup_steps is 900", "--optim.warmup_steps 50 for a tenth"],
        ),
        (
            "finetune --model m --data d --out x --train.steps 500 --optim.warmup_steps 500",
            ["optim.warmup_steps is 500", "--optim.warmup_steps 50 for a tenth"],
        ),
    ],
)
def test_a_mistake_prints_one_sentence_and_exits_with_2(argv: str, words: list[str], capsys, called):
    assert cli.main(argv.split()) == 2
    printed = sentence(capsys)
    assert [word for word in words if word not in printed] == []
    assert called == {}


FUNCTIONS = '''
def join(first: str | Path, others: Sequence[str | Path], out: str | Path | None = None, quiet: bool = False) -> Path:
    """Join tables.

    Args:
        first: the table to join to.
        others: tables to join; with `quiet` nothing
            is printed, and None is a Table.
        out: file to write.
        quiet: print nothing.

    Raises:
        AudiobatError: never.
    """


@contextmanager_of_the_package()
def copy(table: Table | str, out: Path | None = None, *, rows: int = 3, tags: tuple[str, ...] = ()) -> None:
    """Copy a table.

    Args:
        table: the table.
        out: where to.
        rows: how many.
        tags: of the copy.
    """
'''


@pytest.fixture
def places(monkeypatch, called, tmp_path):
    """Two verbs that take arguments by their place; their functions are read and not imported."""
    (tmp_path / "tables.py").write_text(FUNCTIONS)
    monkeypatch.setattr(flags, "PACKAGE", tmp_path)
    for name, given_by_place in (("join", ("first", "others")), ("copy", ("table", "out"))):
        monkeypatch.setitem(audiobat.HOMES, name, "audiobat.tables")
        monkeypatch.setitem(verbs.VERBS, name, verbs.Verb(name, places=given_by_place))
    return called


@pytest.mark.parametrize(
    "argv", ["a b c --quiet --out d", "--quiet a --out=d b c", "--out d a b --quiet c", "--quiet --out d a b c"]
)
def test_arguments_keep_their_order_among_flags(places, argv: str):
    assert cli.main(["join", *argv.split()]) == 0
    assert places["join"] == {"first": "a", "others": ("b", "c"), "out": Path("d"), "quiet": True}


def test_arguments_may_have_a_default(places):
    assert cli.main(["copy", "1e3", "--rows", "-1"]) == 0
    assert places["copy"] == {"table": "1e3", "out": None, "rows": -1, "tags": ()}
    assert cli.main(["copy", "x", "y=z", "--tags", "a,b"]) == 0
    assert places["copy"] == {"table": "x", "out": Path("y=z"), "rows": 3, "tags": ("a", "b")}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("copy", ["needs TABLE", "the table"]),
        ("copy --rows 3", ["needs TABLE"]),
        ("copy a b c", ["cannot place 'c'", "TABLE [OUT]"]),
        ("copy --table a", ["--table", "write TABLE without --"]),
        ("copy a --rows", ["--rows", "expected one argument"]),
        ("join a", ["needs OTHERS"]),
    ],
)
def test_mistakes_with_arguments(places, capsys, argv: str, words: list[str]):
    assert cli.main(argv.split()) == 2
    printed = sentence(capsys)
    assert [word for word in words if word not in printed] == []
    assert places == {}


def test_help_is_what_the_function_says_of_its_arguments(places, capsys):
    assert cli.main(["join", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: audiobat join FIRST OTHERS ... [--flag value ...]" in text
    assert "FIRST the table to join to" in text
    assert "OTHERS tables to join; with --quiet nothing is printed, and null is a Table" in text
    assert text.index("FIRST the") < text.index("--out STR|NULL file to write (default: null)")
    assert text.endswith("--quiet print nothing")
    assert cli.main(["copy", "--help"]) == 0
    assert "audiobat copy TABLE [OUT] [--flag" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "argv",
    [
        "pretrain --seed -1",
        "pretrain --seed 99999999999999999999",
        "pretrain --frontend.f_min -900",
        "pretrain --decoder.kernel_size -3",
        "pretrain --encoder.depth 99999999999999999999",
        "probe --model m --data d --out o --seed -1",
        "probe --model m --data d --out o --train.betas [0.9,2]",
        "probe --model m --data d --out o --train.weight_decay -1",
        "probe --model m --data d --out o --train.min_lr 1",
        "probe --model m --data d --out o --cache_gb -1",
    ],
)
def test_a_number_that_cannot_be_meant_names_its_field(argv: str, capsys, called):
    assert cli.main(argv.split()) == 2
    flag = argv.split()[-2]
    assert flag.removeprefix("--") in sentence(capsys)
    assert not called


def test_recipes_are_compared_by_their_place(capsys):
    assert cli.main(["recipes", "diff", "bat_base", "bat_base_released"]) == 0
    assert "encoder.pad\n" in capsys.readouterr().out
    assert cli.main(["recipes"]) == 0
    assert "bat_base_released " in capsys.readouterr().out
    assert cli.main(["recipes", "diff", "bat_base"]) == 2
    assert "diff takes 2 recipes, not 1" in sentence(capsys)


def test_an_error_of_the_function_prints_one_sentence(monkeypatch, capsys):
    def broken(error: BaseException):
        def doctor(**_):
            raise error

        monkeypatch.setitem(vars(audiobat), "doctor", doctor)
        return cli.main(["doctor"])

    assert broken(AudiobatError("Clip a.wav is\ndamaged: copy it again.")) == 2
    assert sentence(capsys) == "audiobat: Clip a.wav is damaged: copy it again.\n"
    assert broken(PermissionError(13, "Permission denied", "/x/y")) == 2
    assert sentence(capsys) == "audiobat: /x/y: Permission denied: look who may read and write there.\n"
    assert broken(FileExistsError(17, "File exists", "/x/y")) == 2
    assert "a file is where a folder should be, so remove it or give another --out" in sentence(capsys)
    assert broken(OSError(28, "No space left on device")) == 2  # a write to an open file names none
    expected = "audiobat: Writing failed: No space left on device: make room there and run the same command again.\n"
    assert sentence(capsys) == expected
    assert broken(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")) == 2
    assert "killed by signal: Killed): if memory ran out, use fewer data.workers" in sentence(capsys)
    with pytest.raises(RuntimeError):  # of code in such a process: a defect
        broken(RuntimeError("Caught RuntimeError in DataLoader worker process 0."))
    assert broken(KeyboardInterrupt()) == 130
    assert sentence(capsys) == "audiobat: stopped.\n"
    with pytest.raises(ZeroDivisionError):  # a defect of ours keeps its traceback
        broken(ZeroDivisionError())


def test_a_warning_of_ours_is_a_sentence_and_one_of_others_is_as_they_show_it(monkeypatch, capsys):
    def warn(**_):
        ours, theirs = (str(Path(module.__file__)) for module in (audiobat, pytest))
        shown = [warnings.formatwarning("It is so.", UserWarning, file, 7) for file in (ours, theirs)]
        print(*shown, sep="", end="")

    monkeypatch.setitem(vars(audiobat), "doctor", warn)
    assert cli.main(["doctor"]) == 0
    ours, theirs, *_ = capsys.readouterr().out.splitlines()
    assert ours == "audiobat: It is so."
    assert "UserWarning: It is so." in theirs


def help_of(capsys, *argv: str) -> str:
    assert cli.main(list(argv)) == 0
    return " ".join(capsys.readouterr().out.split())


def test_all_help_lists_every_flag_and_field_with_its_default(capsys):
    text = help_of(capsys, "pretrain", "--help-all")
    for flag in ("--resume {auto,never}", "--dry-run", "--config NAME|PATH", "--data STR|NULL", "--seed INT"):
        assert flag in text
    assert "--encoder.mlp_ratio FLOAT (default: 4.0)" in text
    assert "--target.layers INT|NULL average the top `layers` blocks; null: all (default: null)" in text
    assert "--optim.betas FLOAT,FLOAT (default: 0.9,0.95)" in text
    assert "--data.roll BOOL circular roll of the waveform; the paper names none; true: the release's" in text
    single = ("init", "init_optimizer")
    groups = {g.name: g.default_factory for g in dataclasses.fields(PretrainConfig) if g.name not in single}
    fields = [f"--{name.replace('_', '-')} " for name in single]
    fields += [f"--{name}.{f.name} " for name, group in groups.items() for f in dataclasses.fields(group)]
    assert [field for field in fields if field not in text] == []


@pytest.mark.parametrize("kinds", [{}, {"head.kind": "linear"}, {"head.kind": "cgp"}])
def test_defaults_in_help_are_those_of_the_verb(kinds: dict[str, object]):
    """Fine-tuning shares its head and its augmentation with other verbs, but not their defaults."""
    head = {"kind": kinds["head.kind"]} if kinds else {}
    wanted = flatten(to_dict(from_dict(FinetuneConfig, {"head": head})))
    shown = {name: flag.default for name, flag in flags.flags_of("finetune", kinds).items() if flag.field == name}
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}
    del wanted["head.kind"], lists["head.kind"]  # help of --head.kind has the default, and not what is given
    assert lists == wanted
    assert flags.flags_of("finetune")["head.kind"].default == "linear"


@pytest.mark.parametrize("name", [name for name, verb in verbs.VERBS.items() if verb.config])
def test_help_shows_the_flags_that_matter_and_where_the_rest_are(name: str, capsys):
    brief, everything = help_of(capsys, name, "--help"), help_of(capsys, name, "--help-all")
    shown = []
    for flag in flags.flags_of(name).values():
        assert f" {flag.shown} " in everything
        if f" {flag.shown} " in brief:
            shown.append(flag)
        else:
            assert flag.field is not None
            assert flag.name not in verbs.VERBS[name].settings
    assert len(shown) <= 36
    assert f"audiobat {name} --help-all" in brief


USER_DECODER = '''
from dataclasses import dataclass
from audiobat.config import DecoderConfig

class Mine:
    """A decoder of a user's own."""

    @dataclass(frozen=True)
    class Config(DecoderConfig):
        """What a user set."""

        smoothing: float = 0.1  # how much of the frame before
        names: tuple[str, ...] = ()

    @classmethod
    def build(cls, config, model, width):
        return cls()

    def forward(self, tokens, masks, grid, valid=None):
        return tokens
'''


def test_a_group_without_a_docstring_has_the_caption_of_its_base():
    @dataclasses.dataclass(frozen=True)
    class Own(DecoderConfig):
        hidden: int = 3

    assert flags.caption_of(Own) == flags.caption_of(DecoderConfig) == str(DecoderConfig.__doc__)


def test_the_fields_of_a_users_own_kind_are_flags(tmp_path: Path, monkeypatch, capsys, called):
    (tmp_path / "mine.py").write_text(USER_DECODER)
    monkeypatch.chdir(tmp_path)
    recipe = write(tmp_path / "recipe.yaml", decoder={"kind": "mine.py:Mine", "smoothing": 0.3})
    for argv in ("--decoder.kind mine.py:Mine --decoder.smoothing 0.02", f"--config {recipe} --decoder.smoothing 0.02"):
        assert cli.main(["pretrain", *argv.split(), "--decoder.names", "a,b"]) == 0
        decoder = called["pretrain"]["config"].decoder
        assert (type(decoder).__qualname__, decoder.smoothing, decoder.names) == ("Mine.Config", 0.02, ("a", "b"))
    text = help_of(capsys, "pretrain", "--help-all", "--decoder.kind", "mine.py:Mine")
    assert "--decoder.kind {cnn,vit,FILE.py:CLASS} (default: vit)" in text
    assert "--decoder.smoothing FLOAT how much of the frame before (default: 0.1)" in text
    assert "--decoder.smoothing FLOAT" in help_of(capsys, "pretrain", "--help", "--decoder.kind", "mine.py:Mine")
    called.clear()
    for argv, hint in (
        ("--decoder.kind mine.py:Mine --decoder.smothing 1", "did you mean --decoder.smoothing?"),
        ("--decoder.kind mine.py:Nine", "mine.py defines no Nine (did you mean Mine?)"),
        ("--decoder.kind vot", "decoder.kind is 'vot': choose one of cnn, vit (did you mean vit?)"),
        ("--decoder.smoothing 1", "has no flag --decoder.smoothing"),
        ("--decoder.kind mine.py:Mine --decoder.smoothing much", "decoder.smoothing is 'much'"),
    ):
        assert cli.main(["pretrain", *argv.split()]) == 2
        assert hint in sentence(capsys)
    assert called == {}


def test_every_verb_is_in_the_overview(capsys):
    assert cli.main([]) == 0
    overview = capsys.readouterr().out
    assert [name for name in verbs.VERBS if f"  {name} " not in overview] == []


@pytest.mark.parametrize("name", verbs.VERBS)
def test_a_verb_is_a_function_with_the_arguments_that_its_flags_name(name: str):
    arguments = inspect.signature(getattr(audiobat, name)).parameters
    verb = verbs.VERBS[name]
    own = {flag.name: flag for flag in flags.flags_of(name).values() if flag.field is None}
    assert set(arguments) == set(own)
    for argument in set(arguments) - {"config"}:
        default = arguments[argument].default
        wanted = dataclasses.MISSING if default is inspect.Parameter.empty else default
        assert own[argument].default == verb.defaults.get(argument, wanted)
    assert ("config" in arguments) == (verb.config is not None)


@pytest.mark.parametrize("name", verbs.VERBS)
def test_the_table_of_verbs_names_arguments_and_fields_that_exist(name: str):
    verb, known = verbs.VERBS[name], flags.flags_of(name)
    assert {*verb.settings, *verb.shortcuts.values()} <= {flag.field for flag in known.values()}
    assert {*verb.places, *verb.defaults} <= {flag.name for flag in known.values() if flag.field is None}


def test_values_of_each_type_arrive_as_such(called):
    argv = "pretrain --optim.betas 0.8,0.9 --encoder.patch_size [8,8] --encoder.gate_bias false --init null"
    assert cli.main([*argv.split(), "--optim.lr", "1e-3"]) == 0
    config = called["pretrain"]["config"]
    assert (config.optim.betas, config.encoder.patch_size, config.optim.lr) == ((0.8, 0.9), (8, 8), 1e-3)
    assert (config.encoder.gate_bias, config.init) == (False, None)
    assert cli.main(["predict", "--model", "m", "--out", "o.csv", "--data", "a.wav", "b,c.wav"]) == 0
    assert called["predict"]["data"] == ("a.wav", "b,c.wav")
    assert cli.main(["benchmark", "--config", "benchmark/table1", "--only", "BAT,esc50"]) == 0
    assert called["benchmark"]["only"] == ("BAT", "esc50")


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "audiobat", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "pretrain" in done.stdout
    assert " torch" not in done.stderr


def test_module_passes_its_exit_code_on():
    done = subprocess.run([sys.executable, "-m", "audiobat", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("audiobat: No verb 'nonsense'")


# Recipes


def write(path: Path, **fields) -> Path:
    path.write_text(yaml.safe_dump(fields))
    return path


def test_a_recipe_inherits_field_by_field(tmp_path: Path):
    write(tmp_path / "a.yaml", encoder={"dim": 8, "depth": 2}, train={"steps": 5})
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "b.yaml", base="../a.yaml", encoder={"depth": 3})
    last = write(tmp_path / "c.yaml", base="sub/b.yaml", train={"seed": 1})
    assert recipes.load_recipe(last) == {"encoder": {"dim": 8, "depth": 3}, "train": {"steps": 5, "seed": 1}}


def test_recipes_are_addressed_by_name(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    (tmp_path / "ladder").mkdir()
    write(tmp_path / "bat_base.yaml", encoder={"depth": 4})
    write(tmp_path / "ladder" / "x.yaml", base="bat_base", mask={"clones": 2})
    assert recipes.recipe_names() == ["bat_base", "ladder/x"]
    assert recipes.load_recipe("ladder/x") == {"encoder": {"depth": 4}, "mask": {"clones": 2}}
    with pytest.raises(AudiobatError, match=r"'bat_bse' \(did you mean bat_base\?\).* bat_base, ladder/x"):
        recipes.load_recipe("bat_bse")


def test_bad_recipes_say_where(tmp_path: Path):
    circle = write(tmp_path / "circle.yaml", base="circle.yaml")
    with pytest.raises(AudiobatError, match=r"circle\.yaml is its own base"):
        recipes.load_recipe(circle)
    for text, words in (
        ("a: [1,\nb: 2", r"bad\.yaml line 2"),
        ("- 1", "holds no fields"),
        ("a: !!python/none", "YAML"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(AudiobatError, match=words):
            recipes.load_recipe(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(AudiobatError, match="cannot be read"):
        recipes.load_recipe(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("text", "value"), [("5e-4", 5e-4), ("1E3", 1e3), ("-2e+1", -20.0), ("2.", 2.0), ("6", 6), ("e4", "e4")]
)
def test_numbers_in_recipes_are_numbers(text: str, value: object):
    parsed = recipes.parse_yaml(f"a: {text}", "x")["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("name", recipes.recipe_names())
def test_every_shipped_recipe_is_a_config(name: str):
    fields = recipes.load_recipe(name)
    kinds = {"pretrain": PretrainConfig, "probe": ProbeConfig, "finetune": FinetuneConfig, "benchmark": BenchmarkConfig}
    kinds["suite"] = SuiteConfig
    config = from_dict(kinds[recipes.kind_of(name)], fields)
    assert from_dict(type(config), to_dict(config)) == config


def test_a_group_that_comes_twice_is_an_error_not_half_a_recipe(tmp_path: Path):
    recipe = tmp_path / "twice.yaml"
    recipe.write_text("train:\n  steps: 5\nencoder:\n  depth: 2\ntrain:\n  batch_size: 3\n")
    with pytest.raises(AudiobatError, match=r"twice\.yaml line 5 .* train comes twice"):
        recipes.load_recipe(recipe)


def test_a_mistake_in_a_recipe_names_its_file_and_one_in_a_flag_does_not(tmp_path: Path, capsys, called):
    base = ["probe", "--model", "m", "--data", "d", "--out", "o"]
    typo = write(tmp_path / "typo.yaml", head={"knd": "linear"})
    assert cli.main([*base, "--config", str(typo)]) == 2
    assert sentence(capsys) == f"audiobat: {typo}: Unknown field head.knd (did you mean kind?).\n"
    good = write(tmp_path / "good.yaml", head={"kind": "linear"})
    assert cli.main([*base, "--config", str(good), "--head.layer", "0"]) == 2
    assert sentence(capsys).startswith("audiobat: head.layer is 0")
    assert cli.main([*base, "--config", str(typo), "--head.layer", "0"]) == 2
    assert str(typo) in sentence(capsys)
    assert called == {}


def test_recipes_are_listed_for_the_verbs_that_take_them(capsys):
    taken = {"pretrain": "pretrain", "finetune": "finetune", "probe": "probe", "analyze": "probe", "ladder": "probe"}
    taken |= {"benchmark": "benchmark", "suite": "suite"}
    for verb, kind in taken.items():
        assert f"a recipe ({', '.join(recipes.recipe_names(kind))}), or" in help_of(capsys, verb, "--help")
    kinds = [recipes.recipe_names(kind) for kind in ("pretrain", "finetune", "probe", "benchmark", "suite")]
    assert sorted(name for names in kinds for name in names) == recipes.recipe_names()
    assert "demo_probe" in kinds[2]


def test_help_tells_of_a_field_what_stands_beside_it_in_the_code(capsys):
    text = help_of(capsys, "probe", "--help-all")
    for words in (
        "--heads STR,... kinds trained side by side, each otherwise as `head`; none: `head` alone (default: none)",
        "--layers besides, a linear probe of every block",
        "--seeds INT,... one record for each; none: `train.seed` alone",
        "--preset {paper,released,fair} whose settings these are meant to be",
        "--preset_task STR|NULL column of the preset's table; null: by the data set's name",
        "--grid.prototypes INT,... of the heads that have prototypes",
        "--grid.choose BOOL lr and weight decay: keep the best on a held-out tenth",
        "--cache_gb FLOAT memory for frozen features; more than that, up to 64 GB and half of what is free, go to "
        "OUT/features, and what fits neither is computed again for every batch; 0: always again (default: 8.0)",
    ):
        assert words.replace("_", "-", 1) in text or words in text, words
    text = help_of(capsys, "finetune", "--help-all")
    assert (
        "patches, cls and stem norm are the slowest layer; released: the stem norm is as fast as the head; eat:" in text
    )
    assert "--optim.min_lr FLOAT also where the warm-up starts" in text  # inherited


@pytest.mark.parametrize("verb", ["finetune", "probe", "analyze"])
@pytest.mark.parametrize(("text", "labels"), [("no,007, null", ("no", "007", "null")), ('["a, b"]', ("a, b",))])
def test_labels_are_text_whatever_yaml_takes_them_for(called, verb: str, text: str, labels: tuple[str, ...]):
    argv = ["--model", "m", "--data", "d", "--out", "o", "--label-column", "Species", "--map", "names.csv"]
    assert cli.main([verb, *argv, "--background", text]) == 0
    assert called[verb]["config"].labels == LabelConfig("Species", labels, "names.csv")
    assert cli.main(["describe", "d", "--background", text]) == 0
    assert called["describe"]["background"] == labels
