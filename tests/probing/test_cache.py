"""Frozen features: what is kept is what the encoder says of each clip alone, and the encoder stays as it was."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiobat.audio.read import load_audio
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.read import read_clips
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder, LayerFeatures
from audiobat.probing import cache
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.encoding import frozen

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
SHAPE = EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96)
SECONDS = (0.3, 0.5, 0.16, 1.5, 0.3, 0.7)  # the fourth runs in two windows of the encoder


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(ModelConfig(FRONTEND, SHAPE)).train()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return clips(tmp_path_factory.mktemp("clips"), SECONDS)


def clips(folder: Path, seconds: tuple[float, ...]) -> ClipTable:
    rng = np.random.default_rng(0)
    for i, duration in enumerate(seconds):
        soundfile.write(folder / f"{i:03d}.wav", rng.normal(scale=0.1, size=int(duration * RATE)), RATE)
    return read_clips(folder)


def alone(encoder: AudioEncoder, table: ClipTable, row: int) -> LayerFeatures:
    """What the encoder says of one clip that no other is beside."""
    with frozen(encoder):
        return encoder.forward_intermediates(torch.from_numpy(load_audio(table.path(row), RATE))[None])


def assert_same_clip(got: LayerFeatures, place: int, expected: LayerFeatures) -> None:
    own, theirs = got.valid[place], expected.valid[0]
    assert own.sum() == theirs.sum()
    tokens, wanted = got.patch_tokens[:, place, own], expected.patch_tokens[:, 0, theirs]
    torch.testing.assert_close(tokens, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.cls_token[:, place], expected.cls_token[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cache_gb", [8.0, 0.0])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_clip_has_the_features_it_has_alone(encoder, table, cache_gb: float, batch_size: int):
    source = cache_features(encoder, table, batch_size=batch_size, cache_gb=cache_gb)
    assert source.cached == (cache_gb > 0)
    assert source.indices.tolist() == list(range(len(SECONDS)))
    assert source.encoder is encoder
    rows = [4, 3, 0, 4]
    features = source.batch(rows)
    for place, row in enumerate(rows):
        assert_same_clip(features, place, alone(encoder, table, row))
    columns, high = features.grid
    assert features.patch_tokens.shape == (2, 4, columns * high, 8)
    assert columns == 9  # whole patches of 1.5 s, 151 frames: no column that no clip reaches
    torch.testing.assert_close(features.frame_times, torch.arange(9) * 0.16)
    assert features.patch_tokens.dtype == torch.float32
    assert not features.patch_tokens.requires_grad
    assert not features.valid[2, 4:].any()  # 0.3 s: 31 frames, two columns of two patches


def test_kept_and_recomputed_features_agree(encoder, table):
    kept, again = cache_features(encoder, table), cache_features(encoder, table, cache_gb=0)
    rows = [3, 1, 5]
    one, two = kept.batch(rows), again.batch(rows)
    assert torch.equal(one.valid, two.valid)
    assert one.grid == two.grid
    valid = one.valid
    torch.testing.assert_close(one.patch_tokens[:, valid], two.patch_tokens[:, valid], rtol=0, atol=1e-5)
    torch.testing.assert_close(one.cls_token, two.cls_token, rtol=0, atol=1e-5)


def test_a_batch_is_a_copy(encoder, table):
    source = cache_features(encoder, table)
    source.batch([0]).patch_tokens.zero_()
    assert_same_clip(source.batch([0]), 0, alone(encoder, table, 0))


def test_the_budget_counts_each_clip_as_long_as_it_is(encoder, table, capsys):
    columns = (2, 4, 2, 9, 2, 5)  # of 16 frames, two patches each
    whole = sum(2 * (2 * count + 1) * 8 * 4 for count in columns)  # blocks, patches and cls, width, bytes
    assert cache_features(encoder, table, cache_gb=(whole + 0.5) / 1e9).cached
    assert "kept in memory" in capsys.readouterr().err
    one_by_one = cache_features(encoder, table, batch_size=1, cache_gb=(whole - 0.5) / 1e9)
    assert not one_by_one.cached
    assert "computed for every batch" in capsys.readouterr().err
    assert one_by_one.indices.tolist() == list(range(6))
    assert_same_clip(one_by_one.batch([3]), 0, alone(encoder, table, 3))


def test_the_encoder_is_left_as_it_was(encoder, table):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()
    encoder.blocks[0].eval()
    modes = [module.training for module in encoder.modules()]
    source = cache_features(encoder, table, cache_gb=0)
    source.batch([0])
    assert [module.training for module in encoder.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in encoder.parameters())
    with pytest.raises(RuntimeError), frozen(encoder):
        raise RuntimeError
    assert [module.training for module in encoder.modules()] == modes
    assert torch.is_grad_enabled()


def test_dropout_of_a_model_in_train_mode_is_off(table):
    config = ModelConfig(FRONTEND, EncoderConfig(**{**vars(SHAPE), "drop_path": 0.9}))
    noisy = AudioEncoder(config).train()
    source = cache_features(noisy, table)
    for row in range(len(table)):
        assert_same_clip(source.batch([row]), 0, alone(noisy, table, row))


@pytest.mark.parametrize("cache_gb", [8.0, 0.0])
def test_pooled_features_are_means_of_valid_patches(encoder, table, cache_gb: float):
    source = cache_features(encoder, table, cache_gb=cache_gb)
    pooled = source.pooled.batch([2, 3])
    assert pooled.patch_tokens.shape == (2, 2, 1, 8)
    assert source.pooled.cached == (cache_gb > 0)
    for place, row in enumerate([2, 3]):
        expected = alone(encoder, table, row)
        means = expected.patch_tokens[:, 0, expected.valid[0]].mean(1)
        torch.testing.assert_close(pooled.patch_tokens[:, place, 0], means, rtol=0, atol=1e-5)
        torch.testing.assert_close(pooled.cls_token[:, place], expected.cls_token[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cache_gb", [8.0, 0.0])
@pytest.mark.parametrize("broken", [0, 13, 39])
def test_unreadable_clips_are_named_and_left_out(encoder, tmp_path: Path, broken: int, cache_gb: float):
    table = clips(tmp_path, (0.2,) * 40)
    Path(table.path(broken)).write_bytes(b"no audio")
    source = cache_features(encoder, table, batch_size=7, cache_gb=cache_gb)
    readable = [row for row in range(40) if row != broken]
    assert source.indices.tolist() == readable
    assert list(source.skipped) == [table.keys[broken]]
    for row in readable[::13]:
        assert_same_clip(source.batch([row]), 0, alone(encoder, table, row))
    assert source.pooled.batch(readable).patch_tokens.shape[1] == 39
    with pytest.raises(AudiobatError, match=f"Clip {broken} of the table has no features"):
        source.batch([readable[0], broken])


def test_a_table_with_too_many_unreadable_clips_stops_and_tells_which(encoder, tmp_path: Path):
    table = clips(tmp_path, (0.2,) * 20)
    for path in (Path(table.path(i)) for i in range(4, 9)):
        path.write_bytes(b"")
    skipped: dict[str, str] = {}
    with pytest.raises(AudiobatError, match="more than 5%"):
        cache_features(encoder, table, skipped=skipped)
    assert list(skipped) == table.keys.tolist()[4:9]


class Levels:
    """An encoder that is no torch module and has no cls token."""

    sample_rate, dim, depth = RATE, 3, 1

    def forward_intermediates(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> LayerFeatures:
        level = waveform.abs().amax(1)[None, :, None, None].expand(1, -1, 1, 3)
        return LayerFeatures(level, None, (1, 1), torch.ones(len(waveform), 1, dtype=torch.bool), torch.zeros(1))


def test_any_encoder_will_do(table):
    assert isinstance(Levels(), Encoder)
    source: FeatureSource = cache_features(Levels(), table, progress=False)
    features = source.batch([5])
    assert features.cls_token is None
    expected = np.abs(load_audio(table.path(5), RATE)).max()
    assert features.patch_tokens.flatten().tolist() == pytest.approx([expected] * 3)
    assert source.pooled.batch([5]).cls_token is None


class Calls(AudioEncoder):
    """Counts the clips that it encodes."""

    clips = 0

    def forward_intermediates(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> LayerFeatures:
        self.clips += len(waveform)
        return super().forward_intermediates(waveform, lengths)


@pytest.fixture
def calls() -> Calls:
    torch.manual_seed(0)
    return Calls(ModelConfig(FRONTEND, SHAPE))


def spilled(calls: Calls, table: ClipTable, folder: Path, gb: float) -> FeatureSource:
    return cache_features(calls, table, batch_size=2, cache_gb=gb, spill_dir=folder, progress=False)


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_what_memory_cannot_hold_goes_to_the_disk_and_is_encoded_once(calls, table, tmp_path, batches: int):
    """The memory lasts for no batch, one or two, which are not encoded again."""
    whole = cache_features(calls, table, batch_size=2, progress=False)
    sizes = [chunk.values.nbytes for chunk in whole._store._chunks]
    calls.clips = 0
    source = spilled(calls, table, tmp_path / "spill", (sum(sizes[:batches]) + 1) / 1e9)
    assert calls.clips == len(table)
    assert source.cached
    assert all(isinstance(chunk.values, np.memmap) for chunk in source._store._chunks)
    rows = [4, 3, 0, 4]
    assert torch.equal(source.batch(rows).patch_tokens, whole.batch(rows).patch_tokens)
    spilled(calls, table, tmp_path / "spill", 8.0)
    assert calls.clips == len(table) + 2  # what is there is used, once its first batch has been compared


def test_features_that_fit_in_memory_stay_there(calls, table, tmp_path):
    assert spilled(calls, table, tmp_path / "spill", 8.0).cached
    assert not (tmp_path / "spill").exists()


def test_a_disk_is_not_filled_unasked(calls, table, tmp_path, monkeypatch):
    """Neither beyond half of its room nor beyond the limit; a folder that was asked for is used all the same."""
    tight = shutil._ntuple_diskusage(10**6, 0, 2 * 2_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: tight)
    assert not spilled(calls, table, tmp_path / "spill", 1e-9).cached
    monkeypatch.undo()
    monkeypatch.setattr(cache, "SPILL_GB", 2e-6)
    assert not spilled(calls, table, tmp_path / "spill", 1e-9).cached
    assert not (tmp_path / "spill").exists()
    assert cache_features(calls, table, cache_dir=tmp_path / "asked", progress=False).cached
