"""Figures of a report: what they draw is what the records hold; nothing is cut off; they tell apart in grey too."""

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray
from report_samples import make_record, many, scored
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

from audiobat.errors import AudiobatError
from audiobat.evaluation.record import Metric, ResultRecord, load_scores
from audiobat.evaluation.report.collect import Collection, collect, load_all
from audiobat.evaluation.report.curves import spearman, sweeps
from audiobat.evaluation.report.record_figures import (
    ALL_CLASSES,
    CLASSES,
    class_bars,
    f1_by_threshold,
    head_comparison,
    layer_curves,
    prototype_curve,
)
from audiobat.evaluation.report.run_figures import best_of_models, draw_all, drawings_of
from audiobat.evaluation.report.style import LINES, ORANGE, SERIES, SKY, folded, look


def collected(records: list[ResultRecord]) -> Collection:
    return collect([(Path(f"r{i}.json"), record) for i, record in enumerate(records)])


def words(figure: Figure) -> str:
    """All text of a figure."""
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    parts = [t.get_text() for ax in figure.axes for t in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)]
    return "\n".join([figure.get_suptitle(), *parts, *legends])


@pytest.mark.parametrize(("models", "data", "long_names"), [(2, "AudioSet-like scenes", False), (6, "ESC-50", True)])
def test_no_mark_or_name_lies_outside_of_a_figure(models: int, data: str, long_names: bool):
    records = many(models, classes=30 + 5 * models, seeds=2, depth=12, long_names=long_names)
    found = collected([record for record in records if record.data.name == data])
    names = []
    for drawn in drawings_of(found):
        name, figure = drawn.kind, drawn.figure
        names.append(name)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        box, (wide, high) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.02, name  # inches
        assert max(box.x1 - wide, box.y1 - high) <= 0.02, name
        assert drawn.heading
    assert sorted(names) == ["classes", "heads", "layers", "prototypes"]


def test_every_figure_is_an_svg_and_a_png(tmp_path: Path):
    for i, skill in enumerate((0.5, 1.0)):
        scored(tmp_path / "run" / "results" / f"{i}.json", skill, model=f"m{i}", gate=[0.4, 0.6])
    (tmp_path / "figures").mkdir()
    for name in ("heads_2_gone.svg", "heads_2_gone.png", "ranks.svg"):
        (tmp_path / "figures" / name).touch()
    exhibits = draw_all(tmp_path / "figures", collect(load_all([tmp_path / "run"])))
    assert not list((tmp_path / "figures").glob("*gone*")), "a figure of an older report would be taken for a new one"
    assert (tmp_path / "figures" / "ranks.svg").exists()  # not ours
    assert {exhibit.path.name for exhibit in exhibits} == {
        *("heads.svg", "classes.svg", "confusion.svg", "f1_threshold.svg", "layers.svg")
    }
    for exhibit in exhibits:
        assert exhibit.path.read_text(encoding="utf-8").startswith("<?xml")
        picture = imread(exhibit.path.with_suffix(".png"))[..., :3]
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 0.05  # something is drawn


def luminance(colour: str) -> float:
    """Of a colour on paper that was copied in grey, 0 to 1 (CIE L*)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    y = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return 1.16 * y ** (1 / 3) - 0.16


# What a dichromat sees of linear RGB, by Machado, Oliveira and Fernandes (2009), severity 1.
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TRITAN = [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]


def lab(colour: str, eyes: list[list[float]]) -> NDArray[np.float64]:
    """A colour as given eyes see it, in CIE L*a*b*."""
    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)])
    seen = np.clip(np.array(eyes) @ linear, 0, 1)
    xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]) @ seen
    x, y, z = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_series_tell_apart_in_grey_and_to_colour_blind_eyes():
    looks = [look(i) for i in range(len(SERIES) * len(LINES))]
    assert len({tuple(sorted(one.items())) for one in looks}) == len(looks)
    for a, b in combinations(looks[: len(SERIES)], 2):
        assert a["marker"] != b["marker"]
        shade = abs(luminance(a["color"]) - luminance(b["color"]))
        assert shade > 0.1 or a["linestyle"] != b["linestyle"], (a, b)
        for eyes in (PROTAN, DEUTAN, TRITAN):
            assert np.linalg.norm(lab(a["color"], eyes) - lab(b["color"], eyes)) > 10, (a, b)


def test_bars_are_seen_on_paper_and_black_marks_on_bars():
    for bar in (SKY, ORANGE):
        assert 0.2 < luminance(bar) < 0.8


def test_each_row_is_a_mark_at_its_metric_with_its_interval():
    records = [make_record(m, kind, v) for m, kind, v in (("a", "cgp", 0.3), ("a", "linear", 0.5), ("b", "cgp", 0.4))]
    rows = collected(records).rows
    figure = head_comparison(rows)
    (ax,) = figure.axes
    points = [tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 1]
    assert points == [(0.3,), (0.5,), (0.4,)]
    spans = [tuple(collection.get_segments()[0][:, 0]) for collection in ax.collections]
    assert spans == [pytest.approx((v - 0.03, v + 0.03)) for v in (0.3, 0.5, 0.4)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]  # the one with the best head first
    assert "CGP" in words(figure)


def test_tasks_have_panels_of_their_metrics_and_hide_no_figure_of_heads():
    task = make_record("a", "retrieval", 0.9)
    head = {name: value for name, value in task.head.items() if name != "loss"}
    task = replace(task, head=head, metrics={"ndcg_at_10": task.metrics["map"]}, per_class={})
    found = collected([make_record("a", "cgp", 0.3), make_record("b", "cgp", 0.4), task])
    heads, classes = (next(d.figure for d in drawings_of(found) if d.kind == kind) for kind in ("heads", "classes"))
    marks = [sorted(line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1) for ax in heads.axes]
    assert marks == [[0.3, 0.4], [0.9]]
    assert [ax.get_xlabel().partition(" with")[0] for ax in heads.axes] == ["mAP", "nDCG@10"]
    assert "b, CGP" in words(classes)  # the best model under its best head, whatever a task of another finds


def test_classes_of_the_best_model_are_bars_and_those_of_others_marks():
    names = [f"c_{i:02}" for i in range(ALL_CLASSES + 5)]
    best = {name: 0.95 - 0.02 * i for i, name in enumerate(names)}
    other = dict.fromkeys(names[1:], 0.5) | {names[0]: None}
    rows = collected([make_record("a", value=0.7, per_class=best), make_record("b", value=0.2, per_class=other)]).rows
    figure = class_bars(best_of_models(list(rows)))
    worst, top = figure.axes
    assert [bar.get_width() for bar in top.patches] == pytest.approx(sorted(best.values())[-CLASSES:])
    assert [bar.get_width() for bar in worst.patches] == pytest.approx(sorted(best.values())[:CLASSES])
    assert [label.get_text() for label in top.get_yticklabels()][-1] == "c 00"
    marks = top.lines[0].get_xdata()
    assert math.isnan(marks[-1])  # nobody measured it: no mark at 0
    assert set(marks[:-1]) == {0.5}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["a, CGP: mAP 0.700", "b, CGP: mAP 0.200"]


def test_a_few_classes_are_all_shown_in_one_panel():
    best = {f"c_{i:02}": 0.9 - 0.02 * i for i in range(ALL_CLASSES)}
    (ax,) = class_bars(collected([make_record("a", per_class={**best, "absent": None})]).rows).axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(sorted(best.values()))


def test_blocks_of_each_model_stand_over_its_gate():
    records = []
    for model, shift in (("a", 0.0), ("b", 0.1)):
        records += [make_record(model, gate=[0.2, 0.5, 0.3], seed=s) for s in (0, 1)]
        records += [
            make_record(model, "linear", 0.1 * block + shift + 0.02 * s, layer=block, seed=s)
            for block in (1, 2, 3)
            for s in (0, 1)
        ]
    figure = layer_curves(collected(records).layers)
    first, second, gate, _ = figure.axes
    assert [bar.get_height() for bar in first.patches] == pytest.approx([0.11, 0.21, 0.31])
    assert [bar.get_height() for bar in second.patches] == pytest.approx([0.21, 0.31, 0.41])
    assert [bar.get_height() for bar in gate.patches] == pytest.approx([0.2, 0.5, 0.3])
    dots = next(line for line in first.lines if line.get_marker() == "o")
    assert sorted(dots.get_ydata()) == pytest.approx([0.1, 0.12, 0.2, 0.22, 0.3, 0.32])
    assert "ρ +0.50 ± 0.00 (2 seeds)" in words(figure)


def test_an_interval_beside_its_value_can_be_drawn():
    """A basic bootstrap interval need not hold its value: a negative length of an error bar is none."""
    records = [make_record("a", gate=[0.2, 0.5, 0.3])]
    for block in (1, 2, 3):
        odd = make_record("a", "linear", layer=block)
        records.append(replace(odd, metrics={**odd.metrics, "map": Metric(0.10, 0.11, 0.13, "")}))
    layer_curves(collected(records).layers)


def test_spearman_is_scipys_with_and_without_ties():
    generator = np.random.default_rng(0)
    for high in (3, 1000):
        x, y = generator.integers(high, size=(2, 12)).tolist()
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert math.isnan(spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))


def test_sweeps_are_rows_that_differ_in_prototypes_alone():
    records = [make_record("a", value=0.1 * i, prototypes=10**i) for i in (1, 3, 2)]
    records += [make_record("a", value=0.9, prototypes=50, lr=0.5), make_record("a", "linear", prototypes=7)]
    (sweep,) = sweeps(collected(records).rows)
    figure = prototype_curve([sweep])
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [10, 100, 1000]
    assert list(line.get_ydata()) == pytest.approx([0.1, 0.2, 0.3])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["10", "100", "1,000"]


def test_f1_at_each_threshold_is_scikit_learns(tmp_path: Path):
    path = tmp_path / "results" / "a.json"
    scored(path, 0.8, model="a")
    found = collect(load_all([tmp_path]))
    figure = next(drawn.figure for drawn in drawings_of(found) if drawn.kind == "f1_threshold")
    line = figure.axes[0].lines[0]
    kept = load_scores(path, found.rows[0].first)
    probabilities = 1 / (1 + np.exp(-kept.scores.astype(np.float64)))
    expected = [f1_score(kept.targets, probabilities > t, average="macro", zero_division=0) for t in line.get_xdata()]
    assert list(line.get_ydata()) == pytest.approx(expected, abs=1e-6)
    best = line.get_xdata()[int(np.argmax(expected))]
    assert f"best at {best:.2f}" in words(figure)


def test_nothing_to_draw_is_an_error():
    for draw in (layer_curves, prototype_curve, head_comparison):
        with pytest.raises(AudiobatError):
            draw([])
    with pytest.raises(AudiobatError):
        f1_by_threshold("scenes", [])
    with pytest.raises(AudiobatError, match="no average precision"):
        class_bars(collected([make_record(per_class={"absent": None})]).rows)


def test_long_names_are_folded_and_cut():
    assert folded("one two three four", 9) == "one two\nthree…"
    assert folded("short", 9) == "short"
    assert folded("Donaudampfschifffahrt", 9, 1) == "Dona…"
    assert folded("x Donaudampfschifffahrt", 9, 1) == "x…"
    assert folded("", 9) == ""
