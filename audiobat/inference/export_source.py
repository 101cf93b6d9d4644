"""Whatever `--model` of export may name, to a model with what is known of it: a Source."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiobat.config import from_dict
from audiobat.engine.tensors import read_json, weights_sha256
from audiobat.errors import AudiobatError
from audiobat.inference.export_facts import facts_of_run, records_of, with_results
from audiobat.models.encoder import BaseEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io
from audiobat.zoo.card import FIGURE, Facts
from audiobat.zoo.convert import TEACHER, convert_file, is_foreign
from audiobat.zoo.hf_hub import is_shared

WEIGHTS = "model.safetensors"
LARGEST_FIGURE = 10_000_000  # bytes


@dataclass(frozen=True, eq=False)
class Source:
    """A model and what goes with it."""

    model: BaseEncoder | Tagger
    place: Path  # the file or folder that it was read from, which must stay as it is
    facts: Facts
    files: Mapping[str, bytes]  # for beside the card
    extra: Mapping[str, Any]  # of config.json
    notes: tuple[str, ...] = ()  # what the user should hear


def open_source(source: str | Path) -> Source:
    """Read a model on the CPU.

    Args:
        source: shipped weights by name, a release folder, a run folder, `hub:OWNER/NAME`, or weights of another project
            as `audiobat.load` takes them.

    Raises:
        AudiobatError: nothing there, or nothing that can be read.
    """
    local = release_io.find(source) if is_shared(source) else source
    if is_foreign(local):
        return foreign(local)
    folder = release_io.find(local)
    if not (folder / "config.json").exists():
        return run(folder)
    config = read_json(folder / "config.json")
    model = release_io.load_tagger(folder) if "tagger" in config else release_io.load(folder)
    return release(folder, model, config, str(source))


def foreign(source: str | Path) -> Source:
    """Weights of another project, strictly converted, with their head if it can be kept."""
    place = Path(str(source).removesuffix(TEACHER))
    file = place / WEIGHTS if place.is_dir() else place
    found = convert_file(source)
    note = f"is: {found.layout}" + (", the teacher" if str(source).endswith(TEACHER) else "")
    model: BaseEncoder | Tagger = found.encoder if found.head is None else found.tagger()
    facts = Facts(origin=f"of {found.layout}, converted", sources=((file.name, sha256_of(file)),), left=found.left)
    return Source(model.eval(), place, facts, {}, {}, (note,))


def run(folder: Path) -> Source:
    """A run of pre-training: the student of its latest checkpoint."""
    encoder, checkpoint = release_io.student_of_run(folder)
    facts = replace(facts_of_run(folder, folder), steps=checkpoint.step, data_sha256=checkpoint.extra.get("clips"))
    return recorded(Source(encoder.eval(), folder, facts, {}, {}), folder)


def release(folder: Path, model: BaseEncoder | Tagger, config: Mapping[str, Any], name: str) -> Source:
    """A release: one that a fine-tuning has just made, or one that tells what it is itself."""
    extra = config.get("extra", {})
    if not isinstance(extra, Mapping):
        raise AudiobatError(f"{folder / 'config.json'}: extra is no object: take it out.")
    made_in = run_of(folder)
    if made_in is None:
        file = folder / WEIGHTS
        known = shipped_facts(folder) if folder.parent == release_io.WEIGHTS else told_facts(folder, extra)
        where = name if is_shared(name) else folder.name
        facts = replace(known, sources=(*known.sources, (f"{where}/{WEIGHTS}", sha256_of(file))))
        figure = folder / FIGURE
        has_figure = known.figure and figure.is_file() and figure.stat().st_size <= LARGEST_FIGURE
        files = {FIGURE: figure.read_bytes()} if has_figure else {}
        return Source(model, folder, replace(facts, figure=has_figure), files, extra)
    told = told_facts(folder, extra)
    facts = replace(facts_of_run(made_in, folder.parent), steps=told.steps, data_sha256=told.data_sha256)
    return recorded(Source(model, made_in, facts, {}, extra), made_in)


def recorded(source: Source, folder: Path) -> Source:
    """A source with what the records of its run say."""
    encoder = source.model.encoder if isinstance(source.model, Tagger) else source.model
    records = records_of(folder, weights_sha256(encoder))
    facts, files = with_results(source.facts, records)
    note = f"records: {len(records.own)} of these weights"
    note += f"; {records.others} of others, left out" if records.others else ""
    return replace(source, facts=facts, files=files, notes=(*source.notes, note))


def run_of(release_folder: Path) -> Path | None:
    """The run of fine-tuning in which a release lies, RUN/release or RUN/folds/FOLD/release."""
    above = release_folder.resolve().parents
    if release_folder.name != release_io.RELEASE:
        return None
    candidates = [above[0], *([above[2]] if len(above) > 2 and above[1].name == "folds" else [])]
    return next((folder for folder in candidates if (folder / "config.yaml").is_file()), None)


def shipped_facts(folder: Path) -> Facts:
    """What the record of shipped weights tells."""
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


def told_facts(folder: Path, extra: Mapping[str, Any]) -> Facts:
    """What a release tells of itself: what an export has written there, or the little that a fine-tuning has."""
    if "facts" in extra:
        try:
            return from_dict(Facts, extra["facts"], "extra.facts")
        except AudiobatError as error:
            raise release_io.told(folder / "config.json", error) from None
    step, digest, recipe = (extra.get(name) for name in ("step", "data_sha256", "recipe"))
    return Facts(
        data_sha256=digest if isinstance(digest, str) else None,
        recipe=recipe if isinstance(recipe, str) else None,
        steps=step if type(step) is int else None,
    )


def sha256_of(file: Path) -> str:
    """Digest of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
