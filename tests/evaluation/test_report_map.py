"""The map of sounds: in Chromium points are pointed at, played, found and filtered; clips stay where they belong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from report_browser import Browser

from audiobat.errors import AudiobatError
from audiobat.evaluation.report.run import report
from audiobat.evaluation.report.sound_map import read_map, unit_square

RATE = 8_000
POINTS = 12
SAID = 'document.querySelector("[data-part=said]").textContent'
POINT = """(() => {{ const canvas = document.querySelector("[data-part=canvas]"), box = canvas.getBoundingClientRect();
  const size = Math.min(box.width, box.height) - 48, [x, y] = [{0}, {1}];
  const where = {{ clientX: box.left + box.width / 2 + (x - 0.5) * size, pointerId: 1, bubbles: true,
    clientY: box.top + box.height / 2 - (y - 0.5) * size }};
  for (const kind of {2}) canvas.dispatchEvent(new PointerEvent(kind, where)); }})()"""


def write_map(folder: Path, **change: Any) -> Path:
    """A map in two clusters, whose first point has a clip."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    cluster = [i % 2 for i in range(POINTS)]
    cluster[-1] = -1
    plain = {
        "format": "audiobat-map-1",
        "points": [[100 * c + float(rng.normal()), 5 * float(rng.normal())] for c in cluster],
        "cluster": cluster,
        "label": ["goat" if c else "axe_on_tree" for c in cluster[:-1]] + [None],
        "file": [f"site/{i}.wav" for i in range(POINTS)],
        "start": [4.0 * i for i in range(POINTS)],
        "end": [4.0 * i + 4 for i in range(POINTS)],
        "clip": ["clips/a b#1.wav", *[None] * (POINTS - 1)],
    }
    (folder / "clips").mkdir()
    soundfile.write(folder / "clips" / "a b#1.wav", 0.1 * rng.standard_normal(RATE), RATE)
    (folder / "map.json").write_text(json.dumps(plain | change), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("map")
    return report(write_map(folder / "map"), folder / "out") / "index.html"


@pytest.fixture
def tab(browser: Browser, page: Path) -> Browser:
    browser.resize(1280)
    browser.open(page)
    browser.drawn()
    return browser


def places(page: Path) -> list[list[float]]:
    """Where the points are in the page's square."""
    return unit_square(read_map(page.parent.parent / "map")["points"])


def test_a_point_says_what_it_is_and_a_click_plays_it(tab: Browser, page: Path):
    for i, (x, y) in enumerate(places(page)):
        tab.run(POINT.format(x, y, '["pointermove"]'))
        said = tab.run(SAID)
        assert f"site/{i}.wav, {4 * i // 60}:{4 * i % 60:04.1f} to" in said
        assert ("no sound is kept" in said) == (i > 0)
    x, y = places(page)[0]
    tab.run(POINT.format(x, y, '["pointerdown", "pointerup"]'))
    sound = 'document.querySelector("[data-part=audio]")'
    tab.until(f"{sound}.duration")
    assert tab.run(f"{sound}.duration") == pytest.approx(1.0, abs=0.05)
    assert [url for url in tab.requests if not url.startswith(("data:", page.parent.resolve().as_uri()))] == []
    assert tab.complaints == []


def test_names_and_words_pick_points(tab: Browser):
    names = '[...document.querySelectorAll("[data-part=legend] button")].map(e => e.textContent)'
    assert tab.run(names) == ["0: axe on tree (6)", "1: goat (5)"]
    tab.give("by", "label")
    assert tab.run(names) == ["axe on tree (6)", "goat (5)"]
    tab.point('document.querySelectorAll("[data-part=legend] button")[1]', click=True)
    pressed = '[...document.querySelectorAll("[data-part=legend] [aria-pressed=true]")].map(e => e.textContent)'
    assert tab.run(pressed) == ["goat (5)"]
    tab.give("search", "GOAT", "input")
    assert tab.run(SAID) == "5 points"


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_hangs_over_the_window(tab: Browser, width: int):
    tab.resize(width, dark=width == 390)
    tab.drawn()
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_clips_are_copied_unless_the_page_lies_with_the_map(tmp_path: Path):
    folder = write_map(tmp_path / "map")
    inside = report(folder, folder / "page")
    outside = report(folder, tmp_path / "elsewhere")
    assert "../clips/a%20b%231.wav" in (inside / "index.html").read_text(encoding="utf-8")
    assert not (inside / "clips").exists()
    assert "clips/clips/a%20b%231.wav" in (outside / "index.html").read_text(encoding="utf-8")
    copied = outside / "clips" / "clips" / "a b#1.wav"
    assert copied.read_bytes() == (folder / "clips" / "a b#1.wav").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clip": ["../../secret.wav", *[None] * 11]}, "must lie in the folder"),
        ({"clip": ["/etc/hostname", *[None] * 11]}, "must lie in the folder"),
        ({"points": [[0.0, 1.0]] * 11}, "different lengths"),
        ({"points": [[0.0, 1.0, 2.0]] * 12}, "pairs of numbers"),
        ({"points": [[0.0, float("nan")]] * 12}, "pairs of numbers"),
        ({"label": [3] * 12}, "label holds"),
        ({"cluster": ["x"] * 12}, "damaged map"),
        ({"file": None}, "damaged map"),
        ({"format": "audiobat-map-9"}, "no map of format"),
    ],
)
def test_maps_that_are_damaged_or_lie_are_refused(tmp_path: Path, change: dict[str, Any], said: str):
    folder = write_map(tmp_path / "map", **change)
    with pytest.raises(AudiobatError, match=said):
        report(folder, tmp_path / "out")


def test_all_points_at_one_place_are_in_the_middle():
    assert unit_square([[3.0, 3.0], [3.0, 3.0]]) == [[0.5, 0.5], [0.5, 0.5]]
    assert unit_square([[0.0, 0.0], [10.0, 4.0]]) == [[0.0, 0.3], [1.0, 0.7]]
