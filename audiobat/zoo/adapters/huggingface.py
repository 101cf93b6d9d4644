"""The name or folder of a Hugging Face audio model to an encoder. Needs the extra audiobat[hf].

Layers are the model's own `hidden_states` but for the first of them, which is the input of the first block.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from audiobat.errors import AudiobatError
from audiobat.zoo.adapters.published import ASTEncoder, ClapAudioTower, WaveformEncoder, WhisperAudioEncoder
from audiobat.zoo.adapters.remote import RemoteEncoder
from audiobat.zoo.adapters.windows import WindowedEncoder

WAVEFORM = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")
ADAPTERS = {
    "audio-spectrogram-transformer": ASTEncoder,
    "whisper": WhisperAudioEncoder,
    "clap": ClapAudioTower,
    "clap_audio_model": ClapAudioTower,
    **dict.fromkeys(WAVEFORM, WaveformEncoder),
}
NO_AUTO_MODEL = {"clap_audio_model": "ClapAudioModel"}  # classes of model types that AutoModel does not know
REACH_SECONDS = 5.0  # after which the Hub counts as out of reach
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
        model = load_model(getattr(transformers, NO_AUTO_MODEL.get(str(kind), "AutoModel")), source)
        extractor = read("feature extractor", source, transformers.AutoFeatureExtractor.from_pretrained)
        # The audio encoder inside a model that has more: Whisper's encoder, CLAP's audio model.
        audio = model.encoder if kind == "whisper" else getattr(model, "audio_model", model)
        return ADAPTERS[kind](audio, extractor).eval()
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
    model = load_model(model_class, source, config=made)
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


def read(part: str, source: str | Path, reader: Any) -> Any:
    """`reader(source)`, whose many kinds of failure become one sentence that names the part."""
    try:
        return reader(str(source))
    except Exception as error:  # transformers, or the code beside the weights, may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise AudiobatError(
            f"The {part} of {source} cannot be read ({reason}): check the name, the folder or the network."
        ) from error


def load_model(model_class: Any, source: str | Path, **more: Any) -> Any:
    """The model in float32. Where weights are missing transformers would fill in random ones; here AudiobatError."""
    model, report = read(
        "model",
        source,
        lambda name: model_class.from_pretrained(name, dtype="float32", output_loading_info=True, **more),
    )
    names = {name for name, _ in model.named_parameters()}
    lost = sorted(name for name in report["missing_keys"] if name in names and not name.endswith(ABSENT))
    if lost:
        raise AudiobatError(
            f"The weights of {source} lack {len(lost)} tensors of {type(model).__name__}, such as {lost[0]}: download "
            "them again, or check that they are this model's."
        )
    return model
