"""Each kit's protocol, checked as the kit checks it, on the shipped weights and on an encoder with regular columns."""

import ast
import importlib
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from audiobat.audio.read import pad_batch, resample
from audiobat.errors import AudiobatError
from audiobat.zoo.adapters import TimeGrid, WindowedEncoder
from audiobat.zoo.integrations import frames as frames_module
from audiobat.zoo.integrations import hear, mteb, s3prl, xares
from audiobat.zoo.integrations.frames import FrameEmbedder
from audiobat.zoo.release import load

FOLDER = Path(frames_module.__file__).parent
KITS = ("hear", "xares", "s3prl", "mteb")


class Steps(WindowedEncoder):
    """Columns of 20 ms that read 25 ms, as speech models', each of which holds the mean of its samples; two layers."""

    sample_rate, dim, depth = 16_000, 2, 2

    def __init__(self, rows: int = 1, span: int = 400):
        super().__init__()
        self.grid = TimeGrid(window=32_000, hop=320, span=span, freq_patches=rows)

    def run(self, waveform):
        span = self.grid.span
        padded = torch.nn.functional.pad(waveform, (0, max(0, span - waveform.shape[1])))
        means = padded.unfold(1, span, 320).mean(2)  # [W, T]
        rows = means[:, :, None] + torch.arange(self.grid.freq_patches) * 2.0  # the mean over rows adds rows - 1
        tokens = rows.flatten(1)[:, :, None]
        return torch.stack([tokens.expand(-1, -1, 2), tokens.expand(-1, -1, 2) + 1]), None


@pytest.fixture
def steps(tmp_path: Path) -> str:
    """`Steps` as a user would name it."""
    (tmp_path / "steps.py").write_text("from test_integrations import Steps")
    return f"{tmp_path / 'steps.py'}:Steps"


def noise(batch: int, seconds: float, rate: int = 16_000) -> torch.Tensor:
    return 0.1 * torch.randn(batch, round(seconds * rate), generator=torch.Generator().manual_seed(0))


def test_each_is_short_and_loads_alone():
    for kit in KITS:
        assert len((FOLDER / f"{kit}.py").read_text().splitlines()) < 150
        importlib.import_module(f"audiobat.zoo.integrations.{kit}")
    tree = ast.parse((FOLDER / "__init__.py").read_text())
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize(("rows", "span"), [(1, 400), (3, 400), (1, 160), (2, 640)])
def test_stretches_give_the_frames_of_one_go(rows: int, span: int, monkeypatch):
    frames = FrameEmbedder(Steps(rows, span))
    waveform = noise(2, 7.31)
    whole = frames(waveform)
    assert whole.shape == (2, (waveform.shape[1] - span) // 320 + 1, 2)
    wanted = waveform.unfold(1, span, 320).mean(2) + rows - 1 + 1  # the last layer
    torch.testing.assert_close(whole, wanted[:, :, None].expand(-1, -1, 2))
    monkeypatch.setattr(frames_module, "STRETCH_SECONDS", 0.5)
    for seconds in (7.31, 1.0, 1.019, 1.0201, 1.04, 0.01):
        monkeypatch.setattr(frames_module, "STRETCH_SECONDS", 100.0)
        wanted = frames(noise(2, seconds))
        monkeypatch.setattr(frames_module, "STRETCH_SECONDS", 0.5)
        torch.testing.assert_close(frames(noise(2, seconds)), wanted)


def test_a_layer_is_chosen_and_checked():
    first, last = FrameEmbedder(Steps(), layer=1), FrameEmbedder(Steps())
    clip = noise(1, 1.0)
    torch.testing.assert_close(first(clip) + 1, last(clip))
    with pytest.raises(AudiobatError, match="layer is 3: use 1 to 2"):
        FrameEmbedder(Steps(), layer=3)


def validate_hear(name: str) -> None:
    """HEAR's validator: attributes; clips of its lengths; shapes, types, even timestamps inside the clip."""
    model = hear.load_model(name)
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16_000, 22_050, 32_000, 44_100, 48_000)
    for attribute in ("scene_embedding_size", "timestamp_embedding_size"):
        assert type(getattr(model, attribute)) is int
    audio = noise(4, 2.74, model.sample_rate).clamp(-1, 1)
    scenes = hear.get_scene_embeddings(audio, model)
    assert (scenes.shape, scenes.dtype) == ((4, model.scene_embedding_size), torch.float32)
    for seconds in (1.07, 1.98, 4.0):
        embeddings, timestamps = hear.get_timestamp_embeddings(noise(2, seconds, model.sample_rate), model)
        assert embeddings.dtype == timestamps.dtype == torch.float32
        assert embeddings.shape == (2, timestamps.shape[1], model.timestamp_embedding_size)
        assert timestamps.shape[0] == 2
        gaps = timestamps.diff()
        assert gaps.min() > 0
        assert gaps.max() - gaps.min() < 1
        assert timestamps[:, 0].max() < gaps[0, 0]
        assert timestamps.max() <= 1000 * seconds
        assert 1000 * seconds - timestamps.max() <= 1.5 * gaps[0, 0]  # and they reach its end


def test_hear(steps: str):
    validate_hear("")
    validate_hear(steps)


def test_hear_puts_a_sound_at_its_time(steps: str):
    model = hear.load_model(steps)
    audio = torch.zeros(1, 32_000)
    audio[:, 16_000:16_320] = 1.0  # from 1000 to 1020 ms
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    assert timestamps[0, embeddings[0, :, 0].argmax()] == pytest.approx(1010, abs=10)
    scenes = hear.get_scene_embeddings(audio, model)
    torch.testing.assert_close(scenes, embeddings.mean(1))


def test_hear_refuses_what_it_has_no_audio_for(tmp_path: Path):
    (tmp_path / "e.py").write_text("from test_integrations import Steps\nclass Odd(Steps): sample_rate = 8_000\n")
    with pytest.raises(AudiobatError, match="no audio at 8000 Hz"):
        hear.load_model(f"{tmp_path / 'e.py'}:Odd")
    with pytest.raises(AudiobatError, match=r"\[16000\]: give \[clips, samples\]"):
        hear.get_scene_embeddings(torch.zeros(16_000), hear.load_model())


@pytest.mark.parametrize("kind", ["bat_nano", "steps"])
def test_xares(kind: str, steps: str):
    """X-ARES finds the one name that ends in Encoder, makes it without arguments and runs 2 x 50,000 samples."""
    names = [name for name in dir(xares) if name.endswith("Encoder")]
    assert names == ["AudiobatEncoder"]
    encoder = xares.AudiobatEncoder() if kind == "bat_nano" else xares.AudiobatEncoder(steps)
    assert isinstance(encoder, torch.nn.Module)
    found = encoder(torch.randn(2, 50_000))
    assert found.ndim == 3
    assert (found.shape[0], found.shape[2]) == (2, encoder.output_dim)
    seconds = 50_000 / encoder.sampling_rate
    assert abs(found.shape[1] * encoder.hop_size_in_ms / 1000 - seconds) <= 1.5 * encoder.hop_size_in_ms / 1000
    assert encoder(torch.randn(50_000)).shape == (1, *found.shape[1:])


def test_xares_survives_ten_minutes_in_stretches(steps: str):
    encoder = xares.AudiobatEncoder(steps)
    lengths = []
    forward_intermediates = encoder.frames.encoder.forward_intermediates
    encoder.frames.encoder.forward_intermediates = lambda w: lengths.append(w.shape[1]) or forward_intermediates(w)
    audio = noise(1, 600.0)
    found = encoder(audio)
    assert found.shape[1] == (audio.shape[1] - 400) // 320 + 1
    torch.testing.assert_close(found[0, :, 0], audio[0].unfold(0, 400, 320).mean(1) + 1)
    assert max(lengths) <= 20.5 * 16_000


@pytest.mark.parametrize("kind", [None, "steps"])
def test_s3prl(kind: str | None, steps: str):
    """All layers of one shape; frames fit the rate within s3prl's tolerance; a clip's frames are its own."""
    expert = s3prl.UpstreamExpert(steps if kind else None, model_config=None, refresh=False)
    wavs = [noise(1, seconds)[0] for seconds in (1.0, 2.5)]
    states = expert(wavs)["hidden_states"]
    assert isinstance(states, list)
    assert len(states) == expert.encoder.depth
    assert {state.shape for state in states} == {states[0].shape}
    rate = expert.get_downsample_rates("hidden_states")
    assert type(rate) is int
    assert abs(states[0].shape[1] - round(max(map(len, wavs)) / rate)) < 5
    alone = expert(wavs[:1])["hidden_states"]
    for layer, state in zip(alone, states, strict=True):
        count = layer.shape[1]
        torch.testing.assert_close(state[0, :count], layer[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(state[0, count:], state[0, count - 1 : count].expand(state.shape[1] - count, -1))


def test_s3prl_frames_are_the_layers(steps: str):
    wavs = [noise(1, 1.0)[0], noise(1, 0.5)[0]]
    encoder = load("bat_nano")
    features = encoder.forward_intermediates(*pad_batch(wavs))
    states = s3prl.UpstreamExpert()(wavs)["hidden_states"]
    columns, rows = features.grid
    by_hand = torch.stack([features.patch_tokens[2, 0, t * rows : (t + 1) * rows].mean(0) for t in range(columns)])
    torch.testing.assert_close(states[2][0], by_hand)
    assert states[0].requires_grad


def test_s3prl_refuses_other_rates_and_a_config(tmp_path: Path, steps: str):
    (tmp_path / "e.py").write_text("from test_integrations import Steps\nclass Odd(Steps): sample_rate = 32_000")
    with pytest.raises(AudiobatError, match="16000 Hz"):
        s3prl.UpstreamExpert(f"{tmp_path / 'e.py'}:Odd")
    with pytest.raises(AudiobatError, match=r"model_config is 'x.yaml'"):
        s3prl.UpstreamExpert(steps, "x.yaml")


def test_mteb(steps: str):
    """Batches as MTEB's loader makes them: dicts of array and rate, of any length, rate and channels."""
    wide = noise(1, 1.0, 44_100)[0].numpy()
    clips = [
        {"array": noise(1, 1.0)[0].numpy(), "sampling_rate": 16_000},
        {"array": wide, "sampling_rate": 44_100},
        {"array": np.stack([wide, -wide]), "sampling_rate": 44_100},  # its mean is silence
    ]
    loader = DataLoader([{"audio": clip} for clip in clips], batch_size=2, collate_fn=lists)
    encoder = mteb.AudiobatEncoder(steps, device="cpu")
    found = encoder.encode(loader, task_metadata=None, hf_split="test", hf_subset="default", show_progress_bar=False)
    assert (found.shape, found.dtype) == ((3, 2), np.float32)
    frames = FrameEmbedder(Steps())
    for row, array in zip(
        found, (clips[0]["array"], resample(wide, 44_100, 16_000), np.zeros(16_000, "f")), strict=True
    ):
        np.testing.assert_allclose(row, frames(torch.from_numpy(array)[None]).mean(1)[0], atol=1e-6)
    again = encoder.get_audio_embeddings(loader, show_progress_bar=False, batch_size=2)
    np.testing.assert_array_equal(found, again)


def lists(rows: list[dict]) -> dict[str, list]:
    return {"audio": [row["audio"] for row in rows]}


class Counted(Steps):
    """Remembers the shapes of what it was given; a clip that begins with 1 has NaN features."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def run(self, waveform):
        self.shapes.append(tuple(waveform.shape))
        tokens, cls = super().run(waveform)
        return tokens.masked_fill((waveform[:, 0] == 1)[None, :, None, None], torch.nan), cls


def items(*arrays: np.ndarray) -> DataLoader:
    rows = [{"audio": {"array": array, "sampling_rate": 16_000}} for array in arrays]
    return DataLoader(rows, batch_size=8, collate_fn=lists)


def test_mteb_runs_clips_of_one_length_together():
    encoder = mteb.AudiobatEncoder(Counted(), device="cpu")
    clips = [noise(1, seconds)[0].numpy() * (k + 1) for k, seconds in enumerate((0.5, 1.0, 0.5, 1.0, 0.5))]
    encoder.frames.encoder.shapes.clear()
    found = encoder.encode(items(*clips), show_progress_bar=False)
    assert encoder.frames.encoder.shapes == [(3, 8_000), (2, 16_000)]
    alone = [encoder.encode(items(clip), show_progress_bar=False)[0] for clip in clips]
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_mteb_holds_no_more_than_so_much_audio_at_once(monkeypatch):
    monkeypatch.setattr(mteb, "AT_ONCE", 1.0)
    encoder = mteb.AudiobatEncoder(Counted(), device="cpu")
    encoder.frames.encoder.shapes.clear()
    encoder.encode(items(*[np.zeros(8_000, "f")] * 5, *[np.zeros(24_000, "f")] * 2), show_progress_bar=False)
    assert [shape[0] for shape in encoder.frames.encoder.shapes] == [2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("clip", "sentence"),
    [
        (np.zeros(0, "f"), "Clip 2 of the task: The array has no samples"),
        (np.full(8_000, np.nan, "f"), "Clip 2 of the task: The array holds NaN"),
        (np.ones(8_000, "f"), "Clip 2 of the task: the model gives NaN"),
    ],
)
def test_mteb_names_a_clip_that_it_cannot_embed(clip: np.ndarray, sentence: str):
    fine = np.zeros(8_000, "f")
    with pytest.raises(AudiobatError, match=sentence):
        mteb.AudiobatEncoder(Counted(), device="cpu").encode(items(fine, fine, clip), show_progress_bar=False)


@pytest.mark.parametrize("kit", ["hear", "xares"])
def test_nan_of_a_model_goes_into_no_score(kit: str):
    model = hear.HearModel(FrameEmbedder(Counted())) if kit == "hear" else xares.AudiobatEncoder(Counted())
    run = partial(hear.get_scene_embeddings, model=model) if kit == "hear" else model
    clips = torch.zeros(3, 8_000)
    assert run(clips).isfinite().all()
    clips[1, 0] = 1
    with pytest.raises(AudiobatError, match="Clip 1 of the batch: the model gives NaN"):
        run(clips)


def test_mteb_refuses_text_and_other_precisions():
    encoder = mteb.AudiobatEncoder(Counted(), device="cpu")
    texts = DataLoader([{"text": "a dog"}], batch_size=1)
    with pytest.raises(AudiobatError, match="gives text and no audio"):
        encoder.encode(texts, show_progress_bar=False)
    with pytest.raises(AudiobatError, match="precision is 'int8'"):
        encoder.encode(items(np.zeros(8_000, "f")), precision="int8")


def test_mteb_of_another_version_is_a_sentence(monkeypatch):
    """One that describes models by other fields: pydantic's errors are ValueErrors."""

    def refuse(**_):
        raise ValueError("modalities")

    module = ModuleType("mteb.models.model_meta")
    module.ModelMeta = refuse
    for name in ("mteb", "mteb.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", module)
    monkeypatch.setattr(mteb, "version", lambda name: "1.39.0")
    with pytest.raises(AudiobatError, match=r"mteb 1.39.0 takes no such description.*pip install mteb==2"):
        _ = mteb.AudiobatEncoder(Counted(), device="cpu").mteb_model_meta


def test_mteb_compares_by_cosine():
    encoder = mteb.AudiobatEncoder(device="cpu")
    one, two = np.random.default_rng(0).normal(size=(2, 4, 8)).astype("f")
    norm = np.linalg.norm
    wanted = one @ two.T / norm(one, axis=1)[:, None] / norm(two, axis=1)
    np.testing.assert_allclose(encoder.similarity(one, two), wanted, atol=1e-6)
    np.testing.assert_allclose(encoder.similarity_pairwise(one, two), np.diag(wanted), atol=1e-6)
