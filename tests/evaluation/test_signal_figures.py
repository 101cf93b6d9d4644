"""Figures of waveforms, logs and attention: they draw their input, on the axes that they name."""

import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from audiobat.audio.frontends.kaldi_fbank import KaldiFrontend
from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig
from audiobat.errors import AudiobatError
from audiobat.evaluation.report import figures
from audiobat.evaluation.report.style import png, save

MEL = MelFrontend(FrontendConfig(mel_bins=64, hop_length=320))
KALDI = KaldiFrontend(
    FrontendConfig(kind="kaldi_fbank", mel_bins=64, win_length=400, n_fft=512, f_min=20.0, norm="global")
)


LOG = [
    {"step": s, "loss": 2 / s, "local_loss": 1 / s, "global_loss": 1 / s, "target_variance": 0.1 * s}
    | {"feature_rank": 5.0 + s, "position_share": 0.4, "seconds": 3.0 * s}
    for s in (1, 2, 4)
]


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
    figure = figures.live_curves(LOG)
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


def test_attention_measures_sinks_and_selves():
    patches = 6
    sink = np.zeros((1 + patches, 1 + patches))
    sink[:, 0] = 3.0  # everybody takes from cls alone
    shown = figures.Attention(2, sink, sink, np.eye(1 + patches), (3, 2))
    figure = figures.attention(shown, np.zeros((48, 64)), MEL, ["bell"])
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert "to cls 100.0%, to itself 14.3%" in titles[0]
    assert any("with gate\nto cls 14.3%, to itself 100.0%" in t for t in titles)
    plain = figures.attention(replace(shown, gated=None), np.zeros((48, 64)), MEL, ["bell"])
    titles = [title for ax in plain.axes if (title := ax.get_title(loc="left"))]
    assert [title.split("\n")[0] for title in titles] == [
        "attention weights",
        "weight × value",
        "the clip",
        "cls takes",
    ]


def test_figures_are_files_that_stay_the_same_and_styles_stay_inside(tmp_path: Path):
    before = dict(matplotlib.rcParams)
    first = save(figures.live_curves(LOG), tmp_path / "new", "live")
    text = first.read_bytes()
    assert (tmp_path / "new" / "live.png").read_bytes().startswith(b"\x89PNG")
    assert save(figures.live_curves(LOG), tmp_path / "new", "live").read_bytes() == text
    assert dict(matplotlib.rcParams) == before
    assert png(figures.thumbnail(np.zeros((20, 64)), MEL)).startswith(b"\x89PNG")
