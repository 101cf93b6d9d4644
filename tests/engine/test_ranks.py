"""Devices and precisions by name; the rank of a process on its own."""

import pytest
import torch
from torch import nn

from audiobat.engine.ranks import Ranks, launch, pick_device, pick_precision
from audiobat.errors import AudiobatError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpus(monkeypatch):
    def show(count, bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)

    return show


def test_auto_takes_the_gpu_of_the_local_rank_else_the_cpu(gpus):
    gpus(0)
    assert pick_device("auto", 3) == CPU
    gpus(4)
    assert pick_device("auto", 3) == torch.device("cuda", 3)
    assert pick_device("cuda:1", 3) == torch.device("cuda", 1)
    assert pick_device("cpu", 3) == CPU


@pytest.mark.parametrize(("name", "count"), [("gpu", 1), ("cuda", 0), ("cuda:2", 2), ("meta", 0), ("hpu", 0)])
def test_a_device_that_is_not_there_is_named(gpus, name, count):
    gpus(count)
    with pytest.raises(AudiobatError, match=f"--device '{name}'"):
        pick_device(name)


@pytest.mark.parametrize(("native", "chosen"), [(True, torch.bfloat16), (False, None)])
def test_auto_precision_is_bf16_only_where_it_is_native(gpus, monkeypatch, native, chosen):
    gpus(1, bf16=native)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert pick_precision("auto", GPU) == chosen
    assert pick_precision("auto", CPU) == chosen


def test_precision_is_fp32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert pick_precision("auto", CPU) is None


def test_a_precision_that_is_asked_for_is_given():
    assert pick_precision("bf16", CPU) == torch.bfloat16
    assert pick_precision("fp32", GPU) is None
    with pytest.raises(AudiobatError, match="fp16"):
        pick_precision("fp16", GPU)


def test_one_process_makes_no_process_group(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with launch("cpu") as ranks:
        assert ranks == Ranks(CPU, 0, 1)
        assert not torch.distributed.is_initialized()
        net = nn.Linear(1, 1)
        assert ranks.wrap(net) is net
        assert ranks.largest(2) == 2
