"""X-ARES itself on a small ESC-50 made here, and how its segments fall on our frames: `make kits` runs this."""

import io
import json
import sys
import tarfile
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from tiny_encoder import MODEL, RATE, write_encoder

pytest.importorskip("xares", reason="make kits installs it")

from audiobat.audio.read import resample
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo.integrations.xares import AudiobatEncoder

CLASSES, FOLDS = 3, 5


@pytest.fixture(autouse=True)
def torchaudio(monkeypatch):
    """What X-ARES takes of torchaudio, by soundfile and soxr: the wheel of 2.11 needs CUDA's libraries to load."""
    module, functional = ModuleType("torchaudio"), ModuleType("torchaudio.functional")

    def load(stream):
        samples, rate = soundfile.read(stream, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T.copy()), rate

    module.load, module.functional = load, functional
    functional.resample = lambda waveform, rate, target: torch.stack(
        [torch.from_numpy(resample(channel.numpy(), rate, target)) for channel in waveform]
    )
    module.__spec__ = ModuleSpec("torchaudio", None)  # transformers looks for it
    monkeypatch.setitem(sys.modules, "torchaudio", module)
    monkeypatch.setitem(sys.modules, "torchaudio.functional", functional)


def write_esc50(env: Path) -> Path:
    """Tones of three classes in five folds, as X-ARES's downloads lie in its folder."""
    folder = env / "esc50"
    folder.mkdir(parents=True)
    times = np.arange(RATE) / RATE
    for fold in range(1, FOLDS + 1):
        with tarfile.open(folder / f"wds-audio-fold-{fold}-000000.tar", "w") as tar:
            for i in range(4 * CLASSES):
                rng = np.random.default_rng([fold, i])
                tone = 0.3 * np.sin(2 * np.pi * 300 * 2 ** (i % CLASSES) * times + rng.uniform(0, 6))
                sound = io.BytesIO()
                soundfile.write(sound, tone + 0.02 * rng.normal(size=RATE), RATE, format="WAV")
                for ending, content in (
                    ("wav", sound.getvalue()),
                    ("json", json.dumps({"label": i % CLASSES}).encode()),
                ):
                    entry = tarfile.TarInfo(f"{fold}-{i}.{ending}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    (folder / ".audio_tar_ready").touch()
    return env


def esc50(env: Path, encoder: AudiobatEncoder):
    """X-ARES's task with its own settings but for the folder."""
    from tasks.esc50_task import esc50_config
    from xares.task import XaresTask

    config = esc50_config(encoder)
    config.env_root = env
    return XaresTask(config)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    return [write_encoder(tmp_path_factory.mktemp("models") / str(seed), seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def steps_of_160_ms(tmp_path_factory) -> str:
    """A model with the columns of `bat_base`: 16 frames of 10 ms."""
    model = replace(MODEL, encoder=replace(MODEL.encoder, patch_size=(16, 16)))
    return str(write_encoder(tmp_path_factory.mktemp("models") / "steps", model))


def test_a_task_runs_and_each_model_and_layer_has_results_of_its_own(tmp_path: Path, models: list[Path]):
    env = write_esc50(tmp_path / "env")
    encoders = [AudiobatEncoder(str(models[0])), AudiobatEncoder(str(models[1])), AudiobatEncoder(str(models[0]), 1)]
    for encoder in encoders:
        esc50(env, encoder).make_encoded_tar()
    task = esc50(env, encoders[0])
    task.ckpt_dir.mkdir(parents=True)  # the MLP would have made it, in much more time
    assert task.run_knn()[0] > 0.9
    kept = sorted(folder.name for folder in (env / "esc50" / "embeddings").iterdir())
    assert len(kept) == 3
    with tarfile.open(next((env / "esc50" / "embeddings" / type(encoders[0]).__name__).glob("*fold-1*"))) as tar:
        first = np.load(io.BytesIO(tar.extractfile("1-00.npy").read()))  # the clip's key and the batch's number
    with tarfile.open(env / "esc50" / "wds-audio-fold-1-000000.tar") as tar:
        samples, _ = soundfile.read(io.BytesIO(tar.extractfile("1-0.wav").read()), dtype="float32")
    np.testing.assert_allclose(first, encoders[0](torch.from_numpy(samples)[None])[0], atol=1e-4)


def test_the_checker_takes_it_and_the_path_works_in_any_folder(tmp_path: Path, monkeypatch):
    from xares.audio_encoder_checker import check_audio_encoder
    from xares.utils import attr_from_py_path

    monkeypatch.chdir(tmp_path)
    found = attr_from_py_path("audiobat/zoo/integrations/xares.py", endswith="Encoder")
    assert found is AudiobatEncoder
    assert check_audio_encoder(found())


def test_where_segments_of_a_second_fall_on_frames_of_160_ms(steps_of_160_ms: str):
    """DESED's metric takes 7 frames, 1.12 s, for a segment of 1 s, and leaves out what fills no whole one."""
    from tasks.desed_task import desed_config
    from xares.metrics import ALL_METRICS, SegmentF1Metric
    from xares.trainer import prepare_frame_task_batch

    encoder = AudiobatEncoder(steps_of_160_ms)
    assert encoder.hop_size_in_ms == 160
    config = desed_config(encoder)
    frames = encoder(torch.zeros(1, 10 * encoder.sampling_rate))
    labels = config.label_processor([{"onset": 9.5, "offset": 10.0, "label": "Dog"}])
    assert (frames.shape[1], labels.shape[1]) == (62, 63)
    at_once = replace(MODEL, encoder=replace(MODEL.encoder, patch_size=(16, 16), max_frames=1024))
    for model, (count, size) in {AudioEncoder(at_once).eval(): (63, 7), "bat_nano": (31, 4)}.items():
        other = AudiobatEncoder(model)
        assert other(torch.zeros(1, 10 * other.sampling_rate)).shape[1] == count
        assert SegmentF1Metric(hop_size_in_ms=other.hop_size_in_ms, average="macro").max_pooling_size == size
    _, kept = prepare_frame_task_batch(
        ((frames.transpose(1, 2), torch.tensor([62])), (labels[None], torch.tensor([63])), ["clip"])
    )
    assert kept.shape == (1, 62, 10)  # the last label has no frame
    assert kept[0, 60:, 8].tolist() == [1, 1]  # 9.6 to 9.92 s

    def f1_of(event: tuple[float, float], found: tuple[float, float]) -> float:
        """Of an event from one second to another and a detector that is on from one to another, frame by frame."""
        truth = config.label_processor([{"onset": event[0], "offset": event[1], "label": "Dog"}]).T[None, :62]
        starts = torch.arange(62) * 0.16
        sure = torch.full((1, 62, 10), -9.0)
        sure[0, (starts >= found[0]) & (starts < found[1]), 8] = 9.0
        metric = ALL_METRICS[config.metric].metric(**config.metric_args)
        metric.update(metric._output_transform((sure, truth)))
        return metric.compute() * 10  # the other nine classes, which nothing has, count as 0

    assert f1_of((0.9, 1.1), (0.0, 0.2)) == pytest.approx(1)  # one segment up to 1.12 s
    assert f1_of((1.1, 1.2), (0.0, 0.2)) == 0  # the frame from 1.12 s on is in the next
    assert f1_of((8.0, 8.9), (8.0, 8.9)) == pytest.approx(1)
    assert f1_of((9.0, 10.0), (9.0, 10.0)) == 0  # six frames, 8.96 to 9.92 s, are in no segment


def test_an_event_inside_one_frame_has_no_label(steps_of_160_ms: str):
    """Onset and offset both move to the next frame's start: notes shorter than 160 ms mostly vanish."""
    from tasks.desed_task import desed_config

    label = desed_config(AudiobatEncoder(steps_of_160_ms)).label_processor
    assert label([{"onset": 1.13, "offset": 1.27, "label": "Dog"}]).sum() == 0
    assert label([{"onset": 1.11, "offset": 1.27, "label": "Dog"}]).nonzero().tolist() == [[8, 7]]


def test_a_shorter_clip_of_a_batch_is_encoded_with_zeros_at_its_end():
    from xares.audiowebdataset import pad

    clips = [torch.ones(8_000), torch.ones(16_000)]
    waveform, lengths = pad(clips)
    assert lengths.tolist() == [8_000, 16_000]  # which X-ARES does not hand to the encoder
    assert not waveform[0, 8_000:].any()
    encoder = AudiobatEncoder()
    padded, alone = encoder(waveform)[0], encoder(clips[0])[0]
    assert len(padded) > len(alone)
