"""The power of a device, from meters that the tests make: counters of CPU packages, and a GPU's program."""

import os
import time
from types import SimpleNamespace

import pytest
import torch

from audiobat.engine import power
from audiobat.engine.power import metered

CPU = torch.device("cpu")


@pytest.fixture
def zones(tmp_path, monkeypatch):
    """Two packages whose counters end at 100 J, and a zone inside the first."""
    monkeypatch.setattr(power, "RAPL", tmp_path)
    for name, joules in {"intel-rapl:0": 90, "intel-rapl:1": 5, "intel-rapl:0:0": 1}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("100000000\n")
        count(tmp_path / name, joules)
    return tmp_path


def count(zone, joules):
    (zone / "energy_uj").write_text(f"{joules}000000\n")


def test_watts_of_a_cpu_are_the_joules_of_its_packages_a_second(zones, monkeypatch):
    monkeypatch.setattr(power, "monotonic", iter([10.0, 14.0]).__next__)
    with metered(CPU) as found:
        count(zones / "intel-rapl:0", 10)  # 20 J, as it began anew at 100
        count(zones / "intel-rapl:1", 25)  # 20 J
        count(zones / "intel-rapl:0:0", 99)  # which its package has counted
    assert found.watts == pytest.approx(40 / 4)


def test_a_counter_that_may_not_be_read_is_no_meter(zones, monkeypatch):
    (zones / "intel-rapl:1" / "energy_uj").unlink()
    with metered(CPU) as found:
        pass
    assert found.watts is None
    monkeypatch.setattr(power, "RAPL", zones / "nowhere")
    with metered(CPU) as found:
        pass
    assert found.watts is None


def test_watts_of_a_gpu_are_the_mean_of_its_drivers_readings(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\necho 100.5\necho '[N/A]'\necho 199.5\necho \"$@\" > {tmp_path}/asked\nexec sleep 60\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
    with metered(torch.device("cuda", 3)) as found:
        while not (tmp_path / "asked").exists() or not (tmp_path / "asked").read_text().endswith("\n"):
            time.sleep(0.01)
    assert found.watts == 150
    assert "-i GPU-abc --query-gpu=power.draw" in (tmp_path / "asked").read_text()


def test_a_gpu_without_its_drivers_program_has_no_meter(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
    with metered(torch.device("cuda", 0)) as found:
        pass
    assert found.watts is None
