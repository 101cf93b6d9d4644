"""What this installation can do; with a model, whether it keeps the rules of an encoder; with a file, what it is."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
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
    "onnx": "export --to onnx, or a model FILE.onnx@RATE,",
    "ai-edge-litert": "a model FILE.tflite@RATE",
    "fsspec": "clips on an object store",
    "scikit-learn": "probe --tasks clustering, kshot or regression, or a map of sounds,",
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
            BAT, EAT, SSLAM, Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `FILE.onnx@RATE`, `my_file.py:MyEncoder`,
            `baseline:NAME`, or an encoder object.
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
    failed = []
    for name, fault in examine(encoder, where):
        print(f"{name:>18}  {'ok' if fault is None else f'FAILED: {fault}.'}", flush=True)
        if fault is not None:
            failed.append(name)
    if failed:
        raise AudiobatError(f"The encoder fails {len(failed)} of {len(CHECKS)} checks ({', '.join(failed)}): fix it.")


def facts() -> Iterator[tuple[str, str]]:
    """Every fact about the installation with its name, in the order in which people ask."""
    yield "audiobat", f"{__version__}, Python {platform.python_version()} on {platform.platform()}"
    for package in (*PACKAGES, *EXTRAS):
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            needs = EXTRAS.get(package)
            yield package, f"not installed (only {needs} needs it)" if needs else "! missing: install audiobat anew"
    device = pick_device("auto")
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        yield "device", f"{device}, {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    else:
        yield "device", device.type
    yield "precision", "bf16" if pick_precision("auto", device) is torch.bfloat16 else "fp32"
    yield "cores", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"
    yield "reads", " ".join(sorted(name.lower() for name in soundfile.available_formats()))
    yield "disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free in {Path.cwd()}"
    for name in shipped_names():
        try:
            encoder = load(name)
        except AudiobatError as error:
            yield "weights", f"! {name}: {error}"
            continue
        count = sum(parameter.numel() for parameter in encoder.parameters())
        yield "weights", f"{name}: ok, {count / 1e6:.2f}M parameters, sha256 {weights_sha256(encoder)[:12]}"
