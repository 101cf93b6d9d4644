"""A folder for transformers gives audiobat's values without audiobat, and comes through save_pretrained unchanged."""

import ast
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from torch.nn import functional as F

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig, from_dict
from audiobat.config.registry import kinds
from audiobat.config.user_files import find_in_file
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder, pool_features
from audiobat.models.heads import build_head, head_class
from audiobat.models.tagger import Tagger
from audiobat.zoo.export import bundle
from audiobat.zoo.export import transformers as transformers_export
from audiobat.zoo.export.transformers import export_transformers

MEL = FrontendConfig(n_fft=256, win_length=200, hop_length=80, sample_rate=8000, mel_bins=16)
KALDI = FrontendConfig(kind="kaldi_fbank", mel_bins=16)
SIZES = {"dim": 16, "depth": 2, "heads": 2, "patch_size": (8, 8), "max_frames": 32}
POST = EncoderConfig(**SIZES)
PRE = EncoderConfig(**SIZES, gated_attention=False, block_norm="pre", final_norm=True, pad="grid")
HEADS = {
    "frames": TaggerConfig(
        HeadConfig(kind="cgp", prototypes=7), ("ant", "bee", "Grille „süß“"), "frame", True, (0.2, 0.5, 0.7)
    ),
    "clips": TaggerConfig(HeadConfig(kind="linear", norm="batch"), ("ant", "bee"), multi_label=False),
    "own": TaggerConfig(HeadConfig(kind="proto_classwise", per_class=2), ("ant",)),
}
LENGTHS = (9001, 2559, 640, 1)  # four windows, a whole one, a patch, a sample
FILES = {"config.json", "preprocessor_config.json", "modeling_audiobat.py", "model.safetensors"}


pytestmark = pytest.mark.usefixtures("own_remote_modules")


def make(frontend: FrontendConfig = MEL, encoder: EncoderConfig = POST, head: TaggerConfig | None = None):
    torch.manual_seed(0)
    model = AudioEncoder(ModelConfig(frontend, encoder)).eval()
    if head is not None:
        model = Tagger(model, head).eval()
        for buffer in (b for name, b in model.head.named_buffers() if name.endswith("running_mean")):
            buffer.normal_()
    return model


def load(auto: str, folder: Path, **options):
    return getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True, **options)


def clips() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [0.1 * random.standard_normal(length) for length in LENGTHS]


def batch(folder: Path, rate: int = 8000) -> dict[str, torch.Tensor]:
    return load("AutoFeatureExtractor", folder)(clips(), sampling_rate=rate, return_tensors="pt")


@pytest.mark.parametrize(
    ("frontend", "encoder"), [(MEL, POST), (KALDI, PRE)], ids=["mel, post-norm, gated", "kaldi, pre-norm, plain, grid"]
)
@torch.no_grad()
def test_hidden_states_are_audiobats_own(frontend: FrontendConfig, encoder: EncoderConfig, tmp_path: Path):
    model = make(frontend, encoder)
    export_transformers(model, tmp_path / "bat")
    loaded, report = load("AutoModel", tmp_path / "bat", output_loading_info=True)
    assert not any(report.values())
    assert not loaded.training
    inputs = batch(tmp_path / "bat", frontend.sample_rate)
    assert inputs["input_values"].shape == inputs["attention_mask"].shape == (4, 9001)
    assert inputs["attention_mask"].sum(1).tolist() == list(LENGTHS)
    output = loaded(**inputs, output_hidden_states=True)
    features = model.forward_intermediates(inputs["input_values"], torch.tensor(LENGTHS))
    assert torch.equal(output.pooler_output, pool_features(features))
    assert torch.equal(output.token_mask[:, 1:].bool(), features.valid)
    assert output.token_mask[:, 0].all()
    stem, *blocks = output.hidden_states
    for block, patches, cls in zip(blocks, features.patch_tokens, features.cls_token, strict=True):
        assert torch.equal(block[:, 1:], patches)
        assert torch.equal(block[:, 0], cls)
    assert torch.equal(output.last_hidden_state, blocks[-1])
    assert loaded(**inputs).hidden_states is None
    # The first window goes through the first block by itself.
    patches = model.config.grid[0] * model.config.grid[1]
    valid = torch.ones(1, 1 + patches, dtype=torch.bool)
    again, _ = loaded.encoder.blocks[0](stem[:1, : 1 + patches], valid)
    assert torch.allclose(again[:, 1:], blocks[0][:1, 1 : 1 + patches], atol=1e-5)


@pytest.mark.parametrize("positions", [{}, {"positions": "rotary"}, {"position_frames": 16}], ids=str)
@torch.no_grad()
def test_without_a_mask_nothing_is_padding(positions: dict, tmp_path: Path):
    model = make(encoder=EncoderConfig(**SIZES, **positions))
    export_transformers(model, tmp_path / "bat")
    loaded = load("AutoModel", tmp_path / "bat")
    waveform = torch.randn(2, 3000)
    last, *_ = loaded(waveform, return_dict=False)
    assert torch.equal(last[:, 1:], model.forward_intermediates(waveform).patch_tokens[-1])


@torch.no_grad()
def test_padding_and_company_change_nothing(tmp_path: Path):
    export_transformers(make(), tmp_path / "bat")
    loaded, extractor = (load(auto, tmp_path / "bat") for auto in ("AutoModel", "AutoFeatureExtractor"))
    together = loaded(**batch(tmp_path / "bat")).pooler_output
    fixed = extractor(clips(), sampling_rate=8000, padding="max_length", max_length=12_000, return_tensors="pt")
    assert fixed["input_values"].shape == (4, 12_000)
    assert torch.allclose(loaded(**fixed).pooler_output, together, atol=1e-4)
    for clip, vector in zip(clips(), together, strict=True):
        alone = loaded(**extractor(clip, sampling_rate=8000, return_tensors="pt")).pooler_output[0]
        assert torch.allclose(alone, vector, atol=1e-4)


@pytest.mark.parametrize("kind", HEADS)
@torch.no_grad()
def test_a_head_says_what_it_says_in_audiobat(kind: str, tmp_path: Path):
    tagger = make(head=HEADS[kind])
    export_transformers(tagger, tmp_path / "bat")
    loaded, report = load("AutoModelForAudioClassification", tmp_path / "bat", output_loading_info=True)
    assert not any(report.values())
    inputs = batch(tmp_path / "bat")
    output = loaded(**inputs)
    waveform, lengths = inputs["input_values"], torch.tensor(LENGTHS)
    assert torch.equal(output.logits, tagger(waveform, lengths))
    if tagger.task == "frame":
        assert torch.equal(output.frame_logits, tagger.frames(waveform, lengths)[0])
    else:
        assert output.frame_logits is None
    assert loaded.config.id2label == dict(enumerate(tagger.classes))
    assert loaded.config.label2id == {name: i for i, name in enumerate(tagger.classes)}
    assert tuple(getattr(loaded.config, "thresholds", ())) == tagger.config.thresholds
    # transformers' own pipeline, which applies what the config calls for
    extractor = load("AutoFeatureExtractor", tmp_path / "bat")
    pipeline = transformers.pipeline("audio-classification", model=loaded, feature_extractor=extractor, device="cpu")
    said = {one["label"]: one["score"] for one in pipeline({"raw": clips()[0], "sampling_rate": 8000})}
    wanted = tagger.scores(tagger(torch.as_tensor(clips()[0]).float()[None]))[0].tolist()
    assert said == pytest.approx(dict(zip(tagger.classes, wanted, strict=True)), abs=1e-5)
    # the encoder alone, without a word about the head that is there
    encoder, report = load("AutoModel", tmp_path / "bat", output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(
        encoder(**inputs).last_hidden_state[:, 0], loaded(**inputs, output_hidden_states=True).hidden_states[-1][:, 0]
    )


@pytest.mark.parametrize("kind", [kind for kind in kinds("head") if head_class(kind).teaches])
def test_a_head_for_other_classes_starts_as_a_new_one_does(kind: str, tmp_path: Path, monkeypatch):
    """transformers fills what it cannot load with uninitialised memory: here with NaN."""
    head = from_dict(HeadConfig, {"kind": kind, "prototypes": 7, **({"queries": 4} if kind == "ep" else {})})
    tagger = make(head=TaggerConfig(head, ("ant", "bee"), multi_label=False))
    export_transformers(tagger, tmp_path / "bat")
    waveform = torch.randn(2, 3000)
    with torch.no_grad():
        same = load("AutoModelForAudioClassification", tmp_path / "bat")(waveform).logits
        assert torch.equal(same, tagger(waveform))
    empty_like = torch.empty_like

    def memory(tensor: torch.Tensor, **options) -> torch.Tensor:
        made = empty_like(tensor, **options)
        return made.fill_(torch.nan) if made.is_floating_point() and not made.is_meta else made

    monkeypatch.setattr(torch, "empty_like", memory)
    resized = load("AutoModelForAudioClassification", tmp_path / "bat", num_labels=3, ignore_mismatched_sizes=True)
    monkeypatch.undo()
    old = tagger.state_dict()
    new = build_head(head, 16, 2, 300, tagger.encoder.freq_patches).state_dict()  # enough values to know their spread
    for name, tensor in resized.state_dict().items():
        if tensor.shape == old[name].shape:
            assert torch.equal(tensor, old[name]), name
        else:
            wanted = new[name.removeprefix("head.")]
            assert tensor.abs().max() <= 1.2 * wanted.abs().max(), name
            assert len(tensor) == tensor.numel() or tensor.std().item() == pytest.approx(wanted.std().item(), rel=0.4)
    output = resized(waveform, labels=torch.tensor([2, 0]))
    assert output.logits.shape == (2, 3)
    output.loss.backward()
    assert resized.encoder.patch_embed.proj.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["clips", "own"])
def test_labels_give_a_loss_that_teaches(kind: str, tmp_path: Path):
    export_transformers(make(head=HEADS[kind]), tmp_path / "bat")
    loaded = load("AutoModelForAudioClassification", tmp_path / "bat")
    inputs = batch(tmp_path / "bat")
    if kind == "clips":
        labels = torch.tensor([0, 1, 1, 0])
        output = loaded(**inputs, labels=labels)
        wanted = F.cross_entropy(output.logits, labels)
    else:
        labels = torch.tensor([[0], [1], [1], [0]])
        output = loaded(**inputs, labels=labels)
        wanted = F.binary_cross_entropy_with_logits(output.logits, labels.float()) + loaded.head.penalty()
        assert loaded.head.penalty() > 0
    assert torch.equal(output.loss, wanted)
    output.loss.backward()
    assert loaded.encoder.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", [None, "frames"])
@torch.no_grad()
def test_save_pretrained_and_back_gives_the_same_bits(kind: str | None, tmp_path: Path):
    export_transformers(make(head=HEADS[kind] if kind else None), tmp_path / "bat")
    auto = "AutoModelForAudioClassification" if kind else "AutoModel"
    loaded = load(auto, tmp_path / "bat")
    inputs = batch(tmp_path / "bat")
    loaded.save_pretrained(tmp_path / "again")
    load("AutoFeatureExtractor", tmp_path / "bat").save_pretrained(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == FILES
    before, after = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("bat", "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = load(auto, tmp_path / "again")
    for one, other in zip(loaded(**inputs).to_tuple(), again(**batch(tmp_path / "again")).to_tuple(), strict=True):
        assert torch.equal(one, other)


def test_weights_keep_their_names(tmp_path: Path):
    tagger = make(head=HEADS["clips"])
    export_transformers(tagger, tmp_path / "head")
    export_transformers(tagger.encoder, tmp_path / "bare")
    assert safetensors.torch.load_file(tmp_path / "head" / "model.safetensors").keys() == tagger.state_dict().keys()
    bare = safetensors.torch.load_file(tmp_path / "bare" / "model.safetensors")
    assert bare.keys() == {f"encoder.{name}" for name in tagger.encoder.state_dict()}


@torch.no_grad()
def test_half_precision_leaves_the_filters_alone(tmp_path: Path):
    export_transformers(make(), tmp_path / "bat")
    full, half = (load("AutoModel", tmp_path / "bat", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.encoder.cls_token.dtype == torch.bfloat16
    for ours, theirs in zip(full.encoder.frontend.buffers(), half.encoder.frontend.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    inputs = batch(tmp_path / "bat")
    difference = (half(**inputs).pooler_output - full(**inputs).pooler_output).abs()
    assert 0 < difference.max() < 0.1


STRANGER = """
import sys
sys.modules["audiobat"] = None  # as where it is not installed
import numpy, torch, transformers
folder, out = sys.argv[1:]
extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
model = transformers.AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
clips = [numpy.sin(numpy.arange(n) / 5) for n in (9001, 640)]
with torch.no_grad():
    numpy.save(out, model(**extractor(clips, sampling_rate=8000, return_tensors="pt")).logits.numpy())
"""


def test_a_process_without_audiobat_gives_the_same_bits(tmp_path: Path):
    tagger = make(head=HEADS["frames"])
    export_transformers(tagger, tmp_path / "bat-1.0")
    offline = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", STRANGER, str(tmp_path / "bat-1.0"), str(tmp_path / "logits.npy")]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    waveform = torch.zeros(2, 9001)
    for row, length in zip(waveform, (9001, 640), strict=True):
        row[:length] = torch.sin(torch.arange(length, dtype=torch.float64) / 5)
    with torch.no_grad():
        wanted = tagger(waveform, torch.tensor([9001, 640])).numpy()
    assert np.allclose(np.load(tmp_path / "logits.npy"), wanted, atol=1e-6)


def test_the_extractor_takes_no_wrong_audio(tmp_path: Path):
    export_transformers(make(), tmp_path / "bat")
    extractor = load("AutoFeatureExtractor", tmp_path / "bat")
    for rate in (16_000, None):
        with pytest.raises(ValueError, match=f"sampling_rate is {rate}, and the model takes 8000 Hz"):
            extractor(np.zeros(80), sampling_rate=rate)
    for wrong in ([np.zeros((2, 80))], [np.zeros(80), np.zeros(0)]):
        with pytest.raises(ValueError, match="give mono audio"):
            extractor(wrong, sampling_rate=8000)
    for one in (np.zeros(80), torch.zeros(80), [0.0] * 80, [np.zeros(80)], np.zeros((1, 80))):
        assert extractor(one, sampling_rate=8000, return_tensors="pt")["input_values"].shape == (1, 80)


@pytest.mark.parametrize("mask", [[[0, 1, 1]], [[1, 0, 1]], [[0, 0, 0]]])
def test_a_mask_of_another_kind_is_refused(mask, tmp_path: Path):
    export_transformers(make(), tmp_path / "bat")
    with pytest.raises(ValueError, match="attention_mask must be ones, one at least, and then zeros"):
        load("AutoModel", tmp_path / "bat")(torch.randn(1, 3), torch.tensor(mask))


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(AudiobatError, match="holds other files"):
        export_transformers(make(), tmp_path / "mine")
    export_transformers(make(head=HEADS["clips"]), tmp_path / "bat")
    with pytest.raises(AudiobatError, match="chooses among one class, ant"):
        export_transformers(
            make(head=TaggerConfig(HeadConfig("linear"), ("ant",), multi_label=False)), tmp_path / "bat"
        )
    with pytest.raises(AudiobatError, match="a Linear"):
        export_transformers(torch.nn.Linear(2, 2), tmp_path / "bat")
    assert (tmp_path / "bat" / "README.md").read_text().count("AutoModelForAudioClassification") == 2
    export_transformers(make(), str(tmp_path / "bat"), card="# Mine\n")
    assert (tmp_path / "bat" / "README.md").read_text() == "# Mine\n"
    assert "id2label" not in json.loads((tmp_path / "bat" / "config.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bat", "mine"]
    assert {path.name for path in (tmp_path / "bat").iterdir()} == FILES | {"README.md"}


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch):
    export_transformers(make(), tmp_path / "bat")
    before = (tmp_path / "bat" / "model.safetensors").read_bytes()
    broken = make()
    broken.cls_token.data[0] = torch.inf
    with pytest.raises(AudiobatError, match="cls_token holds NaN or infinity"):
        export_transformers(broken, tmp_path / "bat")
    with monkeypatch.context() as patch:
        patch.setattr(transformers_export, "write_atomic", full_disk)
        with pytest.raises(AudiobatError, match="cannot be written"):
            export_transformers(make(), tmp_path / "bat")
    assert (tmp_path / "bat" / "model.safetensors").read_bytes() == before
    (tmp_path / "bat").rename(tmp_path / "bat.old.tmp")  # as one that was killed between its two renames leaves it
    export_transformers(make(), tmp_path / "bat")
    assert [path.name for path in tmp_path.iterdir()] == ["bat"]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")


def test_the_code_in_a_folder_imports_nothing_else():
    tree = ast.parse(transformers_export.source_of(make(head=HEADS["clips"])))
    modules = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert modules - sys.stdlib_module_names == {"numpy", "torch", "transformers"}
    methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert "forward_intermediates" in methods
    assert not methods & {"embed", "save_pretrained", "from_pretrained"}  # they need files and audio


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("models.patches", "__init__ of audiobat.models.encoder is called, and uses a module that is not PORTABLE"),
        ("models.features", r"uses \{'audiobat.models.features'\}, which is not PORTABLE"),
    ],
)
def test_what_cannot_come_along_is_told(missing: str, sentence: str, monkeypatch):
    monkeypatch.setattr(bundle, "PORTABLE", tuple(name for name in bundle.PORTABLE if name != missing))
    with pytest.raises(ValueError, match=sentence):
        bundle.bundle("zoo.export.remote_code", {})


MINE = """
import math
from audiobat.models.heads.pooling import mean_valid
{line}

def scaled(x):
    return math.pi * x

class Mine:
    def logits(self, features):
        return scaled(mean_valid(features.patch_tokens[-1], features.valid))

    def used(self):
        return {name}

class NotUsed:
    pass
"""


def test_a_users_own_class_comes_along(tmp_path: Path):
    """The text runs by itself; its registry has the class under the kind that a config gives."""
    (tmp_path / "mine.py").write_text(MINE.format(line="import json", name="json"))
    mine = find_in_file(tmp_path / "mine.py", "Mine")
    text = bundle.bundle("zoo.export.kinds", {("head", "mine.py:Mine"): mine})
    assert "from audiobat" not in text
    assert "NotUsed" not in text
    values = {"__name__": "audiobat_exported"}
    exec(compile(text, "exported.py", "exec"), values)
    assert list(values["KINDS"]) == [("head", "mine.py:Mine")]
    features = make().forward_intermediates(torch.randn(2, 3000), torch.tensor([3000, 700]))
    assert torch.equal(values["find"]("head", "mine.py:Mine")().logits(features), mine().logits(features))
    with pytest.raises(ValueError, match=r"'cgp', but this file has the code of mine\.py:Mine only"):
        values["find"]("head", "cgp")


@torch.no_grad()
def test_a_users_frontend_gives_the_same_bits_in_transformers(tmp_path: Path):
    file = Path(__file__).parents[2] / "examples" / "variants" / "pcen.py"
    fields = {"n_fft": 256, "win_length": 200, "hop_length": 80, "sample_rate": 8000, "mel_bins": 16, "smoothing": 0.1}
    model = make(from_dict(FrontendConfig, {"kind": f"{file}:PCEN", **fields}))
    export_transformers(model, tmp_path / "bat")
    code = (tmp_path / "bat" / "modeling_audiobat.py").read_text()
    assert "import audiobat" not in code
    assert "from audiobat" not in code
    inputs = batch(tmp_path / "bat")
    found = load("AutoModel", tmp_path / "bat")(**inputs).last_hidden_state[:, 1:]
    assert torch.equal(found, model(inputs["input_values"], torch.tensor(LENGTHS)).patch_tokens[-1])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("from beside_mine import B", "put that file's code into this file"),
        ("import beside_mine as B", "put that file's code into this file"),
        ("import audiobat.models as B", "write `from audiobat.X import Y`"),
        ("from audiobat.errors import AudiobatError as B", "write `from audiobat.X import Y`"),
        (
            "from audiobat.models.heads import linear",
            r"mine\.py uses linear of .* which is not PORTABLE",
        ),
        ("from audiobat.data.sampler import clip_order", r"used of .*mine\.py is called, and uses a module"),
    ],
)
def test_what_a_users_class_cannot_bring_is_told(line: str, sentence: str, tmp_path: Path):
    (tmp_path / "beside_mine.py").write_text("B = 2")
    (tmp_path / "mine.py").write_text(MINE.format(line=line, name=line.split()[-1]).replace("math.pi", "self.used"))
    mine = find_in_file(tmp_path / "mine.py", "Mine")
    with pytest.raises(AudiobatError, match=sentence):
        bundle.bundle("zoo.export.kinds", {("head", "mine.py:Mine"): mine})


def test_a_name_with_two_meanings_is_told():
    modules: dict[str, bundle.Module] = {}
    layers, encoder = (bundle.open_module(f"audiobat.{name}", modules) for name in ("models.layers", "models.encoder"))
    layers.need("Block", modules)
    del encoder.own["Block"]
    encoder.definitions["Block"] = ast.parse("class Block: pass").body[0]
    encoder.need("Block", modules)
    with pytest.raises(ValueError, match=r"Block is audiobat.models.encoder and audiobat.models.layers: rename one"):
        bundle.check_names([encoder, layers])
