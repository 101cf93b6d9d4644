"""`analyze` from end to end on synthetic clips: what its file holds, what it draws, refuses and leaves alone."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from report_samples import make_record
from scipy.stats import spearmanr

from audiobat.audio.read import to_waveform
from audiobat.cli import command as cli
from audiobat.config import (
    EncoderConfig,
    FrontendConfig,
    GridConfig,
    HeadConfig,
    ModelConfig,
    ProbeConfig,
    ProbeTrainConfig,
)
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import load_record
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.curves import Layers
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import LayerFeatures
from audiobat.probing.analyze.measures import layer_numbers
from audiobat.probing.analyze.run import analyze, spread

RATE = 8000
TONES = {"low tone": 250.0, "low-tone": 900.0, "top": 2800.0}  # two names that differ in a sign alone
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=96))
CONFIG = ProbeConfig(
    HeadConfig("cgp"),
    ProbeTrainConfig(steps=30, warmup_steps=3, batch_size=12, lr=1e-2),
    grid=GridConfig(prototypes=(2, 12)),
    seeds=(0, 1),
)
ALWAYS = {"ranks", "cka", "frontends"}
OURS = {"sinks", "attention"}


def made_encoder(gated: bool = True) -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(replace(MODEL, encoder=replace(MODEL.encoder, gated_attention=gated))).eval()


def write_clip(path: Path, hertz: float, rng: np.random.Generator) -> None:
    time = np.arange(int(rng.uniform(0.4, 0.6) * RATE)) / RATE
    noise = rng.normal(scale=0.02, size=len(time))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time + rng.uniform(0, 6)) + noise, RATE)


def label_of(number: int) -> str:
    """Of a clip; those that test go on in another order, so that rows taken for one another show."""
    return list(TONES)[(number + number // 18) % 3]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 clips that train and 12 that test, each of one of three tones."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    with (folder / "tones.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for i in range(30):
            label = label_of(i)
            write_clip(folder / f"{i:02d}.wav", TONES[label], rng)
            rows.writerow([f"{i:02d}.wav", label, "train" if i < 18 else "test"])
    return folder / "tones.csv"


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("unlabelled"), np.random.default_rng(1)
    for i in range(5):
        write_clip(folder / f"{i}.wav", 300.0 * (i + 1), rng)
    return folder


def strict(path: Path) -> dict:
    """The file's JSON; an error for NaN and infinity, which are not JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path} holds {name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def files_of(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def analysed(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("analysed") / "out"
    analyze(made_encoder(), labelled, CONFIG, out=out, views=3, pictures=1, device="cpu")
    return out, strict(out / "analysis.json")


def test_every_figure_is_there_in_both_formats_and_listed(analysed: tuple[Path, dict]):
    out, found = analysed
    drawn = {path.stem for path in (out / "figures").glob("*.svg")}
    classes = {name for name in drawn if name.startswith("class_")}
    assert drawn - classes == ALWAYS | OURS | {"layers", "prototypes"}
    assert len(classes) == 2  # the best and the worst of three
    assert classes <= {"class_000_low_tone", "class_001_low_tone", "class_002_top"}
    records = {f"AudioEncoder_{head}_{seed}" for seed in (0, 1) for head in ("cgp_k2", "cgp_k12")}
    records |= {f"AudioEncoder_linear_block_{block}_{seed}" for seed in (0, 1) for block in (1, 2)}
    assert set(found["files"]) == {f"figures/{n}.svg" for n in drawn} | {f"results/{n}.json" for n in records}
    beside = {f"figures/{name}.png" for name in drawn} | {
        f"results/{name}.{kind}" for name in records for kind in ("scores.npz", "confusion.csv")
    }
    assert files_of(out) == set(found["files"]) | beside | {"analysis.json"}
    for name in drawn:
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / "figures" / f"{name}.svg").read_text(encoding="utf-8")[:1000]


def test_layers_are_the_records_block_by_block_and_seed_by_seed(analysed: tuple[Path, dict]):
    out, found = analysed
    layers = found["layers"]
    assert (layers["metric"], layers["seeds"]) == ("accuracy", [0, 1])
    for place, seed in enumerate((0, 1)):
        results = out / "results"
        probes = [load_record(results / f"AudioEncoder_linear_block_{block}_{seed}.json") for block in (1, 2)]
        assert layers["linear"][place] == pytest.approx([p.metrics["accuracy"].value for p in probes])
        gate = load_record(results / f"AudioEncoder_cgp_k12_{seed}.json").gate_weights
        assert layers["gate_weights"][place] == pytest.approx(gate)
        assert sum(gate) == pytest.approx(1)


def test_rank_correlation_of_probes_and_gate_is_scipys_for_each_seed():
    linear = [[0.2, 0.5, 0.4, 0.4], [0.3, 0.6, 0.5, 0.7]]
    gates = ((0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1))
    probes = tuple(
        tuple(make_record(kind="linear", value=value, seed=seed, layer=i + 1) for i, value in enumerate(values))
        for seed, values in enumerate(linear)
    )
    found = layer_numbers(Collection((), (Layers("bat", "scenes", probes, gates),)))
    assert (found["metric"], found["seeds"]) == ("map", [0, 1])
    assert (found["linear"], found["gate_weights"]) == (linear, [list(gate) for gate in gates])
    expected = [spearmanr(x, y).statistic for x, y in zip(linear, gates, strict=True)]
    assert expected[0] * expected[1] < 0  # one rises, one falls
    assert found["spearman"] == pytest.approx(expected)
    assert found["spearman_mean"] == pytest.approx(np.mean(expected))
    assert found["spearman_sd"] == pytest.approx(np.std(expected, ddof=1))


def test_the_prototype_curve_has_a_point_for_each_size_over_seeds(analysed: tuple[Path, dict]):
    out, found = analysed
    assert [point["prototypes"] for point in found["prototype_curve"]] == [2, 12]
    for point in found["prototype_curve"]:
        names = [f"AudioEncoder_cgp_k{point['prototypes']}_{seed}.json" for seed in (0, 1)]
        values = [load_record(out / "results" / name).metrics["accuracy"].value for name in names]
        assert point["seeds"] == pytest.approx(values)
        assert point["mean"] == pytest.approx(np.mean(values))
        assert point["sd"] == pytest.approx(np.std(values, ddof=1))


def test_ranks_are_of_the_test_clips_features(analysed: tuple[Path, dict], labelled: Path):
    _, found = analysed
    assert found["data"]["clips"] == 12
    encoder = made_encoder()
    with torch.no_grad():
        clips = [
            encoder.forward_intermediates(to_waveform(labelled.parent / f"{i:02d}.wav", None, RATE)[None])
            for i in range(18, 30)
        ]
    for number, block in enumerate(found["label_free"]["blocks"]):
        patches = torch.cat([clip.patch_tokens[number, 0, clip.valid[0]] for clip in clips]).double()
        means = torch.stack([clip.patch_tokens[number, 0, clip.valid[0]].mean(0) for clip in clips]).double()
        cls = torch.stack([clip.cls_token[number, 0] for clip in clips]).double()
        assert block["block"] == number + 1
        for kind, vectors in (("patches", patches), ("mean", means), ("cls", cls)):
            s = torch.linalg.svdvals(vectors)
            p = s / s.sum() + 1e-7
            assert block[kind]["vectors"] == len(vectors)
            assert block[kind]["rankme"] == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-3)
        assert 1 <= block["lidar"] <= 12
    cka = np.array(found["label_free"]["cka"])
    assert cka.shape == (2, 2)
    np.testing.assert_allclose(cka, cka.T)
    np.testing.assert_allclose(cka.diagonal(), 1)


def test_attention_is_measured_for_each_block_and_head_with_and_without_gate(analysed: tuple[Path, dict]):
    _, found = analysed
    assert found["attention"]["clips"] == 12
    assert set(found["attention"]["measures"]) == {"weights", "values", "gated"}
    for kind, measures in found["attention"]["measures"].items():
        assert set(measures) == set(found["definitions"]["attention"]) - {"weights", "values", "gated"}
        for name, values in measures.items():
            assert np.shape(values) == (2, 2)
            assert found["attention"]["means"][kind][name] == pytest.approx(np.mean(values))
        total = np.array(measures["cls_to_cls"]) + measures["cls_to_patches"]
        np.testing.assert_allclose(total, 1, atol=1e-5)


def test_each_class_has_prototypes_with_a_patch_of_one_of_its_test_clips(analysed: tuple[Path, dict]):
    _, found = analysed
    use, classes = found["prototypes"]["use"], found["prototypes"]["classes"]
    assert 0 <= use["dead_share"] < 1
    assert 1 <= use["perplexity"] <= 12 * (1 - use["dead_share"]) + 1e-6
    assert set(classes) == set(TONES)
    for label, one in classes.items():
        assert 0 <= one["average_precision"] <= 1
        assert len({s["prototype"] for s in one["strongest"]}) == 3
        for strongest in one["strongest"]:
            number = int(strongest["clip"].removesuffix(".wav"))
            assert number >= 18  # it tests
            assert label_of(number) == label
            assert strongest["bands"] == 2
            assert strongest["band"] in (0, 1)
            assert 0 <= strongest["column"] < 6
        strengths = [s["strength"] for s in one["strongest"]]
        assert strengths == sorted(strengths, reverse=True)


@pytest.mark.parametrize("taken", ["analysis.json", "figures", "results"])
def test_nothing_is_overwritten_unasked(taken: str, unlabelled: Path, tmp_path: Path):
    if taken.endswith(".json"):
        (tmp_path / taken).write_text("mine")
    else:
        (tmp_path / taken).mkdir()
    before = files_of(tmp_path)
    with pytest.raises(AudiobatError, match=rf"{taken} exists: choose another --out, or replace it with --overwrite"):
        analyze(made_encoder(), unlabelled, out=tmp_path, device="cpu")
    assert files_of(tmp_path) == before
    if taken.endswith(".json"):
        assert (tmp_path / taken).read_text() == "mine"


def test_overwrite_replaces_the_old_analysis_and_no_other_file(unlabelled: Path, tmp_path: Path, capsys):
    mine = ("note.txt", "figures/mine.svg", "results/of_probe.json", "notes/a.svg")
    old = (
        "figures/class_000_dog.svg",
        "figures/class_000_dog.png",
        "results/m_cgp_0.json",
        "results/m_cgp_0.scores.npz",
    )
    for name in (*mine, *old):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    listed = [*old[::2], "note.txt", "notes/a.svg", "../outside.svg"]  # the last three are no places of ours
    (tmp_path / "analysis.json").write_text(json.dumps({"files": [*listed, "figures/ranks.svg"]}))
    analyze(made_encoder(), unlabelled, out=tmp_path, views=0, device="cpu", overwrite=True)
    drawn = {f"figures/{name}.{kind}" for name in ALWAYS | OURS for kind in ("svg", "png")}
    assert files_of(tmp_path) == drawn | set(mine) | {"analysis.json"}
    assert {(tmp_path / name).read_text() for name in mine} == {"old"}


def test_clips_without_labels_have_all_but_probes_and_prototypes(unlabelled: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    found = analyze(made_encoder(gated=False), unlabelled, out=out, clips=4, views=1, device="cpu")
    assert found == strict(out / "analysis.json")
    assert found["data"]["clips"] == 4
    assert {"layers", "prototype_curve", "prototypes"}.isdisjoint(found)
    assert found["label_free"]["blocks"][0]["lidar"] is None  # one view says nothing of spread
    assert set(found["attention"]["measures"]) == {"weights", "values"}
    assert files_of(out) == {"analysis.json"} | {f"figures/{n}.{k}" for n in ALWAYS | OURS for k in ("svg", "png")}
    reasons = [line.split(":")[0] for line in found["not_measured"]]
    assert reasons == ["gates", "probes and prototypes", "lidar", "full rank of LiDAR, and of mean patches and cls"]
    told = " ".join(capsys.readouterr().out.split())
    for line in found["not_measured"]:
        assert line in told


ENCODER = """
import torch
from audiobat.models.features import LayerFeatures

class Frames(torch.nn.Module):
    sample_rate, dim, depth = 4000, 10, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Linear(400, 10)
        self.block = torch.nn.Linear(10, 10)

    def forward_intermediates(self, waveform, lengths=None):
        count = -(-waveform.shape[1] // 400)
        x = torch.nn.functional.pad(waveform, (0, count * 400 - waveform.shape[1])).unflatten(1, (count, 400))
        first = torch.tanh(5 * self.stem(x))
        layers = torch.stack([first, first + torch.tanh(self.block(first))])
        own = torch.full((len(x),), waveform.shape[1]) if lengths is None else lengths
        starts = torch.arange(count, device=x.device)
        return LayerFeatures(layers, None, (count, 1), starts * 400 < own[:, None].to(x.device), starts / 10)
"""


def test_a_model_that_shows_no_attention_is_analysed_without_it_from_the_command_line(
    labelled: Path, tmp_path: Path, capsys
):
    (tmp_path / "mine.py").write_text(ENCODER)
    flags = "--train.steps 10 --train.warmup_steps 1 --train.batch_size 6 --grid.prototypes 6 --seeds 3 --views 3"
    out = tmp_path / "out"
    words = ["analyze", "--model", f"{tmp_path / 'mine.py'}:Frames", "--data", str(labelled), "--out", str(out)]
    assert cli.main([*words, *flags.split(), "--pictures", "0", "--device", "cpu"]) == 0
    found = strict(out / "analysis.json")
    assert found["attention"] is None
    assert any("Frames does not show its attention" in line for line in found["not_measured"])
    assert "random crops of 50% of the clip" in found["definitions"]["views"]
    blocks = found["label_free"]["blocks"]
    assert [set(block) for block in blocks] == 2 * [{"block", "patches", "mean", "artefact_share", "lidar"}]
    assert all(block["lidar"] > 1 for block in blocks)
    assert np.shape(found["layers"]["linear"]) == np.shape(found["layers"]["gate_weights"]) == (1, 2)
    assert [point["prototypes"] for point in found["prototype_curve"]] == [6]
    assert {path.stem for path in (out / "figures").iterdir()} == ALWAYS | {"layers"}  # one size makes no curve
    strongest = found["prototypes"]["classes"]["top"]["strongest"][0]
    assert (strongest["bands"], strongest["band"]) == (1, 0)
    assert cli.main([*words, *flags.split()]) == 2  # and not again over it
    assert re.search(r"analysis\.json exists: .*--overwrite", capsys.readouterr().err)


class Collapsed:
    """Two blocks that give the same token for all that they hear: ones, and zeros."""

    sample_rate, dim, depth = RATE, 8, 2

    def forward_intermediates(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> LayerFeatures:
        valid = torch.ones(len(waveform), 4, dtype=torch.bool)
        tokens = torch.tensor([1.0, 0.0])[:, None, None, None]
        return LayerFeatures(tokens.expand(2, len(waveform), 4, 8), None, (4, 1), valid, torch.arange(4) * 0.1)


def test_a_collapsed_model_has_rank_one_and_nulls_where_nothing_is_defined(unlabelled: Path, tmp_path: Path, capsys):
    analyze(Collapsed(), unlabelled, out=tmp_path / "out", views=2, device="cpu")
    found = strict(tmp_path / "out" / "analysis.json")
    for block in found["label_free"]["blocks"]:
        for kind in ("patches", "mean"):
            assert block[kind]["rankme"] == (pytest.approx(1, abs=1e-3) if block["block"] == 1 else None)
            assert block[kind]["token_std"] == pytest.approx(0, abs=1e-6)
            assert block[kind]["alpha_req"] is None
            assert block[kind]["effective_rank"] is None
    assert found["label_free"]["cka"] == [[None, None], [None, None]]
    assert (tmp_path / "out" / "figures" / "cka.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": 3}, "clips is 3: use 4 or more"),
        ({"views": -1}, "views is -1: use 0 or more"),
        ({"pictures": -1}, "pictures is -1: use 0 or more"),
        ({"config": ProbeConfig(heads=("linear",))}, r"heads is \('linear',\): analyze trains CGP and linear probes"),
        ({"config": ProbeConfig(HeadConfig("protobin"))}, "head.kind is protobin: analyze trains"),
        ({"config": ProbeConfig(task="frame")}, "task is frame: analyze trains"),
        ({"config": ProbeConfig(grid=GridConfig(lr=(1e-3, 1e-2)))}, "grid.lr is .*: analyze trains"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_written(changes: dict, message: str, unlabelled, tmp_path: Path):
    with pytest.raises(AudiobatError, match=message):
        analyze(made_encoder(), unlabelled, out=tmp_path / "out", device="cpu", **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("train", "message"),
    [({"warmup_steps": 30}, "warmup_steps is 30: it must end before"), ({"batch_size": 1}, "batch_size is 1")],
)
def test_a_bad_schedule_is_told_before_features_are_computed(train: dict, message: str, labelled, tmp_path: Path):
    config = replace(CONFIG, train=replace(CONFIG.train, **train))
    with pytest.raises(AudiobatError, match=message):
        analyze(made_encoder(), labelled, config, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_spread_covers_first_and_last():
    assert spread(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert spread(np.arange(3), 4).tolist() == [0, 1, 2]
    assert len(set(spread(np.arange(1000), 512).tolist())) == 512
