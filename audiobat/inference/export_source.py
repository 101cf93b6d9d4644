"""Whatever `export --model` names, to a model and what is known of it: a `Source`, with the facts for its model card.

The facts are in the files of the run that made the model: config.yaml, env.json, log.txt, results/. Nothing is guessed:
a fact that no file holds stays None. Folders are named without their path, which is private.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from audiobat.config import FinetuneConfig, PretrainConfig, flatten, from_dict, to_dict
from audiobat.config.recipes import load_recipe, recipe_names
from audiobat.config.user_files import is_user_class, to_share, with_copies
from audiobat.engine.files import read_json
from audiobat.engine.run_folder import FREE_FIELDS
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.evaluation.certainty import interval_note, rare_note
from audiobat.evaluation.report.collect import collect, load_all
from audiobat.evaluation.report.curves import is_block_probe
from audiobat.evaluation.report.record_figures import layer_curves
from audiobat.evaluation.report.rows import METRIC_NAMES, Loaded, Row
from audiobat.evaluation.report.style import png
from audiobat.finetuning.testing import NOT_RECIPE, preset_of
from audiobat.models.encoder import BaseEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io
from audiobat.zoo.card import FIGURE, Facts, Result
from audiobat.zoo.convert import TEACHER, convert_file, is_foreign
from audiobat.zoo.hf_hub import is_shared

WEIGHTS = "model.safetensors"
LARGEST_FIGURE = 10_000_000  # bytes
CLIPS = re.compile(r"(?:Pre-training|Fine-tuning) on (\d+) clips")
CUSTOM = "custom"  # settings of no recipe, as in records
NOT_LISTED = (*FREE_FIELDS, "data.path", "recipe")  # fields that the card has elsewhere, or that change nothing
VERSIONS = ("audiobat", "torch", "git_commit")


@dataclass(frozen=True, eq=False)
class Source:
    """A model to export, and what goes into the exported folder with it."""

    model: BaseEncoder | Tagger
    place: Path  # the file or folder that it was read from, which the export must not touch
    facts: Facts  # for the model card
    files: Mapping[str, bytes]  # more files for the folder, such as the card's figure
    extra: Mapping[str, Any]  # `extra` of the release's config.json
    notes: tuple[str, ...] = ()  # lines to print


def open_source(source: str | Path, trust: bool = False) -> Source:
    """Read a model on the CPU.

    Args:
        source: shipped weights by name, a release folder, a run folder, `hub:OWNER/NAME`, or weights of another project
            as `audiobat.load` takes them.
        trust: run the Python files that come with it.

    Raises:
        AudiobatError: nothing there, or nothing that can be read.
    """
    local = release_io.find(source) if is_shared(source) else source
    if is_foreign(local):
        return from_other_project(local)
    place = release_io.locate(local)
    folder = place.folder
    if not (folder / "config.json").exists():
        encoder, checkpoint = release_io.encoder_of_run(place, trust)
        facts = facts_of_run(folder, folder)
        origin = f"{facts.origin}, its EMA teacher" if place.teacher else facts.origin
        facts = replace(facts, origin=origin, steps=checkpoint.step, data_sha256=checkpoint.extra.get("clips"))
        return with_records(Source(encoder.eval(), folder, facts, {}, {}), folder)
    config = read_json(folder / "config.json")
    read = release_io.load_tagger if "tagger" in config else release_io.load
    model = read(folder, trust_remote_code=trust)
    return from_release(folder, model, config, str(source))


def from_other_project(source: str | Path) -> Source:
    """Weights of another project, converted to the last tensor, with their head if it can be kept."""
    place = Path(str(source).removesuffix(TEACHER))
    file = place / WEIGHTS if place.is_dir() else place
    found = convert_file(source)
    note = f"is: {found.layout}" + (", the teacher" if str(source).endswith(TEACHER) else "")
    model: BaseEncoder | Tagger = found.encoder if found.head is None else found.tagger()
    facts = Facts(origin=f"of {found.layout}, converted", sources=((file.name, sha256_of(file)),), left=found.left)
    return Source(model.eval(), place, facts, {}, {}, (note,))


def from_release(folder: Path, model: BaseEncoder | Tagger, config: Mapping[str, Any], name: str) -> Source:
    """A release, either inside the run of fine-tuning that made it or anywhere else."""
    extra = config.get("extra", {})
    if not isinstance(extra, Mapping):
        raise AudiobatError(f"{folder / 'config.json'}: extra is no object: take it out.")
    made_in = run_of(folder)
    if made_in is None:
        file = folder / WEIGHTS
        known = facts_of_shipped(folder) if folder.parent == release_io.WEIGHTS else facts_of_release(folder, extra)
        where = name if is_shared(name) else folder.name
        facts = replace(known, sources=(*known.sources, (f"{where}/{WEIGHTS}", sha256_of(file))))
        figure = folder / FIGURE
        has_figure = known.figure and figure.is_file() and figure.stat().st_size <= LARGEST_FIGURE
        files = {FIGURE: figure.read_bytes()} if has_figure else {}
        return Source(model, folder, replace(facts, figure=has_figure), files, extra)
    known = facts_of_release(folder, extra)
    facts = replace(facts_of_run(made_in, folder.parent), steps=known.steps, data_sha256=known.data_sha256)
    return with_records(Source(model, made_in, facts, {}, extra), made_in)


def with_records(source: Source, folder: Path) -> Source:
    """The source with the results in those records below its run that measure its weights."""
    encoder = source.model.encoder if isinstance(source.model, Tagger) else source.model
    digest = weights_sha256(encoder)
    paths = sorted({*folder.rglob("results/*.json"), *folder.rglob("results/layers/*.json")})
    loaded = load_all(paths) if paths else []
    own = [
        (path, record)
        for path, record in loaded
        # The records of a fine-tuning name the weights that it began with, and say whether they measure the kept ones.
        if (record.head.get("selected") if record.head["kind"] == "finetune" else record.model.sha256 == digest)
    ]
    facts, files = with_results(source.facts, own)
    note = f"records: {len(own)} of these weights"
    note += f"; {len(loaded) - len(own)} of others, left out" if len(own) < len(loaded) else ""
    return replace(source, facts=facts, files=files, notes=(*source.notes, note))


def run_of(release_folder: Path) -> Path | None:
    """The run of fine-tuning that a release lies in, as RUN/release or RUN/folds/FOLD/release; None: in no run."""
    above = release_folder.resolve().parents
    if release_folder.name != release_io.RELEASE:
        return None
    candidates = [above[0], *([above[2]] if len(above) > 2 and above[1].name == "folds" else [])]
    return next((folder for folder in candidates if (folder / "config.yaml").is_file()), None)


def facts_of_shipped(folder: Path) -> Facts:
    """The facts in the record.json of shipped weights."""
    record = read_json(folder / "record.json")
    return Facts(
        origin=f"pre-trained without labels, shipped with audiobat as {folder.name}",
        data="recordings in Debian packages",
        clips=record["clips"],
        recipe=record["recipe"],
        steps=record["steps"],
        seed=record["seed"],
        software=tuple((name, record["environment"][name]) for name in ("audiobat", "torch")),
    )


def facts_of_release(folder: Path, extra: Mapping[str, Any]) -> Facts:
    """The facts in a release's config.json: all that an export writes there, or the few that a fine-tuning does."""
    if "facts" in extra:
        try:
            return from_dict(Facts, extra["facts"], "extra.facts")
        except AudiobatError as error:
            raise release_io.with_file(folder / "config.json", error) from None
    step, digest, recipe = (extra.get(name) for name in ("step", "data_sha256", "recipe"))
    return Facts(
        data_sha256=digest if isinstance(digest, str) else None,
        recipe=recipe if isinstance(recipe, str) else None,
        steps=step if type(step) is int else None,
    )


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def facts_of_run(run: Path, log_folder: Path) -> Facts:
    """The facts in the files of the run `run`; `log_folder` has the log of the training, which may be that of a fold.

    Raises:
        AudiobatError: a config.yaml that is damaged.
    """
    fields = release_io.run_fields(run)
    tuned = "model" in fields
    about = {name: fields.pop(name, None) for name in ("model", "features", "folds", "test_fold")} if tuned else {}
    try:
        # Whoever made a release of the run has loaded its model by now, and trusted its code.
        config = from_dict(FinetuneConfig if tuned else PretrainConfig, with_copies(fields, run, trust=True))
    except AudiobatError as error:
        raise AudiobatError(f"{run / 'config.yaml'}: {error}") from None
    assert isinstance(config, FinetuneConfig | PretrainConfig)
    origin = f"fine-tuned from {last_name(str(about['model']))}" if tuned else "pre-trained without labels"
    log = log_folder / "log.txt"
    # A log has a line for each time that the training was begun or resumed: the last one counts.
    clips = CLIPS.findall(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else []
    environment = read_json(run / "env.json") if (run / "env.json").is_file() else {}
    return Facts(
        origin=origin,
        data=None if config.data.path is None else last_name(config.data.path),
        clips=int(clips[-1]) if clips else None,
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

    def method_of(settings: PretrainConfig) -> dict[str, object]:
        return {name: value for name, value in flatten(to_dict(settings)).items() if name not in NOT_RECIPE}

    method = method_of(config)
    names = (name for name in recipe_names("pretrain") if not name.startswith("ladder/"))  # whose last is bat_base
    return next((n for n in names if method_of(from_dict(PretrainConfig, load_recipe(n))) == method), CUSTOM)


def settings_changed(config: FinetuneConfig | PretrainConfig) -> Iterator[tuple[str, str, str]]:
    """Name, value and default of the fields that differ from the defaults."""
    own = {  # of a user's Config
        f"{group}.{f.name}": list(f.default) if isinstance(f.default, tuple) else f.default
        for group, part in vars(config).items()
        if is_dataclass(part)
        for f in fields(part)
        if f.default is not MISSING
    }
    defaults = own | flatten(to_dict(type(config)()))
    for name, value in flatten(to_share(to_dict(config))[0]).items():
        default = defaults.get(name, "")
        if name not in NOT_LISTED and value != default:
            shown = last_name(value) if isinstance(value, str) and not is_user_class(value) else str(value)
            yield name, shown, str(default)


def last_name(source: str) -> str:
    """`clips.csv` of `/data/mine/clips.csv`, `esc50` of `esc50:/data/ESC-50`."""
    head, colon, _ = source.partition(":")
    if colon and len(head) > 1 and "/" not in head and head not in ("hub", "hf") and "://" not in source:
        return head
    return source.rstrip("/\\").replace("\\", "/").rpartition("/")[2]


def with_results(facts: Facts, records: Sequence[Loaded]) -> tuple[Facts, dict[str, bytes]]:
    """The facts with the records' results; and the figure of layers, as {file name: PNG}, if a head has gates."""
    if all(is_block_probe(record) for _, record in records):
        return facts, {}
    found = collect(records)
    shown = [record for row in found.rows for record in row.records]
    gated = [curve for curve in found.layers if curve.gates]
    tuned = [row.first.data.clips.get("train") for row in found.rows if row.kind == "finetune"]
    facts = replace(
        facts,
        results=tuple(result for row in found.rows for result in results_of(row)),
        results_note=" ".join((interval_note(shown), rare_note(shown))).strip(),
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
