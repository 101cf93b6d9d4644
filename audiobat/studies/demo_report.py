"""The results of `audiobat demo` to its table and its page: figures with captions, clips to play, facts."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

import soundfile
from rich.table import Table
from rich.text import Text

from audiobat.audio.frontends.kaldi_fbank import KaldiFrontend
from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.scenes import demo_folder
from audiobat.data.split import split_for_probe
from audiobat.engine.environment import environment
from audiobat.engine.progress import duration
from audiobat.evaluation.certainty import FEW, interval_note, rare_classes
from audiobat.evaluation.head_names import head_label
from audiobat.evaluation.record import Metric, ResultRecord
from audiobat.evaluation.report import figures
from audiobat.evaluation.report.listening.section import Card, spectrogram_png
from audiobat.evaluation.report.render import pipe_table
from audiobat.evaluation.report.rows import metric_title
from audiobat.evaluation.report.style import save
from audiobat.evaluation.report.web.html import Exhibit
from audiobat.models.encoder import AudioEncoder
from audiobat.models.heads import Head
from audiobat.probing.analyze.pictures import KALDI, busy_clip, labels_of, look, read
from audiobat.probing.cache import FeatureSource
from audiobat.probing.training import predict

METRICS = ("map", "f1", "f1_top", "accuracy")  # shown, so far as all records hold them
BEST = "★"
LEGEND = f"{BEST} highest of its column. Brackets: 95% interval over test clips."
GUESSES = 5  # predictions shown for a clip
# Name of a figure's file: its heading on the page, and its caption.
CAPTIONS = {
    "frontends": (
        "One scene through both frontends",
        "Above: mel spectrogram in dB, scaled between the clip's own minimum and maximum, the input of BAT. Below: the "
        "Kaldi filter bank with the statistics of AudioSet, the input of EAT. Compare Figure 3 of the paper.",
    ),
    "live": (
        "Pre-training, live",
        "The loss falls as the student learns to predict the teacher's tokens of masked patches. That alone proves "
        "little: it would fall, too, if all tokens became one, so target variance and feature rank are watched. "
        "Position share is how much of the targets' variance a patch's place in the clip explains.",
    ),
    "attention": (
        "Attention without and with gate",
        "Top: the last block's attention, mean over heads; then what each token takes from each, the length of weight "
        "times value, before and after the gate. A bright column is a sink, a bright diagonal a token that keeps to "
        "itself. Bottom: what cls takes from each patch of the clip. Figure 5 of the paper compares two networks, "
        "trained without and with gate; this is one network, whose gate is left out or left in.",
    ),
}


def columns(records: Sequence[ResultRecord]) -> tuple[list[str], list[str]]:
    """The metrics of METRICS that every record holds, and the headings of a table with them."""
    names = [name for name in METRICS if all(name in record.metrics for record in records)]
    return names, ["Model", "Head", *map(metric_title, names)]


def interval(metric: Metric) -> str:
    """`0.412 [0.380, 0.441]`; n/a where undefined."""
    value, low, high = ("n/a" if math.isnan(x) else f"{x:.3f}" for x in (metric.value, metric.low, metric.high))
    return f"{value} [{low}, {high}]"


def is_best(record: ResultRecord, name: str, records: Sequence[ResultRecord]) -> bool:
    """Whether no other record has a higher value of a metric."""
    value = record.metrics[name].value
    return not math.isnan(value) and not any(other.metrics[name].value > value for other in records)


def terminal_table(records: Sequence[ResultRecord]) -> Table:
    """The table for a terminal of 80 columns; the best of a column is bold and starred. Names of models may wrap."""
    names, headings = columns(records)
    caption = f"{LEGEND} {records[0].head['steps']:,} probe steps, seed {records[0].seed}."
    table = Table(title=title(records), caption=caption, title_justify="left", caption_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=place > 0)
    for record, after in zip_longest(records, records[1:]):
        cells = [Text(record.model.id), Text(head_label(record))]  # as Text, so that [..] is not read as markup
        for name in names:
            text = interval(record.metrics[name])
            best = is_best(record, name, records)
            cells.append(Text(f"{text} {BEST}", style="bold green") if best else Text(text))
        table.add_row(*cells, end_section=after is None or after.model.id != record.model.id)
    return table


def markdown_table(records: Sequence[ResultRecord]) -> str:
    """The table as Markdown, with the definitions of its metrics below it."""
    names, headings = columns(records)
    lines = []
    for record in records:
        cells = [record.model.id, head_label(record)]
        for name in names:
            text = interval(record.metrics[name])
            cells.append(f"**{text}** {BEST}" if is_best(record, name, records) else text)
        lines.append([*cells, f"{record.head['steps']:,}", str(record.seed)])
    table = pipe_table([*headings, "Probe steps", "Seed"], lines, labels=2)
    definitions = [f"- {metric_title(name)}: {records[0].metrics[name].definition}" for name in names]
    return "\n".join([title(records), "", *table, "", f"{LEGEND} {interval_note(records)}", "", *definitions, ""])


def title(records: Sequence[ResultRecord]) -> str:
    """The clips that the table is about."""
    data = records[0].data
    clips = ", ".join(f"{count:,} {split}" for split, count in data.clips.items())
    rare = len(rare_classes(records[0]))
    present = f"{data.classes_present} of {data.classes} classes present in the test clips"
    return f"{data.name}: {clips} clips, {present}{f', {rare} of them in fewer than {FEW}' if rare else ''}"


def draw(folder: Path, encoder: AudioEncoder, table: ClipTable, log: Sequence[Mapping[str, Any]]) -> list[Exhibit]:
    """Write the figures of CAPTIONS into `folder`: of one busy test clip, and of the live run's log."""
    clip = busy_clip(table, split_for_probe(table)[1])
    waveform, labels = read(table, clip, encoder.sample_rate), labels_of(table, clip)
    spectrogram, attention = look(encoder, waveform)
    drawn = {
        "frontends": figures.frontends(waveform, labels, MelFrontend(FrontendConfig()), KaldiFrontend(KALDI)),
        "live": figures.live_curves(log),
        "attention": figures.attention(attention, spectrogram, encoder.frontend, labels),
    }
    return [Exhibit(save(figure, folder, name), *CAPTIONS[name]) for name, figure in drawn.items()]


def cards(head: Head, source: FeatureSource, table: ClipTable, count: int) -> tuple[Card, ...]:
    """The first `count` test clips, not selected by result, with the predictions of `head`."""
    mel = MelFrontend(FrontendConfig())
    rate = mel.config.sample_rate
    rows = split_for_probe(table)[1][:count]
    made = []
    for row, probabilities in zip(rows.tolist(), predict(head, source, rows).sigmoid(), strict=True):
        waveform = read(table, row, rate)
        likeliest = probabilities.argsort(descending=True)[:GUESSES].tolist()
        guesses = [(table.classes[i], float(probabilities[i])) for i in likeliest]
        sound = io.BytesIO()
        soundfile.write(sound, waveform.numpy(), rate, format="WAV", subtype="PCM_16")  # every browser plays it
        name, labels = Path(table.keys[row]).stem, labels_of(table, row)
        made.append(Card(name, name, "", labels, guesses, sound.getvalue(), spectrogram_png(waveform, mel)))
    return tuple(made)


def facts(
    record: ResultRecord,
    log: Sequence[Mapping[str, Any]],
    clips: int,
    held_out: int,
    model_steps: int,
    seconds: Mapping[str, float],
) -> list[tuple[str, str]]:
    """What was run, for the page: from the record of the shipped model, the live run's log and the clock.

    `model_steps` made the shipped model; `seconds` are those of each phase.
    """
    last, head, versions = log[-1], record.head, record.environment
    rate = last["clips_per_second"]
    return [
        (
            "Live pre-training",
            f"{last['step']:,} steps in {last['seconds']:.0f} s, {rate:.0f} clips/s; "
            f"{last['step'] / model_steps:.1%} of the {model_steps:,} steps that made {record.model.id}",
        ),
        ("Its clips", f"{clips} demo recordings; the {held_out} that test scenes are made of are left out"),
        ("Scenes", ", ".join(f"{count:,} {split}" for split, count in record.data.clips.items())),
        (
            "Probes",
            f"{head['steps']:,} steps of {head['batch_size']} clips, learning rate {head['lr']:g}, "
            f"{head['prototypes']} prototypes; all heads of a model side by side on the same batches",
        ),
        ("Shipped weights", f"{record.model.id}, sha256 {record.model.sha256}"),
        ("Seed", str(record.seed)),
        ("Device", f"{record.device}, {versions['cpu_threads']} threads, {versions['platform']}"),
        ("Versions", ", ".join(f"{name} {versions[name]}" for name in ("audiobat", "python", "torch", "numpy"))),
        ("Code", record.git_commit or "no git checkout"),
        ("Time", times(seconds)),
        ("Finished", environment()["created"]),
    ]


def times(seconds: Mapping[str, float]) -> str:
    """How long the whole demo and each phase of it took, in words."""
    phases = ", ".join(f"{name} {duration(each)}" for name, each in seconds.items())
    return f"Whole demo {duration(sum(seconds.values()))}: {phases}."


def licence() -> str:
    """The notice of the demo recordings, the first paragraph of their README, as HTML."""
    text = (demo_folder() / "README.md").read_text(encoding="utf-8")
    notice = escape(" ".join(text.split("\n\n")[1].split()))
    notice = re.sub(r"`([^`]+)`", r"<code>\1</code>", re.sub(r"\*([^*]+)\*", r"<em>\1</em>", notice))
    return notice.replace("(c)", "©")
