"""Load an encoder from anything that `--model` names: our weights, others' files and models, a class."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from torch import nn

from audiobat.engine.ranks import pick_device
from audiobat.errors import AudiobatError
from audiobat.models.baselines import PREFIX as BASELINE
from audiobat.models.baselines import load_baseline
from audiobat.models.encoder import BaseEncoder
from audiobat.models.features import Encoder
from audiobat.zoo import release as release_io
from audiobat.zoo.adapters import is_program, load_avex, load_custom, load_file, load_huggingface, load_torchaudio
from audiobat.zoo.adapters.files import SOURCE
from audiobat.zoo.convert import convert_file, is_foreign
from audiobat.zoo.hf_hub import PREFIX as HUB
from audiobat.zoo.hf_hub import is_shared

TIMM = "timm:"
Door = Callable[[str, bool], BaseEncoder]  # the rest of a name, and whether to trust its code, to an encoder
FETCHING: dict[str, Door] = {  # how names begin
    "hf:": load_huggingface,
    "torchaudio:": lambda name, _: load_torchaudio(name),
    "avex:": lambda name, _: load_avex(name),
}
FETCHED = (HUB, TIMM, *FETCHING)  # how the names of models begin that may come over the net
DOORS: dict[str, Door] = {**FETCHING, BASELINE: lambda name, _: load_baseline(name)}


def load(path_or_name: str | Path, device: str = "cpu", trust_remote_code: bool = False) -> BaseEncoder:
    """Load an encoder, in eval mode on `device`.

    Args:
        path_or_name: the name of shipped weights (`bat_nano`), a release folder, or a run folder, of pre-training or of
            fine-tuning; `hub:OWNER/NAME[@REVISION]`, a release on the Hugging Face Hub; or weights of another project:
            a checkpoint file of BAT, EAT, SSLAM, Audio-MAE, BEATs or OpenBEATs, or a Hugging Face folder of BAT, EAT or
            SSLAM. Behind a run of pre-training, `@20000` takes the checkpoint of that step; behind it, or a file that
            holds one, `:teacher` takes the EMA teacher. Or a model of others: `hf:NAME_OR_FOLDER`, `timm:FOLDER` or
            `timm:OWNER/NAME`, `torchaudio:BUNDLE`, `avex:NAME`, or `FILE@RATE`, an ONNX, TFLite or TorchScript file
            with its rate in Hz. Or `baseline:logmel`, `baseline:mfcc` or `baseline:random`, which nothing was trained
            for.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.
        trust_remote_code: run the Python files that came with the model, if it has any; read them first.

    Raises:
        AudiobatError: nothing there; a file that is missing, damaged, of no known kind, or does not fit the others.
    """
    name = str(path_or_name)
    for beginning, opened in DOORS.items():
        if name.startswith(beginning):
            return opened(name.removeprefix(beginning), trust_remote_code).to(pick_device(device))
    begun = re.match("([a-zA-Z]{2,20}):", name)  # one letter is a drive of Windows
    if begun and begun[0] not in FETCHED and not Path(begun[1]).exists():
        beginnings = ", ".join((*FETCHED, BASELINE))
        raise AudiobatError(f"No such folder or name: {name}; names of models elsewhere begin {beginnings}.")
    if is_program(name):
        return load_file(name, trust_remote_code).to(pick_device(device))
    source: str | Path = timm_source(name.removeprefix(TIMM)) if name.startswith(TIMM) else path_or_name
    if is_shared(source):
        source = release_io.find(source)
    if is_foreign(source):
        return convert_file(source).encoder.to(pick_device(device))
    return release_io.load(source, device, trust_remote_code)


def load_encoder(source: str | Path, device: str = "cpu", trust_remote_code: bool = False) -> Encoder:
    """Load an encoder, in eval mode on `device`.

    Args:
        source: what `load` takes, or a class of a user's own, `my_file.py:MyEncoder`.
        device: `cpu`, `cuda`, `cuda:1` or `auto`; an encoder that is no torch module stays where it is.
        trust_remote_code: run the Python files that come with a model, if it has any; read them first.

    Raises:
        AudiobatError: nothing there, or nothing that can be used.
    """
    file, _, name = str(source).rpartition(":")
    if str(source).endswith(".py"):
        raise AudiobatError(f"{source} names a file of Python but no class in it: give --model {source}:CLASS.")
    if not file.endswith(".py"):
        return load(source, device, trust_remote_code)
    encoder = load_custom(file, name)
    if isinstance(encoder, nn.Module):
        encoder.to(pick_device(device))
    return encoder


def timm_source(name: str) -> str:
    """The folder, or the place on the Hub, of an audio model that timm has saved; timm itself is not needed to read it.

    Raises AudiobatError for the name of an architecture of timm's, all of which were trained on pictures.
    """
    if not name:
        raise AudiobatError("timm: names no model: give timm:FOLDER, or timm:OWNER/NAME of the Hub.")
    name = name.removeprefix("local-dir:").removeprefix("hf-hub:").removeprefix("hf_hub:")  # as create_model has them
    if Path(name).is_dir():
        return name
    if "/" not in name:
        raise AudiobatError(
            f"There is no folder {name}, and timm's own models read pictures: give timm:FOLDER, or timm:OWNER/NAME of "
            "the Hub, such as timm:gaunernst/vit_base_patch16_1024_128.audiomae_as2m."
        )
    return f"{HUB}{name}"


def short_name(source: str | Path) -> str:
    """The name of a model in records: its file's or folder's without the folders above it."""
    found = SOURCE.fullmatch(str(source)) if is_program(source) else None
    if found is None:
        return Path(source).resolve().name
    behind = str(source)[found.end("file") :].replace("/", ".")  # names of tensors have slashes
    return Path(found["file"]).resolve().name + behind
