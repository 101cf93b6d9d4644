"""What an ONNX file spends on its spectrogram, beside onnxruntime's own FFT, and what fewer bits do to its embeddings.

python benchmarks/onnx_file.py [SECONDS]: one clip of 10 s, one thread. For `bat_nano`, and for a bat_base of random
weights: the share of the spectrogram's nodes in the time of all nodes, each the least of 20 runs by onnxruntime's
profile. For `bat_nano`, on recordings of the demo at four loudnesses: cosines of its embeddings with those in float32.
"""

import json
import logging
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from targets import say

import audiobat
from audiobat.audio.read import load_audio
from audiobat.config import PretrainConfig
from audiobat.data.scenes import demo_folder
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo.export import onnx as export

GAINS = (1.0, 0.1, 0.01, 0.001)  # of peaks of 0.9
RATE, CLIP = 16_000, 64_000
Clips = tuple[np.ndarray, np.ndarray]  # waveforms [B, S] and lengths [B]


class Calibration(CalibrationDataReader):
    """Clips at one loudness, one at a time, as static quantisation reads them."""

    def __init__(self, clips: Clips) -> None:
        self.clips = iter(zip(*clips, strict=True))

    def get_next(self) -> dict[str, np.ndarray] | None:
        clip = next(self.clips, None)
        return None if clip is None else {"waveform": clip[0][None, : clip[1]], "lengths": clip[1][None]}


def main(seconds: float) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    torch.manual_seed(0)
    models = {"bat_nano": audiobat.load("bat_nano"), "bat_base": AudioEncoder(PretrainConfig().model)}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            with mock.patch.object(export, "FilterBank", ()):  # no frontend is one: its FFT is translated
                export.export_onnx(model, f"{folder}/{name}_fft.onnx")
            export.export_onnx(model, f"{folder}/{name}.onnx")
            for way, file in (("onnxruntime's FFT", f"{name}_fft"), ("matrix products", name)):
                spectrogram, whole = profile(f"{folder}/{file}.onnx", seconds)
                share = spectrogram / whole
                print(f"{name}, {way}: spectrogram {spectrogram / 1e3:.2f} ms of {whole / 1e3:.2f} ms, {share:.3f}")
            say(f"onnx, {name}: share of the spectrogram", f"{share:.1%}", "at most 25%", share <= 0.25)
        fewer_bits(f"{folder}/bat_nano.onnx", folder)


def profile(file: str, seconds: float) -> tuple[int, int]:
    """Microseconds of the spectrogram's nodes and of all nodes, each node's least."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = 1, True
    options.profile_file_prefix = file
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    samples = round(seconds * RATE)
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, samples)).astype(np.float32)
    for _ in range(20):
        session.run(None, {"waveform": noise, "lengths": np.array([samples])})
    times: dict[str, list[int]] = defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event["name"].endswith("_kernel_time"):
            times[event["name"]].append(event["dur"])
    least = {name: min(found) for name, found in times.items()}
    return sum(v for name, v in least.items() if name.startswith(export.SPECTROGRAM)), sum(least.values())


def fewer_bits(file: str, folder: str) -> None:
    """Print the least and the median cosine of embeddings at each loudness, for files of fewer bits."""
    clips = recordings()
    spectrogram = [n.name for n in onnx.load(file).graph.node if n.name.startswith(export.SPECTROGRAM)]
    out = f"{folder}/fewer.onnx"
    for weights in (QuantType.QUInt8, QuantType.QInt8):
        quantize_dynamic(file, out, weight_type=weights)
        least = compare(f"dynamic int8, {weights}", file, out, clips)
        if weights == QuantType.QUInt8:
            say("onnx, bat_nano: least cosine of quantize_dynamic", f"{least:.4f}", "at least 0.99", least >= 0.99)
    for name, left_out in (("all", []), ("spectrogram left out", spectrogram)):
        for gain in (1.0, 0.01):
            quantize_static(file, out, Calibration((gain * clips[0], clips[1])), nodes_to_exclude=left_out)
            compare(f"static int8, {name}, calibrated at {gain}", file, out, clips)
    for name, blocked in (("all", []), ("spectrogram blocked", spectrogram)):
        onnx.save(convert_float_to_float16(onnx.load(file), keep_io_types=True, node_block_list=blocked), out)
        compare(f"float16, {name}", file, out, clips)
    half = onnx.load(out)
    rounded = {n.output[0]: n.input[0] for n in half.graph.node if casts_to(n, TensorProto.FLOAT16)}
    for node in half.graph.node:
        if casts_to(node, TensorProto.FLOAT):
            node.input[0] = rounded.get(node.input[0], node.input[0])
    onnx.save(half, out)
    compare("float16, spectrogram in float32", file, out, clips)


def casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def recordings() -> Clips:
    """Every fifteenth of the demo's recordings, a loud tone, and noise, up to 4 s at the same peak."""
    time = np.arange(CLIP) / RATE
    sounds = [load_audio(path, RATE).reshape(-1)[:CLIP] for path in sorted((demo_folder() / "events").glob("*"))[::15]]
    sounds += [np.sin(2 * np.pi * 1000 * time), np.random.default_rng(0).standard_normal(CLIP)]
    waveform = np.stack([np.pad(0.9 * x / np.abs(x).max(), (0, CLIP - len(x))) for x in sounds]).astype(np.float32)
    return waveform, np.array([len(x) for x in sounds])


def compare(name: str, file: str, other: str, clips: Clips) -> float:
    """Print the cosines of the embeddings of two files at each loudness; the least of all."""
    sessions = [onnxruntime.InferenceSession(f, providers=["CPUExecutionProvider"]) for f in (file, other)]
    cells, least = [], 1.0
    for gain in map(np.float32, GAINS):
        inputs = {"waveform": gain * clips[0], "lengths": clips[1]}
        a, b = (session.run(["embedding"], inputs)[0] for session in sessions)
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        cells.append(f"{cosine.min():.4f} ({np.median(cosine):.4f})")
        least = min(least, float(cosine.min()))
    print(f"{name}: " + " | ".join(cells), flush=True)
    return least


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
