"""Clips of the classes that a head knows best and worst, from a probe's run to the page."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from report_samples import make_record

from audiobat.config import HeadConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import Scores, load_record
from audiobat.evaluation.report.collect import collect, load_all
from audiobat.evaluation.report.listening.clips import read_saved_clips
from audiobat.evaluation.report.listening.section import gather
from audiobat.evaluation.report.run import report
from audiobat.evaluation.results import Result
from audiobat.models.baselines import LogMelEncoder
from audiobat.probing.listening_clips import pick_clips, save_clips
from audiobat.probing.run import probe

RATE = 16_000
CLASSES = ["bell", "goat", "horn", "rain", "<b>wind</b>"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 tones of half a second and one of eleven, five classes; 10 of the clips are test clips."""
    folder = tmp_path_factory.mktemp("tones")
    lines = ["path,label,split"]
    for i in range(30):
        time = np.arange(11 * RATE if i == 29 else RATE // 2) / RATE
        soundfile.write(folder / f"{i}.wav", 0.3 * np.sin(2 * np.pi * 300 * (1 + i % 5) * time), RATE)
        lines.append(f"{i}.wav,{CLASSES[i % 5]},{'test' if i >= 20 else 'train'}")
    (folder / "tones.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "tones.csv"


@pytest.fixture(scope="module")
def table(data: Path) -> ClipTable:
    return read_labelled_clips(data).select(np.arange(20, 30))


def probed(table: ClipTable, name: str, value: float, scores: np.ndarray | None = None, **head: object) -> Result:
    """A head with scores of the table's clips."""
    targets = table.targets()
    logits = (4.0 * targets - 2.0) if scores is None else scores
    per_class = {label: 0.9 - 0.1 * i for i, label in enumerate(table.classes)}
    record = make_record("bat", str(head.pop("kind", "cgp")), value, per_class=per_class, **head)
    return Result(name, record, Scores(np.array(table.keys), logits.astype(np.float32), targets))


def test_of_best_classes_the_surest_right_clip_and_of_worst_ones_the_misses():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.1, 0.4]])
    targets = np.array([[True, False], [True, True], [False, True], [False, False]])
    known = {"a": 0.9, "b": 0.2, "c": 0.1, "d": 0.05}
    wide, truth = np.hstack([scores, scores]), np.hstack([targets, targets])
    picks = pick_clips(known, ["a", "b", "c", "d"], wide, truth)
    assert picks[:3] == [
        ("best", 0, 0, "has the class, surest of it"),
        ("best", 1, 1, "has the class, surest of it"),
        ("best", 2, 0, "has the class, surest of it"),
    ]
    assert picks[3:] == [
        ("worst", 3, 2, "has the class, least sure of it"),
        ("worst", 3, 3, "lacks the class, surest of it"),
    ]
    everywhere = pick_clips(known, ["a", "b", "c", "d"], wide, np.ones_like(truth))
    assert [why for side, _, _, why in everywhere if side == "worst"] == ["has the class, least sure of it"]


def test_clips_are_of_the_best_head_and_of_no_block(table: ClipTable, tmp_path: Path):
    heads = [
        probed(table, "cgp", 0.3),
        probed(table, "linear", 0.5, kind="linear"),
        probed(table, "nan", float("nan")),
        probed(table, "linear_block1", 0.9, kind="linear", layer=1),
    ]
    save_clips([(tmp_path / "results" / f"bat_{one.name}_0.json", one) for one in heads], table)
    clips = read_saved_clips(tmp_path / "clips")
    assert {clip.record for clip in clips} == {"bat_linear_0"}
    assert [clip.label for clip in clips if clip.side == "best"] == list(table.classes[:3])
    assert {clip.label for clip in clips if clip.side == "worst"} == set(table.classes[3:])
    for clip in clips:
        assert clip.average_precision == heads[1].record.per_class[clip.label]
        label, probability = clip.predictions[0]
        assert label in clip.labels
        assert probability == pytest.approx(1 / (1 + np.exp(-2)))
        assert ("has the class" in clip.why) == (clip.label in clip.labels)
        row = list(table.keys).index(clip.key)
        sound, rate = soundfile.read(tmp_path / "clips" / f"{clip.file}.wav")
        assert (rate, len(sound)) == (RATE, 10 * RATE if row == 9 else RATE // 2)


def test_blocks_alone_have_no_clips(table: ClipTable, tmp_path: Path):
    block = probed(table, "linear_block1", 0.9, kind="linear", layer=1)
    save_clips([(tmp_path / "results" / "bat_linear_block1_0.json", block)], table)
    assert not (tmp_path / "clips").exists()


def test_of_a_head_with_log_probabilities_the_page_gets_probabilities(table: ClipTable, tmp_path: Path):
    one = probed(table, "cgp", 0.5, np.log(np.full((10, 5), 0.2)), loss="ce")
    save_clips([(tmp_path / "results" / "r.json", one)], table)
    assert all(p == pytest.approx(0.2) for clip in read_saved_clips(tmp_path / "clips") for _, p in clip.predictions)


def test_patch_columns_of_a_clip_are_taken_together(table: ClipTable, tmp_path: Path):
    one = probed(table, "cgp", 0.5)
    kept = one.scores
    low = np.full_like(kept.scores, -9.0)
    frames = Scores(
        np.concatenate([kept.keys, kept.keys]),
        np.concatenate([low, kept.scores]),
        np.concatenate([np.zeros_like(kept.targets), kept.targets]),
    )
    for name, scores in (("clip", kept), ("frame", frames)):
        save_clips([(tmp_path / name / "results" / "r.json", replace(one, scores=scores))], table)
    clips = [read_saved_clips(tmp_path / name / "clips") for name in ("clip", "frame")]
    assert clips[0] == clips[1]


def test_runs_in_one_folder_keep_each_others_clips_but_not_their_own_old_ones(table: ClipTable, tmp_path: Path):
    first, second = (tmp_path / "results" / f"{name}.json" for name in ("first", "second"))
    save_clips([(first, probed(table, "cgp", 0.5))], table)
    save_clips([(second, probed(table, "linear", 0.5, kind="linear"))], table)
    names = [clip.record for clip in read_saved_clips(tmp_path / "clips")]
    save_clips([(first, probed(table, "cgp", 0.4)), (second, probed(table, "x", 0.5))], table)
    assert set(names) == {"first", "second"}
    assert {clip.record for clip in read_saved_clips(tmp_path / "clips")} == {"second"}


@pytest.mark.parametrize("heads", [("linear",), ("linear", "cgp")])
def test_what_probe_writes_report_shows(data: Path, tmp_path: Path, heads: tuple[str, ...]):
    train = ProbeTrainConfig(steps=20, warmup_steps=2, batch_size=8, lr=1e-2)
    config = ProbeConfig(HeadConfig(prototypes=8, pool="mean", norm="batch"), train, heads=heads, workers=0)
    records = probe(LogMelEncoder(), data, config, out=tmp_path / "run", device="cpu")
    best = max(records, key=lambda record: record.metrics["map"].value)
    clips = read_saved_clips(tmp_path / "run" / "clips")
    (name,) = {clip.record for clip in clips}
    assert load_record(tmp_path / "run" / "results" / f"{name}.json").head["kind"] == best.head["kind"]
    sounds = {path.stem for path in (tmp_path / "run" / "clips").glob("*.wav")}
    assert sounds == {clip.file for clip in clips}
    page = (report([tmp_path / "run"], tmp_path / "report") / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio controls") == page.count('<img src="data:image/png') == len(clips)
    assert "<b>wind</b>" not in page


def test_a_page_carries_so_many_bytes_and_says_what_it_leaves_out(table: ClipTable, tmp_path: Path, monkeypatch):
    for model, value in (("better", 0.6), ("worse", 0.2)):
        one = probed(table, "cgp", value)
        one = replace(one, record=replace(one.record, model=replace(one.record.model, id=model, sha256=model)))
        path = tmp_path / model / "results" / "r.json"
        one.record.save(path)
        save_clips([(path, one)], table)
    found = collect(load_all([tmp_path]))
    groups, left_out = gather(found)
    assert [(group.heading.partition(",")[0], len(group.cards)) for group in groups] == [("better", 7), ("worse", 7)]
    assert left_out == 0
    card = groups[0].cards[0]
    saved = {clip.key: clip.file for clip in read_saved_clips(tmp_path / "better" / "clips")}
    assert card.sound == (tmp_path / "better" / "clips" / f"{saved[card.name]}.wav").read_bytes()
    assert card.picture.startswith(b"\x89PNG")
    monkeypatch.setattr("audiobat.evaluation.report.listening.section.PAGE_BYTES", 100_000)
    groups, left_out = gather(found)
    assert 0 < sum(len(group.cards) for group in groups) == 14 - left_out < 14
    assert groups[0].heading.startswith("better,")


def test_lists_that_are_damaged_or_lie_are_refused(table: ClipTable, tmp_path: Path):
    save_clips([(tmp_path / "results" / "r.json", probed(table, "cgp", 0.5))], table)
    path = tmp_path / "clips" / "clips.json"
    good = path.read_text(encoding="utf-8")
    plain = json.loads(good)
    for text in ("{", "[]", good.replace("heard-1", "heard-9"), good.replace('"why"', '"whence"')):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(AudiobatError, match="no list of clips"):
            read_saved_clips(tmp_path / "clips")
    plain["clips"][0]["file"] = "../../secret"
    path.write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(AudiobatError, match="must lie in the folder"):
        read_saved_clips(tmp_path / "clips")
