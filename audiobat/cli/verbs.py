"""What `audiobat VERB` takes: each verb is one dataclass, whose fields are its flags and their lines of help.

The public function of its name does the work.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_origin, get_type_hints

from audiobat.config import FinetuneConfig, FrontendConfig, PrepareConfig, PretrainConfig, ProbeConfig, check_choice
from audiobat.config.benchmark import BenchmarkConfig
from audiobat.config.presets import fields_for
from audiobat.config.recipes import merge

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
