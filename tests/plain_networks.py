"""Plain implementations that the converters are held against: Kaldi's filter bank and transformers, in loops of NumPy.

Written from the formulas and constants of the papers, in double precision; they share nothing with the package.
"""

import functools
import math

import numpy as np
import torch

RATE, WINDOW, HOP, N_FFT, MELS, PATCH = 16_000, 400, 160, 512, 128, 16
EPS32 = 2.0**-23


@functools.cache
def mel_filters() -> np.ndarray:
    """Triangles [257, 128] in mels, from 20 Hz to the Nyquist frequency, whose own bin weighs nothing."""

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    low, high = mel(20), mel(RATE / 2)
    corner = [low + m * (high - low) / (MELS + 1) for m in range(MELS + 2)]
    bank = np.zeros((N_FFT // 2 + 1, MELS))
    for k in range(N_FFT // 2):
        for m in range(MELS):
            left, centre, right = corner[m : m + 3]
            here = mel(k * RATE / N_FFT)
            bank[k, m] = max(0.0, min((here - left) / (centre - left), (right - here) / (right - centre)))
    return bank


def fbank(waveform: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Kaldi's log-mel [T, 128]: frames without DC, pre-emphasis 0.97, a symmetric Hann window to a `power`."""
    x = waveform.astype(np.float64)
    if len(x) < WINDOW:
        x = np.concatenate([x, np.zeros(WINDOW - len(x))])
    hann = np.array([0.5 - 0.5 * math.cos(2 * math.pi * n / (WINDOW - 1)) for n in range(WINDOW)]) ** power
    bank = mel_filters()
    rows = []
    for t in range(1 + (len(x) - WINDOW) // HOP):
        frame = x[t * HOP : t * HOP + WINDOW]
        frame = frame - frame.mean()
        before = np.concatenate([frame[:1], frame[:-1]])
        spectrum = np.abs(np.fft.rfft((frame - 0.97 * before) * hann, N_FFT)) ** 2
        rows.append(np.log(np.maximum(spectrum @ bank, EPS32)))
    return np.stack(rows)


def fit(rows: np.ndarray, frames: int) -> np.ndarray:
    """The first `frames` rows, or zeros behind those that there are."""
    return np.concatenate([rows, np.zeros((max(0, frames - len(rows)), rows.shape[1]))])[:frames]


def patches(spectrogram: np.ndarray, kernel: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """Tokens [N, D] of whole patches of 16 x 16, time first."""
    flat = kernel.reshape(len(kernel), -1)
    columns, rows = len(spectrogram) // PATCH, spectrogram.shape[1] // PATCH
    cut = [
        spectrogram[t * PATCH : (t + 1) * PATCH, f * PATCH : (f + 1) * PATCH].reshape(-1)
        for t in range(columns)
        for f in range(rows)
    ]
    return np.stack([flat @ patch for patch in cut]) + bias


def norm(x: np.ndarray, w: dict, name: str, eps: float) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + torch.erf(torch.from_numpy(x / math.sqrt(2))).numpy())


def attention(x: np.ndarray, w: dict, name: str, heads: int) -> np.ndarray:
    """Multi-head attention of one matrix for q, k and v."""
    dim = x.shape[1]
    size = dim // heads
    qkv = linear(x, w, f"{name}.qkv")
    out = []
    for h in range(heads):
        q, k, v = (qkv[:, part * dim + h * size : part * dim + (h + 1) * size] for part in range(3))
        out.append(softmax(q @ k.T / math.sqrt(size)) @ v)
    return linear(np.concatenate(out, axis=1), w, f"{name}.proj")


def mlp(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    return linear(gelu(linear(x, w, f"{name}.fc1")), w, f"{name}.fc2")


def clip(seconds: float, seed: int) -> np.ndarray:
    """A gliding tone with noise, so that no frame and no bin looks like another; not centred on zero."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 + 150 * seed + 90 * t) * t)
    return (0.05 + 0.4 * tone * (0.2 + t / seconds) + 0.02 * rng.normal(size=len(t))).astype(np.float32)


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 5) -> dict[str, np.ndarray]:
    """Values [float32] that keep a network's activations near 1; norms' scales are near 1."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shape[1:]) if name.endswith("weight") and len(shape) > 1 else 1
        value = rng.normal(size=shape) / math.sqrt(fan_in)
        is_norm = "norm" in name and name.endswith("weight")
        weights[name] = (1 + 0.3 * value if is_norm else value).astype(np.float32)
    return weights


def block_shapes(block: str, dim: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """timm's names of one block."""
    shapes: dict[str, tuple[int, ...]] = {}
    for each in ("norm1", "norm2"):
        shapes |= {f"{block}{each}.weight": (dim,), f"{block}{each}.bias": (dim,)}
    for each, out, into in (("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim)):
        shapes |= {f"{block}{each}.weight": (out, into), f"{block}{each}.bias": (out,)}
    for each, out, into in (("mlp.fc1", hidden, dim), ("mlp.fc2", dim, hidden)):
        shapes |= {f"{block}{each}.weight": (out, into), f"{block}{each}.bias": (out,)}
    return shapes


def sines(columns: int, rows: int, dim: int) -> np.ndarray:
    """EAT's table [1, columns * rows, dim]: row t * rows + f; the first half encodes f, the second t."""
    table = np.zeros((columns * rows, dim))
    quarter = dim // 4
    for t in range(columns):
        for f in range(rows):
            for half, p in ((0, f), (1, t)):
                for k in range(quarter):
                    angle = p * 10_000 ** (-k / quarter)
                    table[t * rows + f, half * 2 * quarter + k] = math.sin(angle)
                    table[t * rows + f, half * 2 * quarter + quarter + k] = math.cos(angle)
    return table[None]
