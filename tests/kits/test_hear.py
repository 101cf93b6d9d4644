"""HEAR's embedding runner itself on a small task of scenes and one of events: `make kits` runs this."""

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from tiny_encoder import MODEL, write_encoder

pytest.importorskip("heareval", reason="make kits installs it")

from audiobat.config import ModelConfig
from audiobat.zoo.integrations import hear

RATE = 16_000
EVENT = (1.5, 2.5)  # seconds


@pytest.fixture(autouse=True)
def tensorflow(monkeypatch):
    """HEAR imports TensorFlow for models that are its modules; ours are PyTorch's."""
    module = ModuleType("tensorflow")
    module.Module = type("Module", (), {})
    monkeypatch.setitem(sys.modules, "tensorflow", module)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A tiny model at one of HEAR's rates."""
    from dataclasses import replace

    frontend = replace(MODEL.frontend, sample_rate=RATE, hop_length=160, n_fft=512, win_length=512)
    return str(write_encoder(tmp_path_factory.mktemp("models") / "tiny", ModelConfig(frontend, MODEL.encoder)))


def write_task(folder: Path, kind: str) -> Path:
    """Four clips of four seconds in HEAR's layout, with a tone from 1.5 to 2.5 s."""
    labels = {f"{i}.wav": ["tone"] for i in range(4)}
    if kind == "event":
        event = {"label": "tone", "start": 1000 * EVENT[0], "end": 1000 * EVENT[1]}
        labels = {name: [event] for name in labels}
    metadata = {"embedding_type": kind, "prediction_type": "multiclass", "sample_duration": 4.0, "splits": ["train"]}
    sounds = folder / str(RATE) / "train"
    sounds.mkdir(parents=True)
    (folder / "task_metadata.json").write_text(json.dumps(metadata))
    (folder / "labelvocabulary.csv").write_text("idx,label\n0,tone\n")
    (folder / "train.json").write_text(json.dumps(labels))
    times = np.arange(4 * RATE) / RATE
    for i, name in enumerate(labels):
        noise = 0.01 * np.random.default_rng(i).normal(size=times.size)
        tone = np.sin(2 * np.pi * 1000 * times) * ((times >= EVENT[0]) & (times < EVENT[1]))
        soundfile.write(sounds / name, noise + 0.3 * tone, RATE)
    return folder


@pytest.mark.parametrize("kind", ["scene", "event"])
def test_the_runner_writes_what_the_model_gives(tmp_path: Path, model: str, kind: str):
    from heareval.embeddings.task_embeddings import Embedding, task_embeddings

    task = write_task(tmp_path / "task", kind)
    # As `--model-options` hands it on; `--model` takes files alone.
    embedding = Embedding("audiobat.zoo.integrations.hear", model_options={"model_file_path": model})
    task_embeddings(embedding, task, tmp_path / "out")

    samples, _ = soundfile.read(task / str(RATE) / "train" / "0.wav", dtype="float32")
    waveform, own = torch.from_numpy(samples)[None], hear.load_model(model)
    found = np.load(tmp_path / "out" / "train" / "0.wav.embedding.npy")
    if kind == "scene":
        np.testing.assert_allclose(found, hear.get_scene_embeddings(waveform, own)[0], atol=1e-5)
        return
    frames, times = hear.get_timestamp_embeddings(waveform, own)
    np.testing.assert_allclose(found, frames[0], atol=1e-5)
    labels = json.loads((tmp_path / "out" / "train" / "0.wav.target-labels.json").read_text())
    inside = (times[0] >= 1000 * EVENT[0]) & (times[0] <= 1000 * EVENT[1])
    assert [label == ["tone"] for label in labels] == inside.tolist()
    assert len(pickle.loads((tmp_path / "out" / "train.target-labels.pkl").read_bytes())) == 4 * len(labels)
