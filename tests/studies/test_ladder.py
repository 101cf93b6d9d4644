"""`audiobat ladder`: runs that go on where they were killed, tables beside the paper's, which steps go its way."""

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy import stats
from sklearn.metrics import average_precision_score

from audiobat.audio.frontends.base import build_frontend
from audiobat.cli.command import main
from audiobat.config import FrontendConfig, HeadConfig, ProbeConfig, ProbeTrainConfig
from audiobat.config.rungs import rungs
from audiobat.data.prepare.statistics import LogMelSums, log_mel_sums
from audiobat.data.sampler import clip_order
from audiobat.data.sources.read import read_clips
from audiobat.engine.randomness import RowParts, seed_step
from audiobat.engine.ranks import Ranks
from audiobat.engine.run_folder import unfinished
from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import difference_found, mean_interval
from audiobat.evaluation.record import Metric, load_record, load_scores
from audiobat.pretraining.calibrate import Calibration
from audiobat.pretraining.lengths import together
from audiobat.pretraining.objectives.base import build_objective
from audiobat.pretraining.parts import crops_of
from audiobat.probing import run as probing
from audiobat.studies import ladder as command
from audiobat.studies import ladder_plan, ladder_steps
from audiobat.studies.beside import Value
from audiobat.studies.ladder import STATISTICS, ladder, rung_config
from audiobat.studies.ladder_plan import KEPT, power_lines, spread_of
from audiobat.studies.ladder_steps import (
    CHANGES,
    PAPER,
    Rung,
    Step,
    common_deviation,
    maps_of,
    markdown_table,
    paired_differences,
    record_of,
    rung_of_records,
    steps_of_records,
    verdict_line,
)

KEPT_RUNS = Path(__file__).parents[2] / "docs" / "results" / "ladder_nano"

TINY = """
frontend: {hop_length: 320, mel_bins: 32}
encoder: {dim: 16, depth: 2, heads: 2, max_frames: 64}
decoder: {depth: 1, heads: 4, groups: 4}
mask: {clones: 2, block_size: 2}
optim: {warmup_steps: 2}
data: {clip_seconds: 0.6, workers: 0}
train: {steps: 10, batch_size: 4, log_every: 5, precision: fp32}
"""


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two classes of tones, half of each to train on."""
    lines = ["path,label,split"]
    for i in range(16):
        name = ("low", "high")[i % 2]
        time = np.arange(9_600) / 16_000
        tone = np.sin(2 * np.pi * (300 + 2_000 * (i % 2)) * time + i) * 0.3
        soundfile.write(tmp_path / f"{i}.wav", tone + 0.05 * np.random.default_rng(i).standard_normal(9_600), 16_000)
        lines.append(f"{i}.wav,{name},{'train' if i < 8 else 'test'}")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "clips.csv"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.setitem(command.SCALES, "nano", str(tmp_path / "tiny.yaml"))


PROBE = ProbeConfig(
    head=HeadConfig(prototypes=8), train=ProbeTrainConfig(steps=5, warmup_steps=1, batch_size=4), workers=0
)


def test_a_ladder_runs_and_a_killed_one_goes_on(tmp_path, clips, tiny, monkeypatch, capsys):
    out, done, calls = tmp_path / "out", [], []
    really, really_save = command.pretrain, probing.save_clips
    monkeypatch.setattr(command, "pretrain", lambda config, run: done.append(run.name) or really(config, run))

    def killed_behind_the_third_record(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return really_save(*arguments)

    monkeypatch.setattr(probing, "save_clips", killed_behind_the_third_record)
    with pytest.raises(KeyboardInterrupt):
        ladder(str(clips), str(clips), PROBE, out=out)
    names = [f"{Path(name).name}-seed0" for name in rungs()]
    assert done == names[:3]
    kept = {path: path.read_bytes() for path in (out / "results").glob("*.json")}
    assert unfinished(out)["model"]["id"] == names[2]

    probes = 2  # one more on the rungs that are done, too
    measured = ladder(str(clips), str(clips), PROBE, out=out, probes=probes)
    assert done[3:] == names
    assert not unfinished(out)
    assert len(calls) == 3 + 1 + 7  # the probe that was stopped first
    assert all(path.read_bytes() == data for path, data in kept.items())
    assert [rung.name for rung in measured] == rungs()
    for rung in measured:
        maps = [load_record(record_of(out, rung.name, 0, probe)).metrics["map"] for probe in range(probes)]
        assert rung.map.mean == pytest.approx(100 * np.mean([one.value for one in maps]))
        assert (rung.map.low, rung.map.high) == pytest.approx(
            (100 * np.mean([one.low for one in maps]), 100 * np.mean([one.high for one in maps]))
        )
    text = (out / "ladder.md").read_text()
    for _, paper_map, paper_f1 in PAPER.values():
        assert f"| {paper_map:.2f} |" in text
        assert f"| {paper_f1:.2f} |" in text
    assert "only their order can be compared" in text
    assert "1 seed(s), each the mean of 2 probes, 95% intervals over test clips" in text
    assert (out / "figures/ladder.svg").stat().st_size > 1_000
    assert (out / "figures/steps.svg").stat().st_size > 1_000
    assert "One seed resolves no step" in text
    assert "One seed resolves no step" in capsys.readouterr().out


def test_rungs_that_are_done_are_not_shown_for_other_settings(tmp_path, clips, tiny, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(command, "missing", lambda *rung: ())  # all rungs are done
    monkeypatch.setattr(command, "save", lambda figure, folder, name: folder)  # that takes a second each
    monkeypatch.setattr(command, "rung_of_records", lambda out, name, seeds, probes: rung(name, 30.0))
    monkeypatch.setattr(command, "steps_of_records", lambda out, seeds, probes: [step(name, 1.0) for name in CHANGES])
    ladder(str(clips), str(clips), PROBE, out=out, steps=5)
    ladder(str(clips), str(clips), replace(PROBE, seeds=(0, 1), workers=1), out=out, steps=5, device="cpu")
    others = {
        "steps 5, not 6": {"steps": 6},
        "probe_data '.*', not": {"probe_data": "elsewhere.csv"},
        "head.prototypes 8, not 9": {"config": replace(PROBE, head=HeadConfig(prototypes=9))},
    }
    monkeypatch.setattr(command, "read_labelled_clips", lambda *source: None)
    for words, given in others.items():
        arguments = {"data": str(clips), "probe_data": str(clips), "config": PROBE, "steps": 5, **given}
        with pytest.raises(AudiobatError, match=f"holds a run with {words}.*use the run's own value, or a new --out"):
            ladder(**arguments, out=out)


def test_runs_differ_in_the_rungs_method_alone(tiny):
    configs = {name: rung_config(name, "nano", 5, 1, "d", "cpu", {"mean": -5.0, "std": 2.0}) for name in rungs()}
    first, bat = configs["ladder/1_eat_frontend"], configs["ladder/7_bat"]
    assert (first.frontend.kind, first.frontend.mean, first.frontend.std) == ("kaldi_fbank", -5.0, 2.0)
    assert (first.frontend.hop_length, first.frontend.mel_bins) == (320, 32)
    assert configs["ladder/6_vit"].decoder == replace(bat.decoder, heads=2, mlp_ratio=2.0)
    assert bat.decoder.heads == 4
    for config in configs.values():
        assert (config.train.steps, config.optim.warmup_steps, config.train.seed) == (5, 1, 1)
        assert config.target.ema_steps == 50_000
        assert config.mask == bat.mask
        assert config.encoder == replace(bat.encoder, gated_attention=config.encoder.gated_attention)


def test_steps_that_no_rung_can_take_leave_no_folder(tmp_path, clips, tiny):
    for dry_run in (True, False):
        with pytest.raises(AudiobatError, match=r"train\.steps is 0: it must be positive"):
            ladder(clips, clips, out=tmp_path / "out", steps=0, dry_run=dry_run)
    assert not (tmp_path / "out").exists()  # else the right steps would be refused there


def test_statistics_are_those_of_all_cells(clips, tmp_path):
    table = read_clips(clips.parent)
    frontend = FrontendConfig(kind="kaldi_fbank", mel_bins=32)
    sums = log_mel_sums(table, frontend)
    module = build_frontend(frontend)
    cells = []
    for row in range(len(table)):
        samples, _ = soundfile.read(table.path(row), dtype="float32")
        waveform = torch.from_numpy(samples)[None]
        cells.append(module.raw_spectrogram(waveform, torch.tensor([len(samples)])).flatten().double())
    cells = torch.cat(cells)
    assert sums.cells == len(cells)
    assert sums.mean == pytest.approx(float(cells.mean()), rel=1e-6)
    assert sums.std == pytest.approx(float(cells.std(unbiased=False)), rel=1e-6)
    parts = [log_mel_sums(table.select(np.arange(a, b)), frontend) for a, b in ((0, 5), (5, 6), (6, len(table)))]
    whole = sum(parts, LogMelSums())
    assert (whole.clips, whole.cells) == (sums.clips, sums.cells)
    assert whole.total == pytest.approx(sums.total)


def test_statistics_are_computed_once_and_read_again(clips, tmp_path, tiny):
    table = read_clips(clips.parent)
    found = command.own_statistics(tmp_path / "out", table, "nano")
    (tmp_path / "out" / STATISTICS).write_text("mean: -1.5\nstd: 2.5\n")
    assert set(found) == {"mean", "std"}
    assert command.own_statistics(tmp_path / "out", table, "nano") == {"mean": -1.5, "std": 2.5}
    assert command.own_statistics(tmp_path / "out", table, "base") == {}


def rung(name, mean, half=0.1):
    return Rung(name, 1, Value(mean, mean - half, mean + half), Value(1.0, 0.0, 2.0))


def step(name, mean, half=0.1):
    own = Value(mean, mean - half, mean + half)
    return Step(name, own, own, Value(mean, mean - 1, mean + 1))


def test_a_step_is_resolved_where_its_interval_leaves_out_zero():
    steps = [step("ladder/6_vit", 0.5), step("ladder/7_bat", -0.2), step("ladder/3_eob", 0.05)]
    assert [one.verdict for one in steps] == ["agrees", "contradicts", "not resolved"]
    assert [one.paper for one in steps] == [pytest.approx(difference) for difference in (2.01, 0.09, -0.43)]
    assert verdict_line(steps) == (
        "2 of the paper's 3 steps are resolved. Agrees: CNN to ViT decoder (+0.50 here, +2.01 in the paper). "
        "Contradicts: twice the decoder's heads and MLP (-0.20 here, +0.09 in the paper). Not resolved: MLP to "
        "end-of-block targets (+0.05 here, -0.43 in the paper)."
    )
    text = markdown_table([rung(name, 30.0) for name in rungs()], steps, "nano")
    assert "| 30.00 | [29.90, 30.10] | 37.52 |" in text
    assert "| CNN to ViT decoder | +0.50 | [+0.40, +0.60] | [-0.50, +1.50] | +2.01 | agrees |" in text


def test_steps_are_paired_over_seeds_and_over_clips():
    """Beside scipy's paired test on the same records, and a bootstrap in which both rungs have the same clips."""
    seeds = (0, 1, 2)
    steps = {found.name: found for found in steps_of_records(KEPT_RUNS, seeds)}
    assert list(steps) == list(CHANGES)

    def maps(name):
        return [100 * load_record(record_of(KEPT_RUNS, name, seed)).metrics["map"].value for seed in seeds]

    for before, after in (("ladder/2_mel_db", "ladder/4_gates"), ("ladder/6_vit", "ladder/7_bat")):
        found, tested = steps[after], stats.ttest_rel(maps(after), maps(before))
        interval = tested.confidence_interval()
        assert (found.here.low, found.here.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert paired_differences(maps_of(KEPT_RUNS, seeds))[after] == pytest.approx(
            np.subtract(maps(after), maps(before))
        )

    (clips,) = [found.clips for found in steps_of_records(KEPT_RUNS, (0,)) if found.name == "ladder/4_gates"]
    paths = [record_of(KEPT_RUNS, name, 0) for name in ("ladder/2_mel_db", "ladder/4_gates")]
    before, after = (load_scores(path, load_record(path)) for path in paths)
    rng, strayed = np.random.default_rng(0), []
    for _ in range(40):
        rows = rng.integers(len(before.keys), size=len(before.keys))
        shown = before.targets[rows].any(0)
        each = [average_precision_score(s.targets[rows][:, shown], s.scores[rows][:, shown]) for s in (before, after)]
        strayed.append(100 * (each[1] - each[0]))
    assert clips.high - clips.low == pytest.approx(2 * 1.96 * np.std(strayed), rel=0.3)


def test_probes_of_a_run_are_averaged_before_runs_are_compared(monkeypatch, tmp_path):
    """Two seeds with two probes each: a step is the mean over seeds of differences of the probes' means."""
    maps = {
        (rungs()[1], 0): (0.2, 0.4),
        (rungs()[1], 5): (0.3, 0.5),
        (rungs()[2], 0): (0.5, 0.6),
        (rungs()[2], 5): (0.6, 0.6),
    }
    asked = {
        record_of(tmp_path, name, seed, probe): value[probe] for (name, seed), value in maps.items() for probe in (0, 1)
    }

    def load(path):
        metric = Metric(asked.get(path, 0.0), 0.0, 1.0, "", "")
        return type("Record", (), {"metrics": {"map": metric, "f1": metric}})

    monkeypatch.setattr(ladder_steps, "load_record", load)
    found = rung_of_records(tmp_path, rungs()[1], (0, 5), 2)
    assert (found.seeds, found.map.mean) == (2, pytest.approx(35))
    assert found.map.high - found.map.mean == pytest.approx(12.706 * 5, rel=1e-4)  # 30 and 40
    assert paired_differences(maps_of(tmp_path, (0, 5), 2))["ladder/3_eob"] == pytest.approx([25, 20])


def test_the_common_spread_is_that_of_all_pairs_of_rungs():
    """The mean variance of the differences of all pairs, which is what analysis of variance has as twice its error."""
    maps = maps_of(KEPT_RUNS, (0, 1, 2))
    pairs = [np.var(np.subtract(a, b), ddof=1) for a, b in combinations(maps.values(), 2)]
    assert common_deviation(maps) == pytest.approx(np.mean(pairs) ** 0.5)
    found = steps_of_records(KEPT_RUNS, (0, 1, 2))[0].pooled
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 12) * common_deviation(maps) / 3**0.5)


def test_an_interval_over_seeds_is_students():
    def record(value):
        metrics = {"map": Metric(value, value - 0.01, value + 0.01, "", "")}
        return type("Record", (), {"metrics": metrics})

    three = Value.of([record(0.30), record(0.32), record(0.34)], "map")
    assert three.mean == pytest.approx(32)
    assert three.high - three.mean == pytest.approx(4.3027 * 2 / 3**0.5, rel=1e-4)
    one = Value.of([record(0.30)], "map")
    assert (one.low, one.high) == (pytest.approx(29), pytest.approx(31))


def test_the_table_that_is_kept_is_that_of_its_records():
    measured = [rung_of_records(KEPT_RUNS, name, (0, 1, 2)) for name in rungs()]
    steps = steps_of_records(KEPT_RUNS, (0, 1, 2))
    assert (KEPT_RUNS / "ladder.md").read_text() == markdown_table(measured, steps, "nano")
    for path in (record_of(KEPT_RUNS, name, seed) for name in rungs() for seed in (0, 1, 2)):
        record = load_record(path)
        scores = load_scores(path, record)
        assert scores.scores.shape == (record.data.clips["test"], record.data.classes)
        assert record.environment["git_commit"].startswith("adee324")


def test_a_dry_run_lists_the_rungs(tmp_path, clips, capsys):
    assert ladder(clips, clips, out=tmp_path / "out", dry_run=True) == []
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.startswith("7 rungs at scale nano, 1 seed each")
    assert lines[7:] == power_lines(KEPT, 1)
    assert lines[-1] == "One seed tells no step apart."
    assert lines[6] == "ladder/7_bat: ladder/6_vit with decoder.heads 12 for 6, decoder.mlp_ratio 4 for 2"
    assert not (tmp_path / "out").exists()


def test_the_seeds_that_a_difference_needs_follow_from_the_records_that_are_there(tmp_path):
    found = spread_of(KEPT_RUNS)
    assert found.deviation == pytest.approx(KEPT.deviation, abs=0.005)  # the plan of a first ladder is made from these
    assert spread_of(tmp_path) == KEPT
    (tmp_path / "results").mkdir()
    for path in (KEPT_RUNS / "results").glob("*seed[01]*"):
        (tmp_path / "results" / path.name).write_bytes(path.read_bytes())
    # Of two seeds the variance of their difference over rungs is that of a rung's two numbers left, twice.
    own = np.array(list(maps_of(KEPT_RUNS, (0, 1)).values()))
    assert spread_of(tmp_path).deviation == pytest.approx(np.std(own[:, 0] - own[:, 1], ddof=1))
    record_of(tmp_path, rungs()[-1], 1).unlink()  # a seed that is not done
    assert spread_of(tmp_path) == KEPT
    assert power_lines(KEPT, 3)[2:] == [
        "  0.5 points need 24 seeds",
        "  1 points need 8 seeds",
        "  2 points need 4 seeds",
        "These 3 seeds find 2.7 points or more.",
    ]


def test_the_table_of_seeds_in_the_docs_is_computed():
    text = (KEPT_RUNS.parents[1] / "ladder.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(rows) == 6
    for seeds, half, found in rows:
        values = np.linspace(-1, 1, int(seeds))
        mean, _, high = mean_interval(KEPT.deviation / values.std(ddof=1) * values)
        assert (half, found) == (f"{high - mean:.2f}", f"{difference_found(int(seeds), KEPT.deviation):.2f}")


def test_a_calibrated_dry_run_tells_the_hours(tmp_path, clips, tiny, monkeypatch, capsys):
    timed = []

    def calibrate(config, seconds):
        timed.append(config)
        return Calibration("the CPU", 3, 36.0, 0.0, None, None, "")

    monkeypatch.setattr(ladder_plan, "calibrate_run", calibrate)
    config = replace(PROBE, seeds=(0, 1))
    ladder(str(clips), str(clips), config, out=tmp_path / "out", steps=100, dry_run=True, calibrate=True)
    *_, first, _, _, _, _, _, last, together = capsys.readouterr().out.splitlines()
    assert first == "  ladder/1_eat_frontend: 36 s a step, 1 hours a seed"
    assert last.startswith("  ladder/7_bat")
    assert together == "Together 14 hours for 2 seeds, probes not counted."
    assert [config.train.steps for config in timed] == [100] * 7
    with pytest.raises(AudiobatError, match=r"calibrate is True.*--dry-run only"):
        ladder(str(clips), str(clips), config, out=tmp_path / "out", calibrate=True)


def test_rungs_of_a_seed_have_the_same_clips_crops_and_masks(clips, tiny):
    """What the intervals of paired differences stand on: at a step, whatever rung draws, it draws the same."""
    table, device, step = read_clips(clips), torch.device("cpu"), 7
    drawn, starts = {}, {}
    for name in rungs():
        config = rung_config(name, "nano", None, 3, str(clips), "cpu", {"mean": -5.0, "std": 2.0})
        config = replace(config, data=replace(config.data, clip_seconds=0.4))  # clips have 0.6
        torch.manual_seed(config.train.seed)
        objective = build_objective(config)
        starts[name] = {key: value.clone() for key, value in objective.student.state_dict().items()}
        batch = next(iter(crops_of(config, table, clip_order(table, config.data, 3), Ranks(device), step)))
        seed_step(config.train.seed, step, device)
        (version,) = objective.versions_of(together(objective.student, batch), RowParts(8, device), step)
        drawn[name] = (batch.keys, batch.waveform, *version.clones.masks, torch.rand(3))
    first = drawn[rungs()[0]]
    for keys, *tensors in drawn.values():
        assert keys == first[0]
        assert all(map(torch.equal, tensors, first[1:]))
    # Encoders begin alike, too; gates draw weights of their own, and those behind them are others than without gates.
    for same in (rungs()[:3], rungs()[3:]):
        for name in same:
            assert all(torch.equal(value, starts[same[0]][key]) for key, value in starts[name].items())


def test_the_command_line_takes_the_seeds_of_its_runs(clips, capsys):
    assert main(["ladder", "--data", str(clips), "--probe-data", str(clips), "--seeds", "0,1", "--dry-run"]) == 0
    assert "2 seeds each" in capsys.readouterr().out


def test_a_dry_run_sees_that_data_are_not_there(clips, capsys):
    assert main(["ladder", "--data", str(clips), "--probe-data", "nowhere.csv", "--dry-run"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err
