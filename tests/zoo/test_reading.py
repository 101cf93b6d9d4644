"""The checkpoint reader: what torch and pickle read, it reads; what would do harm does nothing; what is cut says so."""

import argparse
import collections
import contextlib
import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobat.errors import AudiobatError
from audiobat.zoo.convert import pickles
from audiobat.zoo.convert.pickles import Fault, Machine, Stub
from audiobat.zoo.convert.reading import TensorInfo, read, survey_file

MEGABYTE = 2**20


def loads(data: bytes):
    return Machine(lambda view: view).run(io.BytesIO(data))


# What others read


def example() -> dict:
    base = torch.arange(24.0).reshape(4, 6)
    weights = collections.OrderedDict(
        base=base,
        turned=base.t(),  # of the same storage
        part=base[1:3, ::2],
        half=torch.randn(5).half(),
        bf16=torch.randn(3, 1).bfloat16(),
        whole=torch.tensor(7),
        flags=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
        complex=torch.randn(2, dtype=torch.complex64),
        parameter=torch.nn.Parameter(torch.ones(2)),
    )
    return {"model": weights, "step": 3, "size": torch.Size([2, 3]), "kind": torch.float16, "names": {"a", "b"}}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("needs_more", [True, False])
def test_tensors_are_those_that_torch_reads(tmp_path: Path, zipped: bool, needs_more: bool):
    """An object of another class makes our machine read the file; torch, which may run it here, is the oracle."""
    value = example()
    if needs_more:
        value["args"] = argparse.Namespace(depth=12)
        value["best"] = collections.defaultdict(list, {"map": [0.5]})
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    theirs = torch.load(tmp_path / "a.pt", weights_only=False)
    ours = read(tmp_path / "a.pt")
    assert list(ours["model"]) == list(theirs["model"])
    for name, tensor in theirs["model"].items():
        mine = ours["model"][name]
        assert mine.dtype == tensor.dtype, name
        assert torch.equal(mine, tensor), name
    assert (ours["step"], ours["size"], ours["kind"], ours["names"]) == (3, (2, 3), torch.float16, {"a", "b"})
    survey = survey_file(tmp_path / "a.pt")
    assert survey.tree["model"]["half"] == TensorInfo(torch.float16, (5,))
    assert survey.format == ("torch" if zipped else "torch (legacy)")
    assert dict(survey.stubs) == ({"argparse.Namespace": 1} if needs_more else {})
    if needs_more:
        assert (ours["args"].name, ours["args"].state) == ("argparse.Namespace", {"depth": 12})
        assert ours["best"] == {"map": [0.5]}


def test_safetensors_are_read_too(tmp_path: Path):
    safetensors.torch.save_file({"a": torch.ones(2, 3)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert survey_file(tmp_path / "a.safetensors").tree == {"a": TensorInfo(torch.float32, (2, 3))}
    assert torch.equal(read(tmp_path / "a.safetensors")["a"], torch.ones(2, 3))


numbers = st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
scalars = st.none() | numbers | st.text() | st.binary()
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(-9, 9), inner),
    max_leaves=20,
)


@settings(max_examples=60)
@given(value=plain, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_values_are_those_that_pickle_reads(value, protocol):
    assert loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_shared_and_circular_values(protocol):
    shared = [1, 2.5, "x", True, None, 10**12, -3]
    circle: list = [shared, shared, (), (1,), (1, 2), (1, 2, 3, 4), {"a": shared}, {1, 2}, frozenset({3})]
    circle.append(circle)
    found = loads(pickle.dumps(circle, protocol))
    assert found[:-1] == circle[:-1]
    assert found[0] is found[1] is found[6]["a"]
    assert found[-1] is found


# What would do harm


class Call:
    """Unpickled by an ordinary reader, this calls `function(*args)`."""

    def __init__(self, function, *args):
        self.made = (function, args)

    def __reduce__(self):
        return self.made


def written(folder: Path, value, form: str) -> Path:
    path = folder / f"{form}.pt"
    if form == "bare":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    return path


FORMS = ["zip", "legacy", "bare"]


@pytest.mark.parametrize("form", FORMS)
def test_what_would_make_files_makes_none(tmp_path: Path, form: str):
    mark = tmp_path / "made"
    calls = [
        Call(os.system, f"touch {mark}"),
        Call(open, str(mark), "w"),
        Call(exec, f"open({str(mark)!r}, 'w')"),
        Call(eval, f"open({str(mark)!r}, 'w')"),
        Call(subprocess.check_call, ["touch", str(mark)]),
        Call(os.mkdir, str(mark)),
    ]
    path = written(tmp_path, {"model": {"w": torch.ones(2) if form != "bare" else 1}, "callbacks": calls}, form)
    found = read(path)
    assert not mark.exists()
    assert {type(call) for call in found["callbacks"]} == {Stub}
    named = {name.rpartition(".")[2] for name in survey_file(path).stubs}
    assert named == {"system", "open", "exec", "eval", "check_call", "mkdir"}
    pickle.loads(pickle.dumps(calls[1])).close()  # the test's own calls do what they say
    assert mark.exists()


@pytest.mark.parametrize("form", FORMS)
def test_what_would_open_a_socket_opens_none(tmp_path: Path, form: str):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        place = server.getsockname()
        read(written(tmp_path, [Call(socket.create_connection, place)], form))
        with pytest.raises(TimeoutError):
            server.accept()
        with pickle.loads(pickle.dumps(Call(socket.create_connection, place))):  # which an ordinary reader does open
            server.accept()[0].close()


def peak(work) -> int:
    """The most memory in bytes that Python has taken meanwhile."""
    tracemalloc.start()
    work()
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", [Call(bytearray, 10**10), Call(list, range(10**9)), Call(torch.FloatStorage, 10**10)])
def test_calls_that_ask_for_memory_get_none(tmp_path: Path, form: str, call: Call):
    """`bytearray` and storages are calls that torch's loader makes even with weights_only: the survey comes before."""
    path = written(tmp_path, {"x": call, "w": torch.ones(2) if form != "bare" else 1}, form)
    assert peak(lambda: read(path)) < MEGABYTE
    assert survey_file(path).stubs


def longs(opcode: bytes, form: str, number: int) -> bytes:
    return b"\x80\x05" + opcode + struct.pack(form, number)


@pytest.mark.parametrize(
    "data",
    [
        longs(b"\x8e", "<Q", 10**13) + b"abc.",  # bytes that claim to be long
        longs(b"\x96", "<Q", 10**13) + b"abc.",  # a bytearray
        longs(b"\x8d", "<Q", 10**13) + b"abc.",  # text
        longs(b"\x95", "<Q", 10**13) + b"N.",  # a frame
        b"\x80\x05N" + longs(b"r", "<I", 2**32 - 1)[2:] + b".",  # a place far up in the memo
    ],
)
def test_lengths_that_are_lies_cost_nothing(data: bytes):
    def attempt() -> None:
        with contextlib.suppress(Fault):
            assert loads(data) is None

    assert peak(attempt) < MEGABYTE


def test_a_small_pickle_cannot_make_much_of_itself(monkeypatch):
    monkeypatch.setattr(pickles, "STEPS", 10_000)
    with pytest.raises(Fault, match="10,000 steps"):
        loads(b"\x80\x04" + b"\x8f" * 20_000 + b".")  # sets of 216 bytes each from a byte
    for what, copy in (("[0] * 400", b"torch\nSize"), ("'x' * 400", b"_codecs\nencode")):  # copied again and again
        many = pickle.dumps(eval(what), 4)[11:-1]
        loads(b"\x80\x04" + many + b"q\x00c" + copy + b"\nq\x01" + b"h\x01h\x00\x85R" * 9 + b".")
        with pytest.raises(Fault, match="10,000 steps"):
            loads(b"\x80\x04" + many + b"q\x00c" + copy + b"\nq\x01" + b"h\x01h\x00\x85R" * 30 + b".")
    laughs = b"\x80\x04]\x94" + b"".join(b"]\x94h" + bytes([n]) + b"a" + b"h" + bytes([n]) + b"a" for n in range(90))
    deep = loads(laughs + b".")  # 2^90 leaves, as long as nobody writes them out
    assert len(deep) == 2


@pytest.mark.parametrize("key", [(1,) * 20, 2**100, [1], ((1, (2,)),)])
def test_keys_that_take_long_to_hash_are_refused(key):
    data = b"\x80\x04}" + pickle.dumps(key, 4)[2:-1] + b"Ns."
    with pytest.raises(Fault, match="as a key"):
        loads(data)


def test_depth_does_no_harm():
    loads(b"\x80\x04)" + b"\x85" * 200_000 + b".")
    loads(b"\x80\x04]" + b"]" * 200_000 + b"a" * 200_000 + b".")


def test_extensions_and_buffers_are_refused():
    for data in (b"\x80\x02\x82\x01.", b"\x80\x05\x97."):
        with pytest.raises(Fault, match="no checkpoint needs"):
            loads(data)


def test_a_tensor_may_not_be_larger_than_what_holds_it(tmp_path: Path):
    def rebuilt(offset, shape, stride):
        storage = torch.arange(6.0).storage()
        order = collections.OrderedDict()
        return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, order)

    for call in (rebuilt(0, (10**6, 10**6), (0, 0)), rebuilt(4, (3,), (1,)), rebuilt(0, (2, 2), (9, 1))):
        torch.save({"w": call}, tmp_path / "a.pt")
        with pytest.raises(AudiobatError, match="does not fit storage 0 of 6 values"):
            read(tmp_path / "a.pt")
    torch.save({"w": rebuilt(2, (2, 2), (2, 1))}, tmp_path / "a.pt")
    assert read(tmp_path / "a.pt")["w"].tolist() == [[2, 3], [4, 5]]


def test_nothing_is_imported(tmp_path: Path):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02ctrap\nThing\n)R.")
    code = (
        "import sys; from audiobat.zoo.convert.reading import read; print(read('a.pkl')); print('trap' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Stub(name='trap.Thing',", "state=None)", "False"]


# Archives that are bombs, cut or damaged


def rewrite(path: Path, change) -> None:
    """Write the archive anew; `change(archive, name, data)` writes each entry."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in entries.items():
            change(new, name, data)


def saved(folder: Path) -> Path:
    torch.save({"model": {"w": torch.arange(1000.0)}}, folder / "a.pt")
    return folder / "a.pt"


@pytest.mark.parametrize("entry", ["a/data.pkl", "a/data/0"])
def test_a_packed_entry_is_refused_by_name(tmp_path: Path, entry: str):
    path = saved(tmp_path)

    def pack(archive, name, data):
        if name == entry:
            archive.writestr(name, bytes(200 * MEGABYTE), zipfile.ZIP_DEFLATED)
        else:
            archive.writestr(name, data)

    rewrite(path, pack)
    assert path.stat().st_size < MEGABYTE

    def attempt() -> None:
        with pytest.raises(AudiobatError, match=f"entry {entry} unpacks to 209,715,200 bytes"):
            read(path)

    assert peak(attempt) < MEGABYTE


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path):
    path = saved(tmp_path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (entry,) = [e for e in archive.infolist() if e.filename.endswith("data/0")]
    # A second entry in the index that points to the same place, a thousand times.
    end = data.rindex(b"PK\x05\x06")
    at = data.index(b"PK\x01\x02")
    while b"data/0" not in data[at + 46 : at + 46 + 20]:
        at = data.index(b"PK\x01\x02", at + 4)
    following = data.find(b"PK\x01\x02", at + 4)
    record = data[at : following if following != -1 else end]
    index = data.index(b"PK\x01\x02")
    extra = b"".join(record.replace(b"data/0", b"data/%c" % (65 + n)) for n in range(20))
    count = len(zipfile.ZipFile(path).namelist()) + 20
    size = data.index(b"PK\x06\x06") if b"PK\x06\x06" in data else end
    body = data[:size] + extra
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size - index + len(extra), index, 0)
    path.write_bytes(body + tail)
    assert entry.file_size == 4000
    with pytest.raises(AudiobatError, match=r"entry a/data/\w unpacks to 4,000 bytes"):
        read(path)


def test_two_entries_of_one_name_are_refused(tmp_path: Path):
    path = saved(tmp_path)
    evil = pickle.dumps(Call(os.getpid))
    rewrite(
        path,
        lambda archive, name, data: [
            archive.writestr(each, what)
            for each, what in ((name, data), *([(name.upper(), evil)] if name.endswith("data.pkl") else []))
        ],
    )
    with pytest.raises(AudiobatError, match=r"two entries A/DATA\.PKL"):
        read(path)


def test_entries_that_lack_or_are_short_are_named(tmp_path: Path):
    path = saved(tmp_path)
    rewrite(path, lambda archive, name, data: archive.writestr(name, data[:100] if name == "a/data/0" else data))
    with pytest.raises(AudiobatError, match="entry a/data/0 has 100 bytes of 4,000"):
        read(path)
    path = saved(tmp_path)
    rewrite(path, lambda archive, name, data: None if name == "a/data/0" else archive.writestr(name, data))
    with pytest.raises(AudiobatError, match="entry a/data/0 has 0 bytes of 4,000"):
        read(path)
    path = saved(tmp_path)
    rewrite(path, lambda archive, name, data: None if name == "a/data.pkl" else archive.writestr(name, data))
    with pytest.raises(AudiobatError, match=r"without one data\.pkl"):
        read(path)


def test_an_archive_that_torch_does_not_take_is_read_all_the_same(tmp_path: Path):
    path = saved(tmp_path)
    rewrite(path, lambda archive, name, data: None if name == "a/version" else archive.writestr(name, data))
    with pytest.raises(RuntimeError):
        torch.load(path, weights_only=True)
    assert torch.equal(read(path)["model"]["w"], torch.arange(1000.0))


def test_a_flipped_bit_in_a_tensor_is_seen(tmp_path: Path):
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<3f", 500, 501, 502))] ^= 1
    path.write_bytes(data)
    with pytest.raises(AudiobatError, match="entry a/data/0 does not match its checksum"):
        read(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_cut_anywhere_says_so_and_names_itself(tmp_path: Path, form: str):
    path = tmp_path / "a.pt"
    value = {"w": torch.arange(300.0), "v": torch.ones(7)}
    if form == "safetensors":
        safetensors.torch.save_file(value, path)
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    for end in [*range(0, 40), *range(40, len(whole), 97), *range(len(whole) - 30, len(whole))]:
        path.write_bytes(whole[:end])
        with pytest.raises(AudiobatError) as caught:
            read(path)
        assert str(path) in str(caught.value), end
    path.write_bytes(whole[: whole.index(struct.pack("<3f", 150, 151, 152))])  # in the middle of a tensor
    named = {
        "zip": r"the last entry that begins is a/data/0\)",
        "legacy": "storage '?[0-9]+",
        "safetensors": "tensor w ",
    }
    with pytest.raises(AudiobatError, match=named[form]):
        read(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_flipped_bytes_give_a_value_or_our_error(tmp_path: Path, form: str):
    path = tmp_path / "a.pt"
    value = {"w": torch.arange(30.0), "args": argparse.Namespace(a=[1, {"b": 2}])}
    torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    errors = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 + place % 255)]) + whole[place + 1 :])
        try:
            read(path)
        except AudiobatError:
            errors += 1
    assert errors > len(whole) // 60


def test_other_files_are_refused_with_a_sentence(tmp_path: Path):
    path = tmp_path / "a.pt"
    with pytest.raises(AudiobatError, match="There is no file"):
        read(path)
    for data in (b"", b"RIFF", b"{}", bytes(100), b"PK\x03\x04"):
        path.write_bytes(data)
        with pytest.raises(AudiobatError, match=str(path)):
            read(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(AudiobatError, match="TorchScript program"):
        read(path)


def test_errors_name_the_global_that_a_damaged_pickle_speaks_of(tmp_path: Path):
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps([Call(os.system, "true")])[:-2])
    with pytest.raises(AudiobatError, match=r"posix\.system, none of which was run"):
        read(path)
