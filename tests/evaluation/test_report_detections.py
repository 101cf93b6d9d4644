"""The page of an evaluation: in Chromium its numbers are those of plain counts here, at any threshold."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from evaluation_folder import CLASSES, RATE, Row, random_events, shares_time, write_evaluation
from matplotlib import image
from PIL import Image
from report_browser import Browser
from report_samples import make_record, save_all
from scipy.optimize import linear_sum_assignment

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import frames_to_events
from audiobat.evaluation.report.detections.score_tracks import HUNDREDTHS
from audiobat.evaluation.report.detections.sounds import BANDS, write_sound
from audiobat.evaluation.report.detections.timeline import busiest
from audiobat.evaluation.report.run import report
from audiobat.evaluation.score_file import About
from audiobat.inference.scores import write_scores

PATIENCE = 500  # looks for something that is to come
FILES = {"site a/one.wav": 40.0, "two.wav": 25.0}
COUNTS = """Object.fromEntries([...document.querySelectorAll("[data-part=counts] span")].map(
    e => [e.textContent.split(" ").slice(1).join(" "), e.firstChild.textContent]))"""


@pytest.fixture(scope="module")
def events() -> tuple[list[Row], list[Row]]:
    truth, found = random_events(3, FILES, CLASSES)
    # Taken in turn, the first true one would take the detection that alone suits the second.
    truth += [("two.wav", 20.0, 22.0, "horn", None), ("two.wav", 20.05, 21.4, "horn", None)]
    found += [("two.wav", 20.0, 21.65, "horn", 0.9), ("two.wav", 20.1, 22.3, "horn", 0.8)]
    return truth, found


@pytest.fixture(scope="module")
def page(events: tuple[list[Row], list[Row]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_evaluation(folder / "evaluation", *events, FILES)
    return report(folder / "evaluation", folder / "out") / "index.html"


@pytest.fixture
def tab(browser: Browser, page: Path) -> Browser:
    """The page as it is when one opens it, with its numbers there."""
    browser.resize(1280)
    browser.open(page)
    settled(browser)
    return browser


def settled(tab: Browser) -> None:
    """Wait until the timeline has drawn."""
    tab.drawn()
    tab.until('document.querySelectorAll("[data-part=counts] span").length')


def choose(tab: Browser, part: str, chosen: str, event: str = "change") -> None:
    """Give a control of the timeline a value, and wait for what changes."""
    tab.give(part, chosen, event)
    settled(tab)


def shown_file(tab: Browser) -> str:
    """The recording that is shown."""
    name = tab.run('document.querySelector("[data-part=recording]").selectedOptions[0].textContent')
    return next(file for file in FILES if str(name).startswith(file))


def counted(truth: list[Row], found: list[Row], rule: str) -> tuple[int, int]:
    """True events that are found, and right detections, by plain comparison of all pairs."""
    if rule == "overlap":
        return (
            sum(any(shares_time(one, other) for other in found) for one in truth),
            sum(any(shares_time(one, other) for other in truth) for one in found),
        )
    fits = np.zeros((len(truth), len(found)))
    for i, one in enumerate(truth):
        for j, other in enumerate(found):
            collar = max(0.2, 0.2 * (one[2] - one[1]))
            ends = rule == "onset" or abs(one[2] - other[2]) <= collar + 1e-9
            fits[i, j] = one[3] == other[3] and abs(one[1] - other[1]) <= 0.2 + 1e-9 and ends
    hits = int(fits[linear_sum_assignment(-fits)].sum())
    return hits, hits


def of_file(rows: list[Row], file: str) -> list[Row]:
    return [row for row in rows if row[0] == file]


def assert_counts(tab: Browser, truth: list[Row], found: list[Row], rule: str) -> None:
    """The page shows what plain counting gives."""
    hits, right = counted(truth, found, rule)
    shown = tab.run(COUNTS)
    numbers = {"true": len(truth), "missed": len(truth) - hits, "detected": len(found)}
    assert {name: int(shown[name]) for name in numbers} == numbers
    assert int(shown["false alarms"]) == len(found) - right
    if found:
        assert float(shown["precision"].rstrip("%")) == pytest.approx(100 * right / len(found), abs=0.051)


def test_it_asks_for_nothing_but_what_lies_beside_it(tab: Browser, page: Path):
    for _ in range(PATIENCE):
        if any(url.endswith(".webp") for url in tab.requests):
            break
        tab.run("new Promise(done => setTimeout(done, 20))")
    folder = page.parent.resolve().as_uri()
    assert [url for url in tab.requests if not url.startswith(("data:", folder))] == []
    assert tab.complaints == []


@pytest.mark.parametrize("rule", ["overlap", "onset", "event"])
def test_numbers_are_those_of_all_pairs_compared(tab: Browser, events: tuple[list[Row], list[Row]], rule: str):
    choose(tab, "rule", rule)
    for number in range(len(FILES)):
        choose(tab, "recording", str(number))
        file = shown_file(tab)
        assert_counts(tab, of_file(events[0], file), of_file(events[1], file), rule)


def test_the_threshold_takes_detections_away_and_gives_them_back(tab: Browser, events: tuple[list[Row], list[Row]]):
    file = shown_file(tab)
    truth, found = (of_file(rows, file) for rows in events)
    for threshold in (1, 30, 77, 99):
        choose(tab, "threshold", str(threshold), "input")
        assert_counts(tab, truth, [row for row in found if row[4] > threshold / 100], "overlap")
    tab.point('document.querySelector("[data-part=given]")', click=True)
    assert_counts(tab, truth, found, "overlap")


def test_one_class_alone(tab: Browser, events: tuple[list[Row], list[Row]]):
    choose(tab, "class", "1")
    file = shown_file(tab)
    assert_counts(tab, *([row for row in of_file(rows, file) if row[3] == CLASSES[1]] for rows in events), "overlap")


def test_mistakes_one_after_the_other(tab: Browser, events: tuple[list[Row], list[Row]]):
    tab.run('document.querySelector("[data-part=scroll]").scrollLeft = 0')
    seen = []
    while True:
        tab.point('document.querySelector("[data-part=next]")', click=True)
        said = tab.run('document.querySelector("[data-part=said]").textContent')
        if said.startswith("No mistake"):
            break
        assert said.endswith((": missed", ": a false alarm"))
        seen.append(said)
    truth, found = (of_file(rows, shown_file(tab)) for rows in events)
    mistakes = [one for one in truth if not any(shares_time(one, other) for other in found)]
    mistakes += [one for one in found if not any(shares_time(one, other) for other in truth)]
    assert len(seen) == len({start for _, start, *_ in mistakes})
    assert len(set(seen)) == len(seen)


def test_a_click_on_an_event_tells_what_it_is_and_plays_it(tab: Browser):
    tab.point('document.querySelector("[data-part=next]")', click=True)
    said = tab.run('document.querySelector("[data-part=said]").textContent')
    # the event is in some lane, at some time
    began = tab.run(
        """(() => { const canvas = document.querySelector("[data-part=canvas]"), box = canvas.getBoundingClientRect();
        const said = document.querySelector("[data-part=said]"), wanted = said.textContent;
        for (let y = 165; y < box.height; y += 4) for (let x = 0; x < box.width; x += 3) {
          said.textContent = "";
          const where = { clientX: box.left + x, clientY: box.top + y };
          canvas.dispatchEvent(new MouseEvent("mousemove", where));
          if (said.textContent !== wanted) continue;
          canvas.dispatchEvent(new MouseEvent("click", where));
          return document.querySelector("[data-part=audio]").currentTime;
        }
        return null; })()"""
    )
    assert began is not None, said
    audio = 'document.querySelector("[data-part=audio]")'
    tab.until(f"{audio}.duration && !{audio}.paused")
    seconds = tab.run(f"{audio}.duration")
    assert seconds == pytest.approx(FILES[shown_file(tab)], abs=0.2)
    minutes, rest = re.search(r", (\d+):([\d.]+) to ", said).groups()
    assert began == pytest.approx(max(0.0, 60 * int(minutes) + float(rest) - 0.2), abs=0.01)


def test_the_spectrogram_is_drawn(tab: Browser):
    box = tab.run(
        '(b => [b.left, b.top + scrollY])(document.querySelector("[data-part=canvas]").getBoundingClientRect())'
    )
    left, top = map(round, box)
    for _ in range(PATIENCE):  # until the strip is there
        shot = tab.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        pixels = image.imread(io.BytesIO(base64.b64decode(shot)), format="png")[..., :3]
        if pixels[top + 20 : top + 120, left + 100 : left + 800].std() > 0.05:  # noise is not of one colour
            return
        tab.run("new Promise(done => setTimeout(done, 20))")
    pytest.fail("no spectrogram is drawn")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_hangs_over_the_window(tab: Browser, width: int):
    tab.resize(width, dark=width == 390)
    assert tab.run("document.documentElement.scrollWidth") <= width
    narrowest = 'Math.min(...[...document.querySelectorAll("dd")].map(e => e.clientWidth || 999))'
    assert tab.run(narrowest) > 200, "a list of names leaves room for what they stand for"


def test_scores_of_frames_give_the_events_of_predict_at_every_threshold(browser: Browser, tmp_path: Path):
    rng = np.random.default_rng(5)
    frames, hop = 300, 0.08
    scores = np.repeat(rng.random((frames // 4, 3)), 4, 0) * 0.8 + 0.2 * rng.random((frames, 3))
    scores = scores.astype(np.float32)
    scores[::7] = np.round(scores[::7], 2)  # some lie on thresholds
    starts = np.arange(frames) * hop
    files = {"one.wav": frames * hop}
    truth: list[Row] = [("one.wav", 1.0, 2.0, CLASSES[0], None), ("one.wav", 5.0, 5.5, CLASSES[2], None)]
    folder = write_evaluation(tmp_path / "evaluation", truth, [], files, sounds=False)
    plain = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    write_score_file(tmp_path / "kept.npz", starts, hop, scores)
    plain["predictions"] = str(tmp_path / "kept.npz")
    (folder / "evaluation.json").write_text(json.dumps(plain), encoding="utf-8")
    browser.open(report(folder, tmp_path / "out") / "index.html")
    settled(browser)
    for threshold in (5, 20, 37, 50, 63, 90):
        choose(browser, "threshold", str(threshold), "input")
        limit = float(HUNDREDTHS[threshold])
        expected = frames_to_events(torch.from_numpy(scores), torch.from_numpy(starts), hop, limit)
        found: list[Row] = [
            ("one.wav", onset, offset, CLASSES[label], 1.0)
            for label, onset, offset in zip(*(x.tolist() for x in vars(expected).values()), strict=True)
        ]
        assert_counts(browser, truth, found, "overlap")


def write_score_file(path: Path, starts: np.ndarray, hop: float, scores: np.ndarray) -> None:
    """Scores of the frames of two recordings, the second one a stranger."""
    rows = [
        {"row": np.full(len(starts), i), "rate": np.full(len(starts), RATE), "start": starts, "end": starts + hop}
        | {"scores": scores if i == 0 else np.ones_like(scores)}
        for i in range(2)
    ]
    about = About(CLASSES, "frames", True, (), 3, RATE / 2, "x")
    write_scores(path, lambda columns: iter(rows), ["folder/one.wav", "stranger.wav"], about)


def test_hundredths_compare_as_the_scores_do():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(2000, np.float32), HUNDREDTHS, np.nextafter(HUNDREDTHS, np.float32(2))])
    counts = np.searchsorted(HUNDREDTHS, scores)
    for threshold in range(1, 100):
        assert ((counts > threshold) == (scores > threshold / 100)).all()


def test_a_long_recording_is_cut_where_most_mistakes_are():
    assert busiest([10.0, 5000.0, 5003.0, 5100.0], 1800.0, 9000.0) == 4999.0
    assert busiest([8900.0], 1800.0, 9000.0) == 7200.0
    assert busiest([], 1800.0, 9000.0) == 0.0


def test_a_tone_is_heard_and_seen_where_it_is(tmp_path: Path):
    time = np.arange(70 * RATE) / RATE
    tone = np.where((time > 61) & (time < 63), np.sin(2 * np.pi * 1000 * time), 0.001 * np.sin(time * 9000))
    soundfile.write(tmp_path / "tone.wav", 0.5 * tone, RATE)
    sound = write_sound(tmp_path / "tone.wav", tmp_path / "out", "0")
    samples, rate = soundfile.read(tmp_path / "out" / sound.audio)
    assert rate == RATE
    loud = np.flatnonzero(np.abs(samples) > 0.25) / rate
    assert (loud.min(), loud.max()) == pytest.approx((61, 63), abs=0.1)
    assert [strip[1:] for strip in sound.strips] == [(0.0, 60.0), (60.0, 70.0)]
    pixels = np.asarray(Image.open(tmp_path / "out" / sound.strips[1][0]).convert("L"), float)
    assert pixels.shape[0] == BANDS
    bright = np.argwhere(pixels > 0.9 * pixels.max())
    row, column = np.median(bright, 0)
    (height,) = (height for height, name in sound.ticks if name == "1 kHz")
    assert 1 - (row + 0.5) / BANDS == pytest.approx(height, abs=1.5 / BANDS)
    assert 60 + 10 * column / pixels.shape[1] == pytest.approx(62, abs=1.1)


def test_the_best_thresholds_are_those_that_predict_takes(browser: Browser, page: Path):
    browser.open(page)
    classes = '[...document.querySelectorAll("section")].find(e => e.firstChild.textContent === "Classes")'
    last = (
        f"Object.fromEntries([...{classes}.querySelectorAll('tr')].map(e => [e.cells[0], e.cells[e.cells.length - 1]]"
    )
    found = browser.run(f"{last}.map(cell => cell.textContent)))")
    kept = json.loads((page.parents[1] / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))["thresholds"]
    assert found == {"Class": "Best threshold", CLASSES[0]: "-", **{name: str(value) for name, value in kept.items()}}


def test_labels_without_times_have_tables_alone(browser: Browser, tmp_path: Path):
    folder = write_evaluation(tmp_path / "evaluation", [], [], FILES, sounds=False)
    (folder / "events.csv").unlink()
    plain = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    plain["levels"] = {"clip": plain["levels"]["clip"]}
    for row in plain["per_recording"]:
        row["levels"] = {"clip": row["levels"]["overlap"]}
    (folder / "evaluation.json").write_text(json.dumps(plain | {"confusion": None}), encoding="utf-8")
    browser.open(report(folder, tmp_path / "out") / "index.html")
    headings = browser.run('[...document.querySelectorAll("h2")].map(e => e.textContent)')
    assert headings == ["Results", "Classes", "Recordings", "What was evaluated"]
    assert browser.complaints == []


def test_without_its_recordings_the_page_says_so(tmp_path: Path, events: tuple[list[Row], list[Row]]):
    write_evaluation(tmp_path / "evaluation", *events, FILES, sounds=False)
    html = (report(tmp_path / "evaluation", tmp_path / "out") / "index.html").read_text(encoding="utf-8")
    assert "The recording was not there when this page was made." in html
    assert not (tmp_path / "out" / "recordings").exists()


def test_without_its_recordings_bars_stand_at_the_top(browser: Browser, tmp_path: Path, events):
    heights = []
    for name, sounds in (("without", False), ("with", True)):
        write_evaluation(tmp_path / name, *events, FILES, sounds=sounds)
        browser.open(report(tmp_path / name, tmp_path / f"{name} page") / "index.html")
        settled(browser)
        heights.append(browser.run('document.querySelector("[data-part=canvas]").getBoundingClientRect().height'))
    assert heights[0] < heights[1] - 100


@pytest.mark.parametrize(
    ("threshold", "slider"), [(None, 50), ("0.9", 90), ("2", 99), ("inf", 50), ("ev/thresholds.json", 50)]
)
def test_the_page_says_the_threshold_that_was_given(tmp_path: Path, events, threshold: str | None, slider: int):
    folder = write_evaluation(tmp_path / "evaluation", *events, FILES, sounds=False)
    plain = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    (folder / "evaluation.json").write_text(json.dumps(plain | {"threshold": threshold}), encoding="utf-8")
    html = (report(folder, tmp_path / "out") / "index.html").read_text(encoding="utf-8")
    assert f"max=99 value={slider} " in html
    assert f"<dd>{threshold or 'as the predictions are'}</dd>" in html


def test_folders_that_are_damaged_or_lie_are_refused(tmp_path: Path, events: tuple[list[Row], list[Row]]):
    folder = write_evaluation(tmp_path / "evaluation", *events, FILES, sounds=False)
    path = folder / "evaluation.json"
    good = path.read_text(encoding="utf-8")
    for change in ({"levels": 3}, {"levels": {}}, {"confusion": {"labels": []}}, {"errors": [{}]}, {"format": "x"}):
        path.write_text(json.dumps(json.loads(good) | change), encoding="utf-8")
        with pytest.raises(AudiobatError, match="evaluate again"):
            report(folder, tmp_path / "out", overwrite=True)
    plain = json.loads(good)
    plain["errors"][0]["clip"] = "../../secret.wav"
    path.write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(AudiobatError, match="must lie in the folder"):
        report(folder, tmp_path / "out", overwrite=True)
    path.write_text(good, encoding="utf-8")
    (folder / "events.csv").write_text("file,start\nx,1\n", encoding="utf-8")
    with pytest.raises(AudiobatError, match="no list of events"):
        report(folder, tmp_path / "out", overwrite=True)


def test_one_evaluation_a_page_and_records_around_it_are_no_part_of_it(tmp_path: Path, events):
    folders = [write_evaluation(tmp_path / name / "ev", *events, FILES, sounds=False) for name in ("a", "b")]
    with pytest.raises(AudiobatError, match="a page of its own"):
        report(folders, tmp_path / "out")
    save_all(tmp_path / "a", [make_record()])
    html = (report(tmp_path, tmp_path / "out") / "index.html").read_text(encoding="utf-8")
    assert "Probing report" in html
    with pytest.raises(AudiobatError, match="RUNS is empty"):
        report([], tmp_path / "none")
