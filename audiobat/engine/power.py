"""The power that a device draws while something runs, by the machine's own meter.

In: a device. Out: watts; None where there is no meter, or none that this user may read. A GPU's meter is its driver's
(`nvidia-smi`), a CPU's the energy counters of its packages (RAPL): they count the work of other programs, too, and most
systems show them to root alone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import monotonic

import torch

RAPL = Path("/sys/class/powercap")
EVERY = 200  # milliseconds between two looks at a GPU's meter


@dataclass
class Power:
    """What was measured, once `metered` has ended."""

    watts: float | None = None


@contextmanager
def metered(device: torch.device) -> Iterator[Power]:
    """Measure the mean power of `device` for as long as the context lasts."""
    power = Power()
    if device.type == "cuda":
        with _smi(str(torch.cuda.get_device_properties(device).uuid)) as readings:
            yield power
        power.watts = fmean(readings) if readings else None
    elif device.type == "cpu":
        before, start = _joules(), monotonic()
        yield power
        after, seconds = _joules(), monotonic() - start
        if before and before.keys() == after.keys():
            # A counter starts anew at its range.
            used = sum((after[zone][0] - joules) % full for zone, (joules, full) in before.items())
            power.watts = used / max(seconds, 1e-9)
    else:
        yield power


@contextmanager
def _smi(uuid: str) -> Iterator[list[float]]:
    """The readings of a GPU's power in watts; the list is filled at the end."""
    readings: list[float] = []
    command = ["nvidia-smi", "-i", f"GPU-{uuid}", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    try:
        meter = subprocess.Popen(
            [*command, f"--loop-ms={EVERY}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:  # there is no such program
        yield readings
        return
    try:
        yield readings
    finally:
        meter.terminate()
        for line in meter.communicate()[0].splitlines():
            try:
                readings.append(float(line))
            except ValueError:  # `[N/A]` of a card without a meter, or a line that was cut off
                continue


def _joules() -> dict[str, tuple[float, float]]:
    """The energy counter of each CPU package and the range in which it counts; empty where they cannot be read."""

    def joules(zone: Path, name: str) -> float:
        return int((zone / name).read_text()) / 1e6

    packages = [zone for zone in RAPL.glob("intel-rapl:*") if zone.name.count(":") == 1]  # zones inside one have two
    try:
        return {zone.name: (joules(zone, "energy_uj"), joules(zone, "max_energy_range_uj")) for zone in packages}
    except OSError:
        return {}
