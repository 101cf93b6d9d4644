"""Models in files of other programs: ONNX, TFLite and TorchScript against plain PyTorch; a mistake is a sentence."""

import sys
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
import soundfile
import torch
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

import audiobat
from audiobat.audio.read import pad_batch
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder, LayerFeatures
from audiobat.zoo.adapters.files import even_grid, smallest
from audiobat.zoo.adapters.windows import TimeGrid
from audiobat.zoo.doctor.encoder import examine
from audiobat.zoo.load import load_encoder, short_name

RATE, KERNEL, STRIDE, DIM = 8_000, 200, 80, 6
CLOSE = {"atol": 1e-5, "rtol": 1e-4}
WEIGHT = torch.randn(DIM, 1, KERNEL, generator=torch.Generator().manual_seed(0))


def frames_of(waveform: Tensor) -> Tensor:
    """The network of the files below: waveform [B, S] to frames [B, T, D], one for each 10 ms."""
    return F.conv1d(waveform[:, None], WEIGHT, stride=STRIDE).relu().mT


def write_onnx(
    file: Path,
    shape: list[Any],
    outputs: tuple[str, ...] = ("frames",),
    kind: int = TensorProto.FLOAT,
    rate: str | None = None,
    more: tuple[str, ...] = (),
) -> Path:
    """That network as an ONNX file with an input of `shape`: `frames`, `by_channel` [B, D, T], `embedding` [B, D]."""
    whole = [0, 1, -1] if len(shape) > 1 else [1, 1, -1]  # 0: as it is; -1: the rest
    nodes = [
        helper.make_node("Cast", ["waveform"], ["samples"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["samples", "whole"], ["one"]),
        helper.make_node("Conv", ["one", "weight"], ["raw"], strides=[STRIDE]),
        helper.make_node("Relu", ["raw"], ["by_channel"]),
        helper.make_node("Transpose", ["by_channel"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["by_channel", "last"], ["embedding"], keepdims=0),
        helper.make_node("Identity", ["embedding"], ["classes"]),
        helper.make_node("ArgMax", ["classes"], ["best"], axis=1),
        helper.make_node("ReduceMean", ["classes"], ["number"], keepdims=0),
        helper.make_node("ReduceMean", ["classes", "rows"], ["row"], keepdims=0),
    ]
    kinds = {"best": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name in ("waveform", *more)],
        [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in outputs],
        [
            numpy_helper.from_array(WEIGHT.numpy(), "weight"),
            numpy_helper.from_array(np.array(whole), "whole"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "rows"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if rate is not None:
        helper.set_model_props(model, {"sample_rate": rate})
    onnx.save(model, file)
    return file


def noise(*seconds: float, rate: int = RATE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(round(s * rate), generator=generator) for s in seconds]


@torch.no_grad()
def features(encoder: Encoder, clips: list[Tensor]) -> LayerFeatures:
    return encoder.forward_intermediates(*pad_batch(clips))


def faults(encoder: Encoder) -> list[tuple[str, str | None]]:
    return [found for found in examine(encoder, torch.device("cpu")) if found[1]]


@pytest.mark.parametrize("name", ["frames", "by_channel"])
@pytest.mark.parametrize("shape", [["batch", "samples"], ["batch", 1, "samples"], [1, "samples"], ["samples"]])
def test_rows_of_tokens_are_the_networks_own_and_their_times_are_found(shape: list[Any], name: str, tmp_path: Path):
    encoder = load_encoder(f"{write_onnx(tmp_path / 'a.onnx', shape, (name,))}@{RATE}")
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (RATE, DIM, 1)
    assert encoder.grid == TimeGrid(window=10 * RATE, hop=STRIDE, span=KERNEL)
    clips = noise(1.0, 0.3, 12.5)  # the last one in two windows
    found = features(encoder, clips)
    assert found.grid == (1248, 1)
    torch.testing.assert_close(found.frame_times, torch.arange(1248) * 0.01)
    for i, clip in enumerate(clips):
        wanted = frames_of(clip[None])[0]
        assert found.valid[i].sum() == len(wanted)
        torch.testing.assert_close(found.patch_tokens[0, i, : len(wanted)], wanted, **CLOSE)
    assert faults(encoder) == []


@pytest.mark.parametrize("shape", [[1, 2 * RATE], ["batch", 2 * RATE], [2 * RATE]])
def test_a_file_of_one_length_gets_windows_and_the_last_one_zeros(shape: list[Any], tmp_path: Path):
    encoder = load_encoder(f"{write_onnx(tmp_path / 'a.onnx', shape, ('frames', 'embedding'))}@{RATE}")
    clips = noise(1.0, 3.9, 4.2, 5.5)
    found = features(encoder, clips)
    assert found.grid == (3, 1)
    assert found.valid.sum(1).tolist() == [1, 2, 2, 3]  # a rest of less than half a window is left out
    assert found.frame_times.tolist() == [0, 2, 4]
    for i, clip in enumerate(clips):
        windows = F.pad(clip, (0, 6 * RATE - len(clip))).unfold(0, 2 * RATE, 2 * RATE)
        wanted = frames_of(windows).mean(1)[: int(found.valid[i].sum())]
        torch.testing.assert_close(found.patch_tokens[0, i, : len(wanted)], wanted, **CLOSE)
    assert faults(encoder) == []


def test_frames_of_a_file_of_one_length_lie_where_they_do(tmp_path: Path):
    encoder = load_encoder(f"{write_onnx(tmp_path / 'a.onnx', [1, RATE])}@{RATE}")
    assert encoder.grid == TimeGrid(RATE, STRIDE, span=RATE - 97 * STRIDE)  # 98 frames
    (clip,) = noise(3.3)
    torch.testing.assert_close(features(encoder, [clip]).patch_tokens[0, 0], frames_of(clip[None])[0], **CLOSE)


def test_a_vector_of_any_length_is_one_token_for_each_window(tmp_path: Path):
    encoder = load_encoder(f"{write_onnx(tmp_path / 'a.onnx', ['batch', 'samples'], ('embedding', 'frames'))}@{RATE}")
    clips = noise(0.01, 1.0, 21.5, 20.5)
    found = features(encoder, clips)
    assert found.valid.sum(1).tolist() == [1, 1, 3, 2]
    wanted = [F.pad(clips[0], (0, KERNEL - 80)), clips[1], *clips[2].split(10 * RATE)]
    mine = [*found.patch_tokens[0, :2, 0], *found.patch_tokens[0, 2]]
    for one, clip in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one, frames_of(clip[None])[0].mean(0), **CLOSE)
    assert faults(encoder) == []


def test_tensors_inside_the_file_can_be_named_and_several_are_layers(tmp_path: Path):
    file = write_onnx(tmp_path / "a.onnx", ["batch", "samples"], ("classes",))
    encoder = load_encoder(f"{file}@{RATE}:raw,by_channel")
    clips = noise(1.0, 0.5)
    found = features(encoder, clips)
    assert encoder.depth == 2
    for i, clip in enumerate(clips):
        raw = F.conv1d(clip[None, None], WEIGHT, stride=STRIDE)[0].T
        torch.testing.assert_close(found.patch_tokens[0, i, : len(raw)], raw, **CLOSE)
        torch.testing.assert_close(found.patch_tokens[1, i, : len(raw)], raw.relu(), **CLOSE)
    assert faults(encoder) == []


def test_weights_beside_the_file_and_a_file_too_large_to_change(tmp_path: Path, monkeypatch):
    """onnx keeps the weights of large models in a second file; a message of protobuf ends at 2 GiB."""
    file = write_onnx(tmp_path / "a.onnx", ["batch", "samples"], ("classes",))
    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location="a.data", size_threshold=1000)
    assert (tmp_path / "a.data").stat().st_size >= WEIGHT.numel() * 4
    (clip,) = noise(1.0)
    found = features(load_encoder(f"{file}@{RATE}:frames"), [clip])
    torch.testing.assert_close(found.patch_tokens[0, 0], frames_of(clip[None])[0], **CLOSE)

    class Large:
        graph = model.graph

        def SerializeToString(self) -> bytes:
            raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB")

    monkeypatch.setattr(onnx, "load", lambda path: Large())
    with pytest.raises(AudiobatError, match=r"too large to be changed .*2GB.*write it with raw among its outputs"):
        load_encoder(f"{file}@{RATE}:raw")


def test_half_precision_and_an_own_rate(tmp_path: Path):
    file = write_onnx(tmp_path / "a.onnx", ["batch", "samples"], kind=TensorProto.FLOAT16, rate=str(RATE))
    (clip,) = noise(1.0)
    wanted = frames_of(clip.half().float()[None])[0]
    torch.testing.assert_close(features(load_encoder(file), [clip]).patch_tokens[0, 0], wanted, **CLOSE)
    assert load_encoder(f"{file}@{RATE}").sample_rate == RATE
    torch.testing.assert_close(audiobat.load(file).embed(clip, RATE), wanted.mean(0), **CLOSE)
    with pytest.raises(AudiobatError, match=r"a\.onnx says that its rate is 8000 Hz: leave @16000 out"):
        load_encoder(f"{file}@16000")


class Frames(torch.nn.Module):
    """The network above with what TorchScript files return: a tensor, a tuple, a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(WEIGHT.clone())

    def forward(self, waveform: Tensor) -> Tensor:
        return torch.conv1d(waveform[:, None], self.weight, stride=80).relu().transpose(1, 2)


class Pair(Frames):
    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        frames = torch.conv1d(waveform[:, None], self.weight, stride=80).relu().transpose(1, 2)
        return frames, frames.mean(1)


class Named(Frames):
    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        frames = torch.conv1d(waveform[:, None], self.weight, stride=80).relu().transpose(1, 2)
        return {"frames": frames, "embedding": frames.mean(1), "best": frames.argmax(1)}


def write_script(file: Path, module: torch.nn.Module) -> Path:
    torch.jit.script(module).save(str(file))
    return file


@pytest.mark.parametrize(
    ("module", "behind", "vector"),
    [(Frames(), "", False), (Pair(), ":0", False), (Named(), "", True), (Named(), ":frames", False)],
)
def test_torchscript(module: torch.nn.Module, behind: str, vector: bool, tmp_path: Path):
    source = f"{write_script(tmp_path / 'a.pt', module)}@{RATE}{behind}"
    with pytest.raises(AudiobatError, match=r"is a TorchScript program.*--trust-remote-code"):
        load_encoder(source)
    encoder = load_encoder(source, trust_remote_code=True)
    clips = noise(1.0, 0.4)
    found = features(encoder, clips)
    for i, clip in enumerate(clips):
        wanted = frames_of(clip[None])[0]
        wanted = wanted.mean(0, keepdim=True) if vector else wanted
        torch.testing.assert_close(found.patch_tokens[0, i, : len(wanted)], wanted, **CLOSE)
    assert faults(encoder) == []
    assert sum(p.numel() for p in encoder.parameters()) == DIM * KERNEL


def test_a_file_is_probed_and_its_record_tells_it_from_another(tmp_path: Path):
    rows = ["path,label,split"]
    for i, clip in enumerate(noise(*[0.5] * 8)):
        soundfile.write(tmp_path / f"{i}.wav", clip.numpy() * (1 + 4 * (i % 2)), RATE)
        rows.append(f"{i}.wav,{'ab'[i % 2]},{'train' if i < 4 else 'test'}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    write_onnx(tmp_path / "a.onnx", ["batch", "samples"], ("embedding",))
    hashes = []
    config = {"head": {"kind": "linear"}, "train": {"steps": 20}, "workers": 0}
    for source in (f"{tmp_path / 'a.onnx'}@{RATE}", f"{tmp_path / 'a.onnx'}@{RATE}:frames"):
        out = tmp_path / f"run{len(hashes)}"
        (record,) = audiobat.probe(source, tmp_path / "clips.csv", config=config, out=out)
        assert record.model.parameters is None
        hashes.append(record.model.sha256)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("nets/a.onnx", "a.onnx"),
        ("nets/a.onnx:block/1,block/2", "a.onnx:block.1,block.2"),
        ("me@home/a.onnx@16000:block/1", "a.onnx@16000:block.1"),
        ("me@home/a.pt@16000", "a.pt@16000"),
        ("me@home/run:teacher", "run:teacher"),
    ],
)
def test_records_name_the_file_and_the_tensors(source: str, name: str):
    assert short_name(source) == name


def test_tokens_without_a_known_hop_lie_at_even_distances():
    assert even_grid(16_000, 50, 16_000) == TimeGrid(16_000, 320, 320)
    assert even_grid(16_000, 101, 16_000) == TimeGrid(16_000, 160, 0)  # frames around their times
    assert even_grid(16_000, 49, 16_000).hop == 320  # wav2vec 2.0's 20 ms
    assert even_grid(160_000, 998, 16_000).hop == 160  # Kaldi's 10 ms
    for samples, tokens in ((144_000, 7), (1_000, 999), (5, 5), (48_000, 1), (30_000, 11)):
        assert even_grid(samples, tokens, 16_000).columns(samples) == tokens
    assert [smallest(lambda n, k=k: n >= k, 100) for k in (1, 2, 63, 99, 100)] == [1, 2, 63, 99, 100]


def write_tflite(file: Path, samples: int, kind: str = "FLOAT32") -> Path:
    """`classes` = relu(`hidden`), `hidden` = a matrix times the waveform [1, S], made with LiteRT's own schema."""
    weight = WEIGHT.new_ones(DIM, samples) * torch.arange(1, DIM + 1)[:, None] / samples
    weight[::2] *= -1

    def tensor(name: str, shape: list[int], buffer: int, signature: list[int] | None = None) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.shapeSignature, made.buffer = name, shape, signature, buffer
        made.type = getattr(schema.TensorType, "FLOAT32" if name != "waveform" else kind)
        return made

    def operator(code: int, inputs: list[int], output: int) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
        if code == 0:
            made.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            made.builtinOptions = schema.FullyConnectedOptionsT()
        return made

    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("waveform", [1, samples], 0, [-1, samples]),
        tensor("weight", [DIM, samples], 1),
        tensor("inside/hidden", [1, DIM], 0),
        tensor("classes", [1, DIM], 0),
        tensor("samples", [1, samples], 0),
    ]
    graph.inputs, graph.outputs = [0], [3]
    graph.operators = [operator(2, [0], 4), operator(0, [4, 1, -1], 2), operator(1, [2], 3)]
    codes = []
    kinds = schema.BuiltinOperator
    for builtin in (kinds.FULLY_CONNECTED, kinds.RELU, kinds.CAST):
        codes.append(schema.OperatorCodeT())
        codes[-1].builtinCode = codes[-1].deprecatedBuiltinCode = builtin
        codes[-1].version = 1
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], codes
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.frombuffer(weight.numpy().tobytes(), np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(builder.Output())
    return file


def test_tflite(tmp_path: Path):
    file = write_tflite(tmp_path / "a.tflite", RATE)
    encoder = load_encoder(f"{file}@{RATE}")
    clips = [clip + 0.1 for clip in noise(0.7, 2.0, 2.6)]
    found = features(encoder, clips)
    assert found.valid.sum(1).tolist() == [1, 2, 3]
    factors = torch.arange(1, DIM + 1) * torch.tensor([-1, 1] * (DIM // 2))
    wanted = clips[1].unfold(0, RATE, RATE).mean(1)[:, None] * factors
    torch.testing.assert_close(found.patch_tokens[0, 1, :2], wanted.relu(), **CLOSE)
    assert faults(encoder) == []
    hidden = load_encoder(f"{file}@{RATE}:inside/hidden")
    torch.testing.assert_close(features(hidden, clips).patch_tokens[0, 1, :2], wanted, **CLOSE)
    with pytest.raises(AudiobatError, match=r"has no tensor 'insid/hidden'.*did you mean inside/hidden"):
        load_encoder(f"{file}@{RATE}:insid/hidden")
    with pytest.raises(AudiobatError, match=r"takes int16, not floating-point samples"):
        load_encoder(f"{write_tflite(tmp_path / 'i.tflite', RATE, 'INT16')}@{RATE}")
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(AudiobatError, match=r"text\.tflite: LiteRT cannot open it \(ValueError: "):
        load_encoder(f"{tmp_path / 'text.tflite'}@{RATE}")


def test_mistakes_are_sentences(tmp_path: Path, monkeypatch, capfd):
    file = write_onnx(tmp_path / "a.onnx", ["batch", "samples"])

    def check(source: object, sentence: str, trust: bool = False) -> None:
        with pytest.raises(AudiobatError, match=sentence):
            load_encoder(str(source), trust_remote_code=trust)

    check(file, r"a\.onnx: a file like this does not say its rate: .*--model a\.onnx@48000")
    for rate in ("48k", "0", "-3", "", "4e4", "9" * 5000, "999", "٤٨٠٠٠"):
        check(f"{file}@{rate}", "whole number of Hz" if rate else "does not say its rate")
    check(f"{tmp_path}/b.onnx@8000", r"There is no file .*b\.onnx")
    check(f"{file}@{RATE}:frame", "has no tensor 'frame'.*did you mean frames.*it has frames, ")
    check(f"{file}@{RATE}:best", "best is torch.int64, not a tensor of floating-point numbers")
    check(f"{file}@{RATE}:number", r"number is \[\] for one clip, and no vector \[1, D\]")
    check(f"{file}@{RATE}:row", r"row is \[1\] for one clip, and no vector \[1, D\]")
    check(f"{file}@{RATE}:raw,embedding", r"layers have one shape, but these are raw \[1, 6, 998\], embedding \[1, 6\]")
    pair = write_onnx(tmp_path / "pair.onnx", ["batch", "samples"], ("frames", "classes"))
    check(f"{pair}@{RATE}", "has the outputs frames, classes: name one behind the rate, as in pair.onnx@RATE:frames")
    shapes: list[list[Any]] = [[1, 64, 101, 1], [1, 2, "samples"], [4, "samples"]]
    sentences = [r"shape \[1, 64, 101, 1\], and no waveform", "no waveform", "takes 4 clips at once"]
    for shape, sentence in zip(shapes, sentences, strict=True):
        check(f"{write_onnx(tmp_path / 'c.onnx', shape)}@{RATE}", sentence)
    long = write_onnx(tmp_path / "long.onnx", [1, 10**9])
    check(f"{long}@{RATE}", r"takes 1,000,000,000 samples, which are 125,000 s at 8000 Hz: check the rate")
    integers = write_onnx(tmp_path / "i.onnx", ["batch", "samples"], kind=TensorProto.INT16)
    check(f"{integers}@{RATE}", r"takes tensor\(int16\), not floating-point samples")
    two = write_onnx(tmp_path / "two.onnx", ["batch", "samples"], more=("mask",))
    check(f"{two}@{RATE}", r"has 2 inputs \(waveform, mask\)")
    graph = onnx.load(file)
    del graph.graph.input[:]
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros((1, RATE), np.float32), "waveform"))
    onnx.save(graph, tmp_path / "none.onnx")
    check(f"{tmp_path}/none.onnx@{RATE}", r"none\.onnx has no input, and so takes no waveform")
    (tmp_path / "text.onnx").write_text("no model")
    check(f"{tmp_path}/text.onnx@8000", r"text\.onnx: onnxruntime \S+ cannot open it \(\w+: ")
    (tmp_path / "text.tflite").write_text("no model")
    (tmp_path / "text.ts").write_text("no model")
    check(f"{tmp_path}/text.ts@8000", r"text\.ts: PyTorch cannot open it as TorchScript", trust=True)
    picky = load_encoder(f"{file}@{RATE}")
    picky.fewest = 0  # so that nothing is filled up
    with pytest.raises(AudiobatError, match=r"a\.onnx: onnxruntime fails on a waveform \[2, 3\]"):
        picky.run(torch.zeros(2, 3))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    check(f"{file}@{RATE}", r'a\.onnx needs onnxruntime: pip install "audiobat\[onnx\]"')
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    check(f"{tmp_path}/text.tflite@8000", r'needs ai_edge_litert: pip install "audiobat\[tflite\]"')
    assert capfd.readouterr().err == ""  # neither program writes beside our sentences
