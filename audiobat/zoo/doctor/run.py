"""What this installation can do; with a model, whether it keeps the rules of an encoder; with a file, what it is."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import soundfile
import torch

from audiobat import __version__
from audiobat.engine.ranks import pick_device, pick_precision
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder
from audiobat.zoo.doctor.encoder import CHECKS, examine
from audiobat.zoo.doctor.file import facts_of_file
from audiobat.zoo.load import load_encoder
from audiobat.zoo.release import load, shipped_names

PACKAGES = ("torch", "numpy", "soundfile", "soxr", "safetensors", "huggingface_hub", "matplotlib")
EXTRAS = {  # and what needs them
    "pyarrow": ".parquet",
    "av": "audio that libsndfile does not read, such as .m4a",
    "transformers": "a model hf:...",
    "onnx": "export --to onnx",
    "fsspec": "clips on an object store",
}


def doctor(
    model: str | Path | Encoder | None = None,
    *,
    file: str | Path | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> None:
    """Print one line for each fact about this installation; one that asks for a fix begins with `!`.

    With a model, print one line for each rule of the `Encoder` protocol instead: ok, or FAILED and the hint. With a
    file, print what it is, what is in it and whether it is safe, without running any of it.

    Args:
        model: a model to check: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, a checkpoint of
            BAT, EAT, SSLAM, Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `my_file.py:MyEncoder`, or an encoder object.
        file: a checkpoint, a release or a run, whoever made it.
        device: where the model runs: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.

    Raises:
        AudiobatError: the model cannot be loaded, or breaks a rule; the file is damaged, made to do harm, or no model.
    """
    lines = facts_of_file(Path(file)) if file is not None else facts() if model is None else ()
    for name, fact in lines:
        print(f"{name:>14}  {fact}", flush=True)
    if model is None:
        return
    where = pick_device(device)
    encoder = load_encoder(model, str(where), trust_remote_code) if isinstance(model, str | Path) else model
    check_encoder(encoder, where)


def check_encoder(encoder: Encoder, device: torch.device) -> None:
    """Print the findings about an encoder as they come; AudiobatError if it breaks a rule."""
    failed = []
    for finding in examine(encoder, device):
        print(f"{finding.name:>18}  {'ok' if finding.fault is None else f'FAILED: {finding.fault}.'}", flush=True)
        if finding.fault is not None:
            failed.append(finding.name)
    if failed:
        raise AudiobatError(f"The encoder fails {len(failed)} of {len(CHECKS)} checks ({', '.join(failed)}): fix it.")


def facts() -> list[tuple[str, str]]:
    """Every fact with its name, in the order in which people ask."""
    device = pick_device("auto")
    free = shutil.disk_usage(Path.cwd()).free
    found = [
        ("audiobat", f"{__version__}, Python {platform.python_version()} on {platform.platform()}"),
        *((package, version(package)) for package in (*PACKAGES, *EXTRAS)),
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
        needs = EXTRAS.get(package)
        return f"not installed (only {needs} needs it)" if needs else "! missing: install audiobat anew"


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
