"""benchmarks/gpu_nano.py on a tiny corpus and a tiny network: packed, laid out, stopped, gone on with elsewhere."""

import csv
import itertools
import json
import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from benchmark_scripts import load_script
from safetensors.torch import load_file

from audiobat.config import PretrainConfig, from_dict
from audiobat.data.scenes import demo_folder
from audiobat.engine import loop
from audiobat.errors import AudiobatError
from audiobat.zoo.load import load

gpu_nano = load_script("gpu_nano")
RATE = gpu_nano.RATE
TINY = """
frontend: {n_fft: 256, win_length: 256, mel_bins: 16}
encoder: {dim: 16, depth: 2, heads: 2, patch_size: [16, 8], max_frames: 64}
decoder: {depth: 1, heads: 2, mlp_ratio: 1}
mask: {clones: 2, block_size: 1}
target: {ema_steps: 10}
optim: {warmup_steps: 5}
data: {clip_seconds: 0.64}
train: {steps: 12, batch_size: 2}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sounds of the demo as short recordings, tones in noise as long ones, and one that is left out."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [("path", "seconds", "source", "category")]
    rng = np.random.default_rng(0)

    def add(name, samples, source, category, rate=RATE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, samples, rate)
        lines.append((name, len(samples) / rate, source, category))

    for n, file in enumerate(sorted((demo_folder() / "events").glob("*.ogg"))[:24]):
        samples, rate = soundfile.read(file)
        add(f"audio/a/{n:02d}.wav", samples[: 3 * rate], "a", ("sfx", "instrument", "speech")[n % 3], rate)
    for n, category in enumerate(("music", "music", "sfx", "speech")):
        t = np.arange((12 + 30 * (n == 0)) * 22_050) / 22_050
        wave = 0.2 * np.sin(2 * np.pi * (300 + 100 * n) * t) * (1 + np.sin(t)) + 0.02 * rng.normal(size=len(t))
        add(f"audio/{'b/ambient' if n == 1 else 'b'}/{n}.wav", wave, "b", category, 22_050)
    add("audio/held_out.wav", 0.1 * rng.normal(size=RATE), "a", "sfx")
    (folder / "left_out.csv").write_text("path,reason\naudio/held_out.wav,held out for the test scenes\n")
    with (folder / "pretrain.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder


@pytest.fixture(scope="module")
def packed(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "pack"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_nano, "SHARD", 40.0)
        gpu_nano.main(["pack", str(corpus), str(corpus), str(folder)])
    return folder


def test_recordings_come_out_of_the_pack_as_they_went_in(corpus, packed, tmp_path):
    gpu_nano.unpack(packed, tmp_path / "corpus")
    found = gpu_nano.read_rows(tmp_path / "corpus/pretrain.csv")
    given = gpu_nano.read_rows(corpus / "pretrain.csv")[:-1]  # the last one is held out
    assert len(found) == len(given) == 28
    originals = [gpu_nano.middle_of(corpus / row["path"]) for row in given]
    assert max(len(x) for x in originals) == 30 * RATE  # of 42 s
    kinds = defaultdict(int)
    for row in found:
        x, rate = soundfile.read(tmp_path / "corpus" / row["path"])
        assert rate == RATE
        same = [o for o in originals if len(o) == len(x)]
        alike = max(float(np.corrcoef(x, o)[0, 1]) for o in same)
        assert alike > 0.8, row  # 19 kbit/s; a shift by one sample or another recording is far from it
        kinds[row["category"]] += 1
    assert kinds == {"sfx": 9, "instrument": 8, "speech": 9, "music": 1, "ambience": 1}


def test_a_pack_keeps_to_its_limit_and_to_the_shares(corpus, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_nano, "SHARD", 10.0)
    gpu_nano.main(["pack", str(corpus), str(corpus), str(tmp_path / "small"), "--mib", "0.1"])
    size = sum(file.stat().st_size for file in (tmp_path / "small").rglob("*") if file.is_file())
    assert 0.05 * 2**20 < size <= 0.1 * 2**20
    assert 0 < len(gpu_nano.read_rows(tmp_path / "small/index.csv")) < len(gpu_nano.read_rows(packed / "index.csv"))
    with pytest.raises(AudiobatError, match="give more by --mib"):
        gpu_nano.main(["pack", str(corpus), str(corpus), str(tmp_path / "none"), "--mib", "0.001"])
    short = {"sfx": [Path(f"s{n}") for n in range(600)], "speech": [Path(f"v{n}") for n in range(600)]}
    long = {"music": [Path(f"m{n}") for n in range(3)]}
    monkeypatch.setattr(gpu_nano.soundfile, "info", lambda path: SimpleNamespace(duration=1.0))
    order = [kind for kind, _ in gpu_nano.greedy_order(short, long, np.random.default_rng(0))]
    assert len(order) == 1203
    assert order[:400].count("sfx") == pytest.approx(3 * order[:400].count("speech"), abs=4)  # 0.6 and 0.2
    assert order.index("music") < 5


def test_steps_warm_up_and_the_ema_follow_the_time():
    recipe = {"train": {"steps": 1000}, "optim": {"warmup_steps": 100}}
    recipe["target"] = {"ema_start": 0.9, "ema_end": 0.99, "ema_steps": 500}
    config = gpu_nano.planned(from_dict(PretrainConfig, recipe), seconds=0.054, minutes=4)
    assert (config.train.steps, config.optim.warmup_steps, config.target.ema_steps) == (4000, 400, 2000)
    assert (config.target.ema_start, config.target.ema_end) == pytest.approx((0.975, 0.9975))


def test_a_run_that_is_stopped_goes_on_on_another_machine_to_the_same_weights(packed, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY)
    answer = SimpleNamespace(seconds=1.0, describe=lambda steps: "measured")
    monkeypatch.setattr(gpu_nano, "calibrate_run", lambda config: answer)
    monkeypatch.setattr(gpu_nano, "SPARE", 1.0)
    monkeypatch.setattr(gpu_nano, "monotonic", lambda: 0.0)
    monkeypatch.setattr(gpu_nano.os, "cpu_count", lambda: 2)
    probed = []
    monkeypatch.setattr(gpu_nano, "probes", lambda work, device: probed.append(work) or {"cgp": 0.5})

    def call(work, minutes, pack=packed):
        seconds = itertools.count()  # a step takes one
        monkeypatch.setattr(loop._Clock, "elapsed", property(lambda self: float(next(seconds))))
        out = tmp_path / f"out_{work}_{minutes}"
        words = ["--config", recipe, "--minutes", 0.1, "--call-minutes", minutes, "--clips", 6, "--device", "cpu"]
        gpu_nano.main([str(w) for w in ("train", pack, tmp_path / work, out, *words)])
        return out, json.loads((out / "record.json").read_text())

    whole, record = call("one", 1)
    assert (record["step"], record["steps"]) == (6, 6)
    assert record["probes of the demo's scenes, seed 0"] == {"cgp": 0.5}
    assert record["hours of clips"] == pytest.approx(6 * 10 / 3600)
    assert len(list(whole.iterdir())) <= 8
    half, record = call("two", 0.05)
    assert (record["step"], record["steps"]) == (3, 6)
    assert "probes of the demo's scenes, seed 0" not in record
    assert load(half).dim == 16
    weights = load_file(whole / "model.safetensors")

    def same(out):
        mine = load_file(out / "model.safetensors")
        return mine.keys() == weights.keys() and all(torch.equal(mine[name], weights[name]) for name in mine)

    assert not same(half)
    # Elsewhere: the pack with the state that came back, and nothing of the first place.
    pack = tmp_path / "pack_with_state"
    shutil.copytree(packed, pack)
    monkeypatch.setattr(gpu_nano, "PART", 20_000)
    monkeypatch.setattr(gpu_nano, "PARTS", 99)
    gpu_nano.write_state(tmp_path / "two/run", half, 3)
    assert len(list(half.glob("state_*"))) > 2
    for part in half.glob("state_*"):
        shutil.copyfile(part, pack / part.name)
    shutil.move(tmp_path / "two/clips", tmp_path / "moved")
    shutil.rmtree(tmp_path / "two")
    again, record = call("two", 1, pack)
    assert record["step"] == 6
    assert same(again)
    rows = [json.loads(line) for line in (again / "metrics.jsonl").read_text().splitlines()]
    assert sorted({row["step"] for row in rows}) == [1, 2, 3, 4, 5, 6]
    assert len(probed) == 2
    monkeypatch.setattr(gpu_nano, "PARTS", 1)
    gpu_nano.write_state(tmp_path / "two/run", again, 6)
    assert not list(again.glob("state_*"))
    assert "only" in capsys.readouterr().out
    with pytest.raises(AudiobatError, match="No step was taken"):
        call("three", 0)


def test_folders_that_hold_something_else_end_in_a_sentence(corpus, packed, tmp_path):
    with pytest.raises(AudiobatError, match="pack is there already"):
        gpu_nano.main(["pack", str(corpus), str(corpus), str(packed)])
    with pytest.raises(AudiobatError, match=r"left_out\.csv cannot be read"):
        gpu_nano.main(["pack", str(corpus), str(tmp_path), str(tmp_path / "pack")])
    with pytest.raises(AudiobatError, match=r"index\.csv cannot be read"):
        gpu_nano.main(["train", *(str(tmp_path / name) for name in ("none", "work", "out"))])
    assert not (tmp_path / "pack").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/index.csv").write_text(",".join(gpu_nano.INDEX) + "\n")
    with pytest.raises(AudiobatError, match="lists no recordings: pack them anew"):
        gpu_nano.unpack(tmp_path / "empty", tmp_path / "from_nothing")
