"""`embed` and `predict` of a folder: beside the bare network, beside Hugging Face's AST, and in memory on a long file.

    python benchmarks/predict.py [--dim 384] [--depth 12] [--heads 6] [--clips 64] [--rounds 5] [--batch 16]

All ways run in one process, in turns, torch on one thread, on clips of 9.99 s: 16-bit WAV files of the demo's
recordings at 44.1 kHz. The bare network and AST get batches that are in memory already, AST even spectrograms;
embed and predict read, resample, compute and write. Weights are random. AST runs as published, on patches that overlap
(every 10 of 16), and once more on patches like ours. Clips of 1 to 10 s go through `embed`, which sorts them, and, from
memory, through the bare network in the order of the folder, padded to the longest of each batch.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import soundfile
import torch
from targets import say
from transformers import ASTConfig, ASTModel

from audiobat.audio.read import load_audio, pad_batch
from audiobat.config import EncoderConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.data.scenes import demo_folder
from audiobat.inference.embed import embed
from audiobat.inference.predict import predict
from audiobat.models.encoder import AudioEncoder, pool_features
from audiobat.models.tagger import Tagger
from audiobat.zoo.release import save_release

WAV_RATE, SECONDS = 44_100, 9.99  # what the position table holds of 16 kHz and 10-ms hops
MEMORY = """
import re, sys
from pathlib import Path
from audiobat.inference.predict import predict
predict(sys.argv[1], sys.argv[2], sys.argv[3], batch_size=8, device="cpu", overwrite=True)
# getrusage would name the peak of the process that started this one, if that is higher.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def write_clips(folder: Path, lengths: Sequence[float]) -> None:
    """Real recordings, laid end to end and cut into clips of `lengths` seconds."""
    folder.mkdir()
    files = itertools.cycle(sorted(demo_folder().rglob("*.ogg")))
    held = np.zeros(0, np.float32)
    for i, seconds in enumerate(lengths):
        samples = int(seconds * WAV_RATE)
        while len(held) < samples:
            held = np.concatenate([held, load_audio(next(files), WAV_RATE)])
        soundfile.write(folder / f"{i:04d}.wav", held[:samples], WAV_RATE)
        held = held[samples:]


def make_tagger(dim: int, depth: int, heads: int) -> Tagger:
    """A network of the paper's input, with a head of AudioSet's size."""
    torch.manual_seed(0)
    encoder = AudioEncoder(ModelConfig(encoder=EncoderConfig(dim=dim, depth=depth, heads=heads)))
    classes = tuple(f"class {i}" for i in range(527))
    return Tagger(encoder, TaggerConfig(HeadConfig(kind="linear"), classes)).eval()


def make_ast(encoder: AudioEncoder, stride: int) -> ASTModel:
    """AST of the same width, depth and heads."""
    config = encoder.config.encoder
    return ASTModel(
        ASTConfig(
            hidden_size=config.dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=int(config.dim * config.mlp_ratio),
            patch_size=16,
            frequency_stride=stride,
            time_stride=stride,
            max_length=config.max_frames,
            attn_implementation="sdpa",
        )
    ).eval()


def measure(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, in turns; the first turn only warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = perf_counter()
            way()
            found[name].append(perf_counter() - start)
    return {name: median(seconds[1:]) for name, seconds in found.items()}


def speed(folder: Path, options: argparse.Namespace) -> None:
    """Clips per second and ratios."""
    write_clips(folder / "wav", [SECONDS] * options.clips)
    write_clips(folder / "mixed", np.random.default_rng(0).uniform(1, SECONDS, options.clips).tolist())
    tagger = make_tagger(options.dim, options.depth, options.heads)
    encoder, batches = tagger.encoder, options.clips // options.batch
    published, coarse = make_ast(encoder, 10), make_ast(encoder, 16)
    waveform = torch.randn(options.batch, round(SECONDS * encoder.sample_rate)) * 0.1
    lengths = torch.full((options.batch,), waveform.shape[1])
    spectrogram = torch.randn(options.batch, encoder.config.encoder.max_frames, 128)
    arguments = {"batch_size": options.batch, "overwrite": True, "device": "cpu"}

    @torch.inference_mode()
    def repeat(compute: Callable[[], object]) -> None:
        for _ in range(batches):
            compute()

    mixed = [torch.from_numpy(load_audio(path, encoder.sample_rate)) for path in sorted((folder / "mixed").iterdir())]

    @torch.inference_mode()
    def as_they_come() -> None:
        for first in range(0, len(mixed), options.batch):
            pool_features(encoder.forward_intermediates(*pad_batch(mixed[first : first + options.batch])))

    def one(verb: Callable[..., Path], model: object, name: str, clips: str = "wav") -> Callable[[], object]:
        return lambda: verb(model, folder / clips, folder / name, **arguments)

    seconds = measure(
        {
            "encoder, spectrograms": lambda: repeat(lambda: encoder.forward_spectrogram(spectrogram, None, [-1])),
            "bare encoder": lambda: repeat(
                lambda: pool_features(encoder.forward_intermediates(waveform, lengths, [-1]))
            ),
            "embed": one(embed, encoder, "out.npz"),
            "bare encoder and head": lambda: repeat(lambda: tagger.scores(tagger(waveform, lengths))),
            "predict": one(predict, tagger, "out.csv"),
            "AST": lambda: repeat(lambda: published(spectrogram)),
            "AST without overlap": lambda: repeat(lambda: coarse(spectrogram)),
            "mixed, as they come": as_they_come,
            "mixed, embed": one(embed, encoder, "mixed.npz", "mixed"),
        },
        options.rounds,
    )
    for name, value in seconds.items():
        print(f"{name:>24}: {options.clips / value:8.2f} clips/s")
    coarse_seconds = seconds["AST without overlap"]
    ratios = {
        "embed / bare encoder": (seconds["bare encoder"] / seconds["embed"], 0.9),
        "predict / bare encoder and head": (seconds["bare encoder and head"] / seconds["predict"], 0.9),
        "predict / AST": (seconds["AST"] / seconds["predict"], 1.0),
        "encoder / AST without overlap, both from spectrograms": (
            coarse_seconds / seconds["encoder, spectrograms"],
            1.0,
        ),
        "predict / AST without overlap": (coarse_seconds / seconds["predict"], None),
        "mixed lengths: embed / batches as they come": (seconds["mixed, as they come"] / seconds["mixed, embed"], None),
    }
    for name, (ratio, target) in ratios.items():
        if target is None:
            say(name, f"{ratio:.2f}", "")
        else:
            say(name, f"{ratio:.2f}", f"at least {target}", ratio >= target)


def memory(folder: Path) -> None:
    """Peak resident memory of whole processes on half an hour, which fills all queues, and on two hours."""
    save_release(folder / "release", make_tagger(128, 4, 2))
    peaks = {}
    for minutes in (30, 120):
        path = folder / f"{minutes}.wav"
        rng = np.random.default_rng(0)
        with soundfile.SoundFile(path, "w", 32_000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(rng.normal(size=60 * 32_000).astype(np.float32) * 0.1)
        words = [sys.executable, "-c", MEMORY, str(folder / "release"), str(path), str(folder / "out.csv")]
        peaks[minutes] = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) / 1024
        print(f"{minutes:>4} minutes: {peaks[minutes]:.0f} MiB")
    say("memory of two hours / of half an hour", f"{peaks[120] / peaks[30]:.2f}", "1, within noise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in {"dim": 384, "depth": 12, "heads": 6, "clips": 64, "rounds": 5, "batch": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        speed(Path(name), options)
        memory(Path(name))


if __name__ == "__main__":
    main()
