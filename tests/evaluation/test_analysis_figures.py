"""Figures of an analysis: frames lie on the patches that a search finds; nothing is cut off or written over another."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig
from audiobat.evaluation.report.analysis_figures import (
    KINDS,
    MEANS,
    OUTLINED,
    PrototypeClip,
    class_prototypes,
    likeness,
    ranks,
    sinks,
)

FRONTEND = MelFrontend(FrontendConfig())
BINS = FRONTEND.config.mel_bins
HOP = FRONTEND.config.hop_length / FRONTEND.config.sample_rate


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def prototype_clip(columns: int = 5, bands: int = 4, frames: int = 128, **changes: object) -> PrototypeClip:
    """Patches of 30 frames, so that the last column is cut, with one patch of padding."""
    similarity = np.random.default_rng(0).permutation(columns * bands).reshape(columns, bands) / 100.0
    similarity[0, 1] = math.nan
    given = {"prototype": 7, "strength": 0.25, "labels": ["bell"], "column_seconds": 30 * HOP, **changes}
    return PrototypeClip(spectrogram=np.random.default_rng(1).random((frames, BINS)), similarity=similarity, **given)


def test_frames_lie_on_the_most_similar_patches_and_the_best_is_solid():
    one = prototype_clip()
    figure = drawn(class_prototypes("bell", 0.5, [one], FRONTEND))
    left, right, *_ = figure.axes
    white = [p for p in left.patches if isinstance(p, Rectangle) and p.get_edgecolor()[:3] == (1, 1, 1)]
    found = set()
    for frame in white:
        (x, y), width, height = frame.get_xy(), frame.get_width(), frame.get_height()
        t, f = int((x + width / 2) / one.column_seconds), int((y + height / 2) / (BINS / 4))
        assert height == pytest.approx(BINS / 4, rel=0.1)
        assert width == pytest.approx(one.column_seconds if t < 4 else 8 * HOP, rel=0.3)  # 128 frames: 4 x 30 + 8
        assert x + width <= left.get_xlim()[1]
        found.add((one.similarity[t, f], (t, f), frame.get_linestyle()))
    flat = [(value, place) for place, value in np.ndenumerate(one.similarity) if not math.isnan(value)]
    best = sorted(flat, reverse=True)[:OUTLINED]
    lines = {place: line for _, place, line in found}
    assert set(lines) == {place for _, place in best}
    assert {place for place, line in lines.items() if line == "-"} == {best[0][1]}
    image = right.get_images()[0]
    np.testing.assert_array_equal(image.get_array().filled(math.nan), one.similarity.T)
    assert left.get_xlim() == right.get_xlim() == pytest.approx((0, 128 * HOP))


def texts_inside(figure: Figure) -> bool:
    """Whether titles lie in the figure."""
    renderer, whole = figure.canvas.get_renderer(), figure.bbox
    titles = [figure._suptitle, *(ax.title for ax in figure.axes), *(ax._left_title for ax in figure.axes)]
    boxes = [title.get_window_extent(renderer) for title in titles if title is not None and title.get_text()]
    return all(box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1 for box in boxes)


def ticks_apart(figure: Figure) -> bool:
    """Whether numbers under an axis are apart enough to be told from one another."""
    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        low, high = ax.get_xlim()
        ticks = [t for t in ax.xaxis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_visible()]
        boxes = sorted((t.label1.get_window_extent(renderer) for t in ticks if t.label1.get_text()), key=lambda b: b.x0)
        if any(a.x1 + GAP > b.x0 for a, b in itertools.pairwise(boxes)):
            return False
    return True


def measured(depth: int, heads: int, kinds: tuple[str, ...] = tuple(KINDS)) -> dict:
    values = np.random.default_rng(2).random((depth, heads)).tolist()
    return {kind: dict.fromkeys(("first_token", *MEANS), values) for kind in kinds}


def blocks(depth: int, lidar: float | None = 4.0) -> list[dict]:
    kinds = {kind: {"rankme": 5.0, "effective_rank": 3.0, "token_std": 0.5} for kind in ("patches", "mean", "cls")}
    return [{"block": i + 1, **kinds, "lidar": lidar} for i in range(depth)]


GAP = 3  # pixels
LONG = "Domestic sounds, home sounds and other W" * 4


@pytest.mark.parametrize(
    "figure",
    [
        lambda: sinks(measured(24, 16)),
        lambda: sinks(measured(1, 1, ("weights", "values"))),
        lambda: ranks(blocks(32)),
        lambda: likeness(np.eye(32).tolist()),
        lambda: class_prototypes(LONG, 0.123, [prototype_clip(labels=[LONG, LONG])], FRONTEND),
        lambda: class_prototypes("W" * 60, 0.123, [prototype_clip(columns=200, column_seconds=HOP)], FRONTEND),
    ],
    ids=["sinks of 24 blocks", "sinks of one head", "ranks", "cka", "long name", "long word"],
)
def test_nothing_is_cut_off_or_written_over_another(figure):
    made = drawn(figure())
    assert texts_inside(made)
    assert ticks_apart(made)


def test_lines_show_their_highest_mark_whole_and_begin_at_zero():
    for ax in drawn(ranks(blocks(6))).axes:
        low, high = ax.get_ylim()
        assert low == 0
        assert high > 1.05 * max(line.get_ydata().max() for line in ax.lines)


def test_measures_that_are_missing_are_said_to_be():
    figure = drawn(ranks(blocks(2, lidar=None)))
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["not measured"]


def test_colours_of_likeness_span_what_there_is_up_to_one():
    image = likeness([[1.0, 0.64], [0.64, 1.0]]).axes[0].get_images()[0]
    assert image.get_clim() == pytest.approx((0.6, 1.0))
    assert likeness([[1.0, 0.97], [0.97, 1.0]]).axes[0].get_images()[0].get_clim() == pytest.approx((0.9, 1.0))


def test_sinks_of_a_model_without_gates_have_two_maps_on_one_scale():
    found = measured(3, 2, ("weights", "values"))
    found["values"]["first_token"] = (2 * np.array(found["weights"]["first_token"])).tolist()
    figure = sinks(found)
    maps = [image for ax in figure.axes for image in ax.get_images()]
    assert len(maps) == 2
    top = np.max(found["values"]["first_token"])
    assert [image.get_clim() for image in maps] == [pytest.approx((0, top))] * 2
    np.testing.assert_array_equal(maps[0].get_array(), np.array(found["weights"]["first_token"]).T)  # heads down
