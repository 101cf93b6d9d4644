"""An ONNX file gives PyTorch's answers for shapes that it was not traced with; a wrong one is never written."""

import copy
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import load
from onnxruntime.quantization import QuantType, quantize_dynamic

from audiobat import __version__
from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder, pool_features
from audiobat.models.tagger import Tagger
from audiobat.zoo.export import onnx
from audiobat.zoo.load import load_encoder

MEL = FrontendConfig(n_fft=256, win_length=200, hop_length=80, sample_rate=8000, mel_bins=16)
KALDI = FrontendConfig(kind="kaldi_fbank", mel_bins=16, pad_seconds=0.1)
SIZES = {"dim": 16, "depth": 2, "heads": 2, "patch_size": (8, 8), "max_frames": 32}
POST = EncoderConfig(**SIZES)
PRE = EncoderConfig(**SIZES, gated_attention=False, block_norm="pre", final_norm=True, pad="grid")
HEADS = (
    HeadConfig(kind="cgp", prototypes=7),
    HeadConfig(kind="protobin", prototypes=7, layer=1),
    HeadConfig(kind="linear", norm="scaled_layer"),
    HeadConfig(kind="linear_cgp", pool="mean"),
    HeadConfig(kind="attentive", norm="batch"),
    HeadConfig(kind="ep", queries=4),
    HeadConfig(kind="head2toe"),
    HeadConfig(kind="proto_classwise", per_class=2),
    HeadConfig(kind="mean_time_keep_freq", norm="batch"),
)
FRAMED = (0, 4)  # two whose frames are translated: the same code pools the columns of all kinds
CLASSES = ("ant", "bee", "süß, „cicada“")
# One sample; less than a patch; odd lengths within a window; the last sample of a window and the first of a next; more.
LENGTHS = ([1], [639, 3], [1999, 1, 1281], [2559, 2559], [2560, 7], [9001, 5120, 80, 1])


def make(frontend: FrontendConfig, encoder: EncoderConfig, head: HeadConfig | None = None, **fields):
    torch.manual_seed(0)
    model = AudioEncoder(ModelConfig(frontend, encoder)).eval()
    if head is not None:
        model = Tagger(model, TaggerConfig(head, CLASSES, **fields)).eval()
        for buffer in (b for name, b in model.head.named_buffers() if name.endswith("running_mean")):
            buffer.normal_()
    return model


def clips(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise that goes on beyond a clip's own length, where nothing may read it."""
    random = torch.Generator().manual_seed(len(lengths))
    return 0.1 * torch.randn(len(lengths), max(lengths), generator=random), torch.tensor(lengths)


def run(file: Path, waveform: torch.Tensor, lengths: torch.Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"waveform": waveform.numpy(), "lengths": lengths.numpy()})
    return dict(zip(names, found, strict=True))


def close(found: np.ndarray, wanted: torch.Tensor) -> bool:
    return found.shape == tuple(wanted.shape) and np.abs(found - wanted.numpy()).max() < 1e-4


@pytest.fixture(scope="module")
def post_norm(tmp_path_factory) -> tuple[AudioEncoder, Path]:
    """A model in training, which the export leaves there, and its file in a folder that was not there."""
    model, file = make(MEL, POST).train(), tmp_path_factory.mktemp("onnx") / "new" / "bat.onnx"
    onnx.export_onnx(model, file)
    return model, file


@torch.no_grad()
def test_an_encoder_answers_as_in_pytorch(post_norm):
    model, file = post_norm
    assert model.training
    for lengths in LENGTHS:
        waveform, counts = clips(lengths)
        features = model.forward_intermediates(waveform, counts)
        found = run(file, waveform, counts)
        assert list(found) == ["embedding", "cls_token", "patch_tokens", "valid"]
        assert np.array_equal(found["valid"], features.valid.numpy())
        assert close(found["patch_tokens"][found["valid"]], features.patch_tokens[-1][features.valid])
        assert close(found["cls_token"], features.cls_token[-1])
        assert close(found["embedding"], pool_features(features))
    assert [path.name for path in file.parent.iterdir()] == ["bat.onnx"]


def test_padding_and_company_say_nothing(post_norm):
    waveform, counts = clips([2500, 900])
    alone = run(post_norm[1], waveform[1:, :900], counts[1:])
    both = run(post_norm[1], waveform, counts)
    for name in ("embedding", "cls_token"):
        assert np.abs(both[name][1] - alone[name][0]).max() < 1e-5


@torch.no_grad()
def test_the_file_is_an_encoder_again(post_norm):
    model, file = post_norm
    wave, counts = clips([4000, 16_000])
    wanted = model.forward_intermediates(wave, counts)
    vectors = load_encoder(file)  # the file says its rate, and has an `embedding`
    assert (vectors.sample_rate, vectors.dim) == (8000, 16)
    assert close(pool_features(vectors.forward_intermediates(wave, counts)).numpy(), pool_features(wanted))
    patches = load_encoder(f"{file}:patch_tokens")
    found = patches.forward_intermediates(wave, counts)
    assert (found.grid, patches.freq_patches) == (wanted.grid, 2)
    assert torch.equal(found.frame_times, wanted.frame_times)
    assert close(found.patch_tokens[0, 1].numpy(), wanted.patch_tokens[-1, 1])


def test_silence_has_an_embedding(post_norm):
    model, file = post_norm
    silence = torch.zeros(1, 3000)
    assert close(run(file, silence, torch.tensor([3000]))["embedding"][0], model.embed(silence[0], 8000))


def test_the_spectrogram_is_named_and_holds_nothing_that_quantisation_takes_for_a_layer(post_norm):
    graph = load(post_norm[1]).graph
    constants = {tensor.name for tensor in graph.initializer}
    spectrogram = [node for node in graph.node if node.name.startswith(onnx.SPECTROGRAM)]
    rest = [node for node in graph.node if not node.name.startswith(onnx.SPECTROGRAM)]
    products = [node for node in spectrogram if node.op_type == "MatMul"]
    assert len(products) == 3
    assert not any(node.input[1] in constants for node in products)
    assert {node.op_type for node in spectrogram}.isdisjoint({"Conv", "Gemm", "STFT", "DFT"})
    assert {"Log", "ReduceMin"} <= {node.op_type for node in spectrogram}
    assert any(node.op_type == "MatMul" and node.input[1] in constants for node in rest)
    assert "Log" not in {node.op_type for node in rest}


@pytest.mark.parametrize("weight_type", [QuantType.QUInt8, QuantType.QInt8])
def test_a_quantised_file_has_nearly_the_same_embeddings(post_norm, tmp_path: Path, weight_type):
    quantize_dynamic(post_norm[1], tmp_path / "int8.onnx", weight_type=weight_type)
    waveform, counts = clips([2500, 900])
    waveform[1] = (torch.arange(2500) * 0.8).sin()
    for gain in (1.0, 0.03, 0.001):
        wanted = torch.from_numpy(run(post_norm[1], gain * waveform, counts)["embedding"])
        found = torch.from_numpy(run(tmp_path / "int8.onnx", gain * waveform, counts)["embedding"])
        assert torch.cosine_similarity(found, wanted).min() > 0.99


@torch.no_grad()
def test_openvino_takes_the_file_and_any_shape(post_norm):
    openvino = pytest.importorskip("openvino")
    model, file = post_norm
    compiled = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for lengths in LENGTHS:
        waveform, counts = clips(lengths)
        found = compiled({"waveform": waveform.numpy(), "lengths": counts.numpy()})["embedding"]
        assert close(found, pool_features(model.eval().forward_intermediates(waveform, counts)))


@torch.no_grad()
def test_rotary_positions_are_translated_for_clips_of_any_length(tmp_path: Path):
    model = make(MEL, EncoderConfig(**{**SIZES, "depth": 1, "patch_size": (8, 16)}, positions="rotary"))
    onnx.translate(onnx.OnnxModel(model)).save(tmp_path / "rotary.onnx")
    for lengths in LENGTHS:
        waveform, counts = clips(lengths)
        features, found = model(waveform, counts), run(tmp_path / "rotary.onnx", waveform, counts)
        assert np.array_equal(found["valid"], features.valid.numpy())
        assert close(found["patch_tokens"][found["valid"]], features.patch_tokens[-1][features.valid])
        assert close(found["cls_token"], features.cls_token[-1])


class EveryHead(torch.nn.Module):
    """All kinds of heads on one encoder, of the other kind, in one graph: exporting each alone would take minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.taggers = torch.nn.ModuleList(make(KALDI, PRE, head) for head in HEADS)
        self.encoder = self.taggers[0].encoder
        self.names = ["tokens", *(f"{head.kind}_clip" for head in HEADS), *(f"{HEADS[i].kind}_frames" for i in FRAMED)]

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.encoder.forward_intermediates(waveform, lengths)
        tokens = features.patch_tokens * features.valid[..., None]
        clips = [tagger.head(features) for tagger in self.taggers]
        return tokens, *clips, *(self.taggers[i].frame_logits(features) for i in FRAMED)


@torch.no_grad()
def test_a_plain_pre_norm_encoder_on_a_kaldi_filter_bank_and_every_head_are_translated(tmp_path: Path):
    answers = EveryHead().eval()
    onnx.translate(answers).save(tmp_path / "heads.onnx")
    for lengths in LENGTHS:
        waveform, counts = clips(lengths)
        found = run(tmp_path / "heads.onnx", waveform, counts)
        for name, wanted in zip(answers.names, answers(waveform, counts), strict=True):
            assert close(found[name], wanted), name


@torch.no_grad()
def test_a_frame_tagger_answers_as_in_pytorch_and_says_what_it_is(tmp_path: Path):
    tagger = make(MEL, POST, HEADS[2], task="frame", multi_label=False)
    tagger.config = replace(tagger.config, thresholds=tuple(0.25 for _ in CLASSES))
    onnx.export_onnx(tagger, tmp_path / "bees.onnx")
    waveform, counts = clips([9001, 5120, 80, 1])
    found = run(tmp_path / "bees.onnx", waveform, counts)
    logits = tagger(waveform, counts)
    assert list(found) == ["logits", "scores", "frame_logits"]
    assert close(found["logits"], logits)
    assert close(found["scores"], logits.softmax(-1))
    assert close(found["frame_logits"], tagger.frames(waveform, counts)[0])
    about = onnxruntime.InferenceSession(tmp_path / "bees.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES)
    assert (about["name"], about["audiobat"], about["task"]) == ("bees", __version__, "frame")
    assert json.loads(about["multi_label"]) is False
    assert json.loads(about["thresholds"]) == [0.25] * len(CLASSES)
    assert int(about["sample_rate"]) == 8000
    assert float(about["column_seconds"]) == pytest.approx(8 * 80 / 8000)


@torch.no_grad()
def test_a_clip_tagger_answers_with_logits_and_probabilities():
    tagger = make(MEL, POST, HEADS[0])
    answers = onnx.OnnxModel(tagger)
    waveform, counts = clips([2000, 700])
    logits, scores = answers(waveform, counts)
    assert answers.names == ["logits", "scores"]
    assert torch.equal(logits, tagger(waveform, counts))
    assert torch.equal(scores, logits.sigmoid())


class Another:
    """A program that is the file of another model."""

    def __init__(self, file: Path) -> None:
        self.file, self.model = file, SimpleNamespace(metadata_props={})

    def save(self, path: Path) -> None:
        shutil.copy(self.file, path)


def test_a_graph_that_differs_is_not_written(post_norm, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(onnx, "translate", lambda _: Another(post_norm[1]))
    model = copy.deepcopy(post_norm[0])
    onnx.export_onnx(model, tmp_path / "bat.onnx")  # the same weights pass
    before = (tmp_path / "bat.onnx").read_bytes()
    model.blocks[1].norm2.bias.data[0] += 0.01
    with pytest.raises(AudiobatError, match=r"embedding differs from PyTorch's by .* for waveforms of shape \[1, "):
        onnx.export_onnx(model, tmp_path / "bat.onnx")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_what_cannot_be_translated_is_told(tmp_path: Path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("no such\noperator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(AudiobatError, match=r"cannot translate .* \(OnnxExporterError: no such operator\)"):
        onnx.export_onnx(make(MEL, POST), tmp_path / "bat.onnx")
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_none_differ():
    right = torch.tensor([1.0, 300.0])
    assert onnx.difference(right, torch.tensor([1.0, 303.0]), ...) == pytest.approx(0.01)  # of the greatest magnitude
    assert onnx.difference(right / 1000, torch.tensor([0.001, 0.303]), ...) == pytest.approx(0.003, 1e-3)  # or of 1
    assert not onnx.difference(right, torch.tensor([1.0, torch.nan]), ...) <= onnx.TOLERANCE
    assert onnx.difference(right, right[None], ...) == torch.inf


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path):
    model = make(MEL, POST)
    model.cls_token.data[0] = torch.nan
    with pytest.raises(AudiobatError, match="cls_token holds NaN"):
        onnx.export_onnx(model, tmp_path / "bat.onnx")


def test_a_place_that_cannot_be_written_is_told(post_norm, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(onnx, "translate", lambda _: Another(post_norm[1]))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AudiobatError, match="cannot be written"):
        onnx.export_onnx(make(MEL, POST), tmp_path / "file" / "bat.onnx")
    (tmp_path / "bat.onnx").mkdir()
    with pytest.raises(AudiobatError, match="cannot be written"):
        onnx.export_onnx(make(MEL, POST), tmp_path / "bat.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bat.onnx", "file"]


def test_a_file_that_onnxruntime_does_not_open_is_told(tmp_path: Path, monkeypatch):
    (tmp_path / "no graph").write_bytes(b"no graph")
    monkeypatch.setattr(onnx, "translate", lambda _: Another(tmp_path / "no graph"))
    with pytest.raises(AudiobatError, match=r"onnxruntime .* cannot open what PyTorch .* wrote"):
        onnx.export_onnx(make(MEL, POST), tmp_path / "bat.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["no graph"]


def test_an_encoder_of_another_class_is_refused(tmp_path: Path):
    with pytest.raises(AudiobatError, match="a Linear"):
        onnx.export_onnx(torch.nn.Linear(2, 2), tmp_path / "bat.onnx")


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AudiobatError, match=rf'needs {name}: pip install "audiobat\[onnx\]"'):
        onnx.import_runtime()


def test_weights_of_another_precision_stay_as_they_are(post_norm, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(onnx, "translate", lambda _: Another(post_norm[1]))
    monkeypatch.setattr(onnx, "compare", lambda answers, _: seen.append(answers.encoder.cls_token.dtype))
    seen: list[torch.dtype] = []
    model = make(MEL, POST).bfloat16()
    onnx.export_onnx(model, tmp_path / "bat.onnx")
    assert (seen, model.cls_token.dtype) == ([torch.float32], torch.bfloat16)
