"""What `audiobat demo` computed, to pictures and words: figures with captions, clips to play, facts, the licence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from audiobat.audio.frontend import KaldiFrontend, MelFrontend
from audiobat.config import FrontendConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.scenes import demo_folder
from audiobat.data.split import split_for_probe
from audiobat.engine.environment import environment
from audiobat.engine.progress import duration
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report import figures
from audiobat.evaluation.report.page import Exhibit, PlayableClip
from audiobat.models.encoder import AudioEncoder
from audiobat.probing.analyze.pictures import KALDI, look, read
from audiobat.probing.cache import FeatureSource
from audiobat.probing.training import predict

GUESSES = 5  # predictions shown for a clip

# Name of a figure's file: its heading on the page, and what to see in it.
CAPTIONS = {
    "frontends": (
        "One scene through both frontends",
        "Above: mel spectrogram in dB, scaled between the clip's own minimum and maximum, as BAT sees it. Below: the "
        "Kaldi filter bank with the statistics of AudioSet, as EAT sees it. Compare Figure 3 of the paper.",
    ),
    "live": (
        "Pre-training, live",
        "The loss falls as the student learns to predict the teacher's tokens of masked patches. That alone proves "
        "little: it would fall, too, if all tokens became one, so target variance and feature rank are watched. "
        "Position share is how much of the targets' variance a patch's place in the clip explains.",
    ),
    "layers": (
        "Which block holds what the labels ask for",
        "Top: a linear probe of each block's mean patch, with 95% intervals. Bottom: the weights that CGP's gate "
        "learned; the dashed line is where it starts. Gate weights of blocks that say nearly the same are not unique. "
        "Compare Figure 4 of the paper.",
    ),
    "attention": (
        "Attention without and with gate",
        "Top: the last block's attention, mean over heads; then what each token takes from each, the length of weight "
        "times value, before and after the gate. A bright column is a sink, a bright diagonal a token that keeps to "
        "itself. Bottom: what cls takes from each patch of the clip. Figure 5 of the paper compares two networks, "
        "trained without and with gate; this is one network, whose gate is left out or left in.",
    ),
    "classes": (
        "Average precision of each class",
        "Each model under the head that serves it best. The precision of a class that few test clips have depends much "
        "on chance. Behind each model: its mean over classes.",
    ),
}


@dataclass(frozen=True, eq=False)
class Probed:
    """One model's features and the records of its heads."""

    source: FeatureSource
    records: dict[str, ResultRecord]  # by head
    by_layer: list[ResultRecord]  # linear probes of blocks 1 to L


def draw(
    folder: Path, encoder: AudioEncoder, table: ClipTable, probed: Sequence[Probed], log: Sequence[Mapping[str, Any]]
) -> list[Exhibit]:
    """Write every figure into `folder` and return them with their captions."""
    clip = busy_clip(table)
    waveform, labels = read(table, clip, encoder.sample_rate), labels_of(table, clip)
    spectrogram, seen = look(encoder, waveform)
    gated = [(model.records["cgp"], model.by_layer) for model in probed if model.source.depth > 1]
    by_class = [max(model.records.values(), key=lambda r: r.metrics[r.main_metric].value) for model in probed]
    drawn = {
        "frontends": figures.frontends(waveform, labels, MelFrontend(FrontendConfig()), KaldiFrontend(KALDI)),
        "live": figures.live_curves(log),
        "layers": figures.layers(gated),
        "attention": figures.attention(seen, spectrogram, encoder.frontend, labels),
        "classes": figures.per_class(by_class),
    }
    return [Exhibit(figures.save(figure, folder, name), *CAPTIONS[name]) for name, figure in drawn.items()]


def playable_clips(head: nn.Module, source: FeatureSource, table: ClipTable, count: int) -> list[PlayableClip]:
    """The first test clips, unchosen, with what `head` finds in them."""
    mel = MelFrontend(FrontendConfig())
    rate = mel.config.sample_rate
    rows = split_for_probe(table)[1][:count]
    clips = []
    for row, found in zip(rows.tolist(), predict(head, source, rows).sigmoid(), strict=True):
        waveform = read(table, row, rate)
        likeliest = found.argsort(descending=True)[:GUESSES].tolist()
        guesses = [(table.classes[i], float(found[i])) for i in likeliest]
        picture = figures.png(figures.thumbnail(mel(waveform[None])[0][0].numpy(), mel))
        name = Path(table.keys[row]).stem
        clips.append(PlayableClip(name, waveform.numpy(), rate, labels_of(table, row), guesses, picture))
    return clips


def facts(
    record: ResultRecord, log: Sequence[Mapping[str, Any]], clips: int, held_out: int, seconds: float
) -> list[tuple[str, str]]:
    """What was run, for the page: from the record of the shipped model, the live run's log and the clock."""
    last, head, versions = log[-1], record.head, record.environment
    return [
        (
            "Live pre-training",
            f"{last['step']:,} steps in {last['seconds']:.0f} s, {last['clips_per_second']:.0f} clips/s",
        ),
        ("Its clips", f"{clips} demo recordings; the {held_out} that test scenes are made of are left out"),
        ("Scenes", ", ".join(f"{count:,} {split}" for split, count in record.data.clips.items())),
        (
            "Probes",
            f"{head['steps']:,} steps of {head['batch_size']} clips, learning rate {head['lr']:g}, "
            f"{head['prototypes']} prototypes",
        ),
        ("Shipped weights", f"{record.model.id}, sha256 {record.model.sha256}"),
        ("Seed", str(record.seed)),
        ("Device", f"{record.device}, {versions['cpu_threads']} threads, {versions['platform']}"),
        ("Versions", ", ".join(f"{name} {versions[name]}" for name in ("audiobat", "python", "torch", "numpy"))),
        ("Code", record.git_commit or "no git checkout"),
        ("Whole demo", f"{duration(seconds)}, finished {environment()['created']}"),
    ]


def licence() -> str:
    """The notice of the demo recordings: its first paragraph."""
    text = (demo_folder() / "README.md").read_text(encoding="utf-8")
    return " ".join(text.split("\n\n")[1].split())


def read_log(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def busy_clip(table: ClipTable) -> int:
    """Row of the first test clip with three labels or more, else with the most."""
    assert table.labels is not None
    test = split_for_probe(table)[1]
    return int(test[table.labels.lengths[test].clip(max=3).argmax()])


def labels_of(table: ClipTable, row: int) -> list[str]:
    """Names of a clip's labels."""
    assert table.labels is not None
    return [table.classes[c] for c in table.labels.row(row)]
