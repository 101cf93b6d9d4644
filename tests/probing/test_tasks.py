"""Tasks beyond labels: their numbers against a plain computation, on the one pass of features that heads have, too."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import average_precision_score, ndcg_score

from audiobat.config import ProbeConfig, from_dict
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import load_record, load_values
from audiobat.models.encoder import AudioEncoder
from audiobat.probing.run import probe
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


def test_labels_that_retrieval_cannot_use_are_refused_before_anything_is_encoded(tmp_path, encoder):
    source = write_clips(tmp_path, [f"only_{i}" for i in range(8)])
    with pytest.raises(AudiobatError, match=r"tasks has retrieval.*no test clip shares one.*--labels\.column"):
        probe(encoder, source, settings("retrieval"))
    assert encoder.clips == 0
