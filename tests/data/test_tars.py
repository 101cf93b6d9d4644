"""Tars of recordings, as WebDataset has them: what is listed, what is told, and that clips are those of a folder."""

import io
import json
import os
import random
import shutil
import tarfile
import warnings
from contextlib import suppress
from dataclasses import replace

import fsspec
import numpy as np
import pytest
import soundfile

from audiobat.data.clip import read_clip
from audiobat.data.loader import load_clips
from audiobat.data.prepare.run import prepare
from audiobat.data.sources import tar_clips, tars
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.sources.tar_clips import distinct
from audiobat.data.sources.tar_members import Notes, Window, list_members
from audiobat.data.sources.tars import expand, find_tars, short_names
from audiobat.errors import AudiobatError
from audiobat.inference.window_pass import list_clips

RATE = 8_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def flac(i, samples=1_600):
    held = io.BytesIO()
    soundfile.write(held, np.random.default_rng(i).uniform(-0.5, 0.5, samples), RATE, format="FLAC")
    return held.getvalue()


def entry(name, size=0, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def write_tar(path, members, form=tarfile.PAX_FORMAT):
    """Write a tar of (name, bytes) and of TarInfo without bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                tar.addfile(entry(member[0], len(member[1])), io.BytesIO(member[1]))
    return path


def labelled(i, **fields):
    """A recording and its JSON."""
    return [(f"{i:03d}.flac", flac(i)), (f"{i:03d}.json", json.dumps({"label": "ab"[i % 2]} | fields).encode())]


def told(source):
    """The clips of a source, and what was told of it, in one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = read_clips(source)
    return table, "\n".join(str(warning.message) for warning in caught)


@pytest.fixture
def shards(tmp_path):
    """Eight clips in two tars."""
    for number in range(2):
        members = [member for i in range(4) for member in labelled(4 * number + i, split=["train", "test"][i // 2])]
        write_tar(tmp_path / "shards" / f"{number:03d}.tar", members)
    return tmp_path / "shards"


@pytest.fixture
def folder(tmp_path):
    """The same recordings in a folder."""
    (tmp_path / "folder").mkdir()
    for i in range(8):
        (tmp_path / "folder" / f"{i:03d}.flac").write_bytes(flac(i))
    return tmp_path / "folder"


# Where the tars are


def test_every_way_to_name_tars_gives_the_same_clips(shards, tmp_path):
    (tmp_path / "list.txt").write_text(f"shards/000.tar\n\n{shards}/001.tar\n")
    (tmp_path / "patterns.txt").write_text("shards/{000..001}.tar\n")
    wanted = read_clips(shards)
    assert wanted.keys.tolist() == [f"{i:03d}.flac" for i in range(8)]
    assert wanted.classes == ("a", "b")
    assert wanted.splits.tolist() == ["train", "train", "test", "test"] * 2
    for source in (
        f"{shards}/{{000..001}}.tar",
        f"{shards}/000.tar::{shards}/001.tar",
        f"{{{shards}/000,{shards}/001}}.tar",
        tmp_path / "list.txt",
        tmp_path / "patterns.txt",
    ):
        table = read_clips(source)
        assert table.sha256() == wanted.sha256()
        assert [table.path(i) for i in range(8)] == [wanted.path(i) for i in range(8)]
    assert read_clips(shards / "001.tar").keys.tolist() == wanted.keys.tolist()[4:]


def test_patterns_expand_as_in_a_shell(tmp_path):
    assert expand("a{08..11}.tar") == ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]
    assert expand("{b,a}/{2..0}.tar") == ["b/2.tar", "b/1.tar", "b/0.tar", "a/2.tar", "a/1.tar", "a/0.tar"]
    assert expand("{x{1..2},y}.tar") == ["x1.tar", "y.tar", "x2.tar"]
    (tmp_path / "{0..9}.tar").touch()
    assert expand(f"{tmp_path}/{{0..9}}.tar") == [f"{tmp_path}/{{0..9}}.tar"]
    for wrong, words in (
        ("{0..9.tar", "braces do not match"),
        ("{a}.tar", "no range and no choice"),
        ("{0..99999999}.tar", "more than 1,000,000 tars"),
        ("{0..9999}{0..9999}{0..9999}.tar", "more than 1,000,000 tars"),
    ):
        with pytest.raises(AudiobatError, match=words):
            expand(wrong)


def test_what_is_no_tar_is_refused_by_name(shards, tmp_path):
    for source, words in (
        ("pipe:cat x.tar", "is a command, and none is run"),
        ("x/{000..003}.tar.gz", r"tar\.gz is compressed.* unpack it once"),
        ("x.tgz", "compressed"),
        (f"{shards}/{{000..002}}.tar", r"There is no tar .*002\.tar .*numbers of the pattern"),
    ):
        with pytest.raises(AudiobatError, match=words):
            read_clips(source)
    (tmp_path / "list.txt").write_text("shards/000.tar\na.wav\n")
    with pytest.raises(AudiobatError, match=r"lists tars and a\.wav"):
        read_clips(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("pipe:rm -rf x.tar\n")
    with pytest.raises(AudiobatError, match="is a command"):
        read_clips(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("a.wav\n")
    assert find_tars(tmp_path / "list.txt") is None
    shutil.copy(shards / "000.tar", tmp_path / "good.tar")
    os.system(f"gzip -c {shards}/001.tar > {tmp_path}/packed.tar")
    with pytest.raises(AudiobatError, match=r"packed\.tar is compressed by gzip.*gunzip"):
        read_clips(tmp_path / "packed.tar")
    (tmp_path / "page.tar").write_text("<html>not found</html>" * 100)
    with pytest.raises(AudiobatError, match=r"page\.tar is no tar file"):
        read_clips(tmp_path / "page.tar")
    table, words = told(f"{tmp_path}/{{good,packed,page}}.tar")
    assert len(table) == 4  # the others are usable
    assert "tars are left out: 2" in words
    assert "packed.tar is compressed by gzip" in words


def test_loose_files_win_over_tars_and_a_folder_of_other_things_says_what_it_holds(shards, folder):
    shutil.copy(shards / "000.tar", folder)
    table, words = told(folder)
    assert len(table) == 8
    assert "1 tars: only the files are read" in words
    write_tar(shards / "000.tar", [("a.jpg", b"x"), ("a.pcm", b"y"), ("a.json", b"{}")])
    (shards / "001.tar").unlink()
    with pytest.raises(AudiobatError, match=r"hold no audio files .*\.jpg, \.pcm.*prepared\.json"):
        read_clips(shards)


def test_tars_behind_urls_are_read_by_ranges(shards, tmp_path, monkeypatch):
    memory, url = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    for path in shards.iterdir():
        memory.pipe(f"{url}/{path.name}", path.read_bytes())
    memory.pipe(f"{url}/all.txt", b"000.tar\n001.tar\n")
    local = read_clips(shards)
    for source in (f"{url}/{{000..001}}.tar", f"{url}/all.txt"):
        table = read_clips(source)
        assert table.sha256() == local.sha256()
        np.testing.assert_array_equal(read_clip(table, 5, RATE), read_clip(local, 5, RATE))
    with pytest.raises(AudiobatError, match=r"There is no file .*002\.tar"):
        read_clips(f"{url}/{{000..002}}.tar")
    (before := list(local.keys)).append("x.flac")
    members = [(name, flac(0)) for name in before[4:]]
    memory.pipe(f"{url}/001.tar", write_tar(tmp_path / "new.tar", members).read_bytes())
    assert len(read_clips(f"{url}/{{000..001}}.tar")) == 9  # changed, so listed anew
    whole = (shards / "000.tar").read_bytes()
    monkeypatch.setattr(tar_clips, "REMOTE_WINDOW", 4_096)
    store = type(memory)
    monkeypatch.setattr(store, "cat_file", lambda self, path, start=None, end=None: whole)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(AudiobatError, match="sends whole files only"):
        read_clips(f"{url}/000.tar")


# The same clips as in a folder


def test_samples_and_keys_are_those_of_a_folder(shards, folder):
    inside, outside = read_clips(shards), read_clips(folder)
    assert replace(inside, labels=None, classes=(), splits=None).sha256() == outside.sha256()
    for i in (7, 0, 3):
        np.testing.assert_array_equal(read_clip(inside, i, 16_000, 0.05, 0.1), read_clip(outside, i, 16_000, 0.05, 0.1))
    assert list_clips(sorted(map(str, shards.iterdir()))).sha256() == inside.sha256()
    assert list_clips(str(shards / "000.tar")).keys.tolist() == inside.keys.tolist()[:4]
    asked = [np.array([7, 0]), np.array([3, 4])]
    for one, two in zip(load_clips(inside, RATE, asked, 2), load_clips(outside, RATE, asked, 2), strict=True):
        np.testing.assert_array_equal(one.waveform, two.waveform)


def test_prepare_and_class_folders_see_through_tars(tmp_path):
    names = [f"{split}/{label}/{i}.flac" for split in ("train", "test") for label in ("dog", "cat") for i in range(2)]
    write_tar(tmp_path / "tree.tar", [(name, flac(i)) for i, name in enumerate(names)])
    for i, name in enumerate(names):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(flac(i))
    wanted, found = read_labelled_clips(tmp_path / "tree"), read_labelled_clips(tmp_path / "tree.tar")
    order = [found.keys.tolist().index(key) for key in wanted.keys]
    assert found.select(order).sha256() == wanted.sha256()
    prepared = read_labelled_clips(prepare(tmp_path / "tree.tar", tmp_path / "out", sample_rate=RATE, workers=1))
    assert prepared.classes == ("cat", "dog")
    assert prepared.columns["source"].tolist() == names
    for i in range(len(names)):
        np.testing.assert_array_equal(read_clip(prepared, i, RATE), read_clip(found, i, RATE))
    write_tar(tmp_path / "flat.tar", [("a.flac", flac(0))])
    with pytest.raises(AudiobatError, match=r"a\.flac has no label, and lies in no class folder of its tar"):
        read_labelled_clips(tmp_path / "flat.tar")


def test_our_own_shards_are_read_as_tars_too(shards, tmp_path):
    out = prepare(shards, tmp_path / "out", sample_rate=RATE, workers=1)
    inside, table = read_clips(out / "shards"), read_clips(out)
    assert [f"{key}.flac" for key in table.keys] == inside.keys.tolist()
    for name in ("labels", "classes", "splits"):
        one, two = (getattr(found, name) for found in (inside, table))
        assert np.array_equal(getattr(one, "values", one), getattr(two, "values", two))
    assert inside.columns["source"].tolist() == table.columns["source"].tolist()
    assert set(inside.columns) == {"source"}
    np.testing.assert_array_equal(read_clip(inside, 3, RATE), read_clip(table, 3, RATE))


# What a header can be


def listed(data, name="x.tar"):
    """The members of a tar's bytes, and notes."""
    notes = Notes()
    found = list(list_members(Window(lambda start, count: data[start : start + count], 700), len(data), name, notes))
    return found, notes


LONG = [
    "a/" * 20 + "b.flac",
    "d" * 120 + "/e.flac",
    "f" * 95 + ".flac",
    "g" * 250 + ".wav",
    "größe/" + "語" * 60 + ".flac",
]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_those_of_pythons_tarfile(tmp_path, form):
    names = LONG[:3] if form == tarfile.USTAR_FORMAT else LONG  # ustar holds no others
    members = [(name, bytes([size % 7]) * size) for name in names for size in (0, 1, 511, 512, 513)]
    members.insert(2, entry("folder", kind=tarfile.DIRTYPE))
    path = write_tar(tmp_path / "x.tar", members, form)
    with tarfile.open(path) as tar:
        wanted = [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]
    found, notes = listed(path.read_bytes())
    assert [tuple(member) for member in found] == wanted
    assert not notes.found


def resealed(block):
    """A header with the checksum that it should have."""
    return block[:148] + b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:])) + block[156:]


def test_headers_of_unix_v7_large_numbers_and_signed_sums(tmp_path):
    header = write_tar(tmp_path / "x.tar", [("a.flac", b"12345")], tarfile.USTAR_FORMAT).read_bytes()[:512]
    body, end = b"12345".ljust(512, b"\0"), bytes(1_024)
    v7 = resealed(header[:156] + b"\0" + bytes(355))  # no magic, no prefix
    binary = resealed(header[:124] + b"\x80" + (5).to_bytes(11) + header[136:])
    latin = b"caf\xe9.flac".ljust(100, b"\0") + header[100:]
    signed = latin[:148] + b"%06o\0 " % (sum(latin[:148]) - 256 + 8 * 32 + sum(latin[156:])) + latin[156:]
    for block, name in ((v7, "a.flac"), (binary, "a.flac"), (signed, "caf\\xe9.flac")):
        found, notes = listed(block + body + end)
        assert [tuple(member) for member in found] == [(name, 512, 5)]
        assert not notes.found
    folder = resealed(b"a/".ljust(100, b"\0") + v7[100:])
    assert [member.name for member in listed(folder + v7 + body + end)[0]] == ["a.flac"]


def test_links_sparse_files_and_hidden_files_are_left_out(tmp_path):
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.flac", "GNU.sparse.realsize": "9"}
    members = [
        ("./d/a.flac", flac(0)),
        entry("hard.flac", kind=tarfile.LNKTYPE, linkname="d/a.flac"),
        entry("soft.flac", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("pipe.flac", kind=tarfile.FIFOTYPE),
        entry("d", kind=tarfile.DIRTYPE),
        ("d/._a.flac", b"AppleDouble"),
        (".hidden/b.flac", flac(1)),
        entry("GNUSparseFile.0/s.flac", kind=tarfile.REGTYPE, pax_headers=sparse),
        ("/../../abs.flac", flac(2)),
    ]
    table, words = told(write_tar(tmp_path / "x.tar", members))
    assert table.keys.tolist() == ["d/a.flac", "abs.flac"]
    assert "links in tars are left out: 2, such as hard.flac" in words
    assert "sparse files in tars" in words
    assert "s.flac" in words
    np.testing.assert_array_equal(read_clip(table, 1, RATE), soundfile.read(io.BytesIO(flac(2)), dtype="float32")[0])


def test_the_old_sparse_format_is_passed_over(tmp_path):
    data = write_tar(tmp_path / "x.tar", [("s.flac", b"1" * 600), ("a.flac", b"2")], tarfile.GNU_FORMAT).read_bytes()
    header = bytearray(data[:512])
    header[156:157], header[482] = b"S", 1
    more = bytearray(512)
    more[504] = 1  # a second block of pieces follows
    found, notes = listed(resealed(bytes(header)) + bytes(more) + bytes(512) + data[512:])
    assert [(member.name, member.offset) for member in found] == [("a.flac", 5 * 512 + 512)]
    assert list(notes.found) == ["sparse files in tars, whose bytes are not in one piece, are left out"]


# Damage


def test_a_cut_tar_gives_what_is_whole_and_is_named(shards):
    whole = (shards / "000.tar").read_bytes()
    with tarfile.open(shards / "000.tar") as tar:
        members = list(tar)
    last = members[-2]  # the last recording
    cuts = {
        "data": last.offset_data + 100,
        "header": last.offset_data - 200,
        "end": members[-1].offset_data + 512,
    }
    words = {"data": "members are cut short", "header": "headers are damaged", "end": "have no end"}
    for kind, size in cuts.items():
        (shards / "000.tar").write_bytes(whole[:size])
        table, message = told(shards / "000.tar")
        assert words[kind] in message
        assert "000.tar" in message
        assert len(table) == (3 if kind == "header" else 4)
        read_clip(table, 2, RATE)
        if kind == "data":
            assert "003.flac" in message
            with pytest.raises(AudiobatError, match=r"000\.tar was cut short"):
                read_clip(table, 3, RATE)
    assert not listed(whole)[1].found


def test_behind_a_damaged_header_the_list_goes_on(shards):
    data = bytearray((shards / "000.tar").read_bytes())
    with tarfile.open(shards / "000.tar") as tar:
        second = next(member for member in tar if member.name == "001.flac")
    for at in (second.offset_data - 512 + 130, 20):  # a digit of its size; the first header of the file
        broken = data.copy()
        broken[at] ^= 1
        (shards / "000.tar").write_bytes(broken)
        table, words = told(shards / "000.tar")
        assert "headers are damaged, so that members are missing: 1" in words
        missing = "001" if at > 20 else "000"
        assert table.keys.tolist() == [f"{i:03d}.flac" for i in range(4) if f"{i:03d}" != missing]
        read_clip(table, 2, RATE)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_headers_before_a_damaged_one_are_read_once(kind):
    """From each of many that belong together the list would else go to the damaged one anew."""
    many = 400
    before = resealed(entry("head", kind=kind).tobuf(tarfile.GNU_FORMAT)) * many
    after = entry("a.flac", 3).tobuf() + b"abc".ljust(512, b"\0") + bytes(1024)
    data, reads = before + b"\1" * 512 + after, []

    def read(start, count):
        reads.append(start)
        return data[start : start + count]

    notes = Notes()
    assert [member.name for member in list_members(read, len(data), "x.tar", notes)] == ["a.flac"]
    assert any("headers are damaged" in what for what in notes.found)
    assert len(reads) < 5 * many


def test_joined_tars_are_read_to_the_last(shards):
    one, two = ((shards / name).read_bytes() for name in ("000.tar", "001.tar"))
    (shards / "000.tar").write_bytes(one + two)
    table, words = told(shards / "000.tar")
    assert len(table) == 8
    assert "tars follow another in the same file, and are read too: 1" in words
    np.testing.assert_array_equal(read_clip(table, 7, RATE), read_clip(read_clips(shards / "001.tar"), 3, RATE))
    (shards / "000.tar").write_bytes(one + b"no header" * 1_000)  # what follows the end is no matter
    table, words = told(shards / "000.tar")
    assert (len(table), words) == (4, "")


def test_no_damage_crashes_the_list(tmp_path):
    forms = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    parts = [write_tar(tmp_path / f"{form}.tar", [*labelled(0), (LONG[3], b"x")], form) for form in forms]
    sparse = entry("s", kind=tarfile.REGTYPE, pax_headers={"GNU.sparse.size": "9", "size": "77"})
    parts.append(write_tar(tmp_path / "s.tar", [sparse, ("b.flac", b"1")]))
    draw = random.Random(0)
    for path in parts:
        data = path.read_bytes()
        for _ in range(150):
            broken = bytearray(data[: draw.choice([len(data), draw.randrange(len(data))])])
            for _ in range(draw.randrange(1, 5)):
                if broken:
                    block = 512 * draw.randrange(-(-len(broken) // 512))
                    at = min(block + draw.choice([draw.randrange(512), draw.randrange(124, 157)]), len(broken) - 1)
                    broken[at] = draw.randrange(256)
                    if draw.random() < 0.7 and len(broken) >= block + 512:  # so that the damage gets past the checksum
                        broken[block : block + 512] = resealed(bytes(broken[block : block + 512]))
            with suppress(AudiobatError):  # no tar
                for member in listed(bytes(broken))[0]:
                    assert member.offset >= 512
                    assert 0 <= member.size <= 1 << 62


def test_a_claimed_size_asks_for_no_memory(tmp_path):
    header = write_tar(tmp_path / "x.tar", [("a.flac", b"")]).read_bytes()[:512]
    huge = resealed(header[:124] + b"\x80" + (1 << 60).to_bytes(11) + header[136:])
    (tmp_path / "x.tar").write_bytes(huge + bytes(512))
    table, words = told(tmp_path / "x.tar")
    assert "cut short" in words
    with pytest.raises(AudiobatError, match="was cut short"):
        read_clip(table, 0, RATE)


# What belongs together, and what it says


def test_dots_repeats_and_members_of_one_name_in_two_tars(tmp_path):
    members = [
        ("rec.2020.flac", flac(0)),
        ("rec.2020.json", b'{"label": "x"}'),
        ("rec.2021.flac", flac(1)),
        ("rec.2021.json", b'{"label": "y"}'),
        ("one.audio.flac", flac(2)),
        ("one.meta.json", b'{"label": "z"}'),
        ("a.FLAC", flac(3)),
        ("a.flac", flac(4)),
        ("a.flac", flac(5)),
        ("a.json", b'{"label": "p"}'),
        ("a.json", b'{"label": "q"}'),
    ]
    table, words = told(write_tar(tmp_path / "s" / "0.tar", members))
    names = ["rec.2020.flac", "rec.2021.flac", "one.audio.flac", "a.FLAC", "a.flac", "a#2.flac"]
    assert table.keys.tolist() == names
    assert [table.classes[c] for c in table.labels.values] == ["x", "y", "z", "p", "p", "q"]
    assert "share the name of an earlier one, and are told by #2: 1, such as a.flac" in words
    write_tar(tmp_path / "s" / "1.tar", [("a.flac", flac(6)), ("b.flac", flac(7))])
    both = read_clips(tmp_path / "s")
    assert both.keys.tolist() == [f"0.tar/{name}" for name in names] + ["1.tar/a.flac", "1.tar/b.flac"]


def test_names_are_distinct_whatever_they_are():
    assert distinct(["a.b", "a#2.b", "a.b", "a.b", "c", "c"]) == ["a.b", "a#2.b", "a#3.b", "a#4.b", "c", "c#2"]
    assert short_names(["/d/e/1.tar", "/d/f/1.tar"]) == ["e/1.tar", "f/1.tar"]
    assert short_names(["s3://b/c/1.tar?key=secret", "s3://b/c/1.tar?key=other"]) == ["1.tar", "1#2.tar"]
    assert short_names(["/d/1.tar"]) == ["1.tar"]
    assert short_names(["http://a/1.tar", "s3://a/1.tar"]) == ["http://a/1.tar", "s3://a/1.tar"]


EVENTS = b'{"events": [{"label": "b", "start": 0, "end": 0.1}, {"label": "a", "onset": 0, "offset": 1}]}'


@pytest.mark.parametrize(
    ("beside", "labels"),
    [
        ({"json": b'{"label": "dog; cat"}'}, ["cat", "dog"]),
        ({"json": b'{"labels": ["dog", 7], "label": "no"}'}, ["7", "dog"]),
        ({"json": b'{"tags": ["x"], "text": "a dog barks"}', "txt": b"t", "cls": b"3"}, ["x"]),
        ({"json": b'{"label": 4}'}, ["4"]),
        ({"cls": b"12\n", "txt": b"a dog barks"}, ["12"]),
        ({"txt": "\ufeffgr\u00fcn\n".encode()}, ["grün"]),
        ({"txt": b"a long story" * 20}, None),
        ({"json": EVENTS}, ["a", "b"]),
        ({"json": b'{"text": "a caption"}'}, None),
    ],
)
def test_labels_come_from_json_then_cls_then_short_txt(tmp_path, beside, labels):
    table, words = told(
        write_tar(tmp_path / "x.tar", [("k.flac", flac(0)), *((f"k.{end}", data) for end, data in beside.items())])
    )
    found = None if table.labels is None else [table.classes[c] for c in table.labels.row(0)]
    assert (found, words) == (labels, "")
    if "txt" in beside and labels != ["grün"]:
        assert table.columns["txt"].tolist() == [beside["txt"].decode()]
    if beside.get("json") == EVENTS:
        assert [(table.classes[label], *span) for label, *span in table.events.row(0).tolist()] == [
            ("b", 0.0, 0.1),
            ("a", 0.0, 1.0),
        ]


def test_fields_are_columns_and_what_cannot_be_read_is_told(tmp_path):
    members = []
    bad = [
        b"{",
        b"[1]",
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"n": %s}' % (b"9" * 5_000),
        b'{"label": {"id": 1}}',
        b'{"events": [{"label": "x", "onset": 2, "offset": 1}]}',
        b'{"split": "somewhere"}',
        b'{"fold": 1.5}',
        b'{"label": "\\ud800", "\\udfff": 1}',
        json.dumps({f"f{i}": i for i in range(100)}).encode(),
    ]
    for i, data in enumerate(bad):
        members += [(f"{i}.flac", flac(i)), (f"{i}.json", data)]
    members += [("z.flac", flac(11)), ("z.txt", b"\xff\xfe")]
    table, words = told(write_tar(tmp_path / "x.tar", members))
    assert len(table) == 11
    for count, part in ((4, "JSON members hold no object"), (2, "labels are neither"), (1, "events have no")):
        assert f"{part}" in words
        assert words.split(part)[1].split(": ")[1].startswith(f"{count}, such as")
    for part in ("splits are none of", "folds are no whole", "more than 64 fields", "text members are not UTF-8"):
        assert part in words
    assert table.columns["split"].tolist()[6] == "somewhere"
    assert table.columns["fold"].tolist()[7] == "1.5"


def test_splits_and_folds_of_all_clips_or_of_none(tmp_path):
    def written(*fields):
        members = [(f"{i}.flac", flac(0)) for i in range(len(fields))]
        members += [(f"{i}.json", json.dumps(own).encode()) for i, own in enumerate(fields)]
        return told(write_tar(tmp_path / "x.tar", members))

    table, words = written({"split": "validation", "fold": 1, "site": "n"}, {"split": "Train", "fold": "2"})
    assert (table.splits.tolist(), table.folds.tolist(), words) == (["valid", "train"], [1, 2], "")
    assert table.columns["site"].tolist() == ["n", ""]
    table, words = written({"split": "test", "fold": 1}, {"site": "s"}, {})
    assert (table.splits, table.folds) == (None, None)
    assert "clips lack a split, so that those of the others are a column only: 2, such as 1.flac" in words
    assert table.columns["split"].tolist() == ["test", "", ""]
    assert table.columns["fold"].tolist() == ["1", "", ""]


# The list that is kept


def test_tars_are_listed_once_until_one_changes(shards, cache, monkeypatch):
    counted = []
    real = tar_clips.list_tar
    monkeypatch.setattr(tars, "list_tar", lambda file, advance: counted.append(file.path) or real(file, advance))
    (shards / "001.tar").write_bytes((shards / "001.tar").read_bytes()[:-10_000])
    first, words = told(shards)
    again, words_again = told(shards)
    assert len(counted) == 2
    assert again.sha256() == first.sha256()
    assert words == words_again != ""
    assert again.columns["source"].tolist() == first.columns["source"].tolist()
    os.utime(shards / "000.tar", ns=(1, 1))
    assert len(read_clips(shards)) == len(first)
    assert len(counted) == 4
    for table in cache.rglob("table.json"):
        table.write_text("damaged")
    assert read_clips(shards).sha256() == first.sha256()
    assert len(counted) == 6


def test_without_a_cache_folder_tars_are_listed_each_time(shards, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(read_clips(shards)) == 8
    np.testing.assert_array_equal(read_clip(read_clips(shards), 2, RATE).shape, (1_600,))
