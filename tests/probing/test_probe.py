"""`probe`: heads learn from frozen features as a plain loop would; records say what happened, whatever went wrong."""

import csv
import errno
import math
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch.nn import functional

from audiobat.cli import command as cli
from audiobat.config import (
    EncoderConfig,
    FrontendConfig,
    GridConfig,
    HeadConfig,
    ModelConfig,
    ProbeConfig,
    ProbeTrainConfig,
    SelectConfig,
)
from audiobat.data.clip_table import ClipTable
from audiobat.data.sampler import ClipOrder
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import split_for_probe
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import find_records, load_record
from audiobat.models.encoder import AudioEncoder
from audiobat.models.heads import build_head
from audiobat.probing import one_pass
from audiobat.probing import run as module
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.run import probe, probe_source
from audiobat.probing.training import predict, train_head
from audiobat.zoo import release as release_io

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=96))
TONES = {"low": 250.0, "mid": 900.0, "top": 2800.0}
TRAIN = ProbeTrainConfig(steps=60, warmup_steps=6, batch_size=16, lr=1e-2)
CGP = ProbeConfig(HeadConfig("cgp", prototypes=16), TRAIN)
PROTOBIN = ProbeConfig(HeadConfig("protobin", prototypes=16), TRAIN)
LINEAR = ProbeConfig(HeadConfig("linear", pool="mean", norm="batch"), TRAIN)


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(MODEL).eval()


def write_tones(folder: Path, labels: list[list[str]], columns: dict[str, list]) -> Path:
    """Clips of 0.3 to 0.6 s: the tones that their labels name, in noise; and the CSV that lists them."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tones.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", *columns])
        for i, names in enumerate(labels):
            time = np.arange(int(rng.uniform(0.3, 0.6) * RATE)) / RATE
            mix = rng.normal(scale=0.02, size=len(time))
            for name in names:
                mix += 0.2 * np.sin(2 * np.pi * TONES[name] * time + rng.uniform(0, 6))
            soundfile.write(folder / f"{i:03d}.wav", mix, RATE)
            rows.writerow([f"{i:03d}.wav", ";".join(names), *(values[i] for values in columns.values())])
    return folder / "tones.csv"


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 clips with one or two labels: 40 train, 4 valid, 16 test."""
    rng = np.random.default_rng(1)
    labels = [rng.choice(list(TONES), size=rng.integers(1, 3), replace=False).tolist() for _ in range(60)]
    return write_tones(
        tmp_path_factory.mktemp("multi"), labels, {"split": 40 * ["train"] + 4 * ["valid"] + 16 * ["test"]}
    )


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 clips with one label each, in three folds of unequal size."""
    labels = [[list(TONES)[i % 3]] for i in range(45)]
    return write_tones(tmp_path_factory.mktemp("folds"), labels, {"fold": [1] * 12 + [2] * 15 + [5] * 18})


@pytest.fixture(scope="module")
def shared(encoder: AudioEncoder, multi: Path) -> tuple[FeatureSource, ClipTable, np.ndarray, np.ndarray]:
    table = read_labelled_clips(multi)
    return cache_features(encoder, table, progress=False), table, *split_for_probe(table)


@pytest.mark.parametrize("config", [CGP, PROTOBIN, LINEAR], ids=lambda c: c.head.kind)
def test_a_head_learns_and_its_record_says_how_well(encoder, multi: Path, tmp_path: Path, capsys, config: ProbeConfig):
    config = replace(config, train=replace(TRAIN, steps=150, seed=3))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    [record] = probe(encoder, multi, config, out=tmp_path, device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())

    chance = sum(read_labelled_clips(multi).targets()[44:].mean(0)) / 3
    assert record.metrics["map"].value > chance + 0.15
    for name, metric in record.metrics.items():
        assert 0 <= metric.low <= metric.value <= metric.high <= (math.inf if name == "d_prime" else 1), name
        assert metric.sd is None
    assert record.main_metric == "map"
    assert set(record.metrics) - {"d_prime"} == {"map", "map_all", "cmap5", "auc", "f1", "f1_best"}
    assert list(record.per_class) == ["low", "mid", "top"]
    assert np.mean(list(record.per_class.values())) == pytest.approx(record.metrics["map"].value)
    assert (record.model.id, record.model.sha256) == ("AudioEncoder", weights_sha256(encoder))
    assert record.model.parameters == sum(p.numel() for p in encoder.parameters())
    assert record.data.clips == {"train": 40, "test": 16}
    assert (record.data.name, record.data.classes, record.data.unreadable) == ("tones", 3, 0)
    expected = {"kind": config.head.kind, "steps": 150, "lr": 1e-2, "batch_size": 16, "loss": "bce"}
    assert record.head.items() >= {**expected, "weight_decay": 0.005 if config.head.kind == "linear" else 0.5}.items()
    assert (record.seed, record.preset, record.device, record.folds) == (3, "custom", "cpu", None)
    if config.head.kind == "cgp":
        assert len(record.gate_weights) == 2
        assert sum(record.gate_weights) == pytest.approx(1)
        assert record.gate_weights[0] != pytest.approx(0.5, abs=1e-4)  # the gate was trained
    else:
        assert record.gate_weights is None
    assert record.clips_per_second > 0
    assert record.wall_seconds > 0

    path = tmp_path / "results" / f"AudioEncoder_{config.head.kind}_3.json"
    assert load_record(path) == record
    assert not (tmp_path / "skipped.csv").exists()
    assert f"{config.head.kind}, seed 3: macro mAP {record.metrics['map'].value:.3f} [" in capsys.readouterr().out


def test_metrics_are_scikit_learns(shared):
    source, table, train, test = shared
    targets = torch.from_numpy(table.targets())
    head, _ = train_head(source, train, targets, CGP.head, TRAIN, 3, False)
    logits, truth = predict(head, source, test).numpy(), table.targets()[test]
    [record] = probe_source("net", AudioEncoder(MODEL), source, table, train, test, CGP)
    assert record.metrics["map"].value == pytest.approx(average_precision_score(truth, logits, average="macro"))
    assert record.metrics["f1"].value == pytest.approx(f1_score(truth, logits > 0, average="macro", zero_division=0))


def test_a_class_that_no_test_clip_has_is_left_out_of_map_and_counts_0_in_map_all(shared):
    source, table, train, test = shared
    without_top = test[~table.targets()[test, 2]]
    [record] = probe_source("net", AudioEncoder(MODEL), source, table, train, without_top, LINEAR)
    assert record.per_class["top"] is None
    assert (record.data.classes, record.data.classes_present) == (3, 2)
    map_present, map_all = record.metrics["map"], record.metrics["map_all"]
    assert map_all.value == pytest.approx(map_present.value * 2 / 3)
    assert map_all.low < map_all.value < map_all.high
    assert record.positives == dict(zip(table.classes, table.targets()[without_top].sum(0).tolist(), strict=True))


def test_the_same_seed_gives_the_same_record_and_another_one_does_not(shared):
    source, table, train, test = shared
    config = replace(CGP, head=replace(CGP.head, dropout=0.3))
    torch.manual_seed(1)
    untouched = torch.rand(3)
    torch.manual_seed(1)
    [first] = probe_source("net", AudioEncoder(MODEL).eval(), source, table, train, test, config)
    torch.manual_seed(2)  # the head must not depend on it
    [second] = probe_source("net", AudioEncoder(MODEL).eval(), source, table, train, test, config)
    assert first.gate_weights == second.gate_weights
    assert first.metrics == second.metrics
    [other] = probe_source(
        "net", AudioEncoder(MODEL), source, table, train, test, replace(config, train=replace(TRAIN, seed=1))
    )
    assert other.gate_weights != first.gate_weights
    torch.manual_seed(1)
    train_head(source, train, torch.from_numpy(table.targets()), config.head, TRAIN, 3, False)
    assert torch.equal(torch.rand(3), untouched)


@pytest.mark.parametrize(
    ("warmup", "rising"),
    [("linear", [0.001, 0.0068, 0.0126, 0.0184, 0.0242]), ("floored", [0.001, 0.006, 0.012, 0.018, 0.024])],
)
def test_training_is_a_plain_loop_of_adamw_with_warm_up_and_cosine(shared, warmup, rising):
    source, table, train, _ = shared
    schedule = {"steps": 20, "warmup_steps": 5, "warmup": warmup, "lr": 3e-2, "min_lr": 1e-3}
    settings = replace(TRAIN, **schedule, weight_decay=0.3, betas=(0.8, 0.95), seed=7)
    head_config = HeadConfig("linear", layer=1, pool="mean")
    head, _ = train_head(source, train, torch.from_numpy(table.targets()), head_config, settings, 3, False)

    features = source.batch(train)
    x = torch.stack([clip[own].mean(0) for clip, own in zip(features.patch_tokens[0], features.valid, strict=True)])
    y = torch.from_numpy(table.targets()[train]).float()
    torch.manual_seed(7)
    plain = build_head(head_config, 16, 2, 3).classifier
    optimizer = torch.optim.AdamW(
        [{"params": [plain.weight], "weight_decay": 0.3}, {"params": [plain.bias], "weight_decay": 0.0}],
        lr=1.0,
        betas=(0.8, 0.95),
    )
    order = ClipOrder(len(train), 0)  # not of the head's seed
    for step in range(20):
        falling = 1e-3 + (3e-2 - 1e-3) * (1 + math.cos(math.pi * (step - 5) / 14)) / 2
        rate = rising[step] if step < 5 else falling
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = order.batch_indices(step, 16)
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(plain(x[chosen]), y[chosen]).backward()
        optimizer.step()
    torch.testing.assert_close(head.classifier.weight, plain.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(head.classifier.bias, plain.bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["cgp", "linear"])
def test_kept_and_recomputed_features_train_the_same_head(encoder, shared, kind: str):
    source, table, train, test = shared
    again = cache_features(encoder, table, cache_gb=0, progress=False)
    settings, targets = replace(TRAIN, steps=8, warmup_steps=1), torch.from_numpy(table.targets())
    config = HeadConfig(kind, prototypes=8)  # the linear one reads cls
    logits = [predict(train_head(s, train, targets, config, settings, 3, False)[0], s, test) for s in (source, again)]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)


def test_a_linear_head_sees_through_means_what_it_sees_in_all_patches(shared):
    source, table, train, test = shared
    head, _ = train_head(source, train, torch.from_numpy(table.targets()), LINEAR.head, TRAIN, 3, False)
    with torch.no_grad():
        expected = head.eval()(source.batch(test))
    torch.testing.assert_close(predict(head, source, test), expected, rtol=0, atol=1e-5)


def test_each_fold_tests_in_turn_on_features_computed_once(encoder, folded: Path, monkeypatch):
    seen = []
    forward = AudioEncoder.forward_intermediates
    monkeypatch.setattr(AudioEncoder, "forward_intermediates", lambda *a: (seen.append(len(a[1])), forward(*a))[1])
    [record] = probe(encoder, folded, LINEAR, device="cpu")
    assert sum(seen) == 45
    assert list(record.folds) == ["1", "2", "5"]
    assert record.data.clips == {"1": 12, "2": 15, "5": 18}
    assert record.head["loss"] == "ce"
    assert set(record.metrics) - {"cmap5", "d_prime"} == {"map", "map_all", "auc", "f1_top", "accuracy"}
    for name, metric in record.metrics.items():
        values = [fold[name] for fold in record.folds.values()]
        assert metric.value == pytest.approx(np.mean(values))
        assert metric.sd == pytest.approx(np.std(values, ddof=1))
    [alone] = probe(encoder, folded, LINEAR, test_fold=2, device="cpu")
    assert {name: metric.value for name, metric in alone.metrics.items()} == pytest.approx(record.folds["2"])
    assert alone.data.clips == {"train": 30, "test": 15}


def test_single_labels_are_judged_by_the_likeliest_class(encoder, folded: Path):
    table = read_labelled_clips(folded)
    source = cache_features(encoder, table, progress=False)
    train, test = split_for_probe(table, 5)
    head, _ = train_head(source, train, torch.from_numpy(table.targets()), CGP.head, TRAIN, 3, True)
    logits, truth = predict(head, source, test), table.targets()[test].argmax(1)
    [record] = probe_source("net", encoder, source, table, train, test, CGP)
    assert record.metrics["accuracy"].value == pytest.approx(accuracy_score(truth, logits.argmax(1)))
    assert record.metrics["f1_top"].value == pytest.approx(f1_score(truth, logits.argmax(1), average="macro"))
    scores = logits.softmax(1).numpy()
    expected = average_precision_score(table.targets()[test], scores, average="macro")
    assert record.metrics["map"].value == pytest.approx(expected)
    assert record.metrics["accuracy"].value > 0.6


def test_clips_that_no_split_uses_are_not_encoded(encoder, multi: Path, monkeypatch):
    seen = []
    forward = AudioEncoder.forward_intermediates
    monkeypatch.setattr(AudioEncoder, "forward_intermediates", lambda *a: (seen.append(len(a[1])), forward(*a))[1])
    probe(encoder, multi, LINEAR, device="cpu")
    assert sum(seen) == 56  # without the four of `valid`


def test_unreadable_clips_are_listed_and_left_out(encoder, tmp_path: Path):
    labels = [[list(TONES)[i % 3]] for i in range(48)]
    table = write_tones(tmp_path / "data", labels, {"split": (["train"] * 3 + ["test"] * 3) * 8})
    (tmp_path / "data" / "000.wav").unlink()
    (tmp_path / "data" / "010.wav").write_bytes(b"no audio")
    out = tmp_path / "out"
    [record] = probe(encoder, table, LINEAR, out=out, device="cpu")
    with (out / "skipped.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["000.wav", "010.wav"]
    assert record.data.unreadable == 2
    assert record.data.clips == {"train": 23, "test": 23}

    for i in (20, 21, 22):
        (tmp_path / "data" / f"{i:03}.wav").write_bytes(b"")
    with pytest.raises(AudiobatError, match="more than 5%"):
        probe(encoder, table, LINEAR, out=out, device="cpu", overwrite=True)
    with (out / "skipped.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    assert [load_record(path) for path in find_records(out)] == [record]  # what was there is there still


def test_an_older_list_of_skipped_clips_goes(encoder, multi: Path, tmp_path: Path):
    (tmp_path / "skipped.csv").write_text("path,reason\nold.wav,gone\n")
    probe(encoder, multi, LINEAR, out=tmp_path, device="cpu")
    assert not (tmp_path / "skipped.csv").exists()


def test_a_record_is_not_replaced_by_accident(encoder, multi: Path, tmp_path: Path, monkeypatch):
    [first] = probe(encoder, multi, LINEAR, out=tmp_path, device="cpu")
    path = tmp_path / "results" / "AudioEncoder_linear_0.json"
    with monkeypatch.context() as patch:
        patch.setattr(module, "compute_features", lambda *a, **k: pytest.fail("worked before it looked"))
        with pytest.raises(AudiobatError, match=f"{path.name} exists: choose another --out"):
            probe(encoder, multi, LINEAR, out=tmp_path, device="cpu")
    changed = replace(LINEAR, train=replace(TRAIN, steps=10))
    [second] = probe(encoder, multi, changed, out=tmp_path, device="cpu", overwrite=True)
    assert load_record(path) == second != first


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 6])
def test_a_full_disk_ends_a_probe_in_a_sentence_and_the_same_probe_goes_on(
    encoder, multi: Path, tmp_path: Path, monkeypatch, nth: int
):
    """The `nth` file that is written behind the heads' training does not fit; what was written before it is kept."""
    config = replace(LINEAR, seeds=(0, 1))
    whole = probe(encoder, multi, config, out=tmp_path / "whole", device="cpu")
    written, fsync, train_heads = [], os.fsync, one_pass.train_heads
    trained: list[int] = []

    def full(number: int) -> None:
        if trained and (written.append(number) or len(written) == nth):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    def counted(source, clip_ids, task, jobs, *args, **kwargs):
        trained.append(len(jobs))
        return train_heads(source, clip_ids, task, jobs, *args, **kwargs)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(one_pass, "train_heads", counted)
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space left") as caught:
        probe(encoder, multi, config, out=out, device="cpu")
    assert str(out) in cli.sentence_of(caught.value, "probe")
    assert "run the same command again" in cli.sentence_of(caught.value, "probe")
    assert not list(out.rglob("*.tmp"))
    kept = len(list(out.glob("results/*.json")))
    with pytest.raises(AudiobatError, match="exists: choose another") if kept else nullcontext():
        probe(encoder, multi, replace(config, train=replace(TRAIN, steps=10)), out=out if kept else tmp_path / "other")
    trained.clear()
    again = probe(encoder, multi, config, out=out, device="cpu")
    assert trained == ([2 - kept] if kept < 2 else [])
    assert [record.metrics for record in again] == [record.metrics for record in whole]
    assert (out / "clips" / "clips.json").exists()
    with pytest.raises(AudiobatError, match="exists: choose another"):  # now it has ended
        probe(encoder, multi, config, out=out, device="cpu")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(CGP, train=replace(TRAIN, warmup_steps=60)), r"warmup_steps is 60: it must end before"),
        (replace(CGP, train=replace(TRAIN, loss="ce")), r"train\.loss is ce, but some clips have several labels"),
        (replace(LINEAR, train=replace(TRAIN, batch_size=1)), r"batch_size is 1 and head\.norm is batch"),
        (replace(LINEAR, head=replace(LINEAR.head, layer=3)), r"head\.layer is 3 and the model has 2"),
        (replace(CGP, train=replace(TRAIN, lr=1e30)), r"lower train\.lr"),
    ],
)
def test_settings_that_cannot_work_are_refused(encoder, multi: Path, tmp_path: Path, config: ProbeConfig, words: str):
    with pytest.raises(AudiobatError, match=words):
        probe(encoder, multi, config, out=tmp_path, device="cpu")
    assert not (tmp_path / "results").exists()


def test_data_that_cannot_be_probed_is_refused(encoder, multi: Path, folded: Path, tmp_path: Path):
    rows = multi.read_text().splitlines()
    cases = {
        "no `label` column": [line.split(",")[0] for line in rows],
        "the same label": [
            rows[0],
            *(line.replace(line.split(",")[1], "low") if "test" in line else line for line in rows[1:]),
        ],
        "Split test has no clips": [line.replace(",test", ",train") for line in rows],
    }
    for words, lines in cases.items():
        changed = multi.with_name("changed.csv")
        changed.write_text("\n".join(lines) + "\n")
        with pytest.raises(AudiobatError, match=words):
            probe(encoder, changed, LINEAR, device="cpu")
    with pytest.raises(AudiobatError, match="no test fold 4: the folds are 1, 2, 5"):
        probe(encoder, folded, LINEAR, test_fold=4, device="cpu")
    with pytest.raises(AudiobatError, match="There is no folder, CSV, Parquet or tar file"):
        probe(encoder, tmp_path / "nothing", LINEAR, device="cpu")
    with pytest.raises(AudiobatError, match="No such folder or name"):
        probe(tmp_path / "nothing", multi, LINEAR, device="cpu")


def test_a_split_without_a_readable_clip_is_refused(shared):
    source, table, train, test = shared
    source = FeatureSource(AudioEncoder(MODEL), table, source.indices[:40], {}, None, source.device, 2)
    with pytest.raises(AudiobatError, match="None of the 16 clips of split test can be read"):
        probe_source("net", AudioEncoder(MODEL), source, table, train, test, LINEAR)


def test_the_command_line_probes_a_release(encoder, multi: Path, tmp_path: Path, capsys):
    release_io.save_release(tmp_path / "my release", encoder)
    words = ["probe", "--model", tmp_path / "my release", "--data", multi, "--out", tmp_path / "out", "--device", "cpu"]
    flags = ["--head.kind", "protobin", "--head.prototypes", "8", "--train.steps", "5", "--train.warmup_steps", "1"]
    assert cli.main([*map(str, words), *flags, "--seed", "2"]) == 0
    shown = capsys.readouterr().out
    record = load_record(tmp_path / "out" / "results" / "my-release_protobin_2.json")
    assert f"my release, protobin, seed 2: macro mAP {record.metrics['map'].value:.3f}" in shown
    assert record.model.sha256 == weights_sha256(encoder)
    assert cli.main([*map(str, words), *flags, "--seed", "2"]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [
        replace(LINEAR, head=replace(LINEAR.head, layer=3)),
        replace(CGP, train=replace(TRAIN, loss="ce")),
        replace(LINEAR, train=replace(TRAIN, batch_size=1)),
    ],
)
def test_a_head_that_cannot_work_is_refused_before_the_features(encoder, multi, tmp_path, config, monkeypatch):
    monkeypatch.setattr(module, "compute_features", lambda *args, **options: pytest.fail("computed features"))
    with pytest.raises(AudiobatError):
        probe(encoder, multi, config, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (replace(CGP, head=replace(CGP.head, prototypes=10**10)), "head.prototypes"),
        (replace(CGP, head=replace(CGP.head, prototypes=10**18)), "a head cgp of this size"),
        (replace(CGP, train=replace(TRAIN, batch_size=10**12)), "train.batch_size"),
        (replace(CGP, workers=10**9), "workers"),
    ],
)
def test_sizes_that_no_machine_has_room_for_are_refused_before_the_features(
    encoder, multi, tmp_path, config, setting, monkeypatch
):
    monkeypatch.setattr(module, "compute_features", lambda *args, **options: pytest.fail("computed features"))
    with pytest.raises(AudiobatError, match=setting):
        probe(encoder, multi, config, out=tmp_path / "out")


def test_an_out_that_is_a_file_is_refused_before_the_features(encoder, multi, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "compute_features", lambda *args, **options: pytest.fail("computed features"))
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OSError, match="out"):
        probe(encoder, multi, CGP, out=tmp_path / "out")


def test_a_class_that_no_training_clip_has_is_said_and_recorded(encoder, tmp_path: Path, capsys):
    labels = [[["low", "mid"][i % 2]] for i in range(12)] + [["low"], ["mid"], ["top"], ["top", "low"]]
    data = write_tones(tmp_path / "a", labels, {"split": 12 * ["train"] + 4 * ["test"]})
    (record,) = probe(encoder, data, replace(LINEAR, train=replace(TRAIN, steps=7)))
    out, err = capsys.readouterr()
    assert "split: 12 clips train, 4 test, by the column split\n" in err
    assert "! 1 class has test clips but no training clip, and counts in mAP as it comes out, near" in err
    assert "chance: top (2)\n" in err
    assert record.data.untaught == {"top": 2}
    assert "(test clips have 3 of 3 classes, 3 of them in fewer than 5 clips, 1 of them never trained)" in out
    assert math.isfinite(record.per_class["top"])  # it is in the mean, as the words say
    record.save(tmp_path / "record.json")
    assert load_record(tmp_path / "record.json") == record


def test_where_every_class_is_taught_nothing_is_said(encoder, multi: Path, capsys):
    (record,) = probe(encoder, multi, replace(LINEAR, train=replace(TRAIN, steps=7)))
    out, err = capsys.readouterr()
    assert "!" not in err
    assert record.data.untaught == {}
    assert "(test clips have 3 of 3 classes)" in out


def test_the_split_that_was_made_is_told(encoder, folded: Path, tmp_path: Path, capsys):
    quick = replace(LINEAR, train=replace(TRAIN, steps=7))
    bare = write_tones(tmp_path / "bare", [[list(TONES)[i % 3]] for i in range(15)], {})
    probe(encoder, bare, quick)
    said = "12 clips train, 3 test: no column split or fold, so a fifth of each class was drawn to test, by a hash"
    assert said in capsys.readouterr().err
    grouped = write_tones(tmp_path / "g", [[list(TONES)[i % 3]] for i in range(15)], {"group": list(range(15))})
    probe(encoder, grouped, quick)
    assert "drawn to test, groups stay whole\n" in capsys.readouterr().err
    probe(encoder, folded, quick)
    assert "split: each of 3 folds tests in turn, 45 clips in all\n" in capsys.readouterr().err
    probe(encoder, folded, quick, test_fold=5)
    assert "split: 27 clips train, 18 test, one of the folds\n" in capsys.readouterr().err


def test_a_head_that_is_not_trained_takes_in_no_clips_per_second(encoder, multi: Path):
    knn, linear = probe(encoder, multi, replace(LINEAR, train=replace(TRAIN, steps=7), heads=("knn", "linear")))
    assert knn.clips_per_second is None
    assert linear.clips_per_second > 0


def test_a_choice_of_rates_says_how_much_it_trains_before_it_does(encoder, folded: Path, capsys):
    grid = GridConfig(lr=(1e-3, 1e-2), weight_decay=(0.0, 0.1), choose=True)
    quick = replace(LINEAR, train=replace(TRAIN, steps=7), heads=("linear", "knn"), seeds=(0, 1), grid=grid)
    probe(encoder, folded, quick)
    said = capsys.readouterr().err
    plan = "trainings: 12 to choose rates and 6 with the chosen ones, of 7 steps each, side by side"
    assert plan in said
    assert said.index(plan) < said.index("features")


def test_heads_of_other_batches_train_one_after_the_other_and_records_say_so(encoder, multi: Path, capsys):
    quick = replace(LINEAR, train=replace(TRAIN, steps=9), heads=("linear", "cgp", "protobin"))
    own = {"cgp": {"head": {"prototypes": 5}, "train": {"steps": 7, "batch_size": 4, "loss": "asl"}}}
    records = probe(encoder, multi, replace(quick, by_kind=own))
    assert "passes: 2, one after the other, as heads have batches of 4 and 16 clips\n" in capsys.readouterr().err
    assert [record.head["kind"] for record in records] == ["linear", "cgp", "protobin"]
    assert [record.head["batch_size"] for record in records] == [16, 4, 16]
    assert [record.head["steps"] for record in records] == [9, 7, 9]
    assert [record.head["loss"] for record in records] == ["bce", "asl", "bce"]
    [alone] = probe(encoder, multi, replace(quick, by_kind=own, heads=("cgp",)))
    assert alone.head == records[1].head
    assert alone.metrics["map"].value == pytest.approx(records[1].metrics["map"].value)
    probe(encoder, multi, quick)
    assert "passes" not in capsys.readouterr().err


def test_rolls_are_in_the_plan_with_their_cost_and_in_records(encoder, multi: Path, capsys):
    config = replace(LINEAR, train=replace(TRAIN, steps=30, roll=True), heads=("linear", "cgp"))
    records = probe(encoder, multi, config)
    assert "480 clips are encoded, 12.0 times the 40 that train\n" in capsys.readouterr().err
    assert [record.head["roll"] for record in records] == [True, True]
    still = probe(encoder, multi, replace(config, train=replace(config.train, roll=False)))
    assert "rolls" not in capsys.readouterr().err
    assert records[0].metrics["map"].value != still[0].metrics["map"].value
    assert records[1].gate_weights != still[1].gate_weights


def test_rolls_would_move_sounds_away_from_labels_of_frames(encoder, tmp_path: Path):
    write_tones(tmp_path, [["low"]] * 4, {})
    rows = [f"00{i}.wav,0.0,0.1,{'low' if i % 2 else 'mid'},{'train' if i < 2 else 'test'}" for i in range(4)]
    (tmp_path / "events.csv").write_text("\n".join(["path,onset,offset,label,split", *rows]))
    with pytest.raises(AudiobatError, match=r"train\.roll moves sounds away from their labels of frames"):
        probe(encoder, tmp_path / "events.csv", replace(CGP, train=replace(TRAIN, roll=True)))


def test_the_best_validation_step_is_said_and_recorded(encoder, multi: Path, folded: Path, tmp_path: Path, capsys):
    config = replace(LINEAR, train=replace(TRAIN, steps=30, lr=0.5), select=SelectConfig("best", every=4))
    [record] = probe(encoder, multi, config, out=tmp_path)
    said = capsys.readouterr().err
    choice = record.head["choice"]
    assert choice["valid_clips"] == 4
    assert choice["step"] in (*range(4, 30, 4), 30)
    assert "split: 40 clips train, 4 choose the step, 16 test, by the column split\n" in said
    kept = f"linear, seed 0: step {choice['step']} of 30 is kept, {choice['validation']:.3f} on 4 valid clips\n"
    assert kept in said
    assert (record.head["select.which"], record.head["select.every"]) == ("best", 4)
    assert load_record(next(tmp_path.glob("results/*.json"))) == record
    [last] = probe(encoder, multi, replace(config, select=SelectConfig()))
    assert "choice" not in last.head
    assert "select.which" not in last.head

    held = replace(config, select=SelectConfig("best", every=4, held_out=0.2))
    [record] = probe(encoder, folded, held)
    assert set(record.head["choice"]) == {"1", "2", "5"}
    assert all(choice["valid_clips"] > 0 for choice in record.head["choice"].values())
    table = read_labelled_clips(multi)
    source = cache_features(encoder, table, progress=False)
    [record] = probe_source("net", encoder, source, table, *split_for_probe(table), config)
    assert record.head["choice"] == choice
    with pytest.raises(AudiobatError, match=r"select\.which is best, but no clips validate: mark some as split valid"):
        probe(encoder, folded, config)


def test_clips_that_validate_nothing_are_not_encoded(encoder, multi: Path, monkeypatch):
    seen = []
    forward = AudioEncoder.forward_intermediates
    monkeypatch.setattr(AudioEncoder, "forward_intermediates", lambda *a: (seen.append(len(a[1])), forward(*a))[1])
    probe(encoder, multi, replace(LINEAR, train=replace(TRAIN, steps=7)))
    assert sum(seen) == 56


def test_the_settings_of_a_public_data_set_are_its_column_of_the_paper(encoder, folded: Path, monkeypatch, capsys):
    table = read_labelled_clips(folded)
    monkeypatch.setattr(module, "read_labelled_clips", lambda *source: table)
    seen = []
    monkeypatch.setattr(module, "check_buildable", lambda jobs, *rest: seen.extend(jobs))
    monkeypatch.setattr(module, "compute_features", lambda *args, **rest: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        probe(encoder, "esc50:/data/ESC-50-master")
    assert (seen[0].train.steps, seen[0].train.warmup_steps, seen[0].train.loss) == (4_000, 400, "ce")
    assert "settings: preset paper, esc50\n" in capsys.readouterr().err
