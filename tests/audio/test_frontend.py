"""The frontends against torchaudio's numbers, and the rule that a batch never changes a clip."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiobat.audio.frontends import base
from audiobat.audio.frontends.base import build_frontend
from audiobat.audio.frontends.kaldi_fbank import KaldiFrontend
from audiobat.audio.frontends.mel_db import MelFrontend, reflect_ends
from audiobat.audio.read import LOUDEST, pad_batch, to_waveform
from audiobat.config import FrontendConfig, StatisticsConfig
from audiobat.errors import AudiobatError
from audiobat.zoo.convert.beats_encoder import BeatsFrontend

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "frontend.npz")
SIGNALS = ("noise", "chirp", "hum")
MEL = {
    "default": FrontendConfig(),
    "fft512": FrontendConfig(n_fft=512, win_length=512),
    "band": FrontendConfig(win_length=800, f_min=50.0, f_max=7000.0),
    "rate32k": FrontendConfig(sample_rate=32_000),
}
KALDI = FrontendConfig(kind="kaldi_fbank")
KALDI_MINMAX = FrontendConfig(kind="kaldi_fbank", norm="minmax")
MEL_GLOBAL = FrontendConfig(norm="global", mean=-40.0, std=20.0)
ALL = pytest.mark.parametrize("config", [MEL["default"], MEL_GLOBAL, KALDI, KALDI_MINMAX])
AWKWARD_LENGTHS = (1, 2, 3, 100, 159, 160, 399, 400, 401, 511, 512, 513, 1023, 1024, 1025, 2400, 3999)

pytestmark = pytest.mark.filterwarnings("ignore:Mel bins")  # fft512 is meant to have an empty one


def signal(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[f"signal/{name}"] / 2**15).float()[None]


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.05 + 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def batch(clips: list[Tensor], samples: int, rest: float) -> tuple[Tensor, Tensor]:
    """Stack clips to [B, samples], with `rest` after each one's end."""
    waveform = torch.full((len(clips), samples), rest)
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = clip
    return waveform, torch.tensor([len(clip) for clip in clips])


# -- torchaudio's numbers --


@pytest.mark.parametrize("setting", [*MEL, "kaldi"])
def test_filters_equal_torchaudio(setting: str) -> None:
    ours = build_frontend(KALDI if setting == "kaldi" else MEL[setting]).filters
    np.testing.assert_allclose(ours.numpy(), GOLDEN[f"filters/{setting}"], atol=1e-5)


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("setting", MEL)
def test_mel_db_and_its_minmax_equal_torchaudio(setting: str, name: str) -> None:
    frontend, waveform, golden = MelFrontend(MEL[setting]), signal(name), GOLDEN[f"{setting}/{name}"]
    db = frontend.raw_spectrogram(waveform, torch.tensor([waveform.shape[1]]))[0]
    np.testing.assert_allclose(db.numpy(), golden, atol=2e-4)  # dB
    spectrogram, frames = frontend(waveform)
    minmax = (golden - golden.min()) / (golden.max() - golden.min() + 1e-8)
    np.testing.assert_allclose(spectrogram[0].numpy(), minmax, atol=1e-5)
    assert frames.tolist() == [len(golden)]


@pytest.mark.parametrize("name", SIGNALS)
def test_kaldi_equals_torchaudio(name: str) -> None:
    spectrogram, frames = KaldiFrontend(KALDI)(signal(name))
    golden = GOLDEN[f"kaldi/{name}"]
    np.testing.assert_allclose(spectrogram[0].numpy() * 2 * 4.569 - 4.268, golden, atol=1e-4)
    assert frames.tolist() == [len(golden)]


def test_the_chirp_reaches_the_floor_so_that_top_db_is_tested() -> None:
    golden = GOLDEN["default/chirp"]
    assert (golden == golden.max() - 80).mean() > 0.05


def test_top_db_sets_the_range() -> None:
    db = MelFrontend(FrontendConfig(top_db=30.0)).raw_spectrogram(signal("chirp"), torch.tensor([4000]))
    assert float(db.max() - db.min()) == pytest.approx(30.0, abs=1e-4)


# -- a batch never changes a clip --


@ALL
def test_alone_equals_beside_longer_clips(config: FrontendConfig) -> None:
    frontend = build_frontend(config)
    clips = [noise(n, seed=n) for n in AWKWARD_LENGTHS] + [5 * noise(6000)]
    spectrogram, frames = frontend(*batch(clips, 6000, rest=float("nan")))
    assert spectrogram.isfinite().all()
    for row, count, clip in zip(spectrogram, frames.tolist(), clips, strict=True):
        alone, own = frontend(clip[None])
        assert own.tolist() == [count] == [alone.shape[1]]
        torch.testing.assert_close(row[:count], alone[0], atol=1e-5, rtol=0)


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=4), rest=st.floats(-1, 1, width=32))
def test_values_depend_on_the_clip_alone(lengths: list[int], rest: float) -> None:
    for config in (MEL["default"], KALDI):
        frontend = build_frontend(config)
        clips = [noise(n, seed=n) for n in lengths]
        spectrogram, frames = frontend(*batch(clips, 3100, rest))
        for row, count, clip in zip(spectrogram, frames.tolist(), clips, strict=True):
            torch.testing.assert_close(row[:count], frontend(clip[None])[0][0], atol=1e-5, rtol=0)


@ALL
def test_order_in_the_batch_does_not_matter(config: FrontendConfig) -> None:
    frontend, order = build_frontend(config), [2, 0, 1]
    waveform, lengths = batch([noise(900), noise(2000, 1), noise(30, 2)], 2000, rest=0.0)
    spectrogram, frames = frontend(waveform, lengths)
    shuffled, shuffled_frames = frontend(waveform[order], lengths[order])
    torch.testing.assert_close(shuffled, spectrogram[order], atol=1e-6, rtol=0)
    assert torch.equal(shuffled_frames, frames[order])


@ALL
def test_few_clips_at_once_give_what_all_at_once_give(config: FrontendConfig, monkeypatch) -> None:
    frontend = build_frontend(config)
    clips = [noise(n, seed=n) for n in (6000, 30, 2000, 4100, 900)]
    waveform, lengths = batch(clips, 6000, rest=0.5)
    whole, frames = frontend(waveform, lengths)
    sizes = []
    raw = frontend.raw_spectrogram
    monkeypatch.setattr(frontend, "raw_spectrogram", lambda *given: sizes.append(len(given[0])) or raw(*given))
    padded = max(6000, frontend.config.pad_samples)
    for at_once, wanted in ((1, [1] * 5), (2 * padded, [2, 2, 1]), (9 * padded, [5])):
        monkeypatch.setattr(base, "CPU_SAMPLES", at_once)
        sizes.clear()
        parts, own = frontend(waveform, lengths)
        assert sizes == wanted
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
        assert torch.equal(own, frames)


@ALL
def test_no_lengths_means_full_lengths(config: FrontendConfig) -> None:
    frontend, waveform = build_frontend(config), torch.stack([noise(1700), noise(1700, 1)])
    assert torch.equal(frontend(waveform)[0], frontend(waveform, torch.tensor([1700, 1700]))[0])


def test_a_loud_neighbour_does_not_raise_the_floor_of_a_quiet_clip() -> None:
    frontend, lengths = MelFrontend(MEL["default"]), torch.tensor([4000, 4000])
    quiet = frontend.raw_spectrogram(torch.cat([1e-3 * signal("chirp"), signal("noise")]), lengths)[0]
    loud = frontend.raw_spectrogram(signal("chirp"), lengths[:1])[0]
    torch.testing.assert_close(quiet.amax(), loud.amax() - 60, atol=1e-3, rtol=0)
    assert float(quiet.amax() - quiet.amin()) > 30  # a floor 80 dB below the neighbour would leave a few dB


def test_frames_beyond_a_clip_do_not_raise_its_floor() -> None:
    frontend = MelFrontend(FrontendConfig(n_fft=256, win_length=256, mel_bins=32, top_db=20.0))
    click = 1e-3 * noise(420)
    click[250] = 1.0  # its reflection lies nearer to a frame beyond the end than the click to any own frame
    spectrogram, frames = frontend(*batch([click], 4000, rest=0.0))
    torch.testing.assert_close(spectrogram[:, : int(frames[0])], frontend(click[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [*range(2, 40), 511, 512, 513, 2000])
def test_reflection_is_numpys_at_each_clips_own_end(samples: int) -> None:
    clip, pad = torch.arange(samples) + 1.0, 512
    waveform, lengths = batch([clip], 2000, rest=float("nan"))
    padded = reflect_ends(waveform, lengths, pad)[0, : samples + 2 * pad]
    assert np.array_equal(padded.numpy(), np.pad(clip.numpy(), pad, mode="reflect"))


# -- frames, fill and normalisation --


def test_frame_counts() -> None:
    samples = torch.tensor([1, 159, 160, 400, 559, 560, 16_000, 80_000, 160_000])
    assert MelFrontend(MEL["default"]).frame_counts(samples).tolist() == [1, 1, 2, 3, 4, 4, 101, 501, 1001]
    assert KaldiFrontend(KALDI).frame_counts(samples).tolist() == [1, 1, 1, 1, 1, 2, 98, 498, 998]


@ALL
def test_shapes_and_types(config: FrontendConfig) -> None:
    spectrogram, frames = build_frontend(config)(torch.stack([noise(1700)] * 2))
    assert spectrogram.shape == (2, int(frames[0]), 128)
    assert (spectrogram.dtype, frames.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(
    ("config", "fill"),
    [(MEL["default"], 0.0), (KALDI_MINMAX, 0.0), (KALDI, 4.268 / 9.138), (MEL_GLOBAL, 1.0)],
)
def test_frames_beyond_a_clip_hold_the_fill(config: FrontendConfig, fill: float) -> None:
    spectrogram, frames = build_frontend(config)(*batch([noise(800), noise(4000)], 4000, rest=0.7))
    beyond = spectrogram[0, int(frames[0]) :]
    assert len(beyond) > 10
    torch.testing.assert_close(beyond, torch.full_like(beyond, fill), atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [MEL["default"], KALDI_MINMAX])
def test_minmax_spans_0_to_1_in_every_clip(config: FrontendConfig) -> None:
    spectrogram, _ = build_frontend(config)(*batch([noise(900), 1e-2 * noise(3000)], 3000, rest=0.0))
    torch.testing.assert_close(spectrogram.amax((1, 2)), torch.ones(2))
    assert spectrogram.amin() == 0.0


def test_the_two_norms_differ_by_a_linear_map() -> None:
    waveform, lengths = signal("chirp"), torch.tensor([4000])
    log_mel = MelFrontend(MEL_GLOBAL).raw_spectrogram(waveform, lengths)
    torch.testing.assert_close(MelFrontend(MEL_GLOBAL)(waveform)[0], (log_mel + 40) / 40)


@pytest.mark.parametrize("config", [MEL["default"], KALDI_MINMAX])
@pytest.mark.parametrize("samples", [1, 100, 3000])
def test_silence_is_all_zeros(config: FrontendConfig, samples: int) -> None:
    spectrogram, _ = build_frontend(config)(*batch([torch.zeros(samples), noise(3000)], 3000, rest=0.3))
    assert torch.equal(spectrogram[0], torch.zeros_like(spectrogram[0]))
    assert spectrogram[1].isfinite().all()


@pytest.mark.parametrize("shape", ["constant", "alternating", "noise", "click"])
@pytest.mark.parametrize(
    ("kind", "n_fft"), [("mel_db", 1024), ("mel_db", 65_536), ("kaldi_fbank", 65_536), ("beats", 512)]
)
def test_the_loudest_clip_that_is_read_overflows_nowhere(kind: str, n_fft: int, shape: str) -> None:
    samples = {
        "constant": torch.ones(70_000),
        "alternating": 1 - 2.0 * (torch.arange(70_000) % 2),
        "noise": noise(70_000).sign(),
        "click": torch.eye(1, 70_000)[0].roll(35_000),
    }[shape]
    waveforms = [to_waveform(samples * LOUDEST, rate, 16_000) for rate in (16_000, 44_100)]  # resampled: overshoots
    config = FrontendConfig(
        kind="mel_db" if kind == "mel_db" else "kaldi_fbank", n_fft=n_fft, win_length=n_fft, hop_length=4000
    )
    frontend = BeatsFrontend(config) if kind == "beats" else build_frontend(config)
    spectrogram, _ = frontend(*pad_batch(waveforms))
    assert spectrogram.isfinite().all()


def test_kaldi_does_not_see_an_offset() -> None:
    frontend = KaldiFrontend(KALDI)
    waveform, lengths = batch([noise(300), noise(2000)], 2000, rest=0.0)
    torch.testing.assert_close(frontend(waveform + 0.5, lengths)[0], frontend(waveform, lengths)[0], atol=2e-3, rtol=0)


@pytest.mark.parametrize("samples", [1, 900, 3999, 4000, 4001, 6000])
@pytest.mark.parametrize("kind", ["mel_db", "kaldi_fbank"])
def test_pad_seconds_is_a_waveform_with_zeros_behind_it(kind: str, samples: int) -> None:
    padding = build_frontend(FrontendConfig(kind=kind, pad_seconds=0.25))  # 4000 samples
    plain = build_frontend(FrontendConfig(kind=kind))
    clip = noise(samples)
    by_hand = torch.cat([clip, torch.zeros(max(0, 4000 - samples))])[None]
    expected, counts = plain(by_hand)
    for waveform, lengths in (batch([clip, noise(6000, 1)], 6000, rest=float("nan")), (clip[None], None)):
        spectrogram, frames = padding(waveform, lengths)
        assert frames[0] == counts[0] == expected.shape[1]
        torch.testing.assert_close(spectrogram[0, : frames[0]], expected[0], atol=1e-5, rtol=0)


def test_a_padded_clips_minimum_lies_top_db_below_its_maximum() -> None:
    config = FrontendConfig(pad_seconds=10.23)  # as BAT's release pads AudioSet
    spectrogram, frames = build_frontend(config)(noise(16_000)[None])
    assert frames.tolist() == [1024] == [spectrogram.shape[1]]
    db = MelFrontend(FrontendConfig()).raw_spectrogram(noise(16_000)[None], torch.tensor([16_000]))
    assert db.max() - db.min() < 60  # white noise has no such range of its own
    inner = slice(0, 96)  # frames that see none of the zeros
    torch.testing.assert_close(spectrogram[:, inner], (db[:, inner] - db.max() + 80) / 80, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9])
def test_a_length_that_is_none_is_named(seconds: float) -> None:
    for config in (FrontendConfig, StatisticsConfig) if seconds else (FrontendConfig,):
        with pytest.raises(AudiobatError, match=r"frontend\.pad_seconds"):
            config(pad_seconds=seconds)


def test_a_data_sets_padding_takes_the_place_of_a_models_own_if_each_clip_has_its_own_range() -> None:
    settings = StatisticsConfig(statistics="audioset_released", pad_seconds=5.0)
    assert settings.apply(FrontendConfig(pad_seconds=3.0)).pad_seconds == 5.0
    assert StatisticsConfig().apply(FrontendConfig(pad_seconds=3.0)).pad_seconds == 3.0
    assert StatisticsConfig(pad_seconds=0.0).apply(FrontendConfig(pad_seconds=3.0)) == FrontendConfig()
    assert settings.apply(KALDI).pad_seconds is None
    assert settings.apply(KALDI).moments == (-4.5986, 4.3574)


# -- precision, device, errors --


@ALL
def test_autocast_and_casts_of_the_model_change_nothing(config: FrontendConfig) -> None:
    frontend, waveform = build_frontend(config), noise(2000)[None]
    expected, _ = frontend(waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frontend(waveform)[0], expected)
    assert torch.equal(frontend(waveform.double())[0], expected)
    model = torch.nn.Sequential(frontend).to(torch.bfloat16)
    assert torch.equal(model[0](waveform)[0], expected)


@ALL
def test_every_constant_follows_the_module_to_its_device(config: FrontendConfig) -> None:
    frontend, lengths = build_frontend(config).to("meta"), torch.tensor([4000, 80], device="meta")
    log_mel = frontend.raw_spectrogram(torch.zeros(2, 4000, device="meta"), lengths)  # raises where devices meet
    valid = torch.ones(log_mel.shape[:2], dtype=torch.bool, device="meta")
    assert frontend.normalise(log_mel, valid).device.type == frontend.frame_counts(lengths).device.type == "meta"


@ALL
def test_state_dict_holds_no_frontend(config: FrontendConfig) -> None:
    assert build_frontend(config).state_dict() == {}


@pytest.mark.parametrize("shape", [(100,), (1, 2, 100), (2, 0)])
def test_a_waveform_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudiobatError, match=r"give \[clips, samples\]"):
        MelFrontend(MEL["default"])(torch.zeros(shape))


@pytest.mark.parametrize(
    ("silent", "fft"),
    [
        (FrontendConfig(n_fft=400, win_length=400), 400),
        (FrontendConfig(kind="kaldi_fbank", sample_rate=32_000), 512),
        (FrontendConfig(kind="kaldi_fbank", mel_bins=160), 512),
    ],
)
def test_empty_mel_filters_are_named_once_and_only_then(silent: FrontendConfig, fft: int) -> None:
    with pytest.warns(UserWarning, match=rf"Mel bins \[.+\] of {silent.mel_bins}.*n_fft \(now {fft}\)") as caught:
        frontend = build_frontend(silent)
    assert len(caught) == 1
    for number in (frontend.filters.amax(0) == 0).nonzero().flatten().tolist():
        assert f" {number}," in str(caught[0].message).replace("[", " ").replace("]", ",")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MelFrontend(FrontendConfig())
        KaldiFrontend(KALDI)  # EAT's own bank, whose bin 3 is silent: its weights know no other
