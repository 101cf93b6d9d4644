"""What the files of a run tell of its model, for the model card: config.yaml, env.json, log.txt, results/ to `Facts`.

Nothing is guessed: a fact that no file holds stays None. Folders are named without their path, which is private.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from audiobat.config import FinetuneConfig, PretrainConfig, flatten, from_dict, to_dict
from audiobat.config.recipes import load_recipe, recipe_names
from audiobat.config.user_files import to_share, with_copies
from audiobat.engine.run_folder import FREE_FIELDS
from audiobat.engine.tensors import read_json
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.collect import collect, load_all
from audiobat.evaluation.report.curves import is_block_probe
from audiobat.evaluation.report.record_figures import layer_curves
from audiobat.evaluation.report.rows import METRIC_NAMES, Loaded, Row
from audiobat.evaluation.report.style import png
from audiobat.finetuning.testing import NOT_RECIPE, preset_of
from audiobat.zoo.card import FIGURE, Facts, Result
from audiobat.zoo.release import run_fields

CLIPS = re.compile(r"(?:Pre-training|Fine-tuning) on (\d+) clips")
CUSTOM = "custom"  # settings of no recipe, as in records
NOT_LISTED = (*FREE_FIELDS, "data.path", "recipe")  # fields that the card has elsewhere, or that change nothing
VERSIONS = ("audiobat", "torch", "git_commit")


@dataclass(frozen=True)
class Records:
    """The result records of a run that measure the exported weights, and how many measure others."""

    own: tuple[Loaded, ...] = ()
    others: int = 0


def facts_of_run(run: Path, log_folder: Path) -> Facts:
    """The facts in the files of the run `run`; `log_folder` has the log of the training, which may be that of a fold.

    Raises:
        AudiobatError: a config.yaml that is damaged.
    """
    fields = run_fields(run)
    tuned = "model" in fields
    about = {name: fields.pop(name, None) for name in ("model", "test_fold")} if tuned else {}
    try:
        # Whoever made a release of the run has loaded its model by now, and trusted its code.
        config = from_dict(FinetuneConfig if tuned else PretrainConfig, with_copies(fields, run, trust=True))
    except AudiobatError as error:
        raise AudiobatError(f"{run / 'config.yaml'}: {error}") from None
    assert isinstance(config, FinetuneConfig | PretrainConfig)
    origin = f"fine-tuned from {last_name(str(about['model']))}" if tuned else "pre-trained without labels"
    environment = read_json(run / "env.json") if (run / "env.json").is_file() else {}
    return Facts(
        origin=origin,
        data=None if config.data.path is None else last_name(config.data.path),
        clips=clips_logged(log_folder / "log.txt"),
        recipe=recipe_followed(config),
        seed=config.train.seed,
        settings=tuple(settings_changed(config)),
        software=tuple((name, str(environment[name])[:40]) for name in VERSIONS if environment.get(name)),
    )


def recipe_followed(config: FinetuneConfig | PretrainConfig) -> str:
    """The name of the recipe that has these settings, apart from fields that change no method; else `custom`."""
    if isinstance(config, FinetuneConfig):
        kept = config.recipe is None or preset_of(config) == config.recipe
        return config.recipe or CUSTOM if kept else f"{config.recipe} with changes"
    method = method_of(config)
    names = (name for name in recipe_names("pretrain") if not name.startswith("ladder/"))  # whose last is bat_base
    return next((n for n in names if method_of(from_dict(PretrainConfig, load_recipe(n))) == method), CUSTOM)


def method_of(config: PretrainConfig) -> dict[str, object]:
    """The settings that make a recipe, by dotted name."""
    return {name: value for name, value in flatten(to_dict(config)).items() if name not in NOT_RECIPE}


def settings_changed(config: FinetuneConfig | PretrainConfig) -> Iterator[tuple[str, str, str]]:
    """Name, value and default of the fields that differ from the defaults."""
    defaults = flatten(to_dict(type(config)()))
    for name, value in flatten(to_share(to_dict(config))[0]).items():
        default = defaults.get(name, "")  # the settings of a user's own class have none here
        if name not in NOT_LISTED and value != default:
            shown = last_name(value) if isinstance(value, str) else str(value)
            yield name, shown, str(default)


def last_name(source: str) -> str:
    """`clips.csv` of `/data/mine/clips.csv`, `esc50` of `esc50:/data/ESC-50`."""
    head, colon, _ = source.partition(":")
    if colon and len(head) > 1 and "/" not in head and head not in ("hub", "hf") and "://" not in source:
        return head
    return source.rstrip("/\\").replace("\\", "/").rpartition("/")[2]


def clips_logged(log: Path) -> int | None:
    """The number of clips in a training's log, when it was begun or resumed for the last time."""
    if not log.is_file():
        return None
    found = CLIPS.findall(log.read_text(encoding="utf-8", errors="replace"))
    return int(found[-1]) if found else None


def records_of(run: Path, encoder_sha256: str) -> Records:
    """The records below a run that measure its weights: probes of them, and the test of the weights that were kept.

    The records of a fine-tuning name the weights that it began with, and say whether they measure the kept ones.
    """
    paths = sorted({*run.rglob("results/*.json"), *run.rglob("results/layers/*.json")})
    loaded = load_all(paths) if paths else []
    own = tuple((path, record) for path, record in loaded if is_own(record, encoder_sha256))
    return Records(own, len(loaded) - len(own))


def is_own(record: ResultRecord, encoder_sha256: str) -> bool:
    """Whether a record measures the weights with this hash."""
    if record.head["kind"] == "finetune":
        return bool(record.head.get("selected"))
    return record.model.sha256 == encoder_sha256


def with_results(facts: Facts, records: Records) -> tuple[Facts, dict[str, bytes]]:
    """The facts with the records' results; and the figure of layers, as {file name: PNG}, if a head has gates."""
    if all(is_block_probe(record) for _, record in records.own):
        return facts, {}
    found = collect(records.own)
    gated = [curve for curve in found.layers if curve.gates]
    tuned = [row.first.data.clips.get("train") for row in found.rows if row.kind == "finetune"]
    facts = replace(
        facts,
        results=tuple(result for row in found.rows for result in results_of(row)),
        clips=facts.clips if facts.clips is not None or not tuned else tuned[0],
        figure=bool(gated),
    )
    return facts, {FIGURE: png(layer_curves(gated))} if gated else {}


def results_of(row: Row) -> Iterator[Result]:
    """Each metric of a head, with its interval and seeds."""
    seeds = tuple(record.seed for record in row.records)
    clips = row.first.data.clips
    tested = sum(clips.values()) if row.first.folds else clips.get("test")
    order = {name: place for place, name in enumerate(METRIC_NAMES)}  # as tables have them
    for name, found in sorted(row.summaries.items(), key=lambda item: order.get(item[0], len(order))):
        value, low, high = (None if math.isnan(x) else x for x in (found.value, found.low, found.high))
        yield Result(
            row.data, row.head, METRIC_NAMES.get(name, name), value, low, high, seeds, tested, found.definition
        )
