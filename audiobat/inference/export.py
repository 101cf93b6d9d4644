"""A model to share or to run elsewhere: as a release folder with its card, as ONNX, as a folder for transformers.

In: whatever `--model` takes, with what `export_source` finds out about it, which fills the card. Out: the folder or
file, and with `push` its copy on the Hugging Face Hub.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from audiobat.engine.files import errors_of_writing, read_json, replacing
from audiobat.errors import AudiobatError
from audiobat.inference.export_source import Source, open_source
from audiobat.inference.scoring import about
from audiobat.inference.settings import Settings
from audiobat.inference.thresholds import Threshold, pick_thresholds
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io
from audiobat.zoo.card import CARD, OPEN, is_licensed, write_card
from audiobat.zoo.hf_hub import check_name, upload

CLASSES_LISTED = 6  # in the line that describes the head
FORMATS = ("release", "onnx", "transformers")
OURS = ("audiobat", *release_io.READERS)  # model types of folders that --overwrite may replace


def export(
    model: str | Path,
    to: Literal["release", "onnx", "transformers"],
    out: str | Path,
    *,
    thresholds: Threshold | None = None,
    push: str | None = None,
    private: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Path:
    """Write a model to share or to run elsewhere; returns `out`.

    Args:
        model: a run or release folder, shipped weights by name, `hub:OWNER/NAME`, or weights of another project: a
            checkpoint file of BAT, EAT, SSLAM, Audio-MAE or BEATs (`:teacher` behind it takes its EMA copy), or their
            folder from Hugging Face. A head comes along.
        to: `release` for audiobat; `onnx`, one file that computes the spectrogram, too (extra `onnx`); `transformers`,
            a folder that `AutoModel.from_pretrained` loads (extra `hf`).
        out: folder to write, or the file of ONNX.
        thresholds: the score above which `predict` finds a class of this model: a number, or a .json or .csv file of
            one for each class, in which other classes keep theirs; None: those that it has.
        push: OWNER/NAME on the Hugging Face Hub, to upload the folder there.
        private: if the folder is new there, let only its owner see it.
        overwrite: replace the older export at `out`.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.

    Raises:
        AudiobatError: nothing to export; `out` exists, holds something else, or lies inside the model's folder; weights
            that are not finite; a model that the format cannot carry; a hub that refuses.
    """
    out = Path(out)
    check_target(to, out, push, private)
    check_out(out, to, overwrite)
    source = open_source(model, trust_remote_code)
    check_apart(out, source.place)
    encoder = source.model.encoder if isinstance(source.model, Tagger) else source.model
    if to != "release" and not isinstance(encoder, AudioEncoder):
        raise AudiobatError(
            f"--to {to} takes encoders of audiobat's own kind, and {model} is a {type(encoder).__name__}."
        )
    if thresholds is not None:
        set_thresholds(source, thresholds)
    for line in describe(source):
        print(line)
    write(source, to, out)
    print(f"{to}: {out}")
    if to != "onnx" and not is_licensed((out / CARD).read_text(encoding="utf-8")):
        print(f"to fill in: {out / CARD} has {OPEN} and other [places] that only you can fill")
    if push is not None:
        print(f"pushed: {upload(out, push, private)}")
    return out


def check_target(to: str, out: Path, push: str | None, private: bool) -> None:
    """Raise an AudiobatError for arguments that do not fit each other, before anything is read."""
    if to not in FORMATS:
        raise AudiobatError(f"to is {to!r}: choose one of {', '.join(FORMATS)}.")
    if to == "onnx" and push is not None:
        raise AudiobatError("push shares folders, and ONNX is one file: give --to release or transformers.")
    if to == "onnx" and out.suffix != ".onnx":
        raise AudiobatError(f"--out {out} is to be an ONNX file: call it {out.name}.onnx.")
    if to != "onnx" and out.suffix == ".onnx":
        raise AudiobatError(f"--out {out} is to be a folder of --to {to}: leave .onnx out, or give --to onnx.")
    if push is not None:
        check_name(push)
    elif private:
        raise AudiobatError("private is about push: give --push OWNER/NAME as well, or leave --private out.")


def check_out(out: Path, to: str, overwrite: bool) -> None:
    """Raise an AudiobatError unless `out` is free, or holds an older export that may go."""
    if not out.exists() or (out.is_dir() and to != "onnx" and not any(out.iterdir())):
        return
    if out.is_dir() == (to == "onnx"):
        raise AudiobatError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}: give another --out.")
    if not overwrite:
        raise AudiobatError(f"--out {out} exists: give another, or --overwrite to replace it.")
    file = out / "config.json"
    if out.is_dir() and not (file.is_file() and read_json(file).get("model_type") in OURS):
        raise AudiobatError(f"--out {out} holds other files and no release: give another --out.")


def check_apart(out: Path, place: Path) -> None:
    """Raise an AudiobatError if writing `out` would touch what the model was read from."""
    here, there = out.resolve(), place.resolve()
    if here == there or here in there.parents:
        raise AudiobatError(f"--out {out} holds the model itself ({place}): give another --out.")
    if there in here.parents:
        raise AudiobatError(f"--out {out} lies inside the model's folder {place}: give a place outside.")


def set_thresholds(source: Source, given: Threshold) -> None:
    """Give the classes of a model other thresholds; AudiobatError if it has no head."""
    tagger = source.model
    if not isinstance(tagger, Tagger):
        raise AudiobatError(f"thresholds belong to a head, and {source.place} has none: leave them out.")
    own = [max(0.0, value) for value in Settings().default_thresholds(about(tagger))]
    found = pick_thresholds(given, tagger.classes, own, "thresholds")
    tagger.config = dataclasses.replace(tagger.config, thresholds=tuple(found.tolist()))


def describe(source: Source) -> list[str]:
    """Lines that say what is exported, with which head, and what is left out."""
    model = source.model
    encoder = model.encoder if isinstance(model, Tagger) else model
    count = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        f"model: {source.place}, {count / 1e6:.2f}M parameters, {encoder.depth} blocks of {encoder.dim}, "
        f"{encoder.sample_rate} Hz",
        *source.notes,
    ]
    if isinstance(model, Tagger):
        more = len(model.classes) - CLASSES_LISTED
        listed = ", ".join(model.classes[:CLASSES_LISTED]) + (f", and {more} more" if more > 0 else "")
        lines.append(f"head: {model.config.head.kind}, {len(model.classes)} classes: {listed}")
        if found := model.config.thresholds:
            lines.append(f"thresholds: {min(found):g} to {max(found):g}, one for each class")
    if source.facts.left:
        lines.append(f"left out: {len(source.facts.left)} tensors that are no part of it: {grouped(source.facts.left)}")
    return lines


def grouped(names: Sequence[str]) -> str:
    """All names, and names that differ only in their numbers as one."""
    counted = Counter(re.sub(r"\d+", "N", name) for name in names)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counted.items())


def write(source: Source, to: str, out: Path) -> None:
    """Write a release, an ONNX file, or a folder for transformers, all but ONNX with the card and its figure."""
    model: Any = source.model  # a release takes every encoder, the others an AudioEncoder alone, which they check
    if to == "release":
        extra = {**source.extra, "facts": dataclasses.asdict(source.facts)}
        release_io.save_release(out, model, write_card(out.resolve().name, model, source.facts), extra, source.files)
    elif to == "onnx":
        from audiobat.zoo.export.onnx import export_onnx

        export_onnx(model, out)
    else:
        from audiobat.zoo.export.transformers import export_transformers

        card = write_card(out.resolve().name, model, source.facts, "transformers")
        with errors_of_writing(out), replacing(out) as beside:
            export_transformers(model, beside, card)
            for name, content in source.files.items():
                (beside / name).write_bytes(content)
