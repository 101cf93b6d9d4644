"""The table of verbs. A verb is the public function of its name; the table adds what only the command line knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from audiobat.config import FinetuneConfig, FrontendConfig, PrepareConfig, PretrainConfig, ProbeConfig
from audiobat.config.benchmark import BenchmarkConfig, SuiteConfig
from audiobat.config.presets import fields_for
from audiobat.config.recipes import merge

Fields = dict[str, Any]  # nested, as YAML gives them

SEED = {"seed": "train.seed"}
LABELS = {"label_column": "labels.column", "background": "labels.background", "map": "labels.map"}
TRAINING = {"device": "train.device", "precision": "train.precision", "log_to": "train.log_to"} | SEED


@dataclass(frozen=True)
class Verb:
    """A verb: its line in the overview, and how its function's arguments are given on a command line."""

    summary: str
    places: tuple[str, ...] = ()  # arguments that are given by their place, not by a flag
    defaults: Mapping[str, Any] = field(default_factory=dict)  # other than the function's; MISSING: must be given
    config: type | None = None  # the class of the argument `config`: --config and a flag for each of its fields
    recipes: str | None = None  # the kind of recipe that --config takes; None: any
    shortcuts: Mapping[str, str] = field(default_factory=dict)  # flag: the config field that it sets
    settings: tuple[str, ...] = ()  # the config fields that --help shows; --help-all shows all
    grids: bool = False  # whether `--grid.FIELD` gives a field several values, for a run each
    resumes: bool = False  # whether the same command goes on after it was stopped
    taken: Callable[[Fields], Fields] = lambda recipe: recipe  # the fields that are taken from a recipe
    sizes: str = ""  # where its memory has run out: the settings to lower, in words
    preset: Callable[[Fields, Fields], Fields] = lambda arguments, config: {}  # fields below those of recipe and flags


def frontend_alone(recipe: Fields) -> Fields:
    """The frontend of any recipe or run; one that names no kind has the default."""
    return merge({"frontend": {"kind": FrontendConfig.kind}}, {"frontend": recipe.get("frontend", {})})


def probe_preset(arguments: Fields, config: Fields) -> Fields:
    """The fields of the preset that is named, or of the one for the data set that --data names."""
    return fields_for(arguments.get("data", ""), config.get("preset"), config.get("preset_task"))


PROBE: dict[str, Any] = {
    "config": ProbeConfig,
    "recipes": "probe",
    "shortcuts": SEED | {"cache": "cache_dir"} | LABELS,
    "settings": (
        *("head.kind", "heads", "head.prototypes", "head.layer", "layers", "seeds"),
        *("tasks", "task", "preset", "preset_task"),
        *("train.steps", "train.warmup_steps", "train.batch_size", "train.lr"),
    ),
    "preset": probe_preset,
    "sizes": "train.batch_size, head.prototypes, cache_gb or workers",
}
WINDOWS = "--batch-size, --window-seconds or --workers"
VERBS: dict[str, Verb] = {
    "doctor": Verb(
        "Check this installation; or whether --model is a working encoder; or describe FILE without running any of it.",
        places=("file",),
    ),
    "demo": Verb("Pre-train, probe and report on real audio that the package carries: offline, in minutes."),
    "describe": Verb(
        "Say what a folder, list or data set holds: hours, labels, events, overlap, and what is odd.", places=("data",)
    ),
    "prepare": Verb(
        "Decode, mix to mono, resample and pack clips into shards that load fast; goes on where it was stopped.",
        resumes=True,
        places=("source", "out"),
        sizes="--workers or --window-seconds",
        config=PrepareConfig,
        settings=("frontend.kind", "frontend.mel_bins"),
        taken=frontend_alone,
    ),
    "pretrain": Verb(
        "Pre-train an encoder by masked latent regression.",
        resumes=True,
        grids=True,
        defaults={"out": "runs/pretrain"},
        config=PretrainConfig,
        recipes="pretrain",
        sizes="train.batch_size, mask.clones or data.workers, raise train.accumulate or set train.recompute",
        shortcuts={"data": "data.path"} | TRAINING,
        settings=(
            *("train.steps", "train.batch_size", "optim.lr", "optim.warmup_steps", "data.clip_seconds"),
            *("frontend.kind", "encoder.dim", "encoder.depth", "encoder.heads"),
            *("objective.kind", "mask.ratio", "mask.clones", "decoder.kind"),
        ),
    ),
    "probe": Verb(
        "Train heads on the frozen features of a model, all in one pass over the clips, and write result records.",
        resumes=True,
        defaults={"out": MISSING},
        **PROBE,
    ),
    "finetune": Verb(
        "Train a model and a head on labelled clips, test them, and keep them as a release that `predict` uses.",
        resumes=True,
        grids=True,
        config=FinetuneConfig,
        recipes="finetune",
        sizes="train.batch_size or data.workers, raise train.accumulate or set train.recompute",
        shortcuts=TRAINING | LABELS,
        settings=(
            *("head.kind", "task", "keep_head", "train.steps", "train.batch_size", "train.freeze_steps"),
            *("optim.lr", "optim.layer_decay", "optim.warmup_steps", "select.which"),
        ),
    ),
    "analyze": Verb("Measure a model's blocks, ranks, attention sinks and prototypes; numbers and figures.", **PROBE),
    "ladder": Verb(
        "Go from EAT's recipe to BAT's change by change, and print Tables 2 to 4 beside the paper's numbers.",
        resumes=True,
        defaults={"out": "runs/ladder"},
        config=ProbeConfig,
        recipes="probe",
        sizes="scale, head.prototypes or cache_gb",
        settings=("seeds", "head.prototypes", "train.steps", "train.warmup_steps", "train.batch_size"),
    ),
    "benchmark": Verb(
        "Run Table 1 or 5 as far as weights and data are here, and print it beside the paper's numbers.",
        resumes=True,
        defaults={"out": "runs/benchmark"},
        config=BenchmarkConfig,
        recipes="benchmark",
        settings=("protocols", "preset", "seeds", "tflops"),
    ),
    "suite": Verb(
        "Probe many models on many data sets, and print their standings with intervals, mean ranks and tests.",
        resumes=True,
        defaults={"out": "runs/suite"},
        config=SuiteConfig,
        recipes="suite",
    ),
    "leaderboard": Verb(
        "Keep results in one file that grows, and show its models in order: in a terminal, tables and a page.",
        places=("board",),
    ),
    "compare": Verb(
        "Compare result records of the same test clips: differences, 95% intervals and p values.", places=("records",)
    ),
    "embed": Verb(
        "Turn audio files of any length into a table of embeddings, one row for each window.",
        resumes=True,
        sizes=WINDOWS,
    ),
    "predict": Verb(
        "Label audio files of any length: one row for each window and label, or for each event.",
        resumes=True,
        defaults={"model": None},  # a file of scores needs none
        sizes=WINDOWS,
    ),
    "search": Verb(
        "Find what sounds like a recording, or a part of it, in a table that embed wrote.", places=("index", "query")
    ),
    "evaluate": Verb(
        "Measure predictions against truth: clips, segments and events, with intervals, curves and the worst errors.",
        places=("predictions", "truth"),
    ),
    "duplicates": Verb(
        "Find recordings that are copies of one another, whole or in part, in a table that embed wrote.",
        places=("index",),
    ),
    "atlas": Verb(
        "Draw a map of a table that embed wrote, on which sounds that are alike lie near each other.", places=("index",)
    ),
    "export": Verb("Write a model to share or to run elsewhere: a release with its card, ONNX, or for transformers."),
    "report": Verb("Turn result records into tables, figures and one page that needs no network.", places=("runs",)),
    "recipes": Verb(
        "List the recipes, show every field of one, or the fields in which two differ, with the source of each value.",
        places=("action", "names"),
    ),
}
