"""A probe's config to heads: kinds, blocks and values of the grid, each with each and with a name of its own."""

import pytest

from audiobat.config import GridConfig, ProbeConfig
from audiobat.errors import AudiobatError
from audiobat.probing import jobs
from audiobat.probing.jobs import head_jobs, preset_of


def test_heads_that_read_one_block_are_tried_on_each_of_the_grid():
    config = ProbeConfig(heads=("cgp", "protobin", "linear"), grid=GridConfig(layers=(1, 3), prototypes=(4, 8)))
    jobs = head_jobs(config, 3)
    assert [(job.name, job.head.kind, job.head.layer, job.head.prototypes) for job in jobs] == [
        ("cgp_k4", "cgp", -1, 4),  # it reads all
        ("cgp_k8", "cgp", -1, 8),
        ("protobin_k4_l1", "protobin", 1, 4),
        ("protobin_k4_l3", "protobin", 3, 4),
        ("protobin_k8_l1", "protobin", 1, 8),
        ("protobin_k8_l3", "protobin", 3, 8),
        ("linear_l1", "linear", 1, 10_000),
        ("linear_l3", "linear", 3, 10_000),
    ]


def test_one_block_of_the_grid_is_the_heads_own_and_one_that_is_not_there_is_refused():
    [job] = head_jobs(ProbeConfig(heads=("linear",), grid=GridConfig(layers=(2,))), 2)
    assert (job.name, job.head.layer) == ("linear", 2)
    with pytest.raises(AudiobatError, match=r"head\.layer is 3 and the model has 2 blocks"):
        head_jobs(ProbeConfig(heads=("linear",), grid=GridConfig(layers=(1, 3))), 2)
    with pytest.raises(AudiobatError, match=r"grid\.layers is \(0,\): use 1 to the number of blocks"):
        GridConfig(layers=(0,))


def test_a_preset_is_looked_up_once_for_all_heads_of_a_kind(monkeypatch):
    config = ProbeConfig(heads=("protobin", "linear"), grid=GridConfig(layers=(1, 2, 3)))
    found, load = [], jobs.preset_fields
    monkeypatch.setattr(jobs, "preset_fields", lambda *words: found.append(words) or load(*words))
    meant_for = {}
    presets = [preset_of(job, "bce", config, "as20k", meant_for) for job in head_jobs(config, 3)]
    assert presets == [preset_of(job, "bce", config, "as20k") for job in head_jobs(config, 3)]
    assert presets == ["custom", "custom", "custom"] * 2
    assert len(found) == 2 + 6
