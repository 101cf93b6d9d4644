"""Tables, figures and the page: what they show is what the records hold, and nothing is fetched from anywhere."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from scipy.stats import spearmanr

from audiobat.audio.frontend import KaldiFrontend, MelFrontend
from audiobat.config import FrontendConfig
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import DataInfo, Metric, ModelInfo, ResultRecord, head_label
from audiobat.evaluation.report import figures
from audiobat.evaluation.report.page import Exhibit, PlayableClip, write_page
from audiobat.evaluation.report.tables import interval, markdown, rows, terminal


def record(model: str, kind: str, value: float, gate: list[float] | None = None, **head: object) -> ResultRecord:
    return ResultRecord(
        model=ModelInfo(model, "ab" * 32, 1_234),
        data=DataInfo("scenes", "cd" * 32, {"train": 1200, "test": 400}, 0, 3, 2),
        head={"kind": kind, "layer": -1, "prototypes": 512, "steps": 2500, "batch_size": 48, "lr": 1e-3, **head},
        preset="custom",
        seed=3,
        metrics={
            "map": Metric(value, value - 0.031, value + 0.03, "mean AP of <present> classes"),
            "map_all": Metric(value / 2, 0, 1, "over all classes"),
            "f1": Metric(1 - value, 0.1, math.nan, "F1 at 0.5"),
        },
        per_class={"goat_bleat": value, "bell": 1 - value, "absent": None},
        gate_weights=gate,
        wall_seconds=1.5,
        clips_per_second=320.0,
        device="cpu",
        environment={"torch": "2.13.0"},
        git_commit=None,
    )


RECORDS = [
    record("bat", "cgp", 0.412, gate=[0.2, 0.5, 0.3]),
    record("bat", "linear", 0.3),
    record("log[mel]", "linear", 0.25, layer=2),
]


def test_an_interval_reads_as_agreed():
    assert interval(Metric(0.41249, 0.38, 0.4409, "")) == "0.412 [0.380, 0.441]"
    assert interval(Metric(math.nan, math.nan, math.nan, "")) == "n/a [n/a, n/a]"


def test_the_highest_of_each_column_is_marked_and_no_other():
    body = rows(RECORDS)
    assert [[cell.best for cell in row[2:4]] for row in body] == [[True, False], [False, False], [False, True]]
    assert body[0][2].text == "0.412 [0.381, 0.442]"
    assert body[0][2].value == 0.412
    assert [cell.text for cell in body[2]][:2] == ["log[mel]", "Linear, block 2"]
    assert [cell.text for cell in body[0]][4:] == ["2,500", "3"]
    assert not any(cell.best for row in body for cell in (*row[:2], *row[4:]))


def test_an_undefined_metric_is_never_the_best():
    broken = replace(RECORDS[0], metrics={"map": Metric(math.nan, math.nan, math.nan, "")})
    fine = replace(RECORDS[1], metrics={"map": Metric(0.1, 0.0, 0.2, "")})
    assert [row[2].best for row in rows([broken, fine])] == [False, True]


def test_markdown_and_terminal_hold_the_same_cells():
    text = markdown(RECORDS)
    console = Console(width=140, file=io.StringIO(), color_system=None)
    console.print(terminal(RECORDS))
    shown = console.file.getvalue()
    for row in rows(RECORDS):
        for cell in row:
            assert cell.text in text
            assert cell.text in shown  # rich took no [..] for its markup
    assert "**0.412 [0.381, 0.442]** ★" in text
    assert shown.count("★") == text.count("★") == 3  # two columns and the legend
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table_lines}) == 1
    assert len(table_lines) == 2 + len(RECORDS)
    assert "mean AP of <present> classes" in text


def test_records_of_different_clips_are_not_compared():
    other = replace(RECORDS[0], data=replace(RECORDS[0].data, sha256="ef" * 32, name="birds"))
    with pytest.raises(AudiobatError, match="birds, scenes"):
        rows([RECORDS[0], other])
    with pytest.raises(AudiobatError, match="no result records"):
        rows([])


def test_head_labels():
    assert head_label(record("m", "cgp", 0.1, layer=4)) == "CGP"  # it mixes all blocks
    assert head_label(record("m", "protobin", 0.1)) == "Protobin"
    assert head_label(record("m", "linear", 0.1, layer=4)) == "Linear, block 4"


def test_spearman_is_scipys_with_and_without_ties():
    generator = np.random.default_rng(0)
    for high in (3, 1000):
        x, y = generator.integers(high, size=(2, 12)).tolist()
        assert figures.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert math.isnan(figures.spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))


MEL = MelFrontend(FrontendConfig(mel_bins=64, hop_length=320))
KALDI = KaldiFrontend(
    FrontendConfig(kind="kaldi_fbank", mel_bins=64, win_length=400, n_fft=512, f_min=20.0, norm="global")
)


def test_a_tone_lies_at_its_tick():
    """The row of the picture where a pure tone is loudest is the row that the axis gives its frequency."""
    time = torch.arange(16_000) / 16_000
    for frontend in (MEL, KALDI):
        for khz in (1, 4):
            tone = torch.sin(2 * math.pi * 1000 * khz * time)
            loudest = frontend(tone[None])[0][0].mean(0).argmax().item()
            ax = matplotlib.figure.Figure().subplots()
            figures.draw_spectrogram(ax, np.zeros((50, 64)), frontend)
            ticks = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.get_yticks(), strict=True))
            assert abs(ticks[str(khz)] - (loudest + 0.5)) <= 1, "rows are drawn from f to f + 1"


def test_a_spectrogram_is_as_long_as_its_sound():
    ax = matplotlib.figure.Figure().subplots()
    figures.draw_spectrogram(ax, np.zeros((200, 64)), MEL)
    assert ax.get_xlim() == (0, 4.0)


def test_frontends_name_the_events():
    figure = figures.frontends(torch.randn(16_000), ["goat_bleat", "bell"], MEL, KALDI)
    assert "goat bleat, bell" in figure.get_suptitle()
    assert [ax.get_xlabel() for ax in figure.axes[:2]] == ["", "time (s)"]


def test_live_curves_show_every_row():
    log = [
        {"step": s, "loss": 2 / s, "local_loss": 1 / s, "global_loss": 1 / s, "target_variance": 0.1 * s}
        | {"feature_rank": 5.0 + s, "position_share": 0.4, "seconds": 3.0 * s}
        for s in (1, 2, 4)
    ]
    figure = figures.live_curves(log)
    loss, variance, rank, share = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[2, 1, 0.5], [1, 0.5, 0.25], [1, 0.5, 0.25]]
    assert list(rank.lines[0].get_xdata()) == [1, 2, 4]
    for ax in (loss, variance, rank, share):  # nothing falls out of view
        highest = max(float(np.max(line.get_ydata())) for line in ax.lines)
        assert ax.get_ylim()[0] == 0
        assert ax.get_ylim()[1] >= highest
    assert "4 steps in 12 s: loss 2.00 to 0.50" in figure.get_suptitle()
    with pytest.raises(AudiobatError, match="logged no row"):
        figures.live_curves([])


def test_layers_put_each_gate_under_its_probe():
    linear = [record("bat", "linear", value, layer=i + 1) for i, value in enumerate((0.1, 0.4, 0.2))]
    figure = figures.layers([(RECORDS[0], linear)])
    top, bottom = figure.axes
    assert [bar.get_height() for bar in top.patches] == [0.1, 0.4, 0.2]
    assert [bar.get_height() for bar in bottom.patches] == [0.2, 0.5, 0.3]
    assert top.get_xlim() == bottom.get_xlim()
    assert "+1.00" in top.get_title(loc="left")


def test_an_interval_beside_its_value_can_be_drawn():
    odd = replace(RECORDS[1], metrics={"map": Metric(0.10, 0.11, 0.13, "")})
    figures.layers([(RECORDS[0], [odd] * 3)])


def test_attention_measures_sinks_and_selves():
    patches = 6
    sink = np.zeros((1 + patches, 1 + patches))
    sink[:, 0] = 3.0  # everybody takes from cls alone
    seen = figures.Attention(2, sink, sink, np.eye(1 + patches), (3, 2))
    figure = figures.attention(seen, np.zeros((48, 64)), MEL, ["bell"])
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert "to cls 100.0%, to itself 14.3%" in titles[0]
    assert any("with gate\nto cls 14.3%, to itself 100.0%" in t for t in titles)
    plain = figures.attention(replace(seen, gated=None), np.zeros((48, 64)), MEL, ["bell"])
    titles = [title for ax in plain.axes if (title := ax.get_title(loc="left"))]
    assert [title.split("\n")[0] for title in titles] == [
        "attention weights",
        "weight × value",
        "the clip",
        "cls takes",
    ]


def test_classes_are_sorted_and_absent_ones_left_out():
    other = replace(RECORDS[2], per_class={"bell": 0.9, "goat_bleat": 0.1, "absent": None})
    figure = figures.per_class([RECORDS[0], other])
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["goat bleat", "bell"]
    first, second = ax.lines
    assert list(first.get_xdata()) == pytest.approx([0.412, 0.588])
    assert list(second.get_xdata()) == [0.1, 0.9]


def test_figures_are_files_that_stay_the_same_and_styles_stay_inside(tmp_path: Path):
    before = dict(matplotlib.rcParams)
    first = figures.save(figures.per_class(RECORDS[:2]), tmp_path / "new", "classes")
    text = first.read_bytes()
    assert (tmp_path / "new" / "classes.png").read_bytes().startswith(b"\x89PNG")
    assert figures.save(figures.per_class(RECORDS[:2]), tmp_path / "new", "classes").read_bytes() == text
    assert dict(matplotlib.rcParams) == before
    assert figures.png(figures.thumbnail(np.zeros((20, 64)), MEL)).startswith(b"\x89PNG")


class Page(HTMLParser):
    """What a browser would fetch, and the text it would show."""

    VOID = ("meta", "link", "img", "br")

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

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    figure = figures.save(figures.per_class(RECORDS[:2]), folder, "classes")
    wave = (0.5 * np.sin(np.arange(8_000) / 5)).astype(np.float32)
    png = figures.png(figures.thumbnail(np.zeros((20, 64)), MEL))
    clip = PlayableClip("test_0", wave, 16_000, ["goat_bleat"], [("bell", 0.75), ("goat_bleat", 0.5)], png)
    path = write_page(
        folder / "index.html",
        heading="A <page> & more",
        lead="Scenes are mixes.",
        records=RECORDS,
        exhibits=[Exhibit(figure, "Classes", "Sorted.")],
        clips=[clip],
        predicted_by="bat",
        facts=[("Seed", "3")],
        notices=["CC BY-SA 3.0 (creativecommons.org/licenses/by-sa/3.0)"],
    )
    assert [p.name for p in folder.glob("*.tmp")] == []
    return path.read_text(encoding="utf-8")


def test_the_page_fetches_nothing(html: str):
    page = Page(html)
    assert page.fetched
    assert all(uri.startswith("data:") for uri in page.fetched)
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest|WebSocket|import\(", html)
    policies = [a["content"] for tag, a in page.attributes if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")


def test_the_page_is_whole_and_holds_the_records(html: str):
    page = Page(html)
    assert page.unbalanced == []
    assert page.open == []
    for row in rows(RECORDS):
        for cell in row:
            assert cell.text in page.text
    values = [a["data-value"] for tag, a in page.attributes if tag == "td"]
    assert values == [str(cell.value) for row in rows(RECORDS) for cell in row]
    assert "A <page> & more" in page.text
    assert "creativecommons.org" in page.text


def test_the_clip_on_the_page_is_the_clip(html: str):
    page = Page(html)
    (uri,) = [a["src"] for tag, a in page.attributes if tag == "audio"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.removeprefix("data:audio/wav;base64,"))))
    assert rate == 16_000
    assert np.abs(samples - 0.5 * np.sin(np.arange(8_000) / 5)).max() < 1 / 2**14
    hits = [a for tag, a in page.attributes if tag == "li" and a.get("class") == "hit"]
    assert len(hits) == 1  # of two predictions, one is in the clip
    assert "goat bleat" in page.text
