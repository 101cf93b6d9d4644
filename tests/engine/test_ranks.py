"""Devices and precisions by name; the rank of a process on its own."""

import pytest
import torch
from torch import nn

from audiobat.engine.ranks import Place, Ranks, find_place, first_host, launch, pick_device, pick_precision
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


TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "node3", "MASTER_PORT": "29500"}
BATCH = {  # what sbatch gives the shell of a job of two nodes with four tasks each
    **{"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "gpu[007-008]", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
    **{"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "ENVIRONMENT": "BATCH"},
}
STEP = {  # and srun in it the sixth task
    **BATCH,
    **{"SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "gpu[007-008]"},
    **{"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
}


def test_torchrun_says_which_rank_this_is():
    assert find_place(TORCHRUN) == Place(5, 1, 8, "node3", 29500)


def test_a_step_of_slurm_is_one_job_whose_ranks_meet_at_its_first_host():
    place = find_place(STEP)
    assert (place.rank, place.local_rank, place.world_size, place.address) == (5, 1, 8, "gpu007")
    assert 1024 < place.port < 32768  # neither reserved, nor one that the system gives away
    assert place.port == find_place(STEP | {"SLURM_PROCID": "0"}).port
    ports = {find_place(STEP | {"SLURM_JOB_ID": str(job)}).port for job in range(4711, 4721)}
    assert len(ports | {find_place(STEP | {"SLURM_STEP_ID": "3"}).port}) == 11  # other jobs and steps do not meet it


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MASTER_ADDR": "node3", "MASTER_PORT": "29500"},
        BATCH,  # `audiobat` in the script itself, without srun: no other rank will come
        {name: value for name, value in BATCH.items() if name not in ("SLURM_PROCID", "SLURM_LOCALID")},  # salloc
        # salloc whose shell is a step of its own, as of SLURM 20.11
        BATCH | {"SLURM_STEP_ID": "4294967290"},
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun --ntasks 1, in a job of 8 tasks
    ],
)
def test_who_has_no_other_ranks_is_alone(environment):
    assert find_place(environment).world_size == 1


def test_what_torchruns_variables_say_counts_more_than_slurms():
    assert find_place(STEP | TORCHRUN) == find_place(TORCHRUN)  # srun torchrun ...
    meeting = find_place(STEP | {"MASTER_ADDR": "fast-node3", "MASTER_PORT": "29501"})
    assert (meeting.rank, meeting.address, meeting.port) == (5, "fast-node3", 29501)


def test_a_task_that_sees_one_gpu_takes_that_one():
    assert find_place(STEP | {"CUDA_VISIBLE_DEVICES": "0"}).local_rank == 0
    assert find_place(STEP | {"CUDA_VISIBLE_DEVICES": "0,1"}).local_rank == 1


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("gpu7", "gpu7"), ("a1,a2", "a1"), ("gpu[007-009,012],x1", "gpu007"), ("r[1-2]n[03,05].hpc", "r1n03.hpc")],
)
def test_the_first_host_of_slurms_lists(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        ({"RANK": "1"}, "WORLD_SIZE is not set in the environment, though RANK is"),
        (
            {"WORLD_SIZE": "2", **{name: TORCHRUN[name] for name in ("MASTER_ADDR", "MASTER_PORT")}},
            "RANK is not set in the environment, though WORLD_SIZE is",
        ),
        (TORCHRUN | {"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        (TORCHRUN | {"MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
        (TORCHRUN | {"RANK": "8"}, "Rank 8 of 8"),
        (TORCHRUN | {"WORLD_SIZE": "0"}, "Rank 5 of 0"),
        ({name: value for name, value in STEP.items() if name != "SLURM_PROCID"}, "SLURM_PROCID is not set"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "4"}, "Rank 5 of 4"),
    ],
)
def test_variables_that_say_half_of_it_are_named(environment, missing):
    with pytest.raises(AudiobatError, match=missing):
        find_place(environment)
