"""Memory: what a machine has, read from its own files, and the sentences on what it lacks."""

import errno
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audiobat.engine import memory
from audiobat.engine.memory import Need, Room, in_words, limits_of_machine, ran_out, shortage
from audiobat.errors import AudiobatError

CPU = torch.device("cpu")
NEEDS = [Need("weights", 6 * 2**30, "encoder.dim"), Need("masks", 2**30, "mask.clones")]


@pytest.fixture
def of_8_gib(monkeypatch):
    monkeypatch.setattr(memory, "limits_of_machine", lambda: iter([Room(8 * 2**30, "this machine has 8 GiB")]))
    monkeypatch.setattr(memory, "limits_of_process", lambda: iter([]))


def test_what_fits_is_not_refused_and_what_does_not_names_the_largest(of_8_gib):
    assert shortage("A step", NEEDS, CPU) is None
    more = [*NEEDS, Need("waveforms", 2**30 + 1, "train.batch_size")]
    assert shortage("A step", more, CPU) == (
        "A step takes 8 GiB of memory or more, most of it for weights, and this machine has 8 GiB: lower encoder.dim."
    )
    assert shortage("A step", NEEDS, CPU, in_ram=[Need("batches", 2**40, "data.workers")]).endswith("data.workers.")
    with pytest.raises(AudiobatError, match=r"lower encoder\.dim"):
        memory.check_fits("A step", more, CPU)


def test_ranks_share_the_memory_of_their_machine(of_8_gib, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "14 GiB" in shortage("A step", NEEDS, CPU)


def test_a_process_is_held_to_its_own_limit_and_its_workers_are_not(of_8_gib, monkeypatch):
    monkeypatch.setattr(memory, "limits_of_process", lambda: iter([Room(2**20, "ulimit")]))
    workers = memory.workers_need(100, "data.workers")
    assert shortage("A step", [], CPU, [workers]) is None
    assert shortage("A step", [Need("weights", 2**21, "encoder.dim")], CPU, [workers]) is not None


def test_a_gpu_has_what_is_free_of_it_and_what_the_process_holds_unused(monkeypatch, of_8_gib):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    gpu, batches = torch.device("cuda", 0), [Need("batches", 2**33, "data.workers")]
    assert shortage("A step", NEEDS, gpu).endswith("and a GPU has 6 GiB free: lower encoder.dim.")
    assert shortage("A step", NEEDS[1:], gpu, batches) is None  # they lie in the machine's memory
    assert "this machine" in shortage("A step", [], gpu, [Need("batches", 2**34, "data.workers")])


def test_the_limits_of_this_machine_are_those_that_the_system_says():
    rooms = list(limits_of_machine())
    said = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = sum(int(said[name].split()[0]) * 1024 for name in ("MemTotal", "SwapTotal"))
    assert rooms[0].bytes == pytest.approx(total, rel=0.01)
    assert all(room.bytes > 0 for room in rooms)


def test_a_control_group_is_held_to_its_own_limit_and_to_those_above_it(tmp_path, monkeypatch):
    (tmp_path / "slice" / "job").mkdir(parents=True)
    (tmp_path / "slice" / "memory.max").write_text("1048576\n")
    (tmp_path / "slice" / "job" / "memory.max").write_text("max\n")
    (tmp_path / "own").write_text("12:pids:/x\n0::/slice/job\n")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "CGROUPS", (("0::", tmp_path, "memory.max"),))
    swap = memory.first_number(r"SwapTotal:\s+(\d+)", memory.Path("/proc/meminfo")) * 1024
    assert [room.bytes for room in limits_of_machine()][1:] == [1048576 + swap]


def test_the_limit_of_a_process_is_what_is_left_of_it():
    code = (
        "import resource, torch; from audiobat.engine.memory import limits_of_process; "
        "resource.setrlimit(resource.RLIMIT_AS, (2**40, resource.RLIM_INFINITY)); print(*limits_of_process())"
    )
    if resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY:
        pytest.skip("this process may not set the limit")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    left = float(said.split("bytes=")[1].split(",")[0])
    assert 2**40 - 2**36 < left < 2**40 - 2**26


def error_of(action) -> Exception:
    try:
        action()
    except (RuntimeError, MemoryError) as error:
        return error
    raise AssertionError("there was memory")


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (lambda: torch.empty(2**58), "Memory ran out where 1,024 PiB more were wanted"),
        (lambda: torch.empty(2**62, 2**10), "Memory ran out"),
        (lambda: np.zeros(2**57), "Memory ran out where 1.00 EiB more were wanted"),
        (lambda: b"1" * 2**60, "Memory ran out"),
    ],
)
def test_real_errors_of_allocators_are_told_from_others(action, sentence):
    assert ran_out(error_of(action)) == sentence


def test_other_errors_of_want_and_of_no_want():
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 ...")) == (
        "The GPU's memory ran out where 2.50 GiB more were wanted"
    )
    assert ran_out(RuntimeError("can't start new thread")) == "No more threads can be started"
    assert "Too many open files" in ran_out(OSError(errno.EMFILE, "Too many open files"))
    assert ran_out(OSError(errno.ENOMEM, "Cannot allocate memory")) == "Memory ran out"
    assert ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert ran_out(OSError(errno.EIO, "Input/output error")) is None


def test_bytes_in_words():
    assert [in_words(count) for count in (0, 2**20, 1.5 * 2**30, 2**41, 2**72)] == [
        *("0 MiB", "1 MiB", "1.5 GiB", "2 TiB"),
        "over a million PiB",
    ]
