"""Comparisons: their numbers from the raw scores, what makes a system, which records may be compared, the command."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score

from audiobat.cli.command import main
from audiobat.errors import AudiobatError
from audiobat.evaluation import compare as compare_module
from audiobat.evaluation.compare import Difference, compare
from audiobat.evaluation.compare_measures import measure_of
from audiobat.evaluation.compare_records import in_order, name_systems, read_entries
from audiobat.evaluation.metrics import average_precision, bootstrap_values, interval_of_difference, macro_map_present
from audiobat.evaluation.record import DataInfo, Metric, ModelInfo, ResultRecord, Scores, load_scores, save_scores

HEAD = {"kind": "cgp", "prototypes": 100, "layer": -1, "steps": 10, "lr": 0.001, "loss": "bce", "seed": 0}
CLIPS, CLASSES = 60, 4


def targets_of(data: str) -> np.ndarray:
    return np.random.default_rng(len(data)).random((CLIPS, CLASSES)) < 0.3


def scores_of(skill: float, seed: int = 0, data: str = "scenes", folds: bool = False) -> Scores:
    """Scores that know the targets the better the greater the skill."""
    targets = targets_of(data)
    noise = np.random.default_rng(seed).normal(size=targets.shape)
    keys = np.array([f"{i:03}.wav" for i in range(CLIPS)])
    fold_of = np.array([str(1 + i % 3) for i in range(CLIPS)]) if folds else None
    return Scores(keys, (skill * targets + noise).astype(np.float32), targets, fold_of)


def write(path: Path, scores: Scores | None, model="bat", data="scenes", sha=None, seed=0, **head) -> Path:
    """A record whose metrics are named alone: `compare` computes them from the scores."""
    metrics = {name: Metric(0.0, 0.0, 0.0, "") for name in ("map", "f1")}
    record = ResultRecord(
        model=ModelInfo(model, model.encode().hex() * 3, 1),
        data=DataInfo(data, sha or data.encode().hex(), {"test": CLIPS}, 0, CLASSES, CLASSES),
        head={**HEAD, "seed": seed, **head},
        preset="paper",
        seed=seed,
        metrics=metrics,
        per_class={},
        gate_weights=None,
        wall_seconds=1.0,
        clips_per_second=1.0,
        device="cpu",
        environment={},
        git_commit=None,
    )
    replace(record, scores=None if scores is None else save_scores(path, scores)).save(path)
    return path


def map_of(scores: Scores):
    s, t = torch.from_numpy(scores.scores), torch.from_numpy(scores.targets)
    return lambda counts: macro_map_present(average_precision(s, t, counts))


def test_a_pair_is_judged_by_the_paired_bootstrap_of_its_scores(tmp_path: Path, capsys):
    good, bad = scores_of(2.0, 1), scores_of(0.5, 2)
    a, b = write(tmp_path / "a.json", good), write(tmp_path / "b.json", bad, "eat")
    found = compare([a, b], samples=300, seed=7)
    (pair,) = found.differences
    values = [average_precision_score(s.targets, s.scores, average="macro") for s in (good, bad)]
    assert [pair.value_a, pair.value_b] == pytest.approx(values)
    resampled = [bootstrap_values(map_of(s), CLIPS, samples=300, seed=7) for s in (good, bad)]
    gap = values[0] - values[1]
    low, high, p = interval_of_difference(gap, resampled[0] - resampled[1])
    assert (pair.value_a - pair.value_b, pair.low, pair.high, pair.p) == pytest.approx((gap, low, high, p))
    assert (pair.p_holm, pair.verdict, pair.metric, pair.data) == (pair.p, "win", "map", "scenes")
    assert found.systems == ["bat CGP", "eat CGP"]
    assert found.duels == []
    printed = capsys.readouterr().out
    assert f"{gap:+.4f} [{low:+.4f}, {high:+.4f}]" in printed
    assert "▲ win" in printed
    assert compare([b, a], samples=300, seed=7).differences[0].verdict == "loss"


def test_resamples_are_drawn_once_and_scores_are_read_once_for_all_systems(tmp_path: Path, monkeypatch):
    """In parts where memory has no room for all, and to the same numbers."""
    paths = [
        write(tmp_path / f"{name}{seed}.json", scores_of(skill, seed), name, seed=seed)
        for name, skill in (("a", 1.0), ("b", 0.7), ("c", 0.2))
        for seed in (0, 1)
    ]
    draw, load, calls = compare_module.bootstrap_values, compare_module.kept_of, []

    def drawn(metric, sizes, samples, seed):
        calls.append("draw")
        return draw(metric, sizes, samples, seed)

    def read(*args):
        calls.append("read")
        return load(*args)

    monkeypatch.setattr(compare_module, "bootstrap_values", drawn)
    monkeypatch.setattr(compare_module, "kept_of", read)
    whole = compare(paths, samples=100).differences
    assert (calls.count("draw"), calls.count("read")) == (1, len(paths) + 1)
    monkeypatch.setattr(compare_module, "SCORES", 4 * CLIPS * CLASSES)
    calls.clear()
    assert compare(paths, samples=100).differences == whole
    assert calls.count("draw") == 2


def test_errors_win_when_they_are_lower(tmp_path: Path, capsys):
    paths = [write(tmp_path / f"{n}.json", scores_of(skill, seed=n), f"m{n}") for n, skill in enumerate((2.0, 0.2))]
    higher = compare(paths, samples=200).differences[0]
    for path in paths:
        plain = json.loads(path.read_text())
        plain["metrics"]["map"]["lower_is_better"] = True
        path.write_text(json.dumps(plain))
    lower = compare(paths, samples=200).differences[0]
    assert (higher.verdict, lower.verdict) == ("win", "loss")
    assert (higher.low, higher.p, -higher.advantage) == (lower.low, lower.p, lower.advantage)


def test_the_order_of_rows_does_not_matter(tmp_path: Path):
    good, bad = scores_of(1.0, 1, folds=True), scores_of(0.5, 2, folds=True)
    order = np.random.default_rng(0).permutation(CLIPS)
    shuffled = Scores(bad.keys[order], bad.scores[order], bad.targets[order], bad.folds[order])
    a, b = write(tmp_path / "a.json", good), write(tmp_path / "b.json", bad, "eat")
    c = write(tmp_path / "c.json", shuffled, "eat")
    assert compare([a, b], samples=50).differences == compare([a, c], samples=50).differences


def test_data_sets_with_one_table_are_two_where_a_probe_ran_on_both(tmp_path: Path):
    """The same clips with noise have the same names and labels, and so the same table."""
    paths = [
        write(tmp_path / f"{model}_{data}.json", scores_of(skill, seed), model, data, sha="ab" * 32)
        for seed, (model, skill) in enumerate((("bat", 2.0), ("eat", 0.5)))
        for data in ("clean", "noisy")
    ]
    found = compare(paths, samples=50)
    assert [(d.data, d.a, d.b) for d in found.differences] == [
        ("clean", "bat CGP", "eat CGP"),
        ("noisy", "bat CGP", "eat CGP"),
    ]
    one, _, _, other = paths
    (pair,) = compare([one, other], samples=50).differences
    assert (pair.a, pair.b) == ("bat CGP", "eat CGP"), "a table that was renamed is the same"


def test_holm_counts_the_pairs_and_equal_systems_tie(tmp_path: Path):
    skills = {"a": (2.0, 1), "b": (2.0, 1), "c": (0.3, 2)}
    paths = [write(tmp_path / f"{name}.json", scores_of(*skill), name) for name, skill in skills.items()]
    same, first, second = compare(paths, samples=500).differences
    assert (same.value_a - same.value_b, same.low, same.high, same.p, same.verdict) == (0, 0, 0, 1, "tie")
    assert [first.verdict, second.verdict] == ["win", "win"]
    assert first.p_holm == pytest.approx(3 * first.p)
    p = Difference("", "", "", "", 1.0, 0.0, 0.1, 0.9, 0.02)
    assert [replace(p, p_holm=x).verdict for x in (0.04, 0.05, math.nan)] == ["win", "tie", "tie"]


def test_another_metric_is_compared_by_its_name(tmp_path: Path):
    paths = [write(tmp_path / f"{m}.json", scores_of(s, 1), m) for m, s in (("a", 3.0), ("b", 0.1))]
    (pair,) = compare(paths, metric="f1", samples=50).differences
    assert pair.metric == "f1"
    with pytest.raises(AudiobatError, match=r"no metric maq \(did you mean map\?\): it has map, f1"):
        compare(paths, metric="maq")
    with pytest.raises(AudiobatError, match="--samples is 0"):
        compare(paths, samples=0)


def test_folds_are_means_of_their_own_clips(tmp_path: Path):
    path = write(tmp_path / "a.json", scores_of(1.0, 1, folds=True))
    (entry,) = read_entries([path])
    scores = in_order(load_scores(path, entry.record))
    measure, sizes = measure_of(entry, scores, "map")
    assert sizes == [20, 20, 20]
    per_fold = [
        average_precision_score(scores.targets[scores.folds == fold], scores.scores[scores.folds == fold])
        for fold in ("1", "2", "3")
    ]
    assert measure(torch.ones(1, CLIPS)).item() == pytest.approx(np.mean(per_fold))
    counts = torch.ones(1, CLIPS)
    counts[0, :20] = torch.arange(20) % 3  # of fold 1, as rows are ordered
    rows = np.flatnonzero(scores.folds == "1").repeat(counts[0, :20].int().numpy())
    other = average_precision_score(scores.targets[rows], scores.scores[rows])
    assert measure(counts).item() == pytest.approx(np.mean([other, *per_fold[1:]]))


def test_frames_of_a_clip_are_resampled_together(tmp_path: Path):
    plain = scores_of(1.0, 1)
    frames = replace(plain, keys=np.array([f"{i // 5}.wav" for i in range(CLIPS)]))  # 12 clips of 5 frames
    path = write(tmp_path / "a.json", frames)
    (entry,) = read_entries([path])
    scores = in_order(load_scores(path, entry.record))
    measure, sizes = measure_of(entry, scores, "map")
    assert sizes == [12]
    counts = torch.randint(0, 3, (2, 12), generator=torch.Generator().manual_seed(0))
    clips = sorted(set(frames.keys.tolist()))
    for row, found in zip(counts.tolist(), measure(counts.double()).tolist(), strict=True):
        rows = [
            i for clip, n in zip(clips, row, strict=True) for _ in range(n) for i in range(60) if frames.keys[i] == clip
        ]
        assert found == pytest.approx(average_precision_score(plain.targets[rows], plain.scores[rows]))
    b = write(tmp_path / "b.json", replace(frames, scores=scores_of(0.1, 2).scores), "eat")
    assert len(compare([path, b], samples=20).differences) == 1


def test_seeds_of_one_system_are_averaged(tmp_path: Path):
    seeds = [write(tmp_path / f"a{i}.json", scores_of(1.0, i), seed=i) for i in range(3)]
    other = write(tmp_path / "b.json", scores_of(1.0, 9), "eat")
    found = compare([*seeds, other], samples=50)
    (pair,) = found.differences
    values = [average_precision_score(s.targets, s.scores) for s in (scores_of(1.0, i) for i in range(3))]
    assert pair.value_a == pytest.approx(np.mean(values))
    assert found.systems == ["bat CGP", "eat CGP"]


def systems(*paths: Path) -> list[str]:
    return [entry.system for entry in name_systems(read_entries(paths))]


def test_systems_are_called_by_what_tells_them_apart(tmp_path: Path):
    base = write(tmp_path / "0.json", None)
    larger = write(tmp_path / "1.json", None, prototypes=1000, lr=0.1)
    linear = write(tmp_path / "2.json", None, kind="linear", lr=0.1)
    assert systems(base, larger, linear) == [
        "bat CGP, prototypes 100, lr 0.001",
        "bat CGP, prototypes 1000, lr 0.1",
        "bat Linear",
    ]
    second = write(tmp_path / "3.json", None, seed=1)
    assert systems(base, second) == ["bat CGP, seed 0", "bat CGP, seed 1"]
    assert systems(base, second, linear) == ["bat CGP", "bat CGP", "bat Linear"]
    twin = write(tmp_path / "4.json", None)
    assert systems(base, twin) == [f"bat CGP ({base})", f"bat CGP ({twin})"]
    assert systems(base, base, tmp_path / "." / "0.json", linear) == ["bat CGP", "bat Linear"]


def test_settings_that_differ_between_data_sets_alone_make_no_systems(tmp_path: Path):
    paths = [
        write(tmp_path / f"{data}{model}.json", None, model, data, lr=lr)
        for data, lr in (("one", 0.1), ("two", 0.01))
        for model in ("bat", "eat")
    ]
    assert systems(*paths) == ["bat CGP", "eat CGP"] * 2


def test_many_data_sets_give_win_rates_and_wilcoxons_test(tmp_path: Path, capsys):
    data_sets = [f"data{'x' * i}" for i in range(6)]
    gains = [1.0, 0.8, 0.9, 1.2, 0.7, -0.5]
    for data, gain in zip(data_sets, gains, strict=True):
        write(tmp_path / data / "a.json", scores_of(1.0 + gain, 1, data), "bat", data)
        write(tmp_path / data / "b.json", scores_of(1.0, 1, data), "eat", data)
    write(tmp_path / data_sets[0] / "c.json", scores_of(0.1, 3, data_sets[0]), "old", data_sets[0])
    found = compare([tmp_path / data for data in data_sets], samples=20)
    assert len(found.differences) == 5 + 3
    first, lone, other = found.duels
    gaps = [d.value_a - d.value_b for d in found.differences if (d.a, d.b) == ("bat CGP", "eat CGP")]
    assert (first.data_sets, first.win_rate) == (6, pytest.approx(5 / 6))
    assert first.p == pytest.approx(stats.wilcoxon(gaps, method="exact").pvalue) == first.p_holm
    assert (lone.data_sets, other.data_sets) == (1, 1)
    assert math.isnan(lone.p)
    printed = capsys.readouterr().out
    assert "Win rate" in printed
    assert "0.83" in printed
    assert "0.17" in printed
    assert "n/a" in printed
    compare([tmp_path / data for data in data_sets[:3]], samples=20)
    assert "needs 5 data sets" in capsys.readouterr().out


def changed(name: str, scores: Scores) -> Scores:
    keys, targets, folds = scores.keys.copy(), scores.targets.copy(), scores.folds.copy()
    if name == "clips":
        keys[:2] = ["x.wav", "y.wav"]
    if name == "labels":
        targets[3, 1] ^= True
    if name == "folds":
        folds[5] = "1"
    return Scores(keys, scores.scores, targets, folds)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clips", r"2 of them only .*a\.json has \(000\.wav, 001\.wav\)"),
        ("labels", "their labels differ"),
        ("folds", "their folds"),
    ],
)
def test_records_of_other_clips_are_refused(tmp_path: Path, name: str, words: str):
    scores = scores_of(1.0, 1, folds=True)
    a, b = write(tmp_path / "a.json", scores), write(tmp_path / "b.json", changed(name, scores), "eat")
    with pytest.raises(AudiobatError, match=words) as caught:
        compare([a, b], samples=10)
    assert "a.json" in str(caught.value)
    assert "b.json" in str(caught.value)


def test_records_that_cannot_be_compared_are_refused(tmp_path: Path):
    a = write(tmp_path / "a.json", scores_of(1.0, 1))
    for records in ([a], a, str(a)):  # one path is as good as a list of one
        with pytest.raises(AudiobatError, match="no two systems"):
            compare(records)
    with pytest.raises(AudiobatError, match=r"no two systems.*a\.json on scenes.*b\.json on other"):
        compare([a, write(tmp_path / "b.json", scores_of(1.0, 1), "eat", "other")])
    with pytest.raises(AudiobatError, match=r"both tables are called scenes.*sha256"):
        compare([a, write(tmp_path / "c.json", scores_of(1.0, 1), "eat", sha="ff" * 32)])
    with pytest.raises(AudiobatError, match=r"d\.json has no scores"):
        compare([a, write(tmp_path / "d.json", None, "eat")])
    with pytest.raises(AudiobatError, match="no result record"):
        compare([tmp_path / "none"])


def test_the_command_takes_runs_and_prints_pairs(tmp_path: Path, capsys):
    a = write(tmp_path / "run" / "results" / "a.json", scores_of(2.0, 1), "bat_base")
    write(tmp_path / "run" / "results" / "b.json", scores_of(0.5, 2), "eat")
    assert main(["compare", str(tmp_path / "run"), "--metric", "f1", "--samples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "A  bat_base CGP" in printed
    assert "scenes: f1" in printed
    assert "A - B" in printed
    assert main(["compare", str(a)]) == 2
    assert "no two systems" in capsys.readouterr().err
    assert main(["compare"]) == 2


def test_a_row_fits_into_80_columns_and_says_what_holm_took_back(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    paths = [write(tmp_path / f"{i}.json", scores_of(0.5 + 0.2 * i, seed=i), model=f"m{i}") for i in range(6)]
    found = compare(paths, samples=400)
    printed = capsys.readouterr().out
    by_holm = [d for d in found.differences if d.tie_by_holm]
    assert by_holm, "the systems must be so close that a correction matters"
    for d in by_holm:
        assert d.verdict == "tie"
        assert d.p < 0.05 <= d.p_holm
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert sum(line.rstrip().endswith("= Holm") for line in printed.splitlines()) == len(by_holm)
    ties = sum(d.verdict == "tie" for d in found.differences)
    assert sum(line.rstrip().endswith("= tie") for line in printed.splitlines()) == ties - len(by_holm)
    assert '"= Holm": a tie, though' in printed
    compare(paths[:1] + paths[5:], samples=400)
    assert '"= Holm"' not in capsys.readouterr().out


def test_probes_of_single_blocks_are_left_out_of_a_folder_and_taken_by_their_names(tmp_path: Path, capsys):
    for kind, skill in (("cgp", 1.0), ("linear", 0.8)):
        write(tmp_path / "results" / f"{kind}.json", scores_of(skill), kind=kind, name=kind)
    block = tmp_path / "results" / "block.json"
    write(block, scores_of(0.5), kind="linear", layer=1, name="linear_block_1")
    (one,) = compare([tmp_path], samples=50).differences
    assert (one.a, one.b) == ("bat CGP", "bat Linear")
    assert "left out: 1 probe of single blocks; name files" in capsys.readouterr().out
    assert len(compare([tmp_path, block], samples=50).systems) == 3
    assert "left out" not in capsys.readouterr().out
