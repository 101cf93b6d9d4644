"""Reading audio: values, partial reads, rates and channels; every kind of bad input as one sentence that names it."""

import contextlib
import errno
import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiobat.audio.read import (
    AUDIO_EXTENSIONS,
    LOUDEST,
    audio_duration,
    load_audio,
    open_audio,
    pad_batch,
    to_waveform,
)
from audiobat.errors import AudiobatError


def sine(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def fails(words: str, path: object, **kwargs: float) -> None:
    """Check that loading `path` fails with one sentence that holds `words` and the path's name."""
    with pytest.raises(AudiobatError) as caught:
        load_audio(path, 16_000, **kwargs)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert words in sentence
    assert str(path) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


# -- load_audio --


@pytest.mark.parametrize("extension", ["wav", "flac", "aiff", "au", "w64", "caf"])
def test_lossless_formats_give_their_samples(tmp_path: Path, extension: str) -> None:
    samples = np.round(sine(0.1, 16_000) * 2**15) / 2**15
    loaded = load_audio(write(tmp_path / f"a.{extension}", samples), 16_000)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, samples.astype(np.float32))


@pytest.mark.parametrize("extension", ["ogg", "mp3"])
def test_lossy_formats_give_about_their_samples(tmp_path: Path, extension: str) -> None:
    loaded = load_audio(write(tmp_path / f"a.{extension}", sine(0.5, 16_000)), 16_000)
    assert len(loaded) == pytest.approx(8000, rel=0.1)
    assert np.corrcoef(np.abs(np.fft.rfft(loaded[:8000], 8000)), np.abs(np.fft.rfft(sine(0.5, 16_000))))[0, 1] > 0.98


def test_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.stack([sine(0.1, 16_000, 100.0 * (c + 1)) for c in range(8)], axis=1)
    path = write(tmp_path / "eight.wav", channels, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path, 16_000), channels.mean(1), atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_sine(tmp_path: Path, rate: int) -> None:
    loaded = load_audio(write(tmp_path / "a.wav", sine(0.5, rate), rate, "FLOAT"), 16_000)
    assert len(loaded) == 8000
    np.testing.assert_allclose(loaded[800:-800], sine(0.5, 16_000)[800:-800], atol=1e-3)


def test_resampling_removes_what_lies_above_nyquist(tmp_path: Path) -> None:
    loaded = load_audio(write(tmp_path / "a.wav", sine(0.5, 44_100, 12_000.0), 44_100, "FLOAT"), 16_000)
    assert np.abs(loaded[800:-800]).max() < 1e-3


def test_part_of_a_file_is_the_slice_of_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 16_000))
    whole = load_audio(path, 16_000)
    np.testing.assert_array_equal(load_audio(path, 16_000, start=0.25, seconds=0.1), whole[4000:5600])
    np.testing.assert_array_equal(load_audio(path, 16_000, start=0.9), whole[14_400:])
    np.testing.assert_array_equal(load_audio(path, 16_000, start=0.9, seconds=5.0), whole[14_400:])


def test_only_the_part_is_read(tmp_path: Path) -> None:
    class Counting(io.FileIO):
        total = 0

        def readinto(self, buffer: object) -> int:
            count = super().readinto(buffer)  # type: ignore[arg-type]
            self.total += count or 0
            return count or 0

    path = write(tmp_path / "long.wav", np.zeros(1_600_000), subtype="PCM_16")
    with Counting(path) as file:
        assert len(load_audio(file, 16_000, start=50.0, seconds=1.0)) == 16_000
        assert file.total < 100_000 < path.stat().st_size


def test_path_string_bytes_and_open_file_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sine(0.1, 8000), 8000)
    expected = load_audio(path, 16_000)
    np.testing.assert_array_equal(load_audio(str(path), 16_000), expected)
    np.testing.assert_array_equal(load_audio(path.read_bytes(), 16_000), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_audio(file, 16_000), expected)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_one_sample_works(tmp_path: Path, rate: int) -> None:
    loaded = load_audio(write(tmp_path / "one.wav", np.array([0.25]), rate), 16_000)
    assert len(loaded) in (1, 2)
    assert np.isfinite(loaded).all()


# -- bad files --


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    fails("There is no file", tmp_path / "absent.wav")
    fails("is a folder", tmp_path)


def test_text_named_wav_is_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "notes.wav"
    path.write_text("not audio at all")
    fails("cannot be read as audio (Format not recognised)", path)


def test_noise_named_mp3_is_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp3"
    path.write_bytes(bytes(range(1, 200)) * 20)
    fails("cannot be read as audio (Format not recognised)", path)


def test_headerless_raw_is_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "samples.raw"
    path.write_bytes(b"\0" * 1000)
    fails("cannot be read as audio", path)


def test_empty_file_and_file_without_samples(tmp_path: Path) -> None:
    (tmp_path / "zero.wav").touch()
    fails("is empty (0 bytes)", tmp_path / "zero.wav")
    fails("has no samples", write(tmp_path / "header.wav", np.zeros(0)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_found(tmp_path: Path, value: float) -> None:
    samples = np.zeros((100, 2), np.float32)
    samples[70, 1] = value
    fails("NaN or infinite", write(tmp_path / "bad.wav", samples, subtype="FLOAT"))
    samples[70, 0] = -value  # +inf and -inf
    fails("NaN or infinite", write(tmp_path / "bad.wav", samples, subtype="FLOAT"))


@pytest.mark.parametrize("peak", [1.01 * LOUDEST, -1e18, 1e38])
def test_samples_beyond_the_limit_are_refused_and_raw_integers_are_not(tmp_path: Path, peak: float) -> None:
    samples = np.zeros((100, 2), np.float32)
    samples[70, :] = peak
    fails(f"holds samples of {abs(peak):.3g}, beyond 1e+10", write(tmp_path / "loud.wav", samples, subtype="FLOAT"))
    samples[70, :] = -(2.0**31)
    np.testing.assert_array_equal(
        load_audio(write(tmp_path / "raw.wav", samples, subtype="FLOAT"), 16_000), samples[:, 0]
    )


def test_cut_wav_gives_what_it_holds_and_cut_flac_fails(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    wav, flac = write(tmp_path / "a.wav", noise), write(tmp_path / "a.flac", noise)
    whole = load_audio(wav, 16_000)
    for path in (wav, flac):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut = load_audio(wav, 16_000)
    assert 7_900 < len(cut) <= 8_000
    np.testing.assert_array_equal(cut, whole[: len(cut)])
    fails("is damaged", flac)


def test_parts_outside_the_file_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sine(0.5, 16_000))
    fails("lasts 0.5 s: it has no audio from 0.5 s on", path, start=0.5)
    fails("start -1.0 s", path, start=-1.0)
    fails("seconds 0.0", path, seconds=0.0)
    fails("has no audio from 1e+300 s on", path, start=1e300)
    for value in (np.nan, np.inf):
        fails(f"start {value} s", path, start=value)
        fails(f"seconds {value}", path, seconds=value)


class OnlyRead:
    def read(self, size: int = -1) -> bytes:
        return b""


@pytest.mark.parametrize("source", [b"", b"hello", [0.1, 0.2], 7, OnlyRead()])
def test_sources_that_are_no_audio(source: object) -> None:
    with pytest.raises(AudiobatError, match=f"{type(source).__name__}.* cannot be read as audio"):
        load_audio(source, 16_000)  # type: ignore[arg-type]


def test_rates_must_be_positive() -> None:
    with pytest.raises(AudiobatError, match="from 0 to 16000 Hz"):
        to_waveform(np.zeros(10), 0, 16_000)


# -- headers that lie --

HUGE = (2**62).to_bytes(8, "big")
LIES = {  # where a header tells sizes, and 4 GB or more
    "WAV": {4: b"\xf0\xff\xff\xff", 40: b"\xc8\xff\xff\xff"},
    "RF64": {20: 3 * HUGE[::-1]},
    "AIFF": {4: b"\x7f\xff\xff\xff", 22: b"\x7f\xff\xff\xff", 42: b"\x7f\xff\xff\xff"},
    "W64": {96: HUGE[::-1]},
    "CAF": {4084: HUGE},
    "AU": {8: b"\x7f\xff\xff\x00"},
    "FLAC": {21: b"\xff\xff\xff\xff\xff"},
}


def encoded(kind: str, samples: np.ndarray, rate: int = 16_000, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("kind", sorted(LIES))
def test_memory_follows_the_samples_and_not_the_header(kind: str) -> None:
    samples = np.round(sine(500 / 16_000, 16_000) * 2**15) / 2**15
    data = encoded(kind, samples)
    for at, field in LIES[kind].items():
        data = data[:at] + field + data[at + len(field) :]
    assert len(data) < 8000
    tracemalloc.start()
    if kind == "FLAC":  # is whole or damaged
        with pytest.raises(AudiobatError, match="samples are missing"):
            load_audio(data, 16_000)
    else:
        np.testing.assert_array_equal(load_audio(data, 16_000), samples.astype(np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_many_channels_are_read_in_bounded_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1000, 1024)).astype(np.float32)
    data = encoded("WAV", noise, subtype="FLOAT")
    monkeypatch.setattr("audiobat.audio.sound_file.BLOCK", 100 * 1024)
    tracemalloc.start()
    loaded = load_audio(data, 16_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(loaded, noise.mean(1), atol=1e-6)
    assert peak < noise.nbytes / 4


@pytest.mark.parametrize("rate", [1, 99, 6_144_001])
def test_rates_out_of_bounds_are_refused_before_anything_is_decoded(
    tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "odd.wav", np.zeros(1000), 16_000)
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    monkeypatch.delattr(soundfile.SoundFile, "read")
    fails(f"claims a sample rate of {rate} Hz: 100 to 6144000 Hz can be read", path)
    with pytest.raises(AudiobatError, match=f"claims a sample rate of {rate} Hz"):
        audio_duration(path)


def test_a_header_cannot_make_a_decoder_print_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encoded("CAF", np.zeros(800), subtype="ALAC_16"))
    at = data.index(b"pakt")
    for field in (b"\xff" * 8, b"\x80" + bytes(7), HUGE):  # sizes that make libsndfile seek to before the file
        data[at + 4 : at + 12] = field
        with contextlib.suppress(AudiobatError):
            load_audio(bytes(data), 16_000)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "GSM610"), ("AIFF", "GSM610"), ("WAV", "G721_32")])
def test_parts_of_formats_that_cannot_seek(kind: str, subtype: str) -> None:
    data = encoded(kind, sine(1.0, 8000), 8000, subtype)
    whole = load_audio(data, 8000)
    np.testing.assert_array_equal(load_audio(data, 8000, 0.5, 0.1), whole[4000:4800])
    with pytest.raises(AudiobatError, match="no audio from 2 s on"):
        load_audio(data, 8000, 2.0)


def test_blocks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (5000, 3))
    for extension in ("flac", "wav", "ogg", "mp3"):
        samples = noise[:, :2] if extension == "mp3" else noise
        path = write(tmp_path / f"a.{extension}", samples)
        whole = load_audio(path, 16_000)
        monkeypatch.setattr("audiobat.audio.sound_file.BLOCK", 1001)
        np.testing.assert_array_equal(load_audio(path, 16_000), whole)
        np.testing.assert_array_equal(load_audio(path, 16_000, 0.1, 0.15), whole[1600:4000])
        monkeypatch.undo()


# -- to_waveform --


def test_to_waveform_of_a_file_is_load_audio(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sine(0.1, 44_100), 44_100)
    for source in (path, str(path), path.read_bytes()):
        waveform = to_waveform(source, None, 16_000)
        np.testing.assert_array_equal(waveform.numpy(), load_audio(path, 16_000))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", "int16", "int32", ">i2"])
def test_arrays_of_every_type_give_the_same_waveform(dtype: str) -> None:
    values = np.array([0.0, 0.25, -0.5, 0.125])
    kind = np.dtype(dtype)
    array = (values * 2 ** (8 * kind.itemsize - 1) if kind.kind == "i" else values).astype(kind)
    assert torch.equal(to_waveform(array, 16_000, 16_000), torch.tensor(values, dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_give_the_same_waveform(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 0.25, -0.5, 0.125])
    waveform = to_waveform(values.to(dtype).requires_grad_(), 16_000, 16_000)
    assert torch.equal(waveform, values)
    assert not waveform.requires_grad


def test_int16_full_scale_is_minus_one() -> None:
    assert to_waveform(torch.tensor([-32768, 16384], dtype=torch.int16), 8000, 8000).tolist() == [-1.0, 0.5]


def test_channels_come_first_and_views_work() -> None:
    stereo = np.stack([sine(0.1, 16_000), -0.5 * sine(0.1, 16_000)])
    expected = torch.from_numpy(0.25 * sine(0.1, 16_000))
    torch.testing.assert_close(to_waveform(stereo, 16_000, 16_000), expected)
    torch.testing.assert_close(to_waveform(torch.from_numpy(stereo), 16_000, 16_000), expected)
    torch.testing.assert_close(to_waveform(stereo[:, ::-1], 16_000, 16_000), expected.flip(0))


def test_a_waveform_owns_its_samples() -> None:
    array = np.ones(10, np.float32)
    waveform = to_waveform(array, 16_000, 16_000)
    array[:] = 0
    assert waveform.sum() == 10


def test_arrays_are_resampled() -> None:
    waveform = to_waveform(sine(0.5, 44_100), 44_100, 16_000)
    np.testing.assert_allclose(waveform[800:-800].numpy(), sine(0.5, 16_000)[800:-800], atol=1e-3)


def test_an_array_needs_its_rate() -> None:
    with pytest.raises(AudiobatError, match="sample_rate is required with an array"):
        to_waveform(np.zeros(10), None, 16_000)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(0), "no samples"),
        (np.zeros((2, 0)), "no samples"),
        (np.zeros((0, 10)), r"shape \[0, 10\]"),
        (np.array(1.0), r"shape \[\]"),
        (np.zeros((1, 2, 10)), r"shape \[1, 2, 10\]"),
        (np.zeros((16_000, 2)), r"shape \[16000, 2\]: give \[samples\] or \[channels, samples\]"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([0.0, 1e300]), "infinite"),
        (np.array([0.0, -1e18]), r"holds samples of 1e\+18, beyond 1e\+10"),
        (np.zeros(10, np.int64), "type torch.int64"),
        (np.zeros(10, np.uint8), "type uint8"),
        (np.zeros(10, bool), "type bool"),
        (np.zeros(10, complex), "type complex128"),
        (np.array(["a"]), "type <U1"),
        (torch.zeros(10, dtype=torch.uint8), "type torch.uint8"),
        (torch.zeros(10, dtype=torch.complex64), "type torch.complex64"),
    ],
)
def test_bad_arrays_are_named(array: np.ndarray, words: str) -> None:
    with pytest.raises(AudiobatError, match=words):
        to_waveform(array, 16_000, 16_000)


# -- durations, batches --


def test_duration_comes_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flac", sine(1.5, 22_050), 22_050)
    monkeypatch.delattr(soundfile.SoundFile, "read")
    assert audio_duration(path) == (1.5, 22_050)
    with pytest.raises(AudiobatError, match=r"There is no file .*absent\.wav"):
        audio_duration(tmp_path / "absent.wav")


def test_pad_batch_pads_at_the_end() -> None:
    waveform, lengths = pad_batch([torch.ones(2), 2 * torch.ones(4), 3 * torch.ones(1)])
    assert waveform.tolist() == [[1, 1, 0, 0], [2, 2, 2, 2], [3, 0, 0, 0]]
    assert lengths.tolist() == [2, 4, 1]
    assert lengths.dtype == torch.int64
    with pytest.raises(AudiobatError, match="at least one"):
        pad_batch([])


def test_extensions_are_lower_case_suffixes() -> None:
    assert {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au"} <= AUDIO_EXTENSIONS
    assert all(extension.startswith(".") and extension == extension.lower() for extension in AUDIO_EXTENSIONS)


def test_a_flac_from_a_stream_is_decoded_to_know_its_length(tmp_path: Path) -> None:
    path = tmp_path / "stream.flac"
    samples = np.round(sine(3.0, 8000) * 2**15) / 2**15
    soundfile.write(path, samples, 8000)
    header = bytearray(path.read_bytes())
    header[21] &= 0xF0  # STREAMINFO's number of samples, 36 bits: 0 is unknown
    header[22:26] = bytes(4)
    path.write_bytes(header)
    assert audio_duration(path) == (3.0, 8000)
    np.testing.assert_array_equal(load_audio(path, 8000), samples.astype(np.float32))
    np.testing.assert_array_equal(load_audio(path, 8000, 1.0, 0.5), samples[8000:12_000].astype(np.float32))
    fails("has no audio from 3 s on", path, start=3.0)


def test_a_file_that_vanishes_while_it_is_open_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "stream.flac"
    soundfile.write(path, sine(1.0, 8000), 8000)
    header = bytearray(path.read_bytes())
    header[21] &= 0xF0  # no length: to go back, it is opened again
    header[22:26] = bytes(4)
    path.write_bytes(header)
    with open_audio(path) as file:
        assert len(file.read(4000, 100)) == 100
        path.unlink()
        with pytest.raises(AudiobatError, match=r"stream\.flac is damaged \(System error\)"):
            file.read(0, 100)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("place", ["os.stat", "io.FileIO"])  # before libsndfile opens it; FFmpeg, which gets an m4a
def test_an_error_of_the_disk_is_one_sentence(tmp_path: Path, monkeypatch, number: int, place: str) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(b"0" * 100)

    def broken(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(place, broken)
    fails(f"cannot be read ({os.strerror(number)})", path)


def test_a_name_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    soundfile.write(tmp_path / "cafe.wav", np.zeros(800), 8000)
    (tmp_path / "cafe.wav").rename(path)
    with pytest.raises(AudiobatError, match="rename"):
        load_audio(path, 8000)
