"""Reading through FFmpeg: values, parts, lengths and damage; every file is encoded here by FFmpeg itself."""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from audiobat.audio.codec import CODEC_EXTENSIONS, ODD_ERRORS, CalmFile, CodecFile, cut_blocks
from audiobat.audio.read import AUDIO_EXTENSIONS, audio_duration, load_audio, open_audio, to_waveform
from audiobat.errors import AudiobatError

RATE = 48_000
# name, container, codec, sample format, samples that the codec puts before the sound and leaves there
FORMATS = [
    ("a.m4a", "ipod", "aac", "fltp", 0),
    ("alac.m4a", "ipod", "alac", "s16p", 0),
    ("a.mov", "mov", "pcm_s16le", "s16", 0),
    ("a.webm", "webm", "libopus", "s16", 0),
    ("a.mka", "matroska", "ac3", "fltp", 0),
    ("flac.mka", "matroska", "flac", "s16", 0),
    ("a.aac", "adts", "aac", "fltp", 1024),
    ("a.ac3", "ac3", "ac3", "fltp", 256),
    ("a.wma", "asf", "wmav2", "fltp", -2048),  # FFmpeg drops the first frame
    ("a.tta", "tta", "tta", "s16", 0),
    ("a.oga", "ogg", "flac", "s16", 0),  # which libsndfile reads, without its pages
]
LOSSLESS = {"alac", "pcm_s16le", "flac", "tta"}


def sweep(seconds: float, rate: int = RATE) -> np.ndarray:
    """A tone that rises from 300 Hz, so that every part differs from every other."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (300 * t + 100 * t * t))).astype(np.float32)


def encode(
    path: Path,
    container: str,
    codec: str | None,
    sample_format: str = "fltp",
    samples: np.ndarray | None = None,
    video: bool = False,
    **options: str,
) -> Path:
    """Write samples [S] or [C, S] at 48 kHz, with 2 s of pictures or none."""
    samples = np.atleast_2d(sweep(3.0) if samples is None else samples)
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(str(path), "w", format=container, options=options) as output:
        if video:
            pictures = output.add_stream("mpeg4", rate=25)
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
        if codec:
            sound = output.add_stream(codec, rate=RATE, layout=layout)
            sound.bit_rate = 128_000
            sound.codec_context.format = sample_format
            sound.codec_context.open()
        if video:
            for number in range(50):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), "rgb24")
                picture.pts = number
                output.mux(pictures.encode(picture))
            output.mux(pictures.encode(None))
        if codec:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
            frame.sample_rate, frame.pts = RATE, 0
            size = sound.codec_context.frame_size or 1024
            resampler = av.AudioResampler(sample_format, layout, RATE, frame_size=size)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                output.mux(sound.encode(piece))
            output.mux(sound.encode(None))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("codec")
    return {name: encode(folder / name, box, codec, kind) for name, box, codec, kind, _ in FORMATS}


@pytest.mark.parametrize(("name", "codec", "delay"), [(name, codec, delay) for name, _, codec, _, delay in FORMATS])
def test_the_sound_comes_back(files: dict[str, Path], name: str, codec: str, delay: int) -> None:
    expected, loaded = sweep(3.0), load_audio(files[name], RATE)
    assert loaded.dtype == np.float32
    assert len(expected) - 2048 <= len(loaded) <= len(expected) + 4096
    error = np.abs(loaded[5000 + delay : 130_000 + delay] - expected[5000:130_000])
    assert error.max() < (1e-4 if codec in LOSSLESS else 0.05)


@pytest.mark.parametrize("name", [name for name, *_ in FORMATS])
def test_a_part_is_the_slice_of_the_whole(files: dict[str, Path], name: str) -> None:
    whole = load_audio(files[name], RATE)
    for start, seconds in ((0.0, 0.1), (0.3, 0.5), (1.0, 0.001), (1.2345, None), (2.9, 5.0)):
        first = round(start * RATE)
        expected = whole[first:] if seconds is None else whole[first : first + round(seconds * RATE)]
        part = load_audio(files[name], RATE, start, seconds)
        assert len(part) == len(expected)
        np.testing.assert_allclose(part, expected, atol=1e-3)


@pytest.mark.parametrize("name", [name for name, *_ in FORMATS])
def test_the_duration_is_that_of_the_whole(files: dict[str, Path], name: str) -> None:
    assert audio_duration(files[name]) == (len(load_audio(files[name], RATE)) / RATE, RATE)
    with pytest.raises(AudiobatError, match=r"lasts [23]\.?\d* s: it has no audio from 60 s on"):
        load_audio(files[name], RATE, 60.0)
    with pytest.raises(AudiobatError, match=r"has no audio from 1e\+300 s on"):
        load_audio(files[name], RATE, 1e300)


@pytest.mark.parametrize("name", [name for name, *_ in FORMATS])
def test_bytes_open_files_and_other_names_agree(files: dict[str, Path], name: str, tmp_path: Path) -> None:
    path = files[name]
    expected = load_audio(path, 16_000)
    np.testing.assert_array_equal(load_audio(path.read_bytes(), 16_000), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_audio(file, 16_000), expected)
    renamed = tmp_path / os.fsdecode(b"caf\xe9.bin")
    renamed.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(to_waveform(path, None, 16_000).numpy(), expected)
    if name != "a.m4a":  # libsndfile, asked first, wants a name in UTF-8
        return
    m4a = renamed.rename(tmp_path / os.fsdecode(b"caf\xe9.m4a"))
    np.testing.assert_array_equal(load_audio(m4a, 16_000), expected)


def test_only_the_part_is_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.m4a", "ipod", "aac", samples=sweep(60.0))

    class Counting(io.FileIO):
        total = 0

        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            self.total += len(data)
            return data

    with Counting(path) as file:
        load_audio(file, RATE, start=50.0, seconds=1.0)
        assert file.total < path.stat().st_size / 3


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([sweep(1.0), -0.5 * sweep(1.0)])
    for name, codec, kind in (("a.mov", "pcm_s16le", "s16"), ("a.m4a", "alac", "s16p"), ("b.mov", "pcm_u8", "u8")):
        path = encode(tmp_path / name, "mov", codec, kind, stereo)
        np.testing.assert_allclose(load_audio(path, RATE), stereo.mean(0), atol=1e-2 if kind == "u8" else 1e-4)


def test_a_film_gives_its_sound_and_a_silent_one_says_so(tmp_path: Path) -> None:
    film = encode(tmp_path / "film.mp4", "mp4", "aac", samples=sweep(2.0), video=True)
    np.testing.assert_allclose(load_audio(film, RATE)[5000:90_000], sweep(2.0)[5000:90_000], atol=0.05)
    np.testing.assert_allclose(load_audio(film, RATE, 1.5, 0.1), sweep(2.0)[72_000:76_800], atol=0.05)
    silent = encode(tmp_path / "silent.mp4", "mp4", None, video=True)
    for source in (silent, silent.read_bytes()):
        with pytest.raises(AudiobatError, match="has no audio in it"):
            load_audio(source, RATE)
    with pytest.raises(AudiobatError, match=r"silent\.mp4 has no audio in it"):
        audio_duration(silent)


def test_cut_files_fail_or_give_what_they_hold(files: dict[str, Path], tmp_path: Path) -> None:
    begun = encode(tmp_path / "begun.m4a", "ipod", "aac", movflags="faststart")  # its index stands first
    for path, words in ((files["a.m4a"], "cannot be read as audio"), (begun, "is damaged")):
        cut = tmp_path / "cut.m4a"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        for read in (lambda path: load_audio(path, RATE), audio_duration):
            with pytest.raises(AudiobatError, match=rf"cut\.m4a {words} \(.*\): .*\.$"):
                read(cut)
    cut = tmp_path / "cut.webm"
    cut.write_bytes(files["a.webm"].read_bytes()[: files["a.webm"].stat().st_size // 2])
    held = load_audio(cut, RATE)
    assert 0.3 * 3 * RATE < len(held) < 0.7 * 3 * RATE
    np.testing.assert_allclose(held, load_audio(files["a.webm"], RATE)[: len(held)], atol=1e-6)
    assert audio_duration(cut)[0] == len(held) / RATE


@pytest.mark.parametrize(
    ("name", "container", "codec", "kind", "options"),
    [
        ("live.webm", "webm", "libopus", "s16", {"live": "1"}),
        ("live.mka", "matroska", "flac", "s16", {"live": "1"}),
        ("fragments.mp4", "mp4", "aac", "fltp", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
    ],
)
def test_streams_whose_headers_have_no_length_are_heard_to_their_ends(
    tmp_path: Path, name: str, container: str, codec: str, kind: str, options: dict[str, str]
) -> None:
    path = encode(tmp_path / name, container, codec, kind, sweep(6.0), **options)
    with av.open(str(path)) as file:
        assert file.streams.audio[0].duration != 6.0 / file.streams.audio[0].time_base
    whole = load_audio(path, RATE)
    assert 6.0 * RATE <= len(whole) <= 6.0 * RATE + 2048
    assert audio_duration(path) == (len(whole) / RATE, RATE)
    for start in (0.3, 2.5, 4.0, 5.9):
        first = round(start * RATE)
        np.testing.assert_allclose(load_audio(path, RATE, start, 0.5), whole[first : first + RATE // 2], atol=1e-3)


@pytest.mark.parametrize("kind", ODD_ERRORS)
def test_whatever_the_binding_raises_is_one_sentence(files: dict[str, Path], kind: type[Exception]) -> None:
    def fail(stream: object) -> Iterator[object]:
        raise kind("odd")
        yield

    with open_audio(files["a.webm"]) as file:
        assert isinstance(file, CodecFile)
        file._container = SimpleNamespace(decode=fail)
        with pytest.raises(AudiobatError, match=r"a\.webm is damaged \(odd\): copy or encode it again"):
            list(file._decode())


def test_a_playlist_opens_no_other_file(files: dict[str, Path], tmp_path: Path) -> None:
    other = files["a.aac"]
    texts = {
        "a.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\nfile://{other}\n#EXT-X-ENDLIST\n",
        "b.mp4": f"ffconcat version 1.0\nfile '{other}'\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(AudiobatError, match=rf"{name} cannot be read as audio"):
            load_audio(tmp_path / name, RATE)


def test_without_the_extra_the_error_names_it(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for read in (lambda path: load_audio(path, RATE), audio_duration):
        with pytest.raises(AudiobatError, match=r"a\.m4a needs FFmpeg to be read: pip install audiobat\[codec\]\.$"):
            read(files["a.m4a"])
    with pytest.raises(AudiobatError, match=r"bytes cannot be read.*pip install audiobat\[codec\] for what FFmpeg"):
        load_audio(files["a.m4a"].read_bytes(), RATE)


def test_folders_list_what_ffmpeg_reads() -> None:
    assert {".m4a", ".mp4", ".aac", ".webm", ".wma", ".mka", ".ac3", ".amr"} <= CODEC_EXTENSIONS < AUDIO_EXTENSIONS
    assert not CODEC_EXTENSIONS & {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"}


def test_cut_blocks_by_hand() -> None:
    blocks = [(4, np.arange(4, 8)), (8, np.arange(8, 12)), (12, np.arange(12, 13))]
    for first, count, expected in (
        (4, None, range(4, 13)),
        (6, 4, range(6, 10)),
        (12, 9, [12]),
        (13, 1, []),
        (9, 1, [9]),
    ):
        assert [x for piece in cut_blocks(blocks, first, count) for x in piece] == list(expected)
    assert cut_blocks(blocks, 3, 5) == []  # they begin after what was asked for


def test_a_calm_file_moves_as_a_file_and_never_raises() -> None:
    file = CalmFile(io.BytesIO(b"abcdef"))
    assert (file.seek(-2, os.SEEK_END), file.read()) == (4, b"ef")  # type: ignore[attr-defined]
    assert file.seek(-1) == -1
    assert file.tell() == 6  # type: ignore[attr-defined]
