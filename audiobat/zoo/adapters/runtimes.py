"""Files of models that another program runs: ONNX, TFLite and TorchScript.

In: a file, and the names of some of its tensors. Out: a module that turns waveforms [W, S] into these tensors, as the
file gives them. `files.py` makes an encoder of it.
"""

from __future__ import annotations

import hashlib
import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiobat.errors import AudiobatError, did_you_mean, reason_of

FATAL = 4  # onnxruntime's level of logging: it prints each error that it raises, and ours are sentences
LENGTHS = "lengths"  # the second input of files that `audiobat export --to onnx` writes: samples of each clip
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
SHOWN = 8  # names in an error
EMBEDDINGS = ("embedding", "embeddings")  # the output that is meant where none is named

Shape = Sequence[int | None]  # None: any size


class Runtime(nn.Module):
    """Base: a file, opened. A subclass sets `axes`, the waveform's shape in the file, and writes `run`.

    The digest of the file and the names is a buffer, so that results of other tensors, too, have another hash.
    """

    digest: Tensor
    axes: Shape = (None, None)
    rate: int | None = None  # Hz, where the file says it

    def __init__(self, place: Path | str, names: Sequence[str]) -> None:
        super().__init__()
        self.place, self.names = place, list(names)  # a file, or what else errors name
        found = hashlib.sha256()
        if isinstance(place, Path):
            with place.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256")
        found.update("\n".join(names).encode())
        self.register_buffer("digest", torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8))

    @property
    def samples(self) -> int | None:
        """Samples of the one length that the file takes; None: any length."""
        return self.axes[-1]

    def run(self, waveform: Tensor) -> list[Tensor]:
        """A waveform of the file's own shape, `axes`, to the chosen tensors."""
        raise NotImplementedError

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """Waveform [W, S] to the chosen tensors, each with W clips first.

        A file whose batch is fixed, or that has none, gets clip by clip.
        """
        if len(self.axes) == 1:
            return together([[out[None] for out in self.run(clip)] for clip in waveform])
        shaped = waveform if len(self.axes) == 2 else waveform[:, None]
        if self.axes[0] is None:
            return self.run(shaped)
        return together([self.run(clip[None]) for clip in shaped])

    def failed(self, action: str, error: Exception) -> AudiobatError:
        """What the other program raised, as one sentence."""
        return AudiobatError(f"{self.place}: {action} ({reason_of(error)}).")


def together(outputs: list[list[Tensor]]) -> list[Tensor]:
    """The tensors of one clip each as tensors of all clips."""
    return [torch.cat(parts) for parts in zip(*outputs, strict=True)]


def check_axes(file: Path, axes: Shape) -> Shape:
    """`axes` as they are; AudiobatError unless a waveform has them: [S], [B, S] or [B, 1, S]."""
    if not 1 <= len(axes) <= 3 or (len(axes) == 3 and axes[1] not in (1, None)):
        shown = ", ".join("?" if size is None else str(size) for size in axes)
        raise AudiobatError(
            f"{file} takes an input of shape [{shown}], and no waveform [S], [B, S] or [B, 1, S]: make its input in a "
            "class of your own, --model my_file.py:MyEncoder."
        )
    if len(axes) > 1 and axes[0] not in (1, None):
        raise AudiobatError(f"{file} takes {axes[0]} clips at once: export it for one clip, or for any number.")
    return axes


def unknown(file: Path | str, name: str, known: Sequence[str]) -> AudiobatError:
    """The error that lists the tensors of a file, its outputs first, when it has none of this name."""
    listed = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
    return AudiobatError(f"{file} has no tensor {name!r}{did_you_mean(name, known)}: it has {listed}.")


def default_name(place: Path | str, outputs: Sequence[str]) -> str:
    """The output that is meant where none is named: the only one, or the embedding."""
    if len(outputs) == 1:
        return outputs[0]
    found = [name for name in outputs if name in EMBEDDINGS]
    if len(found) != 1:
        raise AudiobatError(
            f"{place} has the outputs {', '.join(outputs[:SHOWN])}: name one behind the rate, as in "
            f"{Path(place).name}@RATE:{outputs[0]}; several, joined by commas, are taken as layers."
        )
    return found[0]


class OnnxRuntime(Runtime):
    """An ONNX file in onnxruntime, on the CPU. Needs the extra audiobat[onnx]."""

    def __init__(self, file: Path, names: Sequence[str]) -> None:
        runtime = import_package("onnxruntime", "onnx", file)
        options = runtime.SessionOptions()
        options.log_severity_level = FATAL
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        super().__init__(file, names)

        def session(model: str | bytes) -> Any:
            try:
                return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime raises classes of its own
                raise self.failed(f"onnxruntime {runtime.__version__} cannot open it", error) from error

        self.session = session(str(file))
        outputs = [output.name for output in self.session.get_outputs()]
        self.names = list(names) or [default_name(file, outputs)]
        if not set(self.names) <= set(outputs):
            self.session = session(with_outputs(file, outputs, self.names))
        wave, *others = self.session.get_inputs() or [None]
        if wave is None:
            raise AudiobatError(f"{file} has no input, and so takes no waveform: give another file.")
        self.takes_lengths = [other.name for other in others] == [LENGTHS]
        if others and not self.takes_lengths:
            raise AudiobatError(
                f"{file} has {1 + len(others)} inputs ({', '.join(i.name for i in (wave, *others))}): give a file that "
                "takes a waveform alone, or wrap it as --model my_file.py:MyEncoder."
            )
        if wave.type not in FLOATS:
            raise AudiobatError(f"{file} takes {wave.type}, not floating-point samples in [-1, 1]: export it for them.")
        self.input, self.sample_type = wave.name, FLOATS[wave.type]
        self.axes = check_axes(file, [size if isinstance(size, int) else None for size in wave.shape])
        said = self.session.get_modelmeta().custom_metadata_map.get("sample_rate", "")
        self.rate = int(said) if said.isdecimal() and len(said) < 8 else None

    def run(self, waveform: Tensor) -> list[Tensor]:
        """A waveform of the file's shape to the chosen tensors."""
        feed: dict[str, NDArray[Any]] = {self.input: waveform.detach().cpu().numpy().astype(self.sample_type)}
        if self.takes_lengths:
            feed[LENGTHS] = np.full(len(waveform), waveform.shape[-1])
        try:
            found = self.session.run(self.names, feed)
        except Exception as error:  # onnxruntime raises classes of its own
            raise self.failed(f"onnxruntime fails on a waveform {list(waveform.shape)}", error) from error
        return [tensor_of(output, name, self.place) for name, output in zip(self.names, found, strict=True)]


def with_outputs(file: Path, outputs: list[str], names: Sequence[str]) -> bytes:
    """The ONNX model with tensors inside it, such as a layer below the classes, as outputs."""
    onnx = import_package("onnx", "onnx", file)
    model = onnx.load(str(file))
    inner = [name for node in model.graph.node for name in node.output if name and name not in outputs]
    for name in names:
        if name in outputs:
            continue
        if name not in inner:
            raise unknown(file, name, outputs + inner[::-1])  # what is near the outputs is what one looks for
        model.graph.output.append(onnx.ValueInfoProto(name=name))  # onnxruntime finds out type and shape
    try:
        found: bytes = model.SerializeToString()
    except Exception as error:  # beyond 2 GiB
        raise AudiobatError(
            f"{file} is too large to be changed ({type(error).__name__}: {error}): write it with {', '.join(names)} "
            "among its outputs."
        ) from error
    return found


class TfliteRuntime(Runtime):
    """A TFLite file in LiteRT, on the CPU. Needs the extra audiobat[tflite]."""

    def __init__(self, file: Path, names: Sequence[str]) -> None:
        litert = import_package("ai_edge_litert.interpreter", "tflite", file)
        super().__init__(file, names)
        try:
            # LiteRT keeps no tensor inside the model unless asked to, and warns of the memory when it is.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.interpreter = litert.Interpreter(
                    str(file), num_threads=torch.get_num_threads(), experimental_preserve_all_tensors=bool(names)
                )
        except Exception as error:  # ValueError for a damaged file
            raise self.failed("LiteRT cannot open it", error) from error
        wave, *others = self.interpreter.get_input_details() or [None]
        if wave is None:
            raise AudiobatError(f"{file} has no input, and so takes no waveform: give another file.")
        if others:
            raise AudiobatError(f"{file} has {1 + len(others)} inputs: give a file that takes a waveform alone.")
        if not np.issubdtype(wave["dtype"], np.floating):
            kind = np.dtype(wave["dtype"])
            raise AudiobatError(f"{file} takes {kind}, not floating-point samples in [-1, 1]: take its float version.")
        self.index, self.sample_type = wave["index"], wave["dtype"]
        # An axis of any size is -1 in the signature; clips run one by one all the same.
        sizes = [None if size == -1 else int(size) for size in wave["shape_signature"]]
        self.axes = check_axes(file, [1, *sizes[1:]] if len(sizes) > 1 else sizes)
        self.length = 0  # samples that memory is laid out for
        outputs = self.interpreter.get_output_details()
        self.names = list(names) or [default_name(file, [output["name"] for output in outputs])]
        inner = [] if not names else self.interpreter.get_tensor_details()
        places = {detail["name"]: detail["index"] for detail in (*inner, *outputs) if detail["name"]}
        for name in self.names:
            if name not in places:
                raise unknown(file, name, list(places)[::-1])
        self.places = [places[name] for name in self.names]

    def run(self, waveform: Tensor) -> list[Tensor]:
        """A waveform of the file's shape to the chosen tensors."""
        try:
            if waveform.shape[-1] != self.length:
                self.interpreter.resize_tensor_input(self.index, list(waveform.shape))
                self.interpreter.allocate_tensors()  # RuntimeError, too, for an operator that LiteRT lacks
                self.length = waveform.shape[-1]
            self.interpreter.set_tensor(self.index, waveform.detach().cpu().numpy().astype(self.sample_type))
            self.interpreter.invoke()
            found = [self.interpreter.get_tensor(place) for place in self.places]  # copies
        except Exception as error:
            self.length = 0
            raise self.failed(f"LiteRT fails on a waveform {list(waveform.shape)}", error) from error
        return [tensor_of(output, name, self.place) for name, output in zip(self.names, found, strict=True)]


class TorchScriptRuntime(Runtime):
    """A TorchScript program, which PyTorch runs on any device. Its names are the keys of a dictionary that it returns.

    What the program returns is a tensor, a tuple or list of tensors (named 0, 1, ...) or a dictionary of them.
    """

    def __init__(self, file: Path, names: Sequence[str]) -> None:
        super().__init__(file, names)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
                self.program = torch.jit.load(file, map_location="cpu").eval()
        except Exception as error:
            raise self.failed("PyTorch cannot open it as TorchScript", error) from error

    def run(self, waveform: Tensor) -> list[Tensor]:
        """Waveform [W, S] to the chosen tensors."""
        try:
            output = self.program(waveform)
        except Exception as error:
            raise self.failed(f"the program fails on a waveform {list(waveform.shape)}", error) from error
        if isinstance(output, dict):
            found = output
        else:
            parts = output if isinstance(output, tuple | list) else (output,)
            found = {str(number): part for number, part in enumerate(parts)}
        self.names = self.names or [default_name(self.place, list(found))]
        for name in self.names:
            if name not in found:
                raise unknown(self.place, name, list(found))
        return [tensor_of(found[name], name, self.place) for name in self.names]


def tensor_of(output: object, name: str, place: Path | str) -> Tensor:
    """An output in float32; AudiobatError if it is no tensor of floating-point numbers."""
    found = torch.from_numpy(output) if isinstance(output, np.ndarray) else output
    if not isinstance(found, Tensor) or not found.is_floating_point():
        kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise AudiobatError(f"{place}: {name} is {kind}, not a tensor of floating-point numbers: name another.")
    return found.float()


def import_package(name: str, extra: str, file: Path) -> Any:
    """The package that runs a kind of file; AudiobatError that names the extra if it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise AudiobatError(
            f'{file} needs {name.partition(".")[0]}{reason}: pip install "audiobat[{extra}]".'
        ) from None


RUNTIMES: dict[str, Callable[[Path, Sequence[str]], Runtime]] = {
    ".onnx": OnnxRuntime,
    ".tflite": TfliteRuntime,
    ".pt": TorchScriptRuntime,
    ".ts": TorchScriptRuntime,
    ".torchscript": TorchScriptRuntime,
}
