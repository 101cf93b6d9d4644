"""Every frame is heard, whatever a header says of the length: odd files are made by their bytes from whole ones, and
the truth is what soundfile alone gives for those. And the property: of every format, a part is the slice of the whole,
whatever was read before on the same handle.
"""

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiobat.audio import read as read_module
from audiobat.audio.contents.flac import CRC8, CRC16, crc
from audiobat.audio.contents.look import look_into
from audiobat.audio.contents.mpeg import measure
from audiobat.audio.contents.raw import RawFile, Span, View
from audiobat.audio.read import audio_duration, load_audio, open_audio
from audiobat.errors import AudiobatError

RATE = 16_000
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT\x0e\0\0\0Lavf60.3.100\0\0"
ID3 = b"ID3\x03\0\0\0\0\1\0" + bytes(128)
ID3V1 = b"TAG" + bytes(125)
DELAY = 1105  # samples by which an MP3 without LAME's tag comes late: 576 of the encoder, 529 of the decoder


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "_told", set())


def sound(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """A rising tone in noise whose loudness changes, [S], so that no place sounds like another."""
    rng, t = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.1 * (1 + np.sin(3 * t)) * rng.standard_normal(len(t))
    return np.round(np.clip(tone, -0.9, 0.9) * 2**15) / 2**15


def encode(
    kind: str,
    subtype: str | None = None,
    seconds: float = 3.0,
    seed: int = 0,
    rate: int = RATE,
    channels: int = 1,
    **how: Any,
) -> bytes:
    file = io.BytesIO()
    samples = np.tile(sound(seconds, seed, rate)[:, None], channels)
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=kind, **how) as output:
        for first in range(0, len(samples), RATE):  # libsndfile can crash where it gets a minute of Vorbis at once
            output.write(samples[first : first + RATE])
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """All samples of a whole file, by soundfile alone."""
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].mean(1)


def put(data: bytes, at: int, field: bytes) -> bytes:
    return data[:at] + field + data[at + len(field) :]


WAV = encode("WAV", "PCM_16")
AIFF, AU, CAF, RF64, W64 = (encode(kind, "PCM_16") for kind in ("AIFF", "AU", "CAF", "RF64", "W64"))
FLAC, FLAC2 = encode("FLAC"), encode("FLAC", seconds=2.0, seed=1)
MP3, MP3B = encode("MP3"), encode("MP3", seconds=2.0, seed=1)
STEADY = encode("MP3", bitrate_mode="CONSTANT", compression_level=0.9)  # all frames of one rate, no tag
OGG, OGG2 = encode("OGG", "VORBIS"), encode("OGG", "VORBIS", 2.0, 1)
OPUS, OPUS2 = encode("OGG", "OPUS"), encode("OGG", "OPUS", 2.0, 1)
COUNT = int.from_bytes(FLAC[21:26], "big") >> 36 << 36


def mpeg_frames(data: bytes) -> list[int]:
    """Where the frames of an MP3 of MPEG 2 at 16 kHz begin."""
    kbits = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    places, at = [], 0
    while at + 4 <= len(data):
        places.append(at)
        at += 72 * kbits[data[at + 2] >> 4] * 1000 // RATE + (data[at + 2] >> 1 & 1)
    return places


def untagged(data: bytes) -> bytes:
    """An MP3 without its first frame, which holds the tag."""
    return data[mpeg_frames(data)[1] :]


def free_format(data: bytes) -> bytes:
    """Frames of one rate that no longer say it."""
    for at in mpeg_frames(data):
        data = put(data, at + 2, bytes([data[at + 2] & 0x0F]))
    return data


def tag_frames(data: bytes, share: float) -> bytes:
    """An MP3 whose tag tells another number of frames."""
    at = data.index(b"Xing" if b"Xing" in data else b"Info") + 8
    return put(data, at, struct.pack(">I", round(share * int.from_bytes(data[at : at + 4], "big"))))


SIZES = {  # where a container has the size of its samples: bytes behind a name, or behind the beginning; and its type
    "WAV": (b"data", 4, "<I"),
    "RF64": (b"", 28, "<Q"),
    "AIFF": (b"SSND", 4, ">I"),
    "CAF": (b"data", 4, ">Q"),
    "W64": (b"data", 16, "<Q"),
    "AU": (b"", 8, ">I"),
}


def size_of_samples(data: bytes, kind: str, value: int) -> bytes:
    name, behind, form = SIZES[kind]
    return put(data, data.index(name) + behind, struct.pack(form, value % 256 ** struct.calcsize(form)))


Case = tuple[bytes, np.ndarray, int]  # the file, what is heard in it, and samples before that
CASES: dict[str, Callable[[], Case]] = {}
for _kind, _data in {"WAV": WAV, "RF64": RF64, "AIFF": AIFF, "CAF": CAF, "W64": W64, "AU": AU}.items():
    for _name, _value in (("zero", 0), ("minus one", -1), ("half", 48_000)):
        CASES[f"{_kind}, size {_name}"] = lambda k=_kind, d=_data, v=_value: (size_of_samples(d, k, v), decode(d), 0)
for _name, _value in (("zero", 0), ("minus one", -1), ("a stream's", 0x7FFFF000)):
    CASES[f"WAV, size {_name}, LIST behind"] = lambda v=_value: (size_of_samples(WAV, "WAV", v) + LIST, decode(WAV), 0)
for _subtype in ("FLOAT", "ALAW", "IMA_ADPCM", "MS_ADPCM"):
    _data = encode("WAV", _subtype)
    CASES[f"WAV of {_subtype}, size zero"] = lambda d=_data: (size_of_samples(d, "WAV", 0), decode(d), 0)
CASES |= {
    "WAV, both sizes zero": lambda: (put(size_of_samples(WAV, "WAV", 0), 4, bytes(4)), decode(WAV), 0),
    "WAV, joined": lambda: (WAV + WAV, np.concatenate([decode(WAV)] * 2), 0),
    "FLAC, half its count": lambda: (put(FLAC, 21, (COUNT | 24_000).to_bytes(5, "big")), decode(FLAC), 0),
    "FLAC, one too few": lambda: (put(FLAC, 21, (COUNT | 47_999).to_bytes(5, "big")), decode(FLAC), 0),
    "FLAC, no count": lambda: (put(FLAC, 21, COUNT.to_bytes(5, "big")), decode(FLAC), 0),
    "FLAC, half its count, tags around": lambda: (
        ID3 + put(FLAC, 21, (COUNT | 24_000).to_bytes(5, "big")) + ID3V1,
        decode(FLAC),
        0,
    ),
    "FLAC, no count, a tag behind": lambda: (put(FLAC, 21, COUNT.to_bytes(5, "big")) + ID3V1, decode(FLAC), 0),
    "FLAC, joined with tags": lambda: (ID3 + FLAC + ID3 + FLAC2, np.concatenate([decode(FLAC), decode(FLAC2)]), 0),
    "AIFF, joined": lambda: (AIFF + AIFF, np.concatenate([decode(AIFF)] * 2), 0),
    "Opus, stereo behind mono": lambda: (
        OPUS + (stereo := encode("OGG", "OPUS", channels=2)),
        np.concatenate([decode(OPUS), decode(stereo)]),
        0,
    ),
    "FLAC, joined": lambda: (FLAC + FLAC2, np.concatenate([decode(FLAC), decode(FLAC2)]), 0),
    "FLAC, twice the same": lambda: (FLAC + FLAC, np.concatenate([decode(FLAC)] * 2), 0),
    "FLAC, silence and noise of one length": lambda: (
        (quiet := flac_of(np.zeros(48_000))) + FLAC,
        np.concatenate([decode(quiet), decode(FLAC)]),
        0,
    ),
    "FLAC, noise and silence of one length": lambda: (
        FLAC + (quiet := flac_of(np.zeros(48_000))),
        np.concatenate([decode(FLAC), decode(quiet)]),
        0,
    ),
    "Vorbis, joined": lambda: (OGG + OGG2, np.concatenate([decode(OGG), decode(OGG2)]), 0),
    "Vorbis, twice the same": lambda: (OGG + OGG, np.concatenate([decode(OGG)] * 2), 0),
    "Opus, joined": lambda: (OPUS + OPUS2 + OPUS, np.concatenate([decode(OPUS), decode(OPUS2), decode(OPUS)]), 0),
    "MP3, joined": lambda: (MP3 + MP3B, np.concatenate([decode(MP3), decode(MP3B)]), 0),
    "MP3, joined with tags": lambda: (
        ID3 + MP3 + ID3V1 + ID3 + MP3B + ID3V1,
        np.concatenate([decode(MP3), decode(MP3B)]),
        0,
    ),
    "MP3, no tag": lambda: (untagged(MP3), decode(MP3), DELAY),
    "MP3, no tag, ID3 around": lambda: (ID3 + untagged(MP3) + ID3V1, decode(MP3), DELAY),
    "MP3, no tag, a frame cut": lambda: (untagged(MP3)[:-50], decode(MP3)[:-1200], DELAY),
    "MP3, free format": lambda: (free_format(STEADY), decode(STEADY), 0),
    "MP3, its tag says half": lambda: (tag_frames(MP3, 0.5), decode(MP3), 0),
    "MP3, its tag says a tenth less": lambda: (tag_frames(MP3, 0.9), decode(MP3), 0),
    "MP3, its tag says double": lambda: (tag_frames(MP3, 2.0), decode(MP3), 0),
    "MP3, its last frame cut": lambda: (MP3[:-50], decode(MP3)[:-1200], 0),
    "MP3, cut": lambda: (MP3[: mpeg_frames(MP3)[60]], decode(MP3)[:32_000], 0),
}


def flac_of(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    return file.getvalue()


def whole(source: object) -> np.ndarray:
    with warnings.catch_warnings(action="ignore"):
        return load_audio(source, RATE)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_all_of_it_is_heard(tmp_path: Path, name: str) -> None:
    data, expected, before = CASES[name]()
    (tmp_path / "odd").write_bytes(data)
    heard = whole(data)
    assert 0 <= len(heard) - before - len(expected) <= (2400 if "MP3" in name else 0)
    atol = 1e-5 if "MP3" in name else 0
    np.testing.assert_allclose(heard[before : before + len(expected)], expected, rtol=0, atol=atol)
    np.testing.assert_array_equal(whole(tmp_path / "odd"), heard)
    with (tmp_path / "odd").open("rb") as file:
        np.testing.assert_array_equal(whole(file), heard)
    with warnings.catch_warnings(action="ignore"):
        assert audio_duration(tmp_path / "odd") == (len(heard) / RATE, RATE)


@pytest.mark.parametrize("name", CASES)
def test_any_place_of_an_odd_file_is_the_slice_of_the_whole(name: str) -> None:
    check_places(CASES[name]()[0])


ORDINARY = {
    **{f"WAV {subtype}": ("WAV", subtype, RATE, 1) for subtype in ("PCM_24", "FLOAT", "ALAW", "IMA_ADPCM", "MS_ADPCM")},
    **{kind: (kind, "PCM_16", RATE, 2) for kind in ("WAV", "RF64", "AIFF", "CAF", "AU", "W64", "NIST", "FLAC")},
    "GSM": ("WAV", "GSM610", 8000, 1),
    "ALAC": ("CAF", "ALAC_16", RATE, 2),
    "Vorbis": ("OGG", "VORBIS", 44_100, 2),
    "Vorbis, slow": ("OGG", "VORBIS", 8000, 1),
    "Opus": ("OGG", "OPUS", 48_000, 2),
    "Opus of 16 kHz": ("OGG", "OPUS", RATE, 1),
    "MP3": ("MP3", None, 44_100, 2),
    "MP3 of 24 kHz": ("MP3", None, 24_000, 1),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_any_place_is_the_slice_of_the_whole(name: str) -> None:
    kind, subtype, rate, channels = ORDINARY[name]
    data = encode(kind, subtype, 6.0, 0, rate, channels)
    assert [part.spans for part in look_into(RawFile(io.BytesIO(data)), "")[0]] == [None]  # libsndfile gets it as it is
    check_places(data)


def check_places(data: bytes) -> None:
    """Spans of one handle, forwards, backwards and far, on the last page and over the end, are slices of the whole."""
    rng = np.random.default_rng(0)
    with warnings.catch_warnings(action="ignore"), open_audio(data) as file, open_audio(data) as other:
        complete = file.read(0, None)
        length = len(complete)
        ends = [0, length - 1, 1, length - 700, length // 2, length // 2 + 5000, length - 30]
        for first in [*ends, *rng.integers(0, length, 40).tolist()]:
            count = int(rng.choice([1, 300, 4000, 20_000]))
            for handle in (file, other):
                part = handle.read(first, count)
                assert len(part) == min(count, length - first)
                np.testing.assert_allclose(part, complete[first : first + count], rtol=0, atol=2e-6)
        assert file.samples() == other.samples() == length
        assert not len(file.read(length + 10, 5))


def test_an_odd_file_is_told_once_and_by_name(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(size_of_samples(WAV, "WAV", 0))
    (tmp_path / "c.ogg").write_bytes(OGG + OGG2)
    (tmp_path / "d.wav").write_bytes(WAV + LIST)
    with warnings.catch_warnings(record=True, action="always") as caught:
        for name in ("a.wav", "b.wav", "c.ogg", "c.ogg", "d.wav"):
            load_audio(tmp_path / name, RATE)
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 2
    assert texts[0].startswith(f"{tmp_path}/a.wav: its header does not tell where the samples end; all of it is read.")
    assert texts[1].startswith(f"{tmp_path}/c.ogg: it is 2 recordings, one behind another; all of it is read.")


def test_joined_recordings_of_other_rates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "two.flac").write_bytes(FLAC + encode("FLAC", rate=8000))
    with pytest.raises(AudiobatError, match=r"two\.flac is recordings of 16000 and 8000 Hz behind one another"):
        whole(tmp_path / "two.flac")


def test_a_wav_whose_size_ran_over_32_bits_is_read_to_its_end(tmp_path: Path) -> None:
    """6 GB of 8-bit samples of which the file system keeps only the ends; the header has the size modulo 2 ** 32."""
    path, size = tmp_path / "day.wav", 6 * 10**9
    header = b"RIFF" + struct.pack("<I", (size + 36) % 2**32) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, RATE, RATE, 1, 8) + b"data" + struct.pack("<I", size % 2**32)
    with path.open("wb") as file:
        file.write(header)
        file.seek(44 + size - 1000)
        file.write(bytes([192]) * 1000 + LIST)
    with pytest.warns(UserWarning, match="does not tell where the samples end"):
        assert audio_duration(path) == (size / RATE, RATE)
    end = load_audio(path, RATE, start=(size - 1500) / RATE)
    np.testing.assert_array_equal(end, np.repeat(np.float32([-1.0, 0.5]), (500, 1000)))


@pytest.mark.parametrize("behind", [b"", LIST, LIST[:20], b"\0" * 1000, b"TAG" + b"x" * 125, b"Ab1 " + bytes(4)])
def test_what_stands_behind_the_samples_is_no_sound(behind: bytes) -> None:
    np.testing.assert_array_equal(whole(WAV + behind), decode(WAV))
    assert look_into(RawFile(io.BytesIO(WAV + behind)), "")[1] == ""


def test_a_wav_without_samples_stays_empty() -> None:
    with pytest.raises(AudiobatError, match="has no samples"):
        whole(encode("WAV", seconds=0.0) + LIST)


def test_only_the_ends_and_a_few_places_of_an_ordinary_file_are_looked_at() -> None:
    class Counting(io.BytesIO):
        total = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.total += len(data)
            return data

    times = 200
    long_mp3 = tag_frames(MP3, times)[: mpeg_frames(MP3)[1]] + untagged(MP3) * times
    long_mp3 = put(long_mp3, long_mp3.index(b"Xing") + 12, struct.pack(">I", len(long_mp3)))
    for data, most in (
        (encode("WAV", seconds=60.0), 1000),
        (encode("FLAC", seconds=60.0), 300_000),
        (encode("OGG", "VORBIS", 60.0, rate=48_000, channels=2), 320_000),
        (long_mp3, 1_000_000),
    ):
        file = Counting(data)
        assert look_into(RawFile(file), "")[0][0].spans is None
        assert file.total < most < len(data)


def test_a_view_reads_as_the_bytes_that_it_shows() -> None:
    data = bytes(range(100))
    view = View(RawFile(io.BytesIO(data)), [Span(10, 5), Span(3, data=b"abc"), Span(4), Span(20, 80)])
    shown = data[5:15] + b"abc" + bytes(4) + data[80:]
    assert view.read() == shown
    assert view.seek(0, io.SEEK_END) == view.tell() == len(shown)
    for first in range(len(shown) + 2):
        for count in (0, 1, 7, 99):
            assert view.seek(first) == first
            assert view.read(count) == shown[first : first + count]
    assert view.seek(-1) == -1


def test_checksums_and_frame_sizes_are_those_of_the_standards() -> None:
    assert crc(b"123456789", CRC8, 8) == 0xF4  # CRC-8/SMBUS
    assert crc(b"123456789", CRC16, 16) == 0xFEE8  # CRC-16/UMTS
    assert measure(0xFB, 0x90) == (417, 1152)  # 128 kbit/s at 44.1 kHz
    assert measure(0xFB, 0x92) == (418, 1152)  # padded
    assert measure(0xF3, 0x48) == (144, 576)  # MPEG 2, 32 kbit/s at 16 kHz
    assert measure(0xFD, 0xC4) == (768, 1152)  # Layer II, 256 kbit/s at 48 kHz
    assert measure(0xFF, 0xC4) == (384, 384)  # Layer I, 384 kbit/s at 48 kHz
    for second, third in ((0xFB, 0xF0), (0xFB, 0x9C), (0xF9, 0x90), (0xEB, 0x90), (0x7B, 0x90)):
        assert measure(second, third) == (0, 0)
