"""Every figure that records and logs of runs allow, as SVG and PNG files, with heading and caption for the page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from audiobat.evaluation.certainty import FEW, RARE_MARK
from audiobat.evaluation.metrics import f1_at
from audiobat.evaluation.record import load_scores
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.confusions import classes_html, confusion_figure, confusion_of_row
from audiobat.evaluation.report.curves import sweeps
from audiobat.evaluation.report.figures import training_curves
from audiobat.evaluation.report.record_figures import (
    LINES_SHOWN,
    Thresholds,
    class_bars,
    f1_by_threshold,
    head_comparison,
    layer_curves,
    prototype_curve,
)
from audiobat.evaluation.report.rows import Row, ranked
from audiobat.evaluation.report.style import RUNS_SHOWN, save
from audiobat.evaluation.report.web.html import Exhibit
from audiobat.evaluation.run_logs import RunLogs, scores_of

STEPS = 50  # thresholds tried are its multiples, ends aside
CAPTIONS = {  # of each kind of figure; the kind is the start of its file's name
    "heads": "Marks: means over seeds. Lines: 95% intervals over test clips.",
    "classes": "Bars: the best model under its best head. Marks: other models, each under its own best head. "
    f"{RARE_MARK} Fewer than {FEW} test clips have the class: its precision depends much on chance.",
    "confusion": "Counts of true classes, coloured by their share of the row: of the best model under its best head, "
    "with its first seed.",
    "f1_threshold": "The F1 of tables is at a threshold of 0.5. A head whose best threshold lies elsewhere may rank "
    "clips well and yet predict a class too rarely or too often. Best thresholds are chosen on the test clips, "
    "for this figure alone, and are not reported. "
    f"At most {LINES_SHOWN} models, each under its best head and with its first seed.",
    "layers": "Top: linear probes of each block, with 95% intervals. Bottom: the weights that CGP's gate learned; the "
    "dashed line is where it starts. Gate weights of blocks that hold nearly the same are not unique. Bars: means over "
    "seeds. Dots: seeds. ρ: Spearman's rank correlation of the two, mean and standard deviation over seeds. Compare "
    "Figures 4 and 6 of the paper.",
    "training_scores": "Measured on labelled clips while the runs trained: accuracy where clips have one label each, "
    "else mAP. online: small probes of what a release would keep; valid: the validation of a fine-tuning.",
    "training_loss": "The loss and its parts, means over the steps between two rows of the log; of more than 500 rows, "
    "means of neighbours.",
    "training_health": "Statistics by which a collapse shows. Target variance or token std near 0, or a feature rank "
    "near 1: all patches look the same. Position share near 1: targets tell the place of a patch, not its sound.",
    "training_speed": "The learning rate, clips a second, and the share of the time that waits for data.",
    "prototypes": "Bands: 95% intervals over test clips. Compare Figure 2 of the paper.",
}


LOSSES = ("loss", "local_loss", "global_loss", "retention_loss")
SPEED = ("lr", "clips_per_second", "data_wait")
NOT_DRAWN = ("step", "seconds", "steps_per_second", "watch_seconds", "watch_share")
TITLES = {
    "loss": "Loss",
    "local_loss": "Local loss: masked patches",
    "global_loss": "Global loss: cls token",
    "retention_loss": "Retention loss: mixtures",
    "lr": "Learning rate",
    "clips_per_second": "Clips a second",
    "data_wait": "Share of time that waits for data",
}


def draw_training(folder: Path, logs: Sequence[RunLogs]) -> list[Exhibit]:
    """Write the curves of runs into `folder` and return them; of very many runs, those of the first ones."""
    shown = [log for log in logs if log.rows][:RUNS_SHOWN]
    names = [name for name in dict.fromkeys(n for log in shown for n in log.names) if name not in NOT_DRAWN]
    scores = scores_of(shown)
    groups = {
        "training_scores": ("Labelled clips, while the runs train", scores),
        "training_loss": ("Loss", [name for name in LOSSES if name in names]),
        "training_health": ("Health", [name for name in names if name not in (*LOSSES, *SPEED, *scores)]),
        "training_speed": ("Schedule and speed", [name for name in SPEED if name in names]),
    }
    exhibits = []
    for kind, (heading, panels) in groups.items():
        if panels:
            path = save(training_curves(shown, panels, TITLES), folder, kind)
            exhibits.append(Exhibit(path, heading, CAPTIONS[kind]))
    return exhibits


def clear(folder: Path) -> None:
    """Remove the figures of an older report."""
    for kind in CAPTIONS:
        for old in (*folder.glob(f"{kind}*.svg"), *folder.glob(f"{kind}*.png")):
            old.unlink()


def draw_all(folder: Path, found: Collection) -> list[Exhibit]:
    """Write every figure into `folder` and return them, each data set's together; those of an older report go."""
    clear(folder)
    exhibits = []
    for drawn in drawings_of(found):
        data = drawn.data
        place = found.data_sets.index(data) + 1 if data else 0
        several = place and len(found.data_sets) > 1
        suffix = f"_{place}_{re.sub(r'[^A-Za-z0-9]+', '-', data).strip('-')}" if several else ""
        path = save(drawn.figure, folder, drawn.kind + suffix)
        exhibits.append(Exhibit(path, drawn.heading, CAPTIONS[drawn.kind], data, drawn.below))
    return exhibits


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of the page."""

    kind: str  # of CAPTIONS
    data: str  # the data set; "" for all
    figure: Figure
    heading: str
    below: str = ""  # HTML below the caption


def drawings_of(found: Collection) -> Iterator[Drawing]:
    """The figures, each data set's together."""
    for data in found.data_sets:
        rows = [row for row in found.rows if row.data == data]
        if len(rows) > 1:
            yield Drawing("heads", data, head_comparison(rows), f"{data}: models and heads")
        by_model = best_of_models(rows)
        if any(row.per_class for row in by_model[:1]):
            yield Drawing("classes", data, class_bars(by_model), f"{data}: classes")
        confused = confusion_of_row(by_model[0])
        if confused is not None:
            unit = "patch columns" if by_model[0].first.head.get("task") == "frame" else "clips"
            figure = confusion_figure(f"{by_model[0].model}, {by_model[0].head}, {data}", confused, unit)
            yield Drawing("confusion", data, figure, f"{data}: confusion matrix", classes_html(confused))
        lines = [line for row in by_model[:LINES_SHOWN] for line in thresholds_of(row)]
        if lines:
            yield Drawing("f1_threshold", data, f1_by_threshold(data, lines), f"{data}: F1 by threshold")
        curves = [curve for curve in found.layers if curve.data == data]
        if curves:
            yield Drawing("layers", data, layer_curves(curves), f"{data}: blocks and gates")
    grown = sweeps(found.rows)
    if grown:
        yield Drawing("prototypes", "", prototype_curve(grown), "How many prototypes")


def best_of_models(rows: list[Row]) -> list[Row]:
    """Each model's row with the best main metric, the best model first; of heads, beside which tasks have others."""
    best: dict[str, Row] = {}
    for row in ranked([row for row in rows if not row.task] or rows):
        best.setdefault(row.model, row)
    return list(best.values())


def thresholds_of(row: Row) -> list[Thresholds]:
    """Macro F1 of the row's first seed at thresholds between 0 and 1; nothing without scores of single classes.

    With a softmax over classes (loss ce) no threshold applies: the likeliest class is the prediction.
    """
    path, record = row.loaded[0]
    if record.scores is None or record.head.get("loss") == "ce" or "map" not in record.metrics:
        return []
    scores = load_scores(path, record)
    logits, targets = torch.from_numpy(scores.scores), torch.from_numpy(scores.targets)
    steps = tuple(i / STEPS for i in range(1, STEPS))
    f1 = tuple(float(f1_at(logits, targets, math.log(t / (1 - t)))) for t in steps)
    return [Thresholds(f"{row.model}, {row.head}", steps, f1)]
