"""Figures 4 and 5 over several runs, benchmarks/sinks.py: what it measures, what each claim says, what it refuses."""

import json
import random
import re
import shutil
import statistics
from itertools import chain
from pathlib import Path

import pytest
from benchmark_scripts import load_script
from scipy.stats import t as student
from tiny_runs import fields_of, write_clips

from audiobat import pretrain
from audiobat.studies.beside import Value

claims = load_script("sinks_claims")
sinks = load_script("sinks")

PROBE = "head: {prototypes: 8}\ntrain: {steps: 5, warmup_steps: 1, batch_size: 4}\nworkers: 0\n"
SEED = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled clips, and a run with gates and one without."""
    folder = tmp_path_factory.mktemp("sinks")
    fields = fields_of(write_clips(folder / "clips"))
    for name, gates in (("gates", True), ("plain", False)):
        own = {"encoder": {**fields["encoder"], "gated_attention": gates}, "train": {**fields["train"], "seed": SEED}}
        pretrain({**fields, **own}, folder / "runs" / name)
    (folder / "probe.yaml").write_text(PROBE)
    return folder


def call(folder: Path, *runs: Path) -> None:
    data = ["--data", f"{folder / 'clips/clips.csv'}", "--out", f"{folder / 'out'}", "--device", "cpu"]
    sinks.main([*map(str, runs), *data, "--config", f"{folder / 'probe.yaml'}"])


def test_runs_become_a_page_and_are_analyzed_once(folder, monkeypatch):
    runs = [folder / "runs/gates", folder / "runs/plain"]
    call(folder, *runs)
    shares = {}
    for name, kind in (("gates", "gated"), ("plain", "values")):
        held = json.loads((folder / f"out/{name}/analysis.json").read_text())
        assert held["layers"]["seeds"] == [SEED]  # the run's own
        shares[name] = 100 * statistics.fmean(chain(*held["attention"]["measures"][kind]["first_token"]))
    page = (folder / "out/sinks.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("| ViT: less to cls"))
    assert f"| {shares['gates'] - shares['plain']:+.2f} not resolved |" in line
    assert "a window's 33 tokens 3.03." in page  # 8 x 4 patches and cls
    assert "| CNN: less to cls |  not measured |  not measured |  not measured |" in page
    assert {path.name for path in (folder / "out/figures").glob("*.png")} == {"layers.png", "sinks.png", "claims.png"}

    monkeypatch.setattr(sinks, "analyze", None)  # whoever calls it now fails
    call(folder, *reversed(runs))
    assert (folder / "out/sinks.md").read_text() == page


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("absent", "is no run folder .*name folders that pretrain wrote"),
        ("twice", "are both ViT, gates with seed 3: name one of them"),
        ("other", "is a network of none of the figures"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(folder, tmp_path, capsys, case, words):
    run = folder / "runs/gates"
    other = tmp_path / "other"
    if case != "absent":
        shutil.copytree(run, other)
    if case == "other":
        text = (other / "config.yaml").read_text()
        (other / "config.yaml").write_text(text.replace("source: block", "source: mlp"))
    with pytest.raises(SystemExit):
        call(folder, run, other)
    assert re.search(words, capsys.readouterr().err)


def test_runs_that_are_not_done_are_left_out(folder, tmp_path, capsys):
    for name, step in (("half", "step_000005"), ("begun", "")):
        shutil.copytree(folder / "runs/gates", tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / step)
    with pytest.raises(SystemExit):
        call(folder, tmp_path / "half", tmp_path / "begun")
    told = capsys.readouterr()
    assert f"{tmp_path / 'half'} is left out: it is at step 4 of 5" in told.out
    assert f"{tmp_path / 'begun'} is left out: it is at step 0 of 5" in told.out
    assert "No run is trained to its end" in told.err


def made_run(peak: int, gated: bool, good: bool, seed: int) -> object:
    """A run of 12 blocks whose probes fall from block `peak` to both sides, and whose gates do what the paper says.

    Not `good`: they do the contrary.
    """
    chance = random.Random(seed)
    jitter = chance.uniform(-0.05, 0.05)
    probes = [25.0 + 4 * (peak > 7) - abs(block - peak) + jitter for block in range(1, 13)]
    for_gates = 10.0 if good else -10.0
    attention = {}
    for kind in ("weights", "values", *(["gated"] if gated else [])):
        # The weights of a network with gates are already better, and its gates make them better once more.
        help_ = for_gates * (gated + (kind == "gated"))
        shares = {"first_token": 40 - help_, "strongest_patch": 30 - help_, "patch_to_itself": 20 + help_}
        attention[kind] = {name: [share + jitter] * 12 for name, share in shares.items()}
    return claims.Run(probes, 0.9 + jitter if good else -0.9 + jitter, attention, None, 97)


def world(good: bool, seeds: tuple[int, ...]) -> dict[str, dict[int, object]]:
    """All networks as the paper has them, or the other way round."""
    middle, late = (7, 12) if good else (12, 7)
    peaks = {claims.EAT: middle, claims.CNN: middle, claims.GATED_CNN: middle, claims.VIT: late, claims.GATED_VIT: late}
    return {kind: {seed: made_run(peak, "gates" in kind, good, seed) for seed in seeds} for kind, peak in peaks.items()}


@pytest.mark.parametrize(("good", "word"), [(True, "agrees"), (False, "contradicts")])
def test_every_claim_tells_the_papers_world_from_its_mirror_image(good, word):
    runs = world(good, (0, 1, 2))
    found = {
        claim.text + claim.measure: claims.verdict(claims.over_seeds(claim, runs), claim.sign)
        for claim in claims.CLAIMS
    }
    assert len(found) == len(claims.CLAIMS) == 25
    assert set(found.values()) == {word}, found


def test_intervals_are_students_over_the_seeds_of_both_networks():
    runs = world(True, (0, 1, 2))
    del runs[claims.CNN][1]
    claim = claims.SINK_CLAIMS[0][0]
    plain, gated = (
        [statistics.fmean(runs[kind][seed].attention["weights"]["first_token"]) for seed in (0, 2)]
        for kind in (claims.CNN, claims.GATED_CNN)
    )
    differences = [b - a + 0.1 * n for n, (a, b) in enumerate(zip(plain, gated, strict=True))]
    runs[claims.GATED_CNN][2].attention["weights"]["first_token"][0] += 12 * 0.1  # of 12 blocks
    mean = statistics.fmean(differences)
    expected = student.interval(0.95, 1, mean, statistics.stdev(differences) / 2**0.5)
    found = claims.over_seeds(claim, runs)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-4)
    assert found.mean == pytest.approx(mean)


def test_one_seed_resolves_nothing_and_a_network_that_is_missing_measures_nothing():
    one = world(True, (0,))
    assert {claims.verdict(claims.over_seeds(claim, one), claim.sign) for claim in claims.CLAIMS} == {"not resolved"}
    runs = world(True, (0, 1, 2))
    del runs[claims.VIT]
    del runs[claims.CNN][1]  # the seeds that both networks have are paired
    words = {claim: claims.verdict(claims.over_seeds(claim, runs), claim.sign) for claim in claims.CLAIMS}
    missing = {claim.text for claim, word in words.items() if word == "not measured"}
    assert missing == {"ViT: less to cls", "ViT: less to the top patch", "ViT: more to the patch itself"}
    assert claims.verdict(Value(float("nan"), float("nan"), float("nan")), 1) == "not measured"
    assert claims.verdict(Value(1.0, -0.5, 2.5), 1) == "not resolved"


def test_what_gates_do_to_a_network_needs_no_other_one():
    attention = {"gated": {"first_token": [10.0, 20.0]}, "values": {"first_token": [30.0, 40.0]}}
    run = claims.Run([1.0, 2.0], 0.0, attention, None, 5)
    *others, on_off = claims.sink_claims(claims.VIT, claims.GATED_VIT, "first_token")
    runs = {claims.GATED_VIT: {0: run}}
    assert claims.over_seeds(on_off, runs).mean == -20
    for claim in others:
        assert claims.verdict(claims.over_seeds(claim, runs), -1) == "not measured"


def test_a_figure_shows_what_is_measured_alone():
    eat = world(True, (0, 1, 2))[claims.EAT]
    found = {claim: claims.over_seeds(claim, {claims.EAT: eat}) for claim in claims.CLAIMS}
    (panel,) = [ax for ax in claims.claims_figure(found).axes if ax.get_visible()]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["EAT peaks in the middle"]
