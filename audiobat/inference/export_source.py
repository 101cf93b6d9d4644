"""Whatever `export --model` names, to a model and what is known of it: a `Source`."""

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
    folder = release_io.find(local)
    if not (folder / "config.json").exists():
        return from_run(folder, trust)
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


def from_run(folder: Path, trust: bool = False) -> Source:
    """A run of pre-training: the student in its latest checkpoint."""
    encoder, checkpoint = release_io.student_of_run(folder, trust)
    facts = replace(facts_of_run(folder, folder), steps=checkpoint.step, data_sha256=checkpoint.extra.get("clips"))
    return with_records(Source(encoder.eval(), folder, facts, {}, {}), folder)


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
    """The source with the results in the records of its run."""
    encoder = source.model.encoder if isinstance(source.model, Tagger) else source.model
    records = records_of(folder, weights_sha256(encoder))
    facts, files = with_results(source.facts, records)
    note = f"records: {len(records.own)} of these weights"
    note += f"; {records.others} of others, left out" if records.others else ""
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
