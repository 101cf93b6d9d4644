"""`audiobat benchmark`: cells have the published settings; killed, it goes on; failures are listed at the end."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from audiobat.cli import command as cli
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig, from_dict
from audiobat.config.benchmark import FINETUNE, BenchmarkConfig
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.sources.public import esc50
from audiobat.data.sources.public import speech_commands as sc
from audiobat.errors import AudiobatError, Stopped
from audiobat.evaluation.record import load_record
from audiobat.finetuning.testing import preset_of as recipe_of
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.cost import embedding_flops, encoder_cost
from audiobat.probing.jobs import decay_of, head_jobs, preset_of
from audiobat.studies import benchmark as verb
from audiobat.studies import benchmark_plan
from audiobat.studies.benchmark import benchmark
from audiobat.studies.benchmark_cells import cells_of, with_paths
from audiobat.studies.benchmark_plan import BASE, cost_of, head_flops, patches_of
from audiobat.zoo import release as release_io

pytestmark = pytest.mark.filterwarnings("ignore:spc2-")  # that a fixture is smaller than the real one
MODEL = ModelConfig(
    FrontendConfig(hop_length=320, mel_bins=16),
    EncoderConfig(dim=16, depth=2, heads=2, patch_size=(8, 8), max_frames=64),
)
SMALL = {
    "probe": {
        "train": {"steps": 30, "warmup_steps": 1, "batch_size": 8, "lr": 0.03},
        "head": {"prototypes": 8},
        "workers": 0,
    },
    "finetune": {
        "train": {"steps": 15, "batch_size": 8, "log_every": 15, "precision": "fp32"},
        "optim": {"warmup_steps": 1, "lr": 0.01},
        "data": {"workers": 0, "clip_seconds": 0.5},
        "select": {"every": 15},
        "max_frames": None,
    },
}
# Paper, Table 6: steps, warm-up, batch, loss of FT and of the probes
TABLE_6 = {
    "AS-2M": ((400_000, 40_000, 96, "bce"), (200_000, 2_000, 96, "bce")),
    "AS-20K": ((40_000, 4_000, 48, "bce"), (20_000, 2_000, 48, "bce")),
    "ESC-50": ((4_000, 400, 48, "ce"), (4_000, 400, 48, "ce")),
    "SC-2": ((40_000, 4_000, 256, "bce"), (40_000, 4_000, 256, "bce")),
}


def config_of(name: str, **fields) -> BenchmarkConfig:
    return from_dict(BenchmarkConfig, merge(load_recipe(f"benchmark/{name}"), fields))


def tone(path: Path, label: int, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(path.name.encode()))
    time = np.arange(round(seconds * 16_000)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * 150 * (label + 1) * time) + 0.05 * rng.standard_normal(len(time))
    soundfile.write(path, wave, 16_000)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "small"
    release_io.save_release(folder, AudioEncoder(MODEL))
    return folder


@pytest.fixture
def esc(tmp_path, monkeypatch) -> Path:
    """ESC-50 as its repository holds it, of 4 classes and 40 clips in 5 folds."""
    monkeypatch.setattr(esc50, "CLIPS", 40)
    monkeypatch.setattr(esc50, "CLASSES", 4)
    root = tmp_path / "ESC-50-master"
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target in range(4):
            for take in "AB":
                name = f"{fold}-{100 * fold + target}-{take}-{target}.wav"
                tone(root / "audio" / name, target, 5.0)
                lines.append(f"{name},{fold},{target},class_{target},False,{100 * fold + target},{take}")
    (root / "meta").mkdir()
    (root / "meta/esc50.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def words(tmp_path) -> Path:
    """Speech Commands v2 as its archives unpack: of each word one recording trains, one validates; and a test set."""
    root = tmp_path / "speech" / "speech_commands_v0.02"
    for label, word in enumerate(sc.WORDS):
        for speaker in ("aaaa", "bbbb"):
            tone(root / word / f"{speaker}_nohash_0.wav", label, 0.3)
    tone(root / "yes" / "cccc_nohash_0.wav", 1, 0.3)
    (root / "validation_list.txt").write_text("".join(f"{word}/bbbb_nohash_0.wav\n" for word in sc.WORDS))
    (root / "testing_list.txt").write_text("yes/cccc_nohash_0.wav\n")
    for name in ("pink_noise.wav", sc.TFDS_VALID_NOISE):
        tone(root / sc.NOISE / name, 3, 2.2)
    for label, name in enumerate(sc.TWELVE):
        tone(root.parent / sc.TEST_SET / name / "dddd_nohash_0.wav", label, 0.3)
    return root.parent


def test_the_papers_numbers_are_those_of_its_tables():
    five = config_of("table5").paper
    columns = ("AS-2M", "AS-20K", "ESC-50", "SC-2")
    rows = {name: [five[name][data][p] for data in columns for p in ("FT", "CGP", "LP")] for name in five}
    printed = {
        "EAT": "47.61 41.04 30.36 40.28 35.20 17.95 95.45 94.05 81.30 97.88 95.57 72.68",
        "SSLAM": "47.69 40.18 28.92 39.97 34.62 17.03 94.80 94.70 88.00 97.87 95.53 53.51",
        "BAT": "48.55 42.90 34.27 41.32 37.52 25.59 95.52 95.80 87.25 98.13 97.13 72.83",
    }
    assert rows == {name: [(float(x),) for x in line.split()] for name, line in printed.items()}
    one = config_of("table1").paper
    lines = {
        ("FT", "EAT"): "40.28 30.73 47.61 36.63",
        ("FT", "SSLAM"): "39.97 27.03 47.69 36.83",
        ("CGP", "EAT"): "35.20 26.04 41.04 19.51",
        ("CGP", "SSLAM"): "34.62 24.58 40.20 19.59",
        ("Protobin", "EAT"): "31.22 14.77 32.58 15.0",
        ("Protobin", "SSLAM"): "29.64 12.07 31.25 14.80",
        ("LP", "EAT"): "17.95 15.63 30.36 19.20",
        ("LP", "SSLAM"): "17.03 16.86 28.92 18.44",
    }
    for (protocol, name), line in lines.items():
        assert (*one[name]["AS-20K"][protocol], *one[name]["AS-2M"][protocol]) == tuple(map(float, line.split()))


def test_tables_have_the_papers_models_data_and_protocols():
    one, five = config_of("table1"), config_of("table5")
    assert (list(one.models), list(one.data)) == (["EAT", "SSLAM"], ["AS-20K", "AS-2M"])
    assert (one.protocols, len(cells_of(one))) == (("FT", "CGP", "Protobin", "LP"), 16)
    assert (list(five.models), set(five.data)) == (["EAT", "SSLAM", "BAT"], set(TABLE_6))
    assert (five.protocols, len(cells_of(five))) == (("FT", "CGP", "LP"), 36)
    assert {cell.paper for cell in cells_of(five)}.isdisjoint({(None,)})
    assert {data.metrics for data in one.data.values()} == {("map", "f1")}
    assert [five.data[name].metrics[0] for name in TABLE_6] == ["map", "map", "accuracy", "accuracy"]
    more = {str(cell): cell.paper for cell in cells_of(config_of("table5", protocols=["Protobin"]))}
    assert (more["EAT, AS-2M, Protobin"], more["BAT, AS-2M, Protobin"]) == ((32.58,), (None,))
    # Table 7
    counts = {name: (data.train, data.test, data.classes) for name, data in five.data.items()}
    assert counts["AS-2M"] == (1_932_574, 18_886, 527)
    assert counts["AS-20K"] == (20_550, 18_886, 527)
    assert counts["ESC-50"] == (1_600, 400, 50)
    assert counts["SC-2"] == (84_848, 4_890, 12)


@pytest.mark.parametrize("cell", cells_of(config_of("table5")) + cells_of(config_of("table1")), ids=str)
def test_cells_have_the_published_settings(cell):
    finetune, probe = TABLE_6[cell.data]
    if cell.protocol != FINETUNE:
        config = cell.probe_config()
        train = config.train
        assert (train.steps, train.warmup_steps, train.batch_size, train.loss) == probe
        assert (train.lr, train.min_lr, train.betas) == (1e-3, 1e-6, (0.9, 0.999))
        [job] = head_jobs(config, 12)
        assert job.head.kind == {"CGP": "cgp", "Protobin": "protobin", "LP": "linear"}[cell.protocol]
        assert decay_of(job.head, train) == (0.005 if cell.protocol == "LP" else 0.5)
        assert job.head.prototypes == 10_000
        assert (config.preset, config.preset_task) == ("paper", cell.about_data.task)
        assert preset_of(job, train.loss, config, "as20k") == "paper", "so that records say so"
        return
    config = cell.finetune_config()
    other = replace(config.train, seed=7, device="cuda")
    assert recipe_of(replace(config, train=other)) == config.recipe == cell.recipe
    train, optim = config.train, config.optim
    found = (train.steps, optim.warmup_steps, train.batch_size, train.loss)
    if (cell.model, cell.data) == ("EAT", "AS-2M"):  # EAT's own; the 400,000 of Table 6 are SSLAM's
        assert found == (300_000, 30_000, 96, "bce")
    else:
        assert found == finetune
    assert (optim.betas, optim.weight_decay, optim.min_lr, train.drop_path) == ((0.9, 0.95), 0.05, 1e-6, 0.1)
    bat = cell.model == "BAT"
    assert optim.layer_decay == (0.75 if bat else 0.65)
    assert optim.lr == (2e-4 if cell.data == "SC-2" and not bat else 5e-5)
    assert config.augment.mixup.probability == (0.0 if cell.data == "ESC-50" else 0.9)
    width = {"ESC-50": (0.2, 0.4), "SC-2": (0.1, 0.2)}.get(cell.data, (0.2, 0.2))
    assert config.augment.spec_augment.time_width == width[not bat]


def test_a_benchmark_is_run_killed_and_goes_on(tmp_path, model, esc, words, monkeypatch, capsys):
    out = tmp_path / "out"
    config = config_of("table5", **SMALL)
    places = {"models": [f"BAT={model}"], "data": [f"ESC-50={esc}", f"SC-2={words}"]}
    calls = []
    really = {"probe": verb.probe, "finetune": verb.finetune}

    def spy(kind, last):
        def call(*args, **kwargs):
            if len(calls) == last:
                raise KeyboardInterrupt
            calls.append((kind, Path(str(args[1]).partition(":")[2]).name))
            return really[kind](*args, **kwargs)

        monkeypatch.setattr(verb, kind, call)

    for kind in really:
        spy(kind, 2)
    with pytest.raises(KeyboardInterrupt):
        benchmark(config, out=out, **places)
    assert calls == [("finetune", "ESC-50-master"), ("probe", "ESC-50-master")]
    kept = {path: path.read_bytes() for path in out.rglob("results/*.json")}
    assert len(kept) == 2
    for kind in really:
        spy(kind, None)
    results = benchmark(config, out=out, **places)
    assert "[21 of 36] BAT, ESC-50, FT: done" in capsys.readouterr().out
    assert calls[2:] == [("probe", "ESC-50-master"), ("finetune", "speech"), ("probe", "speech"), ("probe", "speech")]
    assert all(path.read_bytes() == data for path, data in kept.items())

    measured = {(r.cell.data, r.cell.protocol): r for r in results if r.records}
    assert set(measured) == {(data, p) for data in ("ESC-50", "SC-2") for p in ("FT", "CGP", "LP")}
    for (data, protocol), result in measured.items():
        [record], [number] = result.records, result.numbers()
        head = {"FT": "finetune_last", "CGP": "cgp", "LP": "linear"}[protocol]
        folder = out / "runs/BAT" / data / protocol
        path = (folder / "seed0" if protocol == "FT" else folder) / f"results/small_{head}_0.json"
        assert load_record(path) == record
        assert record.preset == "custom", "these are not the paper's settings"
        accuracy = record.metrics["accuracy"]
        assert number.ours == pytest.approx([100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high])
        assert number.paper == config.paper["BAT"][data][protocol][0]
    assert {r.why for r in results if r.cell.data == "SC-2" and r.cell.model == "EAT"} == {"no weights"}
    assert {r.why for r in results if r.cell.data == "AS-2M" and r.cell.model == "EAT"} == {"no weights, no data"}
    assert measured["SC-2", "CGP"].records[0].data.clips == {"train": 35 + 3, "test": 12}

    text = (out / "table.md").read_text()
    mean, low, high = measured["ESC-50", "CGP"].numbers()[0].ours
    assert f"| {mean:.2f}* | [{low:.2f}, {high:.2f}] | 1 | 95.80 | {mean - 95.8:+.2f} |" in text
    assert "| FT | EAT | mAP | - | no weights, no data |  | 40.28 |  |" in text
    assert "6 of 36 cells measured." in text
    assert "* trained with other settings" in text
    assert (out / "figures/table.svg").stat().st_size > 1_000

    # Nothing is left to do; the table is made again, also where nobody says where the data lie.
    calls.clear()
    again = benchmark(config, out=out)
    assert calls == []
    assert [r.records for r in again] == [r.records for r in results]
    # With other settings, the cells that are done are an error, not mixed with new ones.
    other = replace(config, probe=merge(SMALL["probe"], {"train": {"steps": 5}}))
    with pytest.raises(AudiobatError, match=r"(?s)4 of 36 cells failed.*train.steps 30, not 5"):
        benchmark(other, out=out, **places)
    assert calls == []
    capsys.readouterr()
    benchmark(other, out=out, only=["LP", "SC-2"], overwrite=True, **places)
    assert calls == [("probe", "speech")]
    assert load_record(next((out / "runs/BAT/SC-2/LP").glob("results/*.json"))).head["steps"] == 5


def test_a_cell_that_fails_stops_none_of_the_others(tmp_path, model, esc, monkeypatch, capsys):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"PK\x03\x04 and then nothing")
    own = tmp_path / "small.yaml"
    own.write_text(yaml.safe_dump({"base": "benchmark/table5", **SMALL}))
    really = verb.probe

    def crash(model, data, config, **kwargs):
        if config.heads == ("cgp",) and "broken" not in str(model):
            raise RuntimeError("CUDA out of memory\nand a page of advice")
        return really(model, data, config, **kwargs)

    monkeypatch.setattr(verb, "probe", crash)
    argv = ["benchmark", "--config", str(own), "--models", f"EAT={broken}", f"MINE={model}", "--data", f"ESC-50={esc}"]
    argv += ["--out", str(tmp_path / "out"), "--only", "EAT,MINE,CGP,LP", "--device", "cpu"]
    assert cli.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") >= 1
    sentence = printed.err.splitlines()[-1]
    assert sentence.startswith("audiobat: 3 of 48 cells failed. EAT, ESC-50, CGP; EAT, ESC-50, LP: ")
    assert sentence.count(str(broken)) == 1
    log = tmp_path / "out/runs/MINE/ESC-50/CGP.error.txt"
    assert f"MINE, ESC-50, CGP: RuntimeError: CUDA out of memory (see {log})." in sentence
    assert "Traceback" in log.read_text()
    text = (tmp_path / "out/table.md").read_text()
    assert "| CGP | MINE | Accuracy | - | failed |  | - |  |" in text
    assert "- MINE, ESC-50, CGP: RuntimeError: CUDA out of memory (see " in text
    assert "AS-20K: no cell was run (no data; no weights, no data)." in " ".join(printed.out.split())
    assert "| FT | MINE | Accuracy | - | not asked for |  | - |  |" in text
    assert "1 of 48 cells measured." in text
    monkeypatch.setattr(verb, "probe", really)  # mended: only what failed runs
    assert cli.main([*argv[:4], *argv[5:], "--only", "MINE,CGP"]) == 0
    assert not log.exists()
    assert "2 of 48 cells measured." in capsys.readouterr().out


def test_seeds_are_of_every_cell(tmp_path, model, esc):
    config = config_of("table5", **SMALL, seeds=[3, 4])
    places = {"models": [f"BAT={model}"], "data": [f"ESC-50={esc}"], "only": ["BAT", "ESC-50", "FT", "LP"]}
    results = {r.cell.protocol: r for r in benchmark(config, out=tmp_path / "out", **places) if r.records}
    assert set(results) == {"FT", "LP"}
    for result in results.values():
        assert [record.seed for record in result.records] == [3, 4]
        [number] = result.numbers()
        values = [100 * record.metrics["accuracy"].value for record in result.records]
        assert number.ours.mean == pytest.approx(sum(values) / 2)
        assert number.ours.high - number.ours.mean == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2)
    assert "95% intervals over seeds" in (tmp_path / "out/table.md").read_text()


def test_a_dry_run_lists_runnable_cells_missing_things_and_hours(tmp_path, model, esc, capsys):
    argv = ["benchmark", "--config", "benchmark/table5", "--models", f"BAT={model}", f"EAT={tmp_path / 'gone.pt'}"]
    argv += ["--data", f"ESC-50={esc}", "--out", str(tmp_path / "out"), "--dry-run"]
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    flat = " ".join(shown.replace("│", " ").split())
    assert "3 of 36 cells can run, 0 are done." in flat
    assert "Here: ESC-50: 40 clips." in flat
    assert "weights of SSLAM ta012/SSLAM_pretrain on Hugging Face" in flat
    assert "--data AS-2M=FOLDER" in flat
    assert "39,436 clips" in flat
    assert "No such folder or name" in flat
    assert str(tmp_path / "gone.pt") in shown, "a path to copy stands on one line, however long it is"
    assert flat.count("weights unreadable") == 3  # and ESC-50 is there
    assert not (tmp_path / "out").exists()


def forward_flops(model: ModelConfig, patches: int) -> float:
    return encoder_cost(model, 1, patches).flops + embedding_flops(model, 1, patches)


def test_hours_are_those_of_the_operations():
    """The reference's counts: 104 GFLOP a clip with gates and 97 without; CGP's 0.39 TFLOP a step of 48 clips."""
    ungated = replace(BASE, encoder=replace(BASE.encoder, gated_attention=False))
    assert patches_of(BASE, 10.24) == patches_of(BASE, 60.0) == 512
    assert (patches_of(BASE, 5.12), patches_of(BASE, 1.0)) == (256, 56)
    assert forward_flops(BASE, 512) == pytest.approx(104e9, rel=0.005)
    assert forward_flops(ungated, 512) == pytest.approx(97e9, rel=0.005)
    assert 48 * head_flops("cgp", BASE, 512, 10_000, 527) == pytest.approx(0.39e12, rel=0.01)
    config = config_of("table5")
    cells = {(cell.data, cell.protocol): cost_of(cell) for cell in cells_of(config, ["BAT"])}
    encoder, head = cells["AS-20K", "CGP"]
    assert encoder == pytest.approx(100e15 + 18_886 * 104e9, rel=0.01)
    assert head == pytest.approx(7.7e15, rel=0.02)
    assert (encoder + head) / 125e12 == pytest.approx(0.24 * 3600, rel=0.02)
    assert cells["AS-20K", "FT"][0] == pytest.approx(3 * 40_000 * 48 * 104e9, rel=0.01)
    assert cells["AS-20K", "LP"][0] == pytest.approx((20_550 + 18_886) * 104e9, rel=0.01), "means are kept"
    assert cells["ESC-50", "CGP"][0] == pytest.approx(2_000 * forward_flops(BASE, 256)), "features are kept"
    assert cells["ESC-50", "FT"][0] == pytest.approx((3 * 4_000 * 48 + 400) * 5 * forward_flops(BASE, 256))
    three = cost_of(cells_of(replace(config, seeds=(0, 1, 2)), ["BAT", "AS-20K", "CGP"])[0])
    assert three == (encoder, pytest.approx(3 * head)), "seeds share the pass"


def test_table_1_is_run_on_audioset_as_people_have_it(tmp_path, model):
    root = tmp_path / "audioset"
    labels = [("/m/09x0r", "Speech"), ("/m/04rlf", "Music"), *((f"/m/x{i:03d}", f"Sound {i}") for i in range(525))]
    root.mkdir()
    rows = "".join(f'{i},{mid},"{name}"\n' for i, (mid, name) in enumerate(labels))
    (root / "class_labels_indices.csv").write_text("index,mid,display_name\n" + rows)
    for file, first, count in (("balanced_train", 0, 16), ("eval", 16, 8)):
        lines = ["# a", "# b", "# YTID, start_seconds, end_seconds, positive_labels"]
        for i in range(first, first + count):
            tone(root / "audio" / f"clip{i:07d}.wav", i % 2, 1.0)
            lines.append(f'clip{i:07d}, 0.000, 10.000, "{labels[i % 2][0]}"')
        (root / f"{file}_segments.csv").write_text("\n".join(lines) + "\n")
    places = {"models": [f"EAT={model}"], "data": [f"AS-20K={root}"]}
    results = benchmark(config_of("table1", **SMALL), out=tmp_path / "out", only=["CGP", "Protobin", "LP"], **places)
    measured = {r.cell.protocol: r for r in results if r.records}
    assert set(measured) == {"CGP", "Protobin", "LP"}
    for result in measured.values():
        numbers = result.numbers()
        assert [number.metric for number in numbers] == ["mAP", "F1"]
        [record] = result.records
        for number, name, paper in zip(numbers, ("map", "f1"), result.cell.paper, strict=True):
            assert number.ours.mean == pytest.approx(100 * record.metrics[name].value)
            assert number.paper == paper
        assert not (tmp_path / "out/runs/EAT/AS-20K" / result.cell.protocol / "features").exists()
    text = (tmp_path / "out/table.md").read_text()
    assert "- AS-20K: 16 train, 8 test clips; test clips have 2 of 527 classes" in text
    assert f"- EAT: small, sha256 {measured['LP'].records[0].model.sha256[:12]}" in text
    assert (
        "finetune/eat_as20k (EAT FT); finetune/sslam_as20k (SSLAM FT); preset paper, as20k (CGP, Protobin, LP)" in text
    )


def test_a_signal_that_stops_a_fine_tuning_stops_the_benchmark(tmp_path, model, esc, monkeypatch):
    def stopped(*args, **kwargs):
        raise Stopped

    monkeypatch.setattr(verb, "finetune", stopped)
    monkeypatch.setattr(verb, "probe", lambda *args, **kwargs: pytest.fail("went on"))
    with pytest.raises(Stopped):
        benchmark(config_of("table5"), out=tmp_path / "out", models=[f"BAT={model}"], data=[f"ESC-50={esc}"])


def test_a_dry_run_fetches_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark_plan, "load_encoder", lambda path: pytest.fail(f"fetched {path}"))
    argv = ["benchmark", "--config", "benchmark/table5", "--models", "BAT=hub:somebody/bat", "my[/b]=hf:some/model"]
    assert cli.main([*argv, "--dry-run", "--only", "LP"]) == 0
    shown = capsys.readouterr().out
    assert "0 of 16 cells can run" in shown
    assert "my[/b]" in shown, "a name with brackets is no markup"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("", "There are no cells: give --config benchmark/table1"),
        ("--config benchmark/table5", "None of the 36 cells can run: name weights with --models"),
        (
            "--config benchmark/table5 --only BTA",
            r"--only has 'BTA' \(did you mean BAT\?\): choose from EAT, SSLAM, BAT",
        ),
        ("--config benchmark/table5 --models bat.pt", "--models has 'bat.pt': give NAME=PATH"),
        ("--config benchmark/table5 --data ESC50=x", r"--data has 'ESC50' \(did you mean ESC-50\?\)"),
        ("--config benchmark/table5 --models BAT=a BAT=b", "--models names BAT twice"),
        ("--config benchmark/table5 --protocols FT,LR", "protocols is 'LR': choose from FT, CGP, Protobin, LP"),
        ("--config finetune/esc50", "Recipe finetune/esc50 is one to finetune"),
    ],
)
def test_a_mistake_is_one_sentence(argv, sentence, tmp_path, capsys):
    assert cli.main(["benchmark", "--out", str(tmp_path / "out"), *argv.split()]) == 2
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"models": {"BAT": {"recipes": {"ESC50": "finetune/esc50"}}}}, "'ESC50': it is none of .*mean ESC-50"),
        ({"models": {"BAT": {"weights": "x"}}}, "Unknown field models.BAT.weights"),
        ({"models": "BAT"}, "models is 'BAT': give values by name"),
        ({"data": {"MINE": {"path": "x"}}}, "data.reader is '': say which"),
        ({"models": {"ESC-50": {}}}, "'ESC-50': give each a name of its own"),
        ({"data": {"SC-2": {"folds": 0}}}, "data.folds is 0: it must be positive"),
        ({"seeds": [1, 1]}, "seeds is .*: name each once"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(fields, sentence):
    with pytest.raises(AudiobatError, match=sentence):
        config_of("table5", **fields)


def test_clips_are_read_as_the_data_set_says_unless_the_path_does(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    for path, source in (
        (f"{tmp_path}/x", f"spc2-12-tfds:{tmp_path}/x"),
        ("x", f"spc2-12-tfds:{tmp_path}/x"),
        (f"spc2-35:{tmp_path}/x", f"spc2-35:{tmp_path}/x"),
        ("clips.csv", "clips.csv"),
    ):
        config = with_paths(config_of("table5"), data=[f"SC-2={path}"])
        assert cells_of(config, ["SC-2"])[0].source == source
