"""The command `audiobat VERB --flags`: flags over a recipe over the defaults become the arguments of a verb's function.

A verb is one dataclass below, whose fields are its flags, and the function of its name in `audiobat/commands/`.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib
import sys
from argparse import SUPPRESS
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from audiobat import __version__
from audiobat.commands.benchmark_config import BenchmarkConfig
from audiobat.config import (
    FinetuneConfig,
    FrontendConfig,
    PrepareConfig,
    PretrainConfig,
    ProbeConfig,
    check_choice,
    from_dict,
)
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.field_help import help_of
from audiobat.presets import fields_for
from audiobat.recipes import check_recipe, load_recipe, merge, parse_yaml, recipe_names

OURS = "a release or run folder, shipped weights by name, hub:OWNER/NAME, \
a checkpoint of BAT, EAT, SSLAM, Audio-MAE or BEATs"
MODEL = f"{OURS}, hf:NAME_OR_FOLDER, or my_file.py:MyEncoder"
CLIPS = "a folder, a CSV or Parquet file with a path column, prepared shards, or NAME:FOLDER of a public data set"
TRUST = "let a Hugging Face model run the Python files that come with it"
DEVICE = "auto: a GPU if there is one; or cpu, cuda, cuda:1"
OVERWRITE = "replace what --out already holds"
KINDS: dict[type | None, str] = {
    PretrainConfig: "pretrain",
    ProbeConfig: "probe",
    FinetuneConfig: "finetune",
    BenchmarkConfig: "benchmark",
}
ARGUMENTS, FLAGS = ("arguments", ""), ("flags", "")  # groups of help
WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE)  # errors of writing, which name no file


def flag(help_line: str, default: Any = dataclasses.MISSING) -> Any:
    """A field of a verb, with its line of help; without a default the flag is required."""
    return field(default=default, metadata={"help": help_line})


def argument(help_line: str, default: Any = dataclasses.MISSING) -> Any:
    """A field of a verb that is given by its place, not by a flag; a `tuple[str, ...]` takes all words left."""
    return field(default=default, metadata={"help": help_line, "positional": True})


def words(help_line: str, default: Any = dataclasses.MISSING) -> Any:
    """A flag of type `tuple[str, ...]` that takes all words up to the next flag, as the shell gives them."""
    return field(default=default, metadata={"help": help_line, "words": True})


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What verbs share; a field `config` also opens --config and every field of that config as a flag."""

    shortcuts: ClassVar[dict[str, str]] = {}  # flag: the config field that it sets

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for f in dataclasses.fields(self):
            if get_origin(hints[f.name]) is Literal:
                check_choice(self, f.name)

    @classmethod
    def base(cls, own: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
        """Config fields that lie below those given, `config`; `own` are the verb's own flags."""
        return {}

    @classmethod
    def taken(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        """The config fields that the verb takes from a recipe."""
        return recipe


@dataclass(frozen=True, kw_only=True)
class Doctor(Verb):
    """Check this installation; with --model, whether it keeps the rules of an encoder; with FILE, what that is."""

    file: str | None = argument(
        "a checkpoint, a release or a run, to say what it is, what it holds and whether it is safe", None
    )
    model: str | None = flag(f"a model to check: {MODEL}", None)
    device: str = flag(DEVICE, "auto")
    trust_remote_code: bool = flag(TRUST, False)


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """Pre-train, probe and report on real audio that the package carries: offline, in minutes."""

    out: str = flag("folder to write", "runs/demo")
    seconds: float = flag("how long the live pre-training runs", 120.0)
    seed: int = flag("of the weights, the masks and the scenes", 0)


@dataclass(frozen=True, kw_only=True)
class Prepare(Verb):
    """Decode, mix to mono, resample and pack clips into shards that load fast; goes on where it was stopped."""

    source: str = argument(f"{CLIPS}; NAME alone prints where to get it")
    out: str | None = argument("folder to write; with --stats a .json file", None)
    sample_rate: int = flag("of the shards, Hz", 16_000)
    encoding: Literal["flac", "pcm"] = flag("16-bit FLAC, or raw samples: twice the size, many times faster", "flac")
    window_seconds: float | None = flag("cut clips into windows of this length; null: leave them whole", None)
    hop_seconds: float | None = flag("step between windows; null: the window", None)
    part: str | None = flag("3/16: do the third of sixteen parts, the others on other machines", None)
    workers: int | None = flag("processes; null: one for each core", None)
    overwrite: bool = flag("begin anew, whatever was prepared in OUT", False)
    dry_run: bool = flag("describe SOURCE and the plan, and stop", False)
    stats: bool = flag("in place of shards: mean and std of the log-mel, for a frontend with global statistics", False)
    config: PrepareConfig = field(default_factory=PrepareConfig)

    @classmethod
    def taken(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        """The frontend of any recipe or run, which has mel_db where it names none."""
        return merge({"frontend": {"kind": FrontendConfig.kind}}, {"frontend": recipe.get("frontend", {})})


@dataclass(frozen=True, kw_only=True)
class Pretrain(Verb):
    """Pre-train an encoder by masked latent regression."""

    shortcuts: ClassVar = {
        "data": "data.path",
        "device": "train.device",
        "precision": "train.precision",
        "seed": "train.seed",
    }
    out: str = flag("run folder to write", "runs/pretrain")
    resume: Literal["auto", "never"] = flag("auto: go on from the last checkpoint in --out", "auto")
    overwrite: bool = flag(OVERWRITE, False)
    dry_run: bool = flag("print the plan and stop", False)
    max_seconds: float | None = flag("stop, with a checkpoint, after this long", None)
    config: PretrainConfig = field(default_factory=PretrainConfig)


@dataclass(frozen=True, kw_only=True)
class Probe(Verb):
    """Train probes on the frozen features of a model, all in one pass, and write their result records."""

    shortcuts: ClassVar = {"seed": "train.seed", "cache": "cache_dir"}
    model: str = flag(MODEL)
    data: str = flag(f"clips with labels: {CLIPS}")
    out: str = flag("folder to write")
    test_fold: int | None = flag("the fold to test on, where clips have folds in place of splits", None)
    device: str = flag(DEVICE, "auto")
    trust_remote_code: bool = flag(TRUST, False)
    overwrite: bool = flag(OVERWRITE, False)
    config: ProbeConfig = field(default_factory=ProbeConfig)

    @classmethod
    def base(cls, own: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
        """The fields of the preset that is named, or that suits the data; recipe and flags go over them."""
        return fields_for(own.get("data", ""), config.get("preset"), config.get("preset_task"))


@dataclass(frozen=True, kw_only=True)
class Analyze(Probe):
    """Look into a model: blocks, ranks, attention sinks and prototypes, as numbers and figures."""

    data: str = flag(f"clips, with labels for probes and prototypes: {CLIPS}")
    clips: int = flag("how many, of the test split if there is one, are looked at besides the probes", 512)
    views: int = flag("of each clip, for LiDAR; fewer than 2 leave it out", 16)
    pictures: int = flag("of how many best and of how many worst classes the prototypes are drawn", 3)


@dataclass(frozen=True, kw_only=True)
class Finetune(Verb):
    """Train a model with a head on labelled clips; test it, and keep it as a release that tags."""

    shortcuts: ClassVar = {"device": "train.device", "precision": "train.precision", "seed": "train.seed"}
    model: str = flag(MODEL.partition(", hf:")[0])
    data: str = flag(f"clips with labels: {CLIPS}")
    out: str = flag("run folder to write")
    test_fold: int | None = flag("the fold to test on, where clips have folds; null: each in turn", None)
    resume: Literal["auto", "never"] = flag("auto: go on from the last checkpoint in --out", "auto")
    overwrite: bool = flag(OVERWRITE, False)
    dry_run: bool = flag("print clips, labels and learning rates, and stop", False)
    max_seconds: float | None = flag("stop, with a checkpoint, after this long", None)
    config: FinetuneConfig = field(default_factory=FinetuneConfig)


@dataclass(frozen=True, kw_only=True)
class Ladder(Verb):
    """Climb from EAT's recipe to BAT's, probe every rung, and print Tables 2 to 4 beside the paper's numbers."""

    data: str = flag(f"clips to pre-train on: {CLIPS}")
    probe_data: str = flag("clips with labels to probe on, from any of the same sources")
    out: str = flag("folder to write, or to go on in", "runs/ladder")
    scale: Literal["nano", "small", "base"] = flag(
        "the networks and batches of bat_nano, bat_small or bat_base", "nano"
    )
    steps: int | None = flag("of pre-training, warm-up and EMA shortened with them; null: the scale's own", None)
    device: str = flag(DEVICE, "auto")
    dry_run: bool = flag("print the rungs and what each changes, and stop", False)
    config: ProbeConfig = field(default_factory=ProbeConfig)


@dataclass(frozen=True, kw_only=True)
class Benchmark(Verb):
    """Run Table 1 or 5 as far as weights and data are here, and print it beside the paper's numbers."""

    models: tuple[str, ...] = words("NAME=PATH of weights; those of a new name are a new line", ())
    data: tuple[str, ...] = words("NAME=PATH of data sets: a folder, prepared shards, or NAME:FOLDER", ())
    out: str = flag("folder to write, or to go on in", "runs/benchmark")
    only: tuple[str, ...] = flag("run no more than the cells of these models, data sets and protocols", ())
    device: str = flag(DEVICE, "auto")
    overwrite: bool = flag("begin the cells anew that --out holds, of those that are asked for", False)
    dry_run: bool = flag("print what can run, what is missing and where to get it, the GPU hours, and stop", False)
    config: BenchmarkConfig = field(default_factory=BenchmarkConfig)


@dataclass(frozen=True, kw_only=True)
class Embed(Verb):
    """Embed audio files of any length: one row for each window."""

    model: str = flag(MODEL)
    data: str = flag(f"an audio file, a .txt list of files, or {CLIPS}")
    out: str = flag("table to write: .parquet, .npz or .csv")
    layer: int = flag("block to read: 1 to the model's depth, or -1 for the last", -1)
    pool: Literal["mean", "cls"] = flag("mean over patches, or the cls token", "mean")
    window_seconds: float | None = flag("length of a window; null: the model's longest clip", None)
    hop_seconds: float | None = flag("step between windows; null: the window", None)
    batch_size: int = flag("windows computed at once", 16)
    workers: int = flag("threads that decode ahead; 0: none", 2)
    device: str = flag(DEVICE, "auto")
    trust_remote_code: bool = flag(TRUST, False)
    overwrite: bool = flag(OVERWRITE, False)


@dataclass(frozen=True, kw_only=True)
class Predict(Verb):
    """Label audio files of any length: one row for each window and label, or for each event."""

    model: str = flag("a release folder with a head, or the run that made it")
    data: tuple[str, ...] = words(f"audio files, .txt lists of files, or {CLIPS}")
    out: str = flag("file to write; Audacity and Raven: a folder, where there are several recordings")
    top: int | None = flag("at most so many labels of a window; null: 1 if they exclude each other, else all", None)
    threshold: float | None = flag("only scores above it; null: 0.3 for events, 0.5 for many labels, else none", None)
    median: int | None = flag("frames under the filter of events, odd; null: 3", None)
    format: Literal["auto", "csv", "parquet", "jsonl", "audacity", "raven"] = flag(
        "auto: by the ending of --out: .csv, .parquet, .jsonl, .txt (Audacity), .selections.txt (Raven)", "auto"
    )
    window_seconds: float | None = flag("length of a window; null: the model's longest clip", None)
    hop_seconds: float | None = flag("step between windows; null: the window", None)
    batch_size: int = flag("windows computed at once", 16)
    workers: int = flag("threads that decode ahead; 0: none", 2)
    device: str = flag(DEVICE, "auto")
    overwrite: bool = flag(OVERWRITE, False)


@dataclass(frozen=True, kw_only=True)
class Export(Verb):
    """Write a model to share or to run elsewhere: a release with its card, ONNX, or a folder for transformers."""

    model: str = flag(OURS)
    to: Literal["release", "onnx", "transformers"] = flag("what to write")
    out: str = flag("folder to write, or the file of ONNX")
    push: str | None = flag("OWNER/NAME on the Hugging Face Hub: put the folder there too", None)
    private: bool = flag("let only its owner see it there, if it is new", False)
    overwrite: bool = flag(OVERWRITE, False)


@dataclass(frozen=True, kw_only=True)
class Report(Verb):
    """Make tables, figures and one page that needs no network from result records."""

    runs: tuple[str, ...] = argument("folders that `audiobat probe` wrote, of any depth, or record files")
    out: str = flag("folder to write")
    overwrite: bool = flag(OVERWRITE, False)


@dataclass(frozen=True, kw_only=True)
class Compare(Verb):
    """Compare result records of the same test clips: differences, their 95% intervals, and how sure they are."""

    records: tuple[str, ...] = argument("result records, or folders that hold some, such as those of runs")
    metric: str | None = flag("the metric to compare, by its name in the records; null: the main one", None)
    samples: int = flag("resamples of the test clips", 10_000)
    seed: int = flag("of the resamples", 0)


VERBS: dict[str, type[Verb]] = {
    verb.__name__.lower(): verb
    for verb in (
        *(Doctor, Demo, Prepare, Pretrain, Probe, Finetune, Analyze, Ladder, Benchmark),
        *(Compare, Embed, Predict, Export, Report),
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    try:
        run(list(sys.argv[1:] if argv is None else argv))
    except AudiobatError as error:
        return fail(str(error))
    except OSError as error:
        if error.filename is None and error.errno not in WRITING:
            raise
        return fail(f"{error.filename or 'Writing failed'}: {error.strerror}.")
    except KeyboardInterrupt:
        print("audiobat: stopped.", file=sys.stderr)
        return 130
    return 0


def fail(sentence: str) -> int:
    """Print one sentence to stderr and return the exit code 2."""
    print(f"audiobat: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def run(argv: list[str]) -> None:
    """Parse `argv`, then import and call the verb's function; torch is imported no earlier."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(overview())
    elif name in ("-V", "--version"):
        print(f"audiobat {__version__}")
    elif name not in VERBS:
        raise AudiobatError(f"No verb {name!r}{did_you_mean(name, VERBS)}: choose one of {', '.join(VERBS)}.")
    elif {"-h", "--help"} & set(argv[1:]):
        build_parser(name).print_help()
    else:
        verb = parse(name, argv[1:])
        arguments = {f.name: getattr(verb, f.name) for f in dataclasses.fields(verb)}
        if arguments.get("out") is not None:
            arguments["out"] = Path(arguments["out"])
        getattr(importlib.import_module(f"audiobat.commands.{name}"), name)(**arguments)


def overview() -> str:
    """Every verb with its line."""
    verbs = [f"  {name:<10}{verb.__doc__}" for name, verb in VERBS.items()]
    end = "audiobat VERB --help lists the flags of a verb."
    return "\n".join(["usage: audiobat VERB [--flag value ...]", "", *verbs, "", end])


def parse(name: str, argv: list[str]) -> Verb:
    """Fill the dataclass of verb `name` from its defaults, the recipe of --config and the flags: the last one wins.

    Raises AudiobatError for an unknown or missing flag, an unknown recipe or field, or a bad value.
    """
    verb = VERBS[name]
    known = options(verb)
    given = flags_given(name, argv)
    own: dict[str, Any] = {}
    recipe_name = given.pop("config", None)
    recipe = read_recipe(verb, recipe_name) if recipe_name is not None else {}
    config = recipe
    for flag_name, text in given.items():
        field_path = verb.shortcuts.get(flag_name, flag_name)
        value = typed(known[flag_name], text)
        if flag_name in {f.name for f in dataclasses.fields(verb)}:
            own[flag_name] = value
        else:
            config = merge(config, nest(field_path, value))
    for f in dataclasses.fields(verb):
        if f.name not in own and f.default is f.default_factory is dataclasses.MISSING:
            wanted = known[f.name].shown_name
            raise AudiobatError(f"audiobat {name} needs {wanted}: {f.metadata['help']}.")
    parsed = from_dict(verb, own)
    config_class = config_of(verb)
    if config_class is None:
        return parsed
    try:
        built: Any = from_dict(config_class, merge(verb.base(own, config), config))
    except AudiobatError as error:
        mistaken = str(error) == complaint(config_class, merge(verb.base(own, recipe), recipe))
        raise AudiobatError(f"{recipe_name}: {error}" if mistaken and recipe else str(error)) from None
    return dataclasses.replace(parsed, config=built)  # type: ignore[call-arg]


def read_recipe(verb: type[Verb], name: str) -> dict[str, Any]:
    """The fields that the verb takes of a recipe of its kind."""
    check_recipe(name, KINDS.get(config_of(verb)))
    return verb.taken(load_recipe(name))


def complaint(config_class: type, fields: dict[str, Any]) -> str:
    """What is wrong with these fields, nothing else being said."""
    try:
        from_dict(config_class, fields)
    except AudiobatError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Option:
    """One flag or argument: its type, its default, its line of help, and the group under which help shows it."""

    name: str
    hint: Any
    default: Any
    help: str = ""
    group: tuple[str, str] = FLAGS  # title and line
    words: bool = False  # whether it takes all words up to the next flag

    @property
    def positional(self) -> bool:
        """Whether its place tells it, not a flag."""
        return self.group == ARGUMENTS

    @property
    def is_switch(self) -> bool:
        """Whether it is a flag without a value."""
        return self.hint is bool and "." not in self.name

    @property
    def shown_name(self) -> str:
        """As help shows it: `--dry-run`, or `SOURCE` of what is given by its place."""
        return self.name.upper() if self.positional else spell(self.name)

    @property
    def usage(self) -> str:
        """An argument as the line of usage shows it: `SOURCE`, `[OUT]`, `RECORDS ...`."""
        name = self.shown_name + (" ..." if is_list(self.hint) else "")
        return name if self.default is dataclasses.MISSING else f"[{name}]"


def options(verb: type[Verb]) -> dict[str, Option]:
    """All a verb takes, by name: its own fields, --config, the shortcuts, and the config's fields."""
    hints = get_type_hints(verb)
    found = [
        Option(
            f.name,
            hints[f.name],
            f.default,
            f.metadata["help"],
            ARGUMENTS if "positional" in f.metadata else FLAGS,
            "words" in f.metadata,
        )
        for f in dataclasses.fields(verb)
        if f.name != "config"
    ]
    config_class = config_of(verb)
    if config_class:
        names = ", ".join(recipe_names(KINDS.get(config_class)))
        found.append(
            Option(
                "config", str, dataclasses.MISSING, f"a recipe ({names}) or the path of a YAML file of config fields"
            )
        )
        fields = {option.name: option for option in config_options(config_class)}
        for name, path in verb.shortcuts.items():
            found.append(dataclasses.replace(fields[path], name=name, help=f"same as --{path}", group=FLAGS))
        found.extend(fields.values())
    return {option.name: option for option in found}


def config_options(config_class: type, prefix: str = "", group: tuple[str, str] = ("config", "")) -> Iterator[Option]:
    """Every field of a config dataclass, nested ones as `encoder.depth`; mappings are for recipes alone."""
    hints = get_type_hints(config_class)
    for f in dataclasses.fields(config_class):
        hint = hints[f.name]
        if dataclasses.is_dataclass(hint):
            path = prefix + f.name
            yield from config_options(hint, f"{path}.", (path, hint.__doc__ or ""))  # type: ignore[arg-type]
        elif get_origin(hint) is not Mapping:
            yield Option(prefix + f.name, hint, f.default, help_of(config_class, f.name), group)


def config_of(verb: type[Verb]) -> type | None:
    """The config class of a verb that has one."""
    hint: type | None = get_type_hints(verb).get("config")
    return hint


def build_parser(name: str) -> ArgumentParser:
    """The parser of verb `name`; it keeps values as text, so that one place, `from_dict`, judges flags and recipes."""
    known = options(VERBS[name])
    places = [option.usage for option in known.values() if option.positional]
    parser = ArgumentParser(
        prog=f"audiobat {name}",
        usage=" ".join(["audiobat", name, *places, "[--flag value ...]"]),
        description=VERBS[name].__doc__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    groups: dict[tuple[str, str], Any] = {}
    for option in known.values():
        group = groups.get(option.group) or groups.setdefault(option.group, parser.add_argument_group(*option.group))
        told = option.help.replace("%", "%%") or "default: %(default)s"
        names: dict[str, Any] = {"dest": flat(option.name), "help": told}
        if option.positional:
            many = "*" if is_list(option.hint) else "?"
            group.add_argument(option.name, metavar=option.shown_name, nargs=many, default=SUPPRESS, help=option.help)
        elif option.is_switch:
            group.add_argument(spell(option.name), action="store_true", **names)
        elif option.words:
            group.add_argument(spell(option.name), metavar="STR", nargs="+", default=SUPPRESS, **names)
        elif option.default is dataclasses.MISSING:
            group.add_argument(spell(option.name), metavar=type_name(option.hint), default=SUPPRESS, **names)
        else:
            names["default"] = shown(option.default)
            group.add_argument(spell(option.name), metavar=type_name(option.hint), **names)
    return parser


def flags_given(name: str, argv: list[str]) -> dict[str, Any]:
    """The flags on the command line and their values as text (True for a switch), and the arguments beside them."""
    known = options(VERBS[name])
    flags = {plain(spell(option.name)): option for option in known.values() if not option.positional}
    spelled: list[str] = []
    words: list[str] = []
    tokens = deque(argv)
    while tokens:
        token = tokens.popleft()
        word, equals, value = token.partition("=")
        if not word.startswith("--"):
            words.append(token)
            continue
        if plain(word) not in flags:
            raise AudiobatError(
                f"audiobat {name} has no flag {word}{flag_hint(word, known)}: `audiobat {name} --help` lists them."
            )
        option = flags[plain(word)]
        if option.words:
            taken = [value] if equals else []
            while tokens and not tokens[0].startswith("--"):
                taken.append(tokens.popleft())
            spelled.extend([spell(option.name), *taken])
            continue
        spelled.append(spell(option.name) + equals + value)
        if not equals and not option.is_switch:
            spelled.extend([tokens.popleft()] if tokens else [])
    try:
        namespace = build_parser(name).parse_args(spelled, defaults=False)
    except ArgumentError as error:
        raise AudiobatError(f"audiobat {name}: {error}.") from None
    names = {flat(option.name): option.name for option in flags.values()}
    given = {names[dest]: value for dest, value in namespace.items() if dest in names}
    return given | places_taken(name, [option for option in known.values() if option.positional], words)


def places_taken(name: str, arguments: list[Option], words: list[str]) -> dict[str, Any]:
    """The words beside the flags, each to the argument of its place; one that takes many takes all that are left."""
    given: dict[str, Any] = {}
    left = list(words)
    for option in arguments:
        if left:
            given[option.name] = left if is_list(option.hint) else left.pop(0)
            left = [] if is_list(option.hint) else left
    if left:
        takes = " ".join(option.usage for option in arguments)
        mend = f"it takes {takes} and flags" if arguments else "all that it takes are flags, such as --device cpu"
        raise AudiobatError(f"audiobat {name} cannot place {left[0]!r}: {mend}; `audiobat {name} --help` lists them.")
    return given


def flag_hint(word: str, known: dict[str, Option]) -> str:
    """What may have been meant by a flag that there is not."""
    spellings = [option.shown_name for option in known.values()]
    if word[2:].upper() in spellings:
        return f" (write {word[2:].upper()} without --)"
    same_end = [spelling for spelling in spellings if spelling.endswith(f".{word[2:]}")]
    return f" (did you mean {' or '.join(same_end)}?)" if same_end else did_you_mean(word, spellings)


def flat(name: str) -> str:
    """Where the parser keeps a flag: with a dot, --data.workers would take the place of --data, or give its own up."""
    return name.replace(".", "/")


def spell(name: str) -> str:
    """A flag as help shows it: `--dry-run`, but a nested config field as in YAML, `--encoder.mlp_ratio`."""
    return "--" + (name if "." in name else name.replace("_", "-"))


def plain(word: str) -> str:
    """A flag as compared: - and _ are the same."""
    return word[2:].replace("_", "-")


def shown(default: Any) -> str:
    """A default as one would type it."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(list(default)) if isinstance(default, tuple) else str(default)


def type_name(hint: Any) -> str:
    """The type of a flag as help shows it, such as `INT`, `FLOAT|NULL` or `{vit,cnn}`."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    if is_list(hint):
        return f"{type_name(get_args(hint)[0])},..."
    if get_origin(hint) is tuple:
        return "[" + ",".join(map(type_name, get_args(hint))) + "]"
    arms = get_args(hint) or (hint,)
    return "|".join("NULL" if arm is type(None) else arm.__name__.upper() for arm in arms)


def is_list(hint: Any) -> bool:
    """Whether a field takes any number of values: tuple[X, ...]."""
    return get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis


def typed(option: Option, text: Any) -> Any:
    """The value of a flag: text where text is asked for, else what YAML makes of it."""
    arms = get_args(option.hint) or (option.hint,)
    if option.words or (option.positional and is_list(option.hint)):
        return text
    if is_list(option.hint):  # cgp,linear is as good as [cgp, linear]
        return parse_yaml(text if text.startswith("[") else f"[{text}]", spell(option.name))
    if type(None) in arms and text == "null":
        return None
    if text is True or str in arms or get_origin(option.hint) is Literal:
        return text
    return parse_yaml(text, spell(option.name))


def nest(path: str, value: Any) -> dict[str, Any]:
    """`encoder.depth`, 6 to {"encoder": {"depth": 6}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    nested: dict[str, Any] = value
    return nested
