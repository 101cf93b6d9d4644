"""What this installation is and can do: versions, device, audio formats, disk, and whether the shipped weights load."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import soundfile
import torch

from audiobat import __version__
from audiobat.errors import AudiobatError
from audiobat.hub import load, shipped_names, weights_sha256
from audiobat.train.dist import pick_device, pick_precision

PACKAGES = ("torch", "numpy", "soundfile", "soxr", "safetensors", "huggingface_hub", "matplotlib", "pyarrow")


def doctor() -> None:
    """Print one line for each fact; a line that asks for a mend begins with `!`."""
    for name, fact in facts():
        print(f"{name:>14}  {fact}")


def facts() -> list[tuple[str, str]]:
    """Every fact with its name, in the order in which people ask."""
    device = pick_device("auto")
    free = shutil.disk_usage(Path.cwd()).free
    found = [
        ("audiobat", f"{__version__}, Python {platform.python_version()} on {platform.platform()}"),
        *((package, version(package)) for package in PACKAGES),
        ("device", describe(device)),
        ("precision", "bf16" if pick_precision("auto", device) is torch.bfloat16 else "fp32"),
        ("cores", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"),
        ("reads", " ".join(sorted(name.lower() for name in soundfile.available_formats()))),
        ("disk", f"{free / 2**30:.1f} GiB free in {Path.cwd()}"),
    ]
    return found + [("weights", weights_state(name)) for name in shipped_names()]


def version(package: str) -> str:
    """The installed version, or what to do about it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return (
            "not installed (only embed's .parquet needs it)"
            if package == "pyarrow"
            else "! missing: install audiobat anew"
        )


def describe(device: torch.device) -> str:
    """The device and, of a GPU, its name and memory."""
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    return f"{device}, {properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def weights_state(name: str) -> str:
    """Whether shipped weights load, their size and the beginning of their digest."""
    try:
        encoder = load(name)
    except AudiobatError as error:
        return f"! {name}: {error}"
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    return f"{name}: ok, {parameters / 1e6:.2f}M parameters, sha256 {weights_sha256(encoder)[:12]}"
