"""Tasks beyond labels: their numbers against a plain computation, on the one pass of features that heads have, too."""

import csv
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import average_precision_score, ndcg_score, r2_score

from audiobat.cli import command as cli
from audiobat.config import ProbeConfig, from_dict
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import load_record, load_values
from audiobat.models.encoder import AudioEncoder
from audiobat.probing import run as module
from audiobat.probing.run import probe
from audiobat.probing.tasks.kshot import KShot
from audiobat.probing.tasks.pairs import draw_pairs
from audiobat.probing.tasks.retrieval import Retrieval
from tests.tiny_encoder import MODEL, RATE

HEAD = {"head": {"kind": "linear", "pool": "mean"}, "train": {"steps": 4, "warmup_steps": 1, "batch_size": 8}}
TONES = {"low": 250.0, "mid": 900.0, "top": 2800.0}


class Counting(AudioEncoder):
    """The tiny encoder, which counts the clips that it encodes."""

    clips = 0

    def forward_intermediates(self, waveform, lengths=None):
        self.clips += len(waveform)
        return super().forward_intermediates(waveform, lengths)


@pytest.fixture
def encoder() -> Counting:
    torch.manual_seed(0)
    return Counting(MODEL).eval()


def write_clips(folder: Path, labels: list[str], **columns: list) -> Path:
    """Clips of 0.3 s, the tones that their labels name in noise; the first half trains unless `split` is given."""
    rng = np.random.default_rng(0)
    if "fold" not in columns:
        columns = {"split": ["train" if i < len(labels) // 2 else "test" for i in range(len(labels))]} | columns
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", *columns])
        for i, names in enumerate(labels):
            time = np.arange(int(0.3 * RATE)) / RATE
            mix = rng.normal(scale=0.05, size=len(time))
            for name in names.split(";"):
                mix += 0.2 * np.sin(2 * np.pi * TONES.get(name, 1500) * time + rng.uniform(0, 6))
            soundfile.write(folder / f"{i:03d}.wav", mix, RATE)
            rows.writerow([f"{i:03d}.wav", names, *(values[i] for values in columns.values())])
    return folder / "clips.csv"


def settings(*tasks: str, **fields) -> ProbeConfig:
    return from_dict(ProbeConfig, {**HEAD, "tasks": list(tasks), "workers": 0, **fields})


def vectors_of(encoder: AudioEncoder, source: Path) -> np.ndarray:
    """The mean patch of the last block of each clip, one clip at a time."""
    found = []
    with torch.no_grad():
        for file in read_labelled_clips(source).files:
            wave = torch.from_numpy(soundfile.read(source.parent / file, dtype="float32")[0])
            features = encoder.forward_intermediates(wave[None])
            found.append(features.patch_tokens[-1, 0][features.valid[0]].mean(0).numpy())
    return np.stack(found)


def test_retrieval_is_what_sorting_by_cosine_gives(tmp_path, encoder):
    labels = ["low", "mid", "top;mid", "low;top", "odd"] * 6 + ["alone"]
    source = write_clips(tmp_path, labels)
    [record] = probe(encoder, source, settings("retrieval"), out=tmp_path / "out")
    test = np.arange(len(labels) // 2, len(labels))
    unit = vectors_of(encoder, source)[test]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    ndcg, precision, hits = [], [], []
    for i, one in enumerate(test):
        others = np.delete(np.arange(len(test)), i)
        relevant = np.array([bool(set(labels[one].split(";")) & set(labels[test[j]].split(";"))) for j in others])
        if relevant.any():
            scores = unit[others] @ unit[i]
            ndcg.append(ndcg_score([relevant], [scores], k=10))
            precision.append(average_precision_score(relevant, scores))
            hits.append(relevant[np.argsort(-scores)[:5]].any())
    assert len(ndcg) == len(test) - 1  # "alone" finds nothing
    assert record.metrics["ndcg_at_10"].value == pytest.approx(np.mean(ndcg), abs=1e-6)
    assert record.metrics["map_at_1000"].value == pytest.approx(np.mean(precision), abs=1e-6)
    assert record.metrics["hit_rate_at_5"].value == pytest.approx(np.mean(hits), abs=1e-6)
    [path] = (tmp_path / "out" / "results").glob("*.json")
    values = load_values(path, load_record(path))
    assert values.values.mean() == pytest.approx(record.metrics[record.main_metric].value)
    assert values.values == pytest.approx(ndcg, abs=1e-6)


def test_tasks_and_heads_share_one_encoding_of_the_clips_they_need(tmp_path, encoder):
    source = write_clips(tmp_path, ["low", "mid", "top"] * 8)
    probe(encoder, source, settings("labels", "retrieval"))
    assert encoder.clips == 24
    probe(encoder, source, settings("retrieval"))
    assert encoder.clips == 24 + 12  # no clip that trains
    means, patches = 12 * 2 * 2 * 16 * 4 / 1e9, 12 * 2 * 9 * 16 * 4 / 1e9  # GB; with cls, and with 8 patches or more
    probe(encoder, source, settings("retrieval", cache_gb=(means + patches) / 2))
    assert encoder.clips == 24 + 12 + 12  # means alone are kept, and they fit


def test_a_number_does_not_depend_on_what_is_measured_beside_it(tmp_path, encoder):
    source = write_clips(tmp_path, ["low", "mid", "top"] * 8, fold=[i % 4 for i in range(24)])
    own = settings("retrieval", "pairs", "clustering", by_task=FEW)
    alone = {record.head["kind"]: record for record in probe(encoder, source, own)}
    beside = replace(own, tasks=("labels", "kshot", *own.tasks))
    together = {record.head["kind"]: record for record in probe(encoder, source, beside)}
    assert list(together) == ["linear", "kshot", "retrieval", "pairs", "clustering"]
    for kind, record in alone.items():
        assert record.data.clips == {"train": 0, "test": 24}  # what trains nothing is tested on every clip at once
        assert record.metrics == together[kind].metrics
    assert together["kshot"].data.clips == {"0": 6, "1": 6, "2": 6, "3": 6}
    assert set(together["kshot"].folds["0"]) == {"accuracy", "f1_macro"}


def test_a_task_has_a_record_for_each_seed_only_if_it_draws(tmp_path, encoder):
    source = write_clips(tmp_path, ["low", "mid", "top"] * 8)
    records = probe(encoder, source, settings("retrieval", "kshot", seeds=[3, 4], by_task=FEW))
    assert [(record.head["kind"], record.seed) for record in records] == [("retrieval", 3), ("kshot", 3), ("kshot", 4)]
    assert [record.preset for record in records] == ["mteb", "custom", "custom"]


@pytest.mark.parametrize("before", [[], ["labels"]], ids=["tasks alone", "heads before them"])
def test_a_stopped_probe_keeps_the_tasks_that_were_measured(tmp_path, encoder, monkeypatch, before):
    source, out = write_clips(tmp_path, ["low", "mid", "top"] * 8), tmp_path / "out"
    config = settings(*before, "retrieval", "kshot", by_task=FEW)
    whole = probe(encoder, source, config)
    with monkeypatch.context() as broken:
        broken.setattr(KShot, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            probe(encoder, source, config, out=out)
    assert (out / "results" / "Counting_retrieval_0.json").exists()
    assert len(list((out / "results").glob("*.json"))) == 1 + len(before)
    monkeypatch.setattr(Retrieval, "measure", lambda *_: pytest.fail("it was measured before"))
    again = probe(encoder, source, config, out=out)
    assert [record.metrics for record in again] == [record.metrics for record in whole]
    with pytest.raises(AudiobatError, match=r"_0\.json exists: choose another --out"):
        probe(encoder, source, config, out=out)


def test_clips_of_a_group_are_drawn_together(tmp_path, encoder):
    labels = ["low", "mid"] * 20
    apart = write_clips(tmp_path, labels, split=["test"] * 40)
    [wide] = [record.metrics["ndcg_at_10"] for record in probe(encoder, apart, settings("retrieval"))]
    grouped = write_clips(tmp_path, labels, split=["test"] * 40, group=[f"site {i // 10}" for i in range(40)])
    [record] = probe(encoder, grouped, settings("retrieval"), out=tmp_path / "out")
    [path] = (tmp_path / "out" / "results").glob("*.json")
    assert sorted(set(load_values(path, record).groups)) == [f"site {i}" for i in range(4)]
    metric = record.metrics["ndcg_at_10"]
    assert metric.value == wide.value
    assert (metric.low, metric.high) != (wide.low, wide.high)


def test_pairs_of_a_file_are_those_that_are_measured(tmp_path, encoder):
    source = write_clips(tmp_path, ["low", "mid", "top"] * 4, split=["test"] * 12)
    chosen = [(0, 3, 1), (0, 1, 0), (4, 7, 1), (5, 6, 0), (2, 8, 1), (9, 10, 0)]
    file = tmp_path / "pairs.csv"
    file.write_text("path,other,same\n" + "".join(f"{a:03d}.wav,{b:03d}.wav,{same}\n" for a, b, same in chosen))
    out = tmp_path / "out"
    [record] = probe(encoder, source, settings("pairs", by_task={"pairs": {"file": str(file)}}), out=out)
    vectors = vectors_of(encoder, source)
    cosine = [
        float(vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])) for a, b, _ in chosen
    ]
    [path] = (out / "results").glob("*.json")
    values = load_values(path, record)
    assert values.values == pytest.approx(cosine, abs=1e-6)
    assert values.targets.tolist() == [same for *_, same in chosen]
    assert record.metrics["ap"].value == pytest.approx(average_precision_score(values.targets, cosine))
    assert record.preset == "mteb"


def test_drawn_pairs_are_half_of_one_kind_and_distinct():
    targets = np.zeros((40, 4), bool)
    targets[np.arange(40), np.arange(40) % 3] = True
    targets[:6, 3] = True  # two labels
    targets[39] = False  # none
    first, second, same = draw_pairs(targets, np.arange(40), 60, seed=0)
    assert same.sum() == 30
    assert len(same) == 60
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 60
    assert 39 not in {*first.tolist(), *second.tolist()}
    for a, b, one in zip(first, second, same, strict=True):
        assert (targets[a] & targets[b]).any() == one


@pytest.mark.parametrize("columns", [{}, {"mos": [f"{1 + i % 7 / 2}" for i in range(24)]}], ids=["labels", "column"])
def test_regression_predicts_labels_that_are_numbers_or_a_column(tmp_path, encoder, columns, capsys):
    numbers = [1 + i % 7 / 2 for i in range(24)]
    source = write_clips(tmp_path, list(map(str, numbers)) if not columns else ["low", "mid"] * 12, **columns)
    own = {"regression": {"column": "mos"}} if columns else {}
    out = tmp_path / "out"
    [record] = probe(encoder, source, settings("regression", by_task=own), out=out)
    vectors = vectors_of(encoder, source)
    model = LinearRegression().fit(vectors[:12], numbers[:12])
    [path] = (out / "results").glob("*.json")
    values = load_values(path, record)
    assert values.targets == pytest.approx(numbers[12:])
    assert values.values == pytest.approx(model.predict(vectors[12:]), rel=1e-3, abs=1e-2)
    assert record.metrics["r2"].value == pytest.approx(r2_score(values.targets, values.values))
    assert record.metrics["rmse"].lower_is_better
    assert f"! regression: 12 training clips for {vectors.shape[1]} dimensions" in capsys.readouterr().err


FEW = {"kshot": {"shots": 2, "experiments": 2}, "clustering": {"experiments": 2, "documents": 200}}
MINE = """
import numpy as np
from audiobat.evaluation.unit_scoring import UnitOutputs, mean_of
from audiobat.probing.tasks import ProbeTask

class Norms(ProbeTask):
    title = "Norms"
    definitions = {"norm": "mean length of vectors"}

    @classmethod
    def trains(cls, config):
        return False

    @classmethod
    def build(cls, config, table, splits):
        return cls(config, table, splits)

    def measure(self, features, split, seed):
        lengths = np.linalg.norm(features.vectors(split.test).astype(np.float64), axis=1)
        return UnitOutputs(len(lengths), {"norm": mean_of(lengths)}, self.definitions, ranges={"norm": (0, np.inf)})
"""


def test_a_task_may_be_a_class_of_a_users_own(tmp_path, encoder, monkeypatch):
    source = write_clips(tmp_path, ["low", "mid"] * 6)
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    [record] = probe(encoder, source, settings("mine.py:Norms", max_frames=64), out=tmp_path / "out")
    wanted = np.linalg.norm(vectors_of(encoder, source)[6:], axis=1).mean()
    assert record.metrics["norm"].value == pytest.approx(wanted, rel=1e-5)
    assert record.head["files"] == {"mine.py": sha256(MINE.encode()).hexdigest()}
    assert record.head["max_frames"] == 64
    assert (tmp_path / "out" / "results" / "Counting_Norms_0.json").exists()
    Path("bad.py").write_text(MINE.replace("features.vectors", "features.vektors"))
    with pytest.raises(AudiobatError, match=r"bad\.py line \d+: Norms.measure fails"):
        probe(encoder, source, settings("bad.py:Norms"))


def test_a_block_that_the_model_lacks_is_refused_before_anything_is_encoded(tmp_path, encoder):
    source = write_clips(tmp_path, ["low", "mid"] * 6)
    with pytest.raises(AudiobatError, match=r"head\.layer is 9 and the model has 2 blocks"):
        probe(encoder, source, settings("retrieval", head={"kind": "linear", "layer": 9}))
    assert encoder.clips == 0


NUMBERS = [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("tasks", "labels", "columns", "own", "words"),
    [
        ("retrieval", [f"only_{i}" for i in range(12)], {}, {}, r"no test clip shares one.*--labels\.column"),
        ("retrieval", ["a"] * 6 + ["b"] * 6, {}, {}, "every test clip shares a label with every other"),
        ("pairs", [f"only_{i}" for i in range(12)], {}, {}, r"labels of 6 test clips give one sort.*pairs\.file"),
        ("clustering", [f"only_{i}" for i in range(12)], {}, {}, "each has one of its own"),
        ("clustering", ["a;b", "a"] * 6, {}, {}, "needs one label for each clip, and some have none or several"),
        ("kshot", ["a;b", "a"] * 6, {}, {}, "tasks has kshot, which needs one label"),
        ("kshot", NUMBERS, {}, {}, "no test clip has a label that a training clip has.*regression"),
        ("regression", ["low", "mid"] * 6, {}, {}, r"its label of clip 000\.wav is 'low': it needs a finite number"),
        ("regression", [*NUMBERS[:11], "nan"], {}, {}, r"its label of clip 011\.wav is 'nan'"),
        ("regression", ["a", "b"] * 6, {"mos": [*NUMBERS[:11], ""]}, {"column": "mos"}, r"mos of clip 011\.wav is ''"),
        ("regression", ["a", "b"] * 6, {"mos": NUMBERS}, {"column": "mso"}, r"'mso': choose .*did you mean mos"),
        ("regression", ["a", "b"] * 6, {"mos": ["3"] * 12}, {"column": "mos"}, "all 6 clips of split train have one"),
        ("kshott", ["a", "b"] * 6, {}, {}, "tasks is 'kshott': choose one of .*did you mean kshot"),
        ("lables", ["a", "b"] * 6, {}, {}, r"tasks is 'lables': choose one of .*did you mean labels\?"),
        ("kshot", ["a", "b"] * 6, {}, {"shot": 3}, r"Unknown field by_task\.kshot\.shot \(did you mean shots"),
        ("kshot", ["a", "b"] * 6, {}, {"shots": 0}, r"by_task\.kshot\.shots is 0: it must be positive"),
    ],
)  # fmt: skip
def test_clips_that_a_task_cannot_use_are_refused_before_anything_is_encoded(
    tmp_path, encoder, tasks, labels, columns, own, words
):
    source = write_clips(tmp_path, labels, **columns)
    with pytest.raises(AudiobatError, match=words):
        probe(encoder, source, settings(tasks, by_task={tasks: own} if own else {}))
    assert encoder.clips == 0


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("000.wav,001.wav,1\n002.wav,009.wv,0", r"row 3: '009\.wv' is no test clip .*did you mean 009\.wav"),
        ("000.wav,012.wav,1", r"row 2: '012\.wav' is no test clip .*must not mark them train"),
        ("000.wav,001.wav,1\n002.wav,003.wav,maybe", "row 3: same is 'maybe': write 1"),
        ("000.wav,001.wav,1\n000.wav,001.wav,0", r"row 3: the pair 000\.wav and 001\.wav stands in an earlier row"),
        ("000.wav,001.wav,1\n001.wav,000.wav,0", r"row 3: the pair 001\.wav and 000\.wav stands in an earlier row"),
        ("000.wav,000.wav,1", r"row 2: the pair .* is one clip"),
        ("000.wav,001.wav,1\n002.wav,003.wav,1", "needs both pairs that are the same and pairs that are not"),
    ],
)
def test_rows_of_pairs_that_cannot_be_used_are_named(tmp_path, encoder, rows, words):
    source = write_clips(tmp_path, ["low", "mid"] * 7, split=["test"] * 12 + ["train"] * 2)
    file = tmp_path / "pairs.csv"
    file.write_text(f"path,other,same\n{rows}\n")
    with pytest.raises(AudiobatError, match=words):
        probe(encoder, source, settings("pairs", by_task={"pairs": {"file": str(file)}}))
    file.write_text("path,same\n000.wav,1\n")
    with pytest.raises(AudiobatError, match="has no column other"):
        probe(encoder, source, settings("pairs", by_task={"pairs": {"file": str(file)}}))
    assert encoder.clips == 0


def test_settings_of_listed_tasks_are_flags(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "probe", lambda **arguments: seen.update(arguments))
    base = ["probe", "--model", "m", "--data", "d", "--out", "o"]
    assert cli.main([*base, "--tasks", "labels,kshot", "--by_task.kshot.shots", "3"]) == 0
    assert seen["config"].of_task("kshot").shots == 3
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("tasks: [retrieval]\n")
    assert cli.main([*base, "--config", str(recipe), "--by_task.retrieval.corpus", "train"]) == 0
    assert seen["config"].of_task("retrieval").corpus == "train"
    assert cli.main([*base, "--by_task.kshot.shots", "3"]) == 2  # kshot is no task of this probe
