"""An encoder, or an encoder with its head, as one ONNX file, for any number of waveforms of any length.

In: `waveform` [B, S] float32 at the model's rate, `lengths` [B] int64 in samples, 1 to S; the spectrogram is computed
inside. Out, of the last block: `embedding` [B, D], `cls_token` [B, D], `patch_tokens` [B, N, D], `valid` [B, N]; or a
head's `logits` and `scores` [B, C].
"""

from __future__ import annotations

import copy
import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiobat import __version__
from audiobat.audio.frontends.filter_bank import FilterBank, MatrixBank
from audiobat.engine.files import errors_of_writing, replacing
from audiobat.engine.tensors import check_values
from audiobat.errors import AudiobatError, reason_of
from audiobat.models.encoder import AudioEncoder, pool_features
from audiobat.models.tagger import Tagger, surest_frame

TOLERANCE = 1e-4  # of an output's greatest magnitude, or of 1 where that is less
SPECTROGRAM = "spectrogram/"  # begins the names of its nodes, which a program that quantises a file leaves out
GAINS = (0.1, 1e-3, 0.0)  # of the clips on which both are compared: noise, faint noise, silence


class OnnxModel(nn.Module):
    """The module that is translated: waveforms to the outputs that `names` lists, in this order."""

    def __init__(self, model: AudioEncoder | Tagger) -> None:
        super().__init__()
        self.tagger = model if isinstance(model, Tagger) else None
        self.encoder = encoder_of(model)
        if self.tagger is None:
            self.names = ["embedding", "cls_token", "patch_tokens", "valid"]
        else:
            self.names = ["logits", "scores", "frame_logits"][: 3 if self.tagger.task == "frame" else 2]

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Waveform [B, S] and lengths [B] to the outputs; values on padding have no meaning."""
        features = self.encoder.forward_intermediates(waveform, lengths)
        if self.tagger is None:
            assert features.cls_token is not None
            return pool_features(features), features.cls_token[-1], features.patch_tokens[-1], features.valid
        if self.tagger.task == "clip":
            logits = self.tagger.head(features)
            return logits, self.tagger.scores(logits)
        frames = self.tagger.frame_logits(features)
        logits = surest_frame(frames, features)
        return logits, self.tagger.scores(logits), frames


def export_onnx(model: AudioEncoder | Tagger, file: str | Path) -> None:
    """Write `model` as one ONNX file, whole or not at all. Needs the extra audiobat[onnx].

    A tagger that labels frames has a third output, `frame_logits` [B, T, C], zeros on padding. The file's metadata say
    `name` (the file's own), the version of `audiobat`, `sample_rate` and the `column_seconds` of a patch column, which
    is a frame; of a tagger also `classes` (a JSON list in the order of the logits), `task`, `multi_label` and, where
    each class has one, `thresholds` (a JSON list).

    Args:
        model: of this package; it is not changed.
        file: where to write; an older file is replaced after the new one has passed the comparison with PyTorch.

    Raises:
        AudiobatError: onnx, onnxscript or onnxruntime is missing; an encoder of another class, such as BEATs's; weights
            that are not finite; PyTorch cannot translate the model; onnxruntime's outputs for shapes other than the
            traced one differ from PyTorch's by more than `TOLERANCE`; a disk that is full or cannot be written.
    """
    runtime = import_runtime()
    file = Path(file)
    check_values(model.state_dict(), f"The model for {file}", model.state_dict())
    module = OnnxModel(copy.deepcopy(model).cpu().float().eval())
    program = translate(module)
    program.model.metadata_props.update(metadata(model, file.stem))
    with errors_of_writing(file), replacing(file) as beside:
        program.save(beside)
        try:
            session = runtime.InferenceSession(beside, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own
            raise AudiobatError(
                f"onnxruntime {runtime.__version__} cannot open what PyTorch {torch.__version__} wrote "
                f"({reason_of(error)}): nothing was written; take the versions of constraints.txt."
            ) from error
        compare(module, session)


def encoder_of(model: nn.Module) -> AudioEncoder:
    """The encoder of a tagger, or the encoder itself; AudiobatError if it is no AudioEncoder, such as BEATs'."""
    encoder = model.encoder if isinstance(model, Tagger) else model
    if not isinstance(encoder, AudioEncoder):
        raise AudiobatError(f"Its encoder is a {type(encoder).__name__}, and only an AudioEncoder can be exported.")
    return encoder


def import_runtime() -> Any:
    """The onnxruntime package; AudiobatError that names the extra if a package of it is missing."""
    try:
        importlib.import_module("onnx")
        importlib.import_module("onnxscript")
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise AudiobatError(f'Export to ONNX needs {error.name}: pip install "audiobat[onnx]".') from None


def translate(module: OnnxModel) -> Any:
    """The ONNX program of `module`, for any number of clips of any length.

    Mel power comes of matrix products, and the names of the spectrogram's nodes begin with `SPECTROGRAM`.
    """
    module = copy.deepcopy(module, {id(weight): weight for weight in module.parameters()})  # with the same weights
    frontend = module.encoder.frontend
    if isinstance(frontend, FilterBank):
        frontend.matrices = MatrixBank(frontend.filters, frontend.config.n_fft)
    batch, samples = torch.export.Dim("batch", min=1), torch.export.Dim("samples", min=1)
    window = module.encoder.max_samples
    example = torch.zeros(2, window), torch.tensor([window, window // 2])  # with padding, so that masks are traced
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes={"waveform": {0: batch, 1: samples}, "lengths": {0: batch}},
                output_names=module.names,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        raise AudiobatError(
            f"PyTorch {torch.__version__} cannot translate this model to ONNX ({reason_of(error)}): export it "
            "as a release."
        ) from error
    assert program is not None
    for node in program.model.graph:
        if "frontend'" in node.metadata_props.get("pkg.torch.onnx.name_scopes", ""):  # the modules that it is part of
            node.name = f"{SPECTROGRAM}{node.name}"
    return program


def metadata(model: AudioEncoder | Tagger, name: str) -> dict[str, str]:
    """The file's metadata, as strings: all that a program needs beside the outputs."""
    config = encoder_of(model).config
    column = config.encoder.patch_size[0] * config.frontend.hop_length / config.frontend.sample_rate
    about = {
        "name": name,
        "audiobat": __version__,
        "sample_rate": str(model.sample_rate),
        "column_seconds": str(column),
    }
    if isinstance(model, Tagger):
        about["classes"] = json.dumps(model.classes, ensure_ascii=False)
        about["task"], about["multi_label"] = model.task, json.dumps(model.multi_label)
        if model.config.thresholds:
            about["thresholds"] = json.dumps(model.config.thresholds)
    return about


def compare(module: OnnxModel, session: Any) -> None:
    """Raise AudiobatError if onnxruntime's outputs differ from PyTorch's anywhere but on padding."""
    for waveform, lengths in samples_for(module.encoder):
        with torch.no_grad():
            expected = dict(zip(module.names, module(waveform, lengths), strict=True))
        found = session.run(module.names, {"waveform": waveform.numpy(), "lengths": lengths.numpy()})
        for (name, value), array in zip(expected.items(), found, strict=True):
            valid = expected["valid"] if name == "patch_tokens" else ...
            worst = difference(value, torch.from_numpy(array), valid)
            if not worst <= TOLERANCE:  # NaN is a difference, too
                raise AudiobatError(
                    f"In onnxruntime {name} differs from PyTorch's by {worst:.1e} for waveforms of shape "
                    f"{list(waveform.shape)}, which is more than {TOLERANCE:g}: nothing was written; export a release."
                )


def difference(expected: Tensor, found: Tensor, valid: Any) -> float:
    """Greatest difference where `valid`, as a share of the greatest expected magnitude, or of 1 if that is less."""
    if found.shape != expected.shape:
        return torch.inf
    expected, found = expected[valid].float(), found[valid].float()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


def samples_for(encoder: AudioEncoder) -> Iterator[tuple[Tensor, Tensor]]:
    """Waveforms and lengths of three shapes: less than a patch, part of a window, more than two windows."""
    patch = encoder.config.encoder.patch_size[0] * encoder.config.frontend.hop_length
    window = encoder.max_samples
    random = torch.Generator().manual_seed(0)
    for clips, samples in ((1, patch // 2 + 1), (3, window // 2 + 1), (2, 2 * window + 7)):
        noise = torch.randn(clips, samples, generator=random) * torch.tensor(GAINS)[:clips, None]
        yield noise, torch.tensor([samples, samples // 3 + 1, samples // 2 + 1])[:clips]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the exporter's remarks about itself and about optional packages, which a user can do nothing about."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
