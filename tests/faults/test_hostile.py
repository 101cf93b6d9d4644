"""Labels and file names that are markup, in Chromium: pages show them as text, and run nothing of them."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from evaluation_folder import random_events, write_evaluation
from markdown_it import MarkdownIt
from report_browser import Browser

import audiobat
from audiobat.config import (
    GridConfig,
    HeadConfig,
    PretrainConfig,
    ProbeConfig,
    ProbeTrainConfig,
    TaggerConfig,
    from_dict,
)
from audiobat.config.recipes import load_recipe
from audiobat.evaluation.report.run import report
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.probing.analyze.run import analyze
from audiobat.studies import demo
from audiobat.zoo.release import save_release

from .verbs import LADDER, MODEL, RATE

HURT = "window.hurt=1"
LABELS = (
    f"<img src=x onerror={HURT}>",
    f"</script>--><script>{HURT}</script>",
    f"\"'><svg onload={HURT}>",
    f"javascript:{HURT}",
    "\u202egpj.exe\u2066",  # turns the direction of what follows
    f"&ltscript&gt{HURT}&lt/script&gt",
    f"`x` ${{{HURT}}} {{{{7*7}}}} $\\frac$ |",
    f"\\[x\\](javascript:{HURT})",
)
FILE = f"<img src=x onerror={HURT}></script><script>{HURT}</script>\"'><svg onload={HURT}>.wav"
POINT_EVERYWHERE = """{ const canvas = document.querySelector("[data-part=canvas]");
  const box = canvas.getBoundingClientRect();
  for (let x = 0; x < box.width; x += 8) for (let y = 0; y < box.height; y += 8) {
    const where = { clientX: box.left + x, clientY: box.top + y };
    canvas.dispatchEvent(new PointerEvent("pointermove", where)); } }"""
MODEL_NAME = f"<img src=x onerror={HURT}>"
PROBE = ProbeConfig(
    HeadConfig("cgp", prototypes=8), ProbeTrainConfig(steps=4, warmup_steps=1, batch_size=16), workers=0
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes with names that are markup, in files with such names."""
    folder, rng = tmp_path_factory.mktemp("hostile"), np.random.default_rng(0)
    rows = [["path", "label", "split"]]
    for i in range(48):
        name = f"{i}/{FILE}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(np.arange(RATE // 2) * (0.1 + 0.2 * (i % 8)))
        soundfile.write(folder / name, 0.3 * tone + rng.normal(scale=0.02, size=len(tone)), RATE, format="WAV")
        rows.append([name, LABELS[i % 8], "train" if i < 24 else "test"])
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / MODEL_NAME
    torch.manual_seed(0)
    save_release(folder, AudioEncoder(MODEL))
    return folder


def opened(browser: Browser, path: Path) -> str:
    """The text of a page in which nothing ran that it was not to run; its own rules against that are left out."""
    if path.suffix == ".html":
        page = path.read_text(encoding="utf-8")
        path = path.with_suffix(".open.html")
        path.write_text(re.sub(r"<meta http-equiv[^>]*>", "", page), encoding="utf-8")
    browser.open(path)
    browser.run("new Promise(done => setTimeout(done, 100))")
    assert browser.run("window.hurt") is None
    assert browser.complaints == []
    own = path.parent.resolve().as_uri() + "/"
    assert [url for url in browser.requests if not url.startswith(("data:", own))] == []
    links = '[...document.querySelectorAll("a")].map(a => a.href).filter(url => !url.startsWith("file:"))'
    assert [url for url in browser.run(links) if "hurt" in url] == []
    described = '[...document.querySelectorAll("[alt]")].map(e => e.getAttribute("alt")).join(" ")'
    text = browser.run(f'document.documentElement.textContent + " " + {described}')
    return " ".join(str(text).split())


def test_a_script_that_gets_through_would_be_seen(browser: Browser, tmp_path: Path):
    (tmp_path / "page.html").write_text(f"<body>{LABELS[0]}</body>")
    with pytest.raises(AssertionError):
        opened(browser, tmp_path / "page.html")
    assert browser.run("window.hurt") == 1


def test_the_report_shows_labels_files_and_models_as_text(browser: Browser, clips: Path, model: Path, tmp_path: Path):
    audiobat.probe(model, clips, PROBE, out=tmp_path / "run", device="cpu")
    text = opened(browser, report([tmp_path / "run"], tmp_path / "report") / "index.html")
    assert [name for name in (*LABELS, FILE, MODEL_NAME) if " ".join(name.split()) not in text] == []


def test_the_page_of_an_evaluation_shows_labels_and_files_as_text(browser: Browser, tmp_path: Path):
    files = {f"{i}/{FILE}": 6.0 for i in range(2)}
    truth, found = random_events(0, files, LABELS)
    write_evaluation(tmp_path / "evaluation", truth, found, files, LABELS)
    path = report(tmp_path / "evaluation", tmp_path / "report") / "index.html"
    text = opened(browser, path)
    assert [name for name in LABELS if " ".join(name.replace("_", " ").split()) not in text] == []
    assert FILE in text
    chosen = '[...document.querySelectorAll("option")].map(e => e.textContent).join(" ")'
    assert FILE in browser.run(chosen)


def test_the_map_of_sounds_shows_labels_and_files_as_text(browser: Browser, tmp_path: Path):
    (tmp_path / "map").mkdir()
    plain = {
        "format": "audiobat-map-1",
        "points": [[i, i % 3] for i in range(len(LABELS))],
        "cluster": list(range(len(LABELS))),
        "label": list(LABELS),
        "file": [f"{i}/{FILE}" for i in range(len(LABELS))],
        "start": [0.0] * len(LABELS),
        "end": [1.0] * len(LABELS),
        "clip": [f"clips/{FILE}"] * len(LABELS),
    }
    (tmp_path / "map" / "map.json").write_text(json.dumps(plain), encoding="utf-8")
    text = opened(browser, report(tmp_path / "map", tmp_path / "report") / "index.html")
    names = browser.run('[...document.querySelectorAll("[data-part=legend] button")].map(e => e.textContent).join(" ")')
    assert [name for name in LABELS if " ".join(name.replace("_", " ").split()) not in " ".join(names.split())] == []
    browser.run(POINT_EVERYWHERE)
    assert FILE in browser.run('document.querySelector("[data-part=said]").textContent')
    assert "hurt" in text


def test_the_demos_page_shows_its_model_as_text(browser: Browser, model: Path, tmp_path: Path):
    pretrain = from_dict(PretrainConfig, load_recipe_of(LADDER, tmp_path))
    settings = demo.DemoSettings(model, pretrain=pretrain, probe=PROBE, clips_train=24, clips_test=12, playable=1)
    text = opened(browser, demo._run(tmp_path / "demo", 600.0, 0, settings) / "index.html")
    assert MODEL_NAME in text


def load_recipe_of(text: str, folder: Path) -> dict[str, object]:
    (folder / "recipe.yaml").write_text(text)
    return dict(load_recipe(folder / "recipe.yaml"))


def test_drawings_of_an_analysis_show_labels_as_text(browser: Browser, clips: Path, model: Path, tmp_path: Path):
    config = ProbeConfig(PROBE.head, PROBE.train, grid=GridConfig(prototypes=(8,)), seeds=(0,), workers=0)
    analyze(model, clips, config, out=tmp_path / "out", clips=24, views=0, pictures=4, device="cpu")
    drawings = sorted((tmp_path / "out" / "figures").glob("*.svg"))
    drawn = ""
    for path in drawings:
        opened(browser, path)
        drawn += path.read_text(encoding="utf-8")
    for part in ("onerror=window.hurt=1&gt; -->", "a clip of javascript:window.hurt=1 -->"):
        assert part in drawn, "letters are drawn as outlines, with their text as a comment"


def test_a_card_shows_classes_as_text(browser: Browser, tmp_path: Path):
    torch.manual_seed(0)
    tagger = Tagger(AudioEncoder(MODEL), TaggerConfig(HeadConfig("linear"), LABELS, "clip"))
    save_release(tmp_path / MODEL_NAME, tagger)
    card = (tmp_path / MODEL_NAME / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    markdown = MarkdownIt("commonmark").enable("table")
    markdown.validateLink = lambda url: True  # the card itself is to hold no such link
    (tmp_path / "card.html").write_text(f"<meta charset=utf-8>{markdown.render(card)}", encoding="utf-8")
    text = opened(browser, tmp_path / "card.html")
    shown = [" ".join(name.replace("`", "'").split()) for name in (*LABELS, MODEL_NAME)]
    assert [name for name in shown if name not in text] == []
