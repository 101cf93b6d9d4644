"""The name or folder of a Hugging Face audio model to an encoder. Needs the extra audiobat[hf].

Layers are the model's own `hidden_states` but for the first of them, which is the input of the first block.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from audiobat.errors import AudiobatError, reason_of
from audiobat.zoo.adapters.conformers import LasrAudioEncoder, ParakeetAudioEncoder, Wav2Vec2BertEncoder
from audiobat.zoo.adapters.published import (
    ASTEncoder,
    ClapAudioTower,
    MoonshineAudioEncoder,
    WaveformEncoder,
    WhisperAudioEncoder,
)
from audiobat.zoo.adapters.remote import RemoteEncoder
from audiobat.zoo.adapters.towers import LanguageModelTower, PEAudioTower, part_of
from audiobat.zoo.adapters.windows import WindowedEncoder

WAVEFORM = (
    *("wav2vec2", "wav2vec2-conformer", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat"),
    *("sew", "sew-d"),
)
FAST_CONFORMERS = ("parakeet_ctc", "parakeet_rnnt", "parakeet_tdt", "canary")  # with a decoder or a head
ADAPTERS = {
    "audio-spectrogram-transformer": ASTEncoder,
    "whisper": WhisperAudioEncoder,
    "clap": ClapAudioTower,
    "clap_audio_model": ClapAudioTower,
    **dict.fromkeys(WAVEFORM, WaveformEncoder),
    "moonshine": MoonshineAudioEncoder,
    "wav2vec2-bert": Wav2Vec2BertEncoder,
    **dict.fromkeys(("parakeet_encoder", *FAST_CONFORMERS), ParakeetAudioEncoder),
    **dict.fromkeys(("lasr_encoder", "lasr_ctc"), LasrAudioEncoder),
    **dict.fromkeys(("qwen2_audio", "voxtral", "audioflamingo3", "musicflamingo"), LanguageModelTower),
    **dict.fromkeys(("qwen2_audio_encoder", "voxtral_encoder", "audioflamingo3_encoder"), LanguageModelTower),
    **dict.fromkeys(("pe_audio", "pe_audio_encoder", "pe_audio_video"), PEAudioTower),
}
PARTS = {  # the audio encoder inside a model that has more
    **dict.fromkeys(("whisper", "moonshine", *FAST_CONFORMERS, "lasr_ctc"), "encoder"),
    "clap": "audio_model",
}
TOWERS = ("qwen2_audio", "voxtral", "audioflamingo3", "musicflamingo", "pe_audio", "pe_audio_video")  # loaded alone
NO_AUTO_MODEL = {"clap_audio_model": "ClapAudioModel"}  # classes of model types that AutoModel does not know
REACH_SECONDS = 5.0  # after which the Hub counts as out of reach
OWN_IMPORTS = ("audiobat", "transformers", "transformers_modules")  # the last are files beside the weights
ABSENT = ("masked_spec_embed",)  # parameters that only training uses, which published weights may lack


def load_huggingface(source: str | Path, trust_remote_code: bool = False) -> WindowedEncoder:
    """Load a model of `ADAPTERS`, or a model whose code comes with it, in float32, on the CPU, in eval mode.

    Args:
        source: a name on the Hub, such as `MIT/ast-finetuned-audioset-10-10-0.4593`, or a folder.
        trust_remote_code: run Python files that come with the weights. Read them first.

    Raises:
        AudiobatError: transformers is not installed; no such name or folder; a model of a kind without an adapter;
            weights that lack part of the model; a model that brings its own code while `trust_remote_code` is off.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        raise AudiobatError('A model "hf:..." needs transformers: pip install "audiobat[hf]".') from None
    check_reachable(source)
    config = read("config", source, transformers.PretrainedConfig.get_config_dict)[0]
    kind, own_code = config.get("model_type"), "AutoModel" in (config.get("auto_map") or {})
    if kind in ADAPTERS:
        name = NO_AUTO_MODEL.get(str(kind), "AutoModel")
        model_class = read("model", source, lambda _: getattr(transformers, name))
        part = part_of(read("config", source, transformers.AutoConfig.from_pretrained)) if kind in TOWERS else {}
        model, _ = load_model(model_class, source, **part)
        extractor = read("feature extractor", source, transformers.AutoFeatureExtractor.from_pretrained)
        return ADAPTERS[kind](getattr(model, PARTS[kind]) if kind in PARTS else model, extractor).eval()
    if not own_code:
        raise AudiobatError(
            f"{source} has model_type {kind!r}, for which there is no adapter ({', '.join(ADAPTERS)}): wrap it as "
            "--model my_file.py:MyEncoder."
        )
    if not trust_remote_code:
        raise AudiobatError(
            f"{source} brings Python code of its own ({config['auto_map']['AutoModel']}): read it, then allow it to "
            "run with --trust-remote-code."
        )
    return load_remote(transformers, source, config).eval()


def check_reachable(source: str | Path) -> None:
    """Ask the Hub once for a model that is neither a folder nor in the cache: without a network, transformers retries.

    Raises AudiobatError if there is no answer, or no such model.
    """
    hub = importlib.import_module("huggingface_hub")
    try:
        kept = Path(source).is_dir() or hub.try_to_load_from_cache(str(source), "config.json") is not None
    except hub.errors.HFValidationError:  # not the form of a name: transformers explains that
        return
    if not kept:
        read("page", source, lambda name: hub.model_info(name, timeout=REACH_SECONDS))


def load_remote(transformers: Any, source: str | Path, config: dict[str, Any]) -> RemoteEncoder:
    """Load a model, and its feature extractor if it has any, by the Python code beside the weights."""
    dynamic = importlib.import_module("transformers.dynamic_module_utils")
    made = read("config", source, lambda name: transformers.AutoConfig.from_pretrained(name, trust_remote_code=True))
    place = config["auto_map"]["AutoModel"]
    model_class = read("code", source, lambda name: dynamic.get_class_from_dynamic_module(place, name))
    if not hasattr(model_class, "all_tied_weights_keys"):
        model_class.all_tied_weights_keys = {}  # code older than transformers 5 may skip post_init, which sets it
    model = made_anew(*load_model(model_class, source, config=made))
    extractor = None
    find = transformers.utils.cached_file  # of a file beside the weights; None if there is none
    beside = find(str(source), "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if "AutoFeatureExtractor" in config["auto_map"] or beside is not None:
        extractor = read(
            "feature extractor",
            source,
            lambda name: transformers.AutoFeatureExtractor.from_pretrained(name, trust_remote_code=True),
        )
    return RemoteEncoder(model, extractor)


def made_anew(loaded: Any, missing: Collection[str]) -> Any:
    """A model of the class and weights of `loaded`, with whatever else its code computes.

    transformers 5 runs that code on tensors without memory. Afterwards buffers that are in no file, such as the window
    of an STFT, hold whatever stood in memory before, and tensors that are no buffers still hold nothing.

    Args:
        loaded: a model, as transformers loaded it.
        missing: names of its tensors that were in no file.
    """
    with torch.random.fork_rng(devices=[]):  # the code draws initial weights, which are none of the caller's numbers
        made = type(loaded)(loaded.config).float()
    state = {name: tensor for name, tensor in loaded.state_dict().items() if name not in missing}
    made.load_state_dict(state, strict=False)
    return made


def read(part: str, source: str | Path, reader: Any) -> Any:
    """`reader(source)`, whose many kinds of failure become one sentence that names the part."""
    try:
        return reader(str(source))
    except Exception as error:  # transformers, or the code beside the weights, may raise anything
        package, cause = failed_import(error)
        hint = "check the name, the folder or the network"
        if package:
            hint = (
                f"{package} is installed and fails to load; remove it (pip uninstall {package}), or install the build "
                f"of it that fits PyTorch {torch.__version__}"
            )
        elif isinstance(cause, ImportError):
            hint = "install what it names"
        raise AudiobatError(f"The {part} of {source} cannot be read ({reason_of(cause)}): {hint}.") from error


def failed_import(error: BaseException) -> tuple[str, BaseException]:
    """The package, other than transformers, whose import raised an exception, and that exception, the first one.

    Where no import raised: no name, and the exception that was given.
    """
    at: BaseException | None = error
    while at is not None:
        for frame, _ in traceback.walk_tb(at.__traceback__):
            package = str(frame.f_globals.get("__name__")).partition(".")[0]
            if frame.f_code.co_name == "<module>" and package not in OWN_IMPORTS:
                return package, at
        at = at.__cause__ or at.__context__
    return "", error


def load_model(model_class: Any, source: str | Path, **more: Any) -> tuple[Any, list[str]]:
    """The model in float32, and the names of its tensors that are in no file.

    Where weights are missing transformers would fill in random ones; here AudiobatError.
    """
    logs = importlib.import_module("transformers.utils.logging")
    level = logs.get_verbosity()
    logs.set_verbosity_error()  # no table of what a file holds beside the encoder
    try:
        model, report = read(
            "model",
            source,
            lambda name: model_class.from_pretrained(name, dtype="float32", output_loading_info=True, **more),
        )
    finally:
        logs.set_verbosity(level)
    names = {name for name, _ in model.named_parameters()}
    lost = sorted(name for name in report["missing_keys"] if name in names and not name.endswith(ABSENT))
    if lost:
        raise AudiobatError(
            f"The weights of {source} lack {len(lost)} tensors of {type(model).__name__}, such as {lost[0]}: download "
            "them again, or check that they are this model's."
        )
    return model, list(report["missing_keys"])
