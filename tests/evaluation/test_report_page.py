"""The report's page: one whole file that fetches nothing; in a headless Chromium it renders, sorts and answers."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from report_browser import Browser
from report_samples import make_record, save_all

from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.listening.clips import SavedClip, clips_json
from audiobat.evaluation.report.run import report

HOSTILE = "<script>alert(1)</script>"
QUOTED = """'"><img src=x onerror=alert(2)>&amp;"""
VALUES = {"alpha": 0.30, "beta": 0.50, HOSTILE: 0.41, "undefined": math.nan, "near": 0.49}
ROWS = '[...document.querySelector(".results:not(.standings) table").tBodies[0].rows]'


def records() -> list[ResultRecord]:
    """Five models under CGP and one linear probe, blocks and gates of one model, and a data set of its own."""
    found = [
        make_record(model, "cgp", value, gate=[0.2, 0.5, 0.3] if model == "alpha" else None)
        for model, value in VALUES.items()
    ]
    found += [make_record("alpha", "linear", 0.1 * block, layer=block) for block in (1, 2, 3)]
    found += [make_record("beta", "linear", 0.2), make_record("alpha", "cgp", 0.6, data=QUOTED, single_label=True)]
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    save_all(folder / "run", records())
    clips = folder / "run" / "clips"
    clips.mkdir()
    soundfile.write(clips / "tone.wav", 0.3 * np.sin(np.arange(8_000) / 5), 16_000)
    clip = SavedClip("r001", "tone", QUOTED, HOSTILE, "worst", 0.25, "has the class", (HOSTILE,), ((HOSTILE, 0.75),))
    (clips / "clips.json").write_text(clips_json((clip,)), encoding="utf-8")
    return report([folder / "run"], folder / "out") / "index.html"


class Page(HTMLParser):
    """What a browser would fetch, and the text it would show."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text, self.open, self.unbalanced = "", [], []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        self.fetched += [v for k, v in attrs if k in ("src", "href", "srcset", "poster", "data", "action") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # <circle/> of an SVG
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_fetches_nothing(page: Path):
    html = page.read_text(encoding="utf-8")
    parsed = Page(html)
    assert (parsed.unbalanced, parsed.open) == ([], [])
    assert parsed.fetched
    assert all(uri.startswith("data:") for uri in parsed.fetched)
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttpRequest|WebSocket|import\(", html)
    policies = [a["content"] for tag, a in parsed.attributes if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")
    assert [path.name for path in page.parent.glob("*.tmp")] == []


def test_the_page_holds_the_records_and_the_sound_of_the_clip(page: Path):
    parsed = Page(page.read_text(encoding="utf-8"))
    values = {a.get("data-value") for tag, a in parsed.attributes if tag == "td"}
    assert {repr(record.metrics["map"].value) for record in records() if record.head["layer"] == -1} - {"nan"} <= values
    (uri,) = [a["src"] for tag, a in parsed.attributes if tag == "audio"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.removeprefix("data:audio/wav;base64,"))))
    assert rate == 16_000
    assert np.abs(samples - 0.3 * np.sin(np.arange(8_000) / 5)).max() < 1 / 2**14
    assert len([a for tag, a in parsed.attributes if tag == "li" and a.get("class") == "hit"]) == 1


@pytest.fixture
def tab(browser: Browser, page: Path) -> Browser:
    """The page as it is when one opens it."""
    browser.resize(1200)
    browser.open(page)
    return browser


def column(tab: Browser, name: str) -> int:
    """Place of a column of the table of results."""
    heads = '[...document.querySelector(".results:not(.standings) table").tHead.rows[0].cells].map(c => c.textContent)'
    return tab.run(heads).index(name)


def shown(tab: Browser, name: str) -> list[str]:
    """The text of a column, from top to bottom."""
    return tab.run(f"{ROWS}.map(row => row.cells[{column(tab, name)}].textContent)")


def click_heading(tab: Browser, name: str) -> str:
    """Click it; how the column is sorted afterwards."""
    heading = f'document.querySelector(".results:not(.standings) table").tHead.rows[0].cells[{column(tab, name)}]'
    tab.point(f'{heading}.querySelector("button")', click=True)
    return tab.run(f'{heading}.getAttribute("aria-sort")')


def test_it_renders_without_a_request_or_a_complaint(tab: Browser, page: Path):
    assert tab.run("document.title").startswith("Probing report: 5 models, 2 heads, 2 data sets")
    own = page.resolve().as_uri()
    assert tab.requests[0] == own
    assert [url[:60] for url in tab.requests if url != own and not url.startswith("data:")] == []
    assert tab.complaints == []
    pictures = "[...document.images].map(image => image.complete && image.naturalWidth > 0)"
    assert all(tab.run(pictures))
    assert tab.run("document.images.length") == 1 + len(list((page.parent / "figures").glob("*.svg")))
    assert tab.run('document.querySelectorAll("svg.layers polyline").length') == 1


def test_a_request_would_be_seen_and_is_forbidden(tab: Browser):
    """What the test above does not see is not there: the browser tells of what it is kept from."""
    tab.run('new Promise(done => { const i = new Image(); i.onerror = done; i.src = "http://127.0.0.1:9/spy.png"; })')
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)
    refused = 'fetch("http://127.0.0.1:9/spy").then(() => "fetched", () => "refused")'
    assert tab.run(refused) == "refused"
    tab.run("Promise.reject(new Error('seen')) && new Promise(done => setTimeout(done, 50))")
    assert any("seen" in complaint for complaint in tab.complaints)


def test_a_heading_sorts_and_what_is_undefined_stays_last(tab: Browser):
    first = click_heading(tab, "mAP")
    orders = {first: [float(text.split()[0].replace("n/a", "nan")) for text in shown(tab, "mAP")]}
    second = click_heading(tab, "mAP")
    orders[second] = [float(text.split()[0].replace("n/a", "nan")) for text in shown(tab, "mAP")]
    known = sorted([100 * v for v in VALUES.values() if not math.isnan(v)] + [20.0, 60.0])
    assert orders["descending"][:-1] == pytest.approx(known[::-1])
    assert orders["ascending"][:-1] == pytest.approx(known)
    assert all(math.isnan(values[-1]) for values in orders.values())


def test_words_sort_from_a_to_z_and_back(tab: Browser):
    assert click_heading(tab, "Model") == "ascending"
    up = shown(tab, "Model")
    assert click_heading(tab, "Model") == "descending"
    down = shown(tab, "Model")
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert up != down
    assert tab.run('document.querySelectorAll("[aria-sort]").length') == 1


def marks(tab: Browser) -> dict[str, str]:
    """Model to mark, of the rows of CGP on the first data set."""
    rows = zip(*(shown(tab, name) for name in ("Data set", "Model", "Head", "Compared")), strict=True)
    return {model: mark for data, model, head, mark in rows if (data, head) == ("scenes", "CGP")}


def test_rows_are_compared_with_the_row_that_one_chooses(tab: Browser):
    """All intervals are 3 points to either side."""
    tie, worse, better, own = "= no difference", "▼ worse", "▲ better", "◆ reference"
    assert marks(tab) == {"beta": own, "near": tie, HOSTILE: worse, "alpha": worse, "undefined": tie}
    others = [m for d, m in zip(shown(tab, "Data set"), shown(tab, "Compared"), strict=True) if d == QUOTED]
    assert others == [own]
    place = shown(tab, "Model").index(HOSTILE)
    tab.point(f'{ROWS}[{place}].querySelector(".compared button")', click=True)
    assert marks(tab) == {"beta": better, "near": better, HOSTILE: own, "alpha": worse, "undefined": tie}
    pressed = f'{ROWS}.filter(row => row.querySelector("[aria-pressed=true]")).map(row => row.cells[1].textContent)'
    assert tab.run(pressed) == ["alpha", HOSTILE]  # one for each data set
    click_heading(tab, "Compared")
    assert shown(tab, "Compared")[0] == own  # marks sort as they are now


def test_a_block_says_its_numbers_to_mouse_and_keys(tab: Browser):
    tip = '(e => e.hidden ? "" : e.textContent)(document.getElementById("tip"))'
    assert tab.run(tip) == ""
    tab.point('document.querySelectorAll("svg.layers .spot")[1]')
    assert tab.run(tip) == "block 2\nmAP 20.00 [17.0, 23.0]\ngate 0.500"
    box = "document.getElementById('tip').getBoundingClientRect()"
    assert tab.run(f"(b => b.left >= 0 && b.right <= innerWidth && b.top >= 0)({box})")
    tab.point("document.querySelector('h1')")
    assert tab.run(tip) == ""
    tab.run('document.querySelector("svg.layers .spot").focus()')
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    assert tab.run(tip).startswith("block 3\n")
    tab.press("Escape")
    assert tab.run(tip) == ""


def test_names_are_shown_as_text(tab: Browser):
    assert HOSTILE in shown(tab, "Model")
    assert QUOTED in shown(tab, "Data set")
    assert tab.run('document.querySelector("article b").textContent') == HOSTILE
    assert tab.run('document.querySelector("article img").alt') == f"Spectrogram of {QUOTED}"
    assert tab.run("document.scripts.length") == 1
    assert tab.run('document.querySelectorAll("img[src=x]").length') == 0
    assert tab.complaints == []  # an alert would hang, an onerror would complain


def test_boxes_hide_what_is_not_ticked_everywhere(tab: Browser):
    visible = '[...document.querySelectorAll("[data-data]")].filter(e => !e.hidden).map(e => e.dataset.data)'
    assert set(tab.run(visible)) == {"scenes", QUOTED}
    tab.point('document.querySelector("input[data-filter=data][value=scenes]")', click=True)
    assert set(tab.run(visible)) == {QUOTED}
    tab.point('document.querySelector("input[data-filter=data][value=scenes]")', click=True)
    tab.point('document.querySelector("input[data-filter=head][value=cgp]")', click=True)
    heads = f"{ROWS}.filter(row => !row.hidden).map(row => row.dataset.head)"
    assert tab.run(heads) == ["linear"]


def test_a_clip_can_be_played(tab: Browser):
    load = (
        'new Promise((d, f) => { const a = document.querySelector("audio"); a.onloadedmetadata = () => d(a.duration);'
    )
    assert tab.run(load + ' a.onerror = () => f(a.error); a.preload = "metadata"; a.load(); })') == pytest.approx(0.5)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_hangs_over_the_window_and_text_is_readable(tab: Browser, width: int, dark: bool):
    tab.resize(width, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") <= width
    colours = tab.run(
        '["body", "section", ".note", "th button", ".mark1, .mark-1", "td.best", "small"].map(s => {'
        "let e = document.querySelector(s); const ink = getComputedStyle(e).color;"
        "while (/, 0\\)$|transparent/.test(getComputedStyle(e).backgroundColor)) e = e.parentElement;"
        "return [ink, getComputedStyle(e).backgroundColor]; })"
    )
    for ink, paper in colours:
        assert contrast(ink, paper) >= 4.5, (ink, paper)  # WCAG 2, level AA


def contrast(ink: str, paper: str) -> float:
    """Contrast of two colours `rgb(r, g, b)` by WCAG 2."""
    light = []
    for colour in (ink, paper):
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_map_over_all_classes_is_shown_where_it_says_something_of_its_own(tmp_path: Path):
    def shown(factor: float) -> str:
        record = make_record("bat", "cgp")
        metric = record.metrics["map"]
        other = replace(metric, value=factor * metric.value, low=factor * metric.low, high=factor * metric.high)
        record = replace(record, metrics={**record.metrics, "map_all": other})
        folder = save_all(tmp_path / str(factor), [record])
        report([folder], tmp_path / f"page{factor}")
        return (tmp_path / f"page{factor}" / "index.html").read_text()

    assert "mAP, all classes" not in shown(1.0)
    assert "mAP, all classes" in shown(0.9)


def test_a_row_alone_has_no_rival_and_its_last_column_no_cut(browser: Browser, tmp_path: Path):
    page = report([save_all(tmp_path / "run", [make_record(single_label=True)])], tmp_path / "out") / "index.html"
    assert "0 / 0 / 0" not in page.read_text(encoding="utf-8")
    browser.resize(1280)
    browser.open(page)
    heads = '[...document.querySelector(".results:not(.standings) table").tHead.rows[0].cells].map(c => c.textContent)'
    assert browser.run(heads) == ["Model", "Head", "Accuracy", "mAP", "F1, top class", "Parameters"]
    box = 'document.querySelector(".results .scroll")'
    assert browser.run(f"{box}.scrollWidth <= {box}.clientWidth")
    assert browser.complaints == []
