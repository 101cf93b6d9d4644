"""What a released-weights day downloads, small and with random weights: repositories as on the Hub, ESC-50's archive.

A local server answers as the Hub does, with ranges, and breaks off a connection when it is told to. The models' own
code is a plain transformer, under each repository's names.
"""

import hashlib
import inspect
import io
import json
import re
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import plain_networks
import soundfile
import test_convert_bat as bat
import test_convert_eat as eat

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ESC50_COMMIT = "fedcba9876543210fedcba9876543210fedcba98"

NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class Attention(nn.Module):
    def __init__(self, dim, heads, gated):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        if gated:
            self.gate = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        out = (weights @ v).transpose(1, 2).flatten(2)
        return self.proj(out * self.gate(x).sigmoid() if hasattr(self, "gate") else out)

class MLP(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))

class Block(nn.Module):
    def __init__(self, dim, heads, gated):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn, self.mlp = Attention(dim, heads, gated), MLP(dim)

    def forward(self, x):
        x = self.norm1(x + self.attn(x))
        mlp = self.mlp(x)
        x = self.norm2(x + mlp)
        return x if hasattr(self.attn, "gate") else (x, mlp)
"""
CONFIGURATION = """
from transformers import PretrainedConfig

class OwnConfig(PretrainedConfig):
    model_type = {kind!r}
"""
BAT = """
from .configuration_own import OwnConfig

class Patches(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(1, dim, 16, 16)

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        dim = config.embed_dim
        self.patch_embed, self.pre_norm = Patches(dim), nn.LayerNorm(dim, 1e-6)
        self.pos_embed = nn.Parameter(torch.zeros(1, 512, dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList([Block(dim, config.num_heads, True) for _ in range(config.depth)])
        self.post_init()

    def forward(self, input_features):
        x = self.patch_embed.proj(input_features).flatten(2).mT + self.pos_embed
        x = self.pre_norm(torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1))
        for block in self.blocks:
            x = block(x)
        return BaseModelOutput(x)
"""
EAT = """
from .configuration_own import OwnConfig

class Patches(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(1, dim, 16, 16)

class Positions(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 6144, dim), requires_grad=False)

class Inner(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim = config.embed_dim
        self.local_encoder, self.fixed_positional_encoder = Patches(dim), Positions(dim)
        self.pre_norm, self.extra_tokens = nn.LayerNorm(dim, 1e-6), nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList([Block(dim, config.num_heads, False) for _ in range(config.depth)])

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = Inner(config)
        self.post_init()

    def extract_features(self, x):
        m = self.model
        x = m.local_encoder.proj(x).flatten(2).mT
        x = x + m.fixed_positional_encoder.positions[:, : x.shape[1]]
        x = m.pre_norm(torch.cat([m.extra_tokens.expand(len(x), -1, -1), x], 1))
        for block in m.blocks:
            x, _ = block(x)
        return x
"""
EXTRACTOR = f"""
import math
import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor

RATE, N_FFT, HOP, MELS = {bat.RATE}, {bat.N_FFT}, {bat.HOP}, {bat.MELS}

{inspect.getsource(bat.plain_spectrogram)}

class OwnExtractor(SequenceFeatureExtractor):
    model_input_names = ["input_features"]

    def __init__(self, feature_size=128, sampling_rate=16000, padding_value=0.0, **kwargs):
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)

    def __call__(self, wave, sampling_rate=None, return_tensors=None):
        rows = plain_spectrogram(wave)
        x = np.pad(rows, ((0, 1024 - len(rows)), (0, 0))).astype(np.float32)
        return BatchFeature({{"input_features": x[None, None]}}, tensor_type=return_tensors)
"""
KALDI = f"""
import sys
import torch
sys.path.insert(0, {str(Path(plain_networks.__file__).parent)!r})
import plain_networks

def fbank(waveform, **settings):
    assert settings == {{"window_type": "hanning", "num_mel_bins": 128, "dither": 0.0, "frame_shift": 10,
                        "htk_compat": True, "sample_frequency": 16_000, "use_energy": False}}
    return torch.from_numpy(plain_networks.fbank(waveform[0].numpy())).float()
"""


def publish(root: Path, names: dict[str, str]) -> None:
    """The repositories `names` (name: OWNER/NAME) in `root`, as their pages describe them."""
    for name, repository in names.items():
        folder = root / repository
        folder.parent.mkdir(parents=True, exist_ok=True)
        auto = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
        sizes = {"embed_dim": bat.DIM, "depth": bat.DEPTH, "num_heads": bat.HEADS, "transformers_version": "4.51.3"}
        if name == "BAT":
            auto["AutoFeatureExtractor"] = "extraction_own.OwnExtractor"
            bat.random_release(folder)
            (folder / "extraction_own.py").write_text(EXTRACTOR)
            (folder / "preprocessor_config.json").write_text(
                json.dumps({"feature_extractor_type": "OwnExtractor", "auto_map": auto, "sampling_rate": 16_000})
            )
        else:
            eat.hugging_face_folder(folder, head=False)
        tensors = (folder / "model.safetensors").read_bytes()
        if b'"format"' not in tensors[:4096]:
            with_format(folder / "model.safetensors")
        kind = "bat" if name == "BAT" else "eat"
        (folder / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": auto, **sizes}))
        (folder / "configuration_own.py").write_text(CONFIGURATION.format(kind=kind))
        (folder / "modeling_own.py").write_text(NETWORK + (BAT if name == "BAT" else EAT))
        (folder / "README.md").write_text("not wanted")


def with_format(file: Path) -> None:
    """Say in a safetensors file that it is PyTorch's, as transformers demands."""
    from safetensors.torch import load_file, save_file

    save_file(load_file(file), file, metadata={"format": "pt"})


def stub_torchaudio(folder: Path) -> Path:
    """A torchaudio whose filter bank is the plain one; returns what PYTHONPATH needs."""
    (folder / "torchaudio/compliance").mkdir(parents=True)
    (folder / "torchaudio/__init__.py").touch()
    (folder / "torchaudio/compliance/__init__.py").touch()
    (folder / "torchaudio/compliance/kaldi.py").write_text(KALDI)
    return folder


def esc50_archive(file: Path, clips: int, seconds: float) -> None:
    """ESC-50's archive as git makes it: all 2,000 rows, and `clips` of the recordings, spread over folds."""
    rows = [(f"{f}-{1000 * f + 10 * t + k}-A-{t}.wav", f, t) for f in range(1, 6) for t in range(50) for k in range(8)]
    table = ["filename,fold,target,category,esc10,src_file,take"]
    table += [f"{name},{f},{t},sound_{t},{t < 10},{name.split('-')[1]},A" for name, f, t in rows]
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = ESC50_COMMIT.encode()
        top = f"ESC-50-{ESC50_COMMIT}/"
        archive.writestr(f"{top}meta/esc50.csv", "\n".join([*table, ""]))
        archive.writestr(f"{top}README.md", "not wanted")
        for name, _, target in rows[:: len(rows) // clips]:
            t = np.arange(int(seconds * 44_100)) / 44_100
            wave = 0.3 * np.sin(2 * np.pi * (200 + 60 * target) * t) + 0.02 * rng.normal(size=len(t))
            held = io.BytesIO()
            soundfile.write(held, wave.astype(np.float32), 44_100, format="WAV", subtype="PCM_16")
            archive.writestr(f"{top}audio/{name}", held.getvalue())


class Server:
    """Files of `root` as the Hub serves repositories, and as a plain host serves files below /files/.

    `break_at` holds file names and after how many bytes the next connection for each is dropped; `asked` every request.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.break_at, self.asked = root, {}, []
        self.spoilt: set[str] = set()  # names of files whose last byte is changed on the way

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.asked.append((request.command, path, request.headers.get("Range")))
        if api := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/\w+)?", path):
            self.send_json(request, self.info(api[1]))
        elif tree := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/\w+", path):
            self.send_json(request, self.tree(tree[1]))
        elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/\w+/(.+)", path):
            self.send_file(request, self.root / file[1] / file[2])
        else:
            self.send_file(request, self.root / path.lstrip("/"))

    def tree(self, repository: str) -> list[dict]:
        files = []
        for path in sorted((self.root / repository).iterdir()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            size = path.stat().st_size
            entry = {"type": "file", "path": path.name, "size": size, "oid": digest[:40]}
            if path.suffix == ".safetensors":
                entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 134}
            files.append(entry)
        return files

    def info(self, repository: str) -> dict:
        siblings = []
        for file in self.tree(repository):
            sibling = {"rfilename": file["path"], "size": file["size"], "blobId": file["oid"]}
            if "lfs" in file:
                sibling["lfs"] = {"sha256": file["lfs"]["oid"], "size": file["size"], "pointerSize": 134}
            siblings.append(sibling)
        return {"id": repository, "modelId": repository, "sha": COMMIT, "private": False, "siblings": siblings}

    @staticmethod
    def send_json(request: BaseHTTPRequestHandler, value: object) -> None:
        body = json.dumps(value).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def send_file(self, request: BaseHTTPRequestHandler, file: Path) -> None:
        if not file.is_file():
            request.send_error(404)
            return
        body = file.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        if file.name in self.spoilt:
            body = body[:-1] + bytes([body[-1] ^ 1])
        first, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
        if asked and request.headers.get("If-Range", f'"{digest}"') == f'"{digest}"':
            first, status = int(asked[1]), 206
        if first >= len(body) > 0:
            request.send_error(416)
            return
        request.send_response(status)
        request.send_header("ETag", f'"{digest}"')
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Content-Length", str(len(body) - first))
        if status == 206:
            request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        request.end_headers()
        if request.command == "HEAD":
            return
        stop = self.break_at.pop(file.name, None)
        request.wfile.write(body[first : len(body) if stop is None else first + stop])
        if stop is not None:
            request.wfile.flush()
            request.close_connection = True


@contextmanager
def serving(root: Path):
    """A server of `root` and its address."""
    server = Server(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            server.answer(self)

        def do_HEAD(self):
            server.answer(self)

        def log_message(self, *args):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
