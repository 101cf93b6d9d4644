"""Tokens of a released model by the code that came with it: python released_own_code.py FOLDER INPUTS.npz OUTPUTS.npz

The half of `released.py` that runs in an environment of its own, where audiobat is not: torch, transformers of the
version that the weights were saved with, and torchaudio. INPUTS hold of each clip its waveform at 16 kHz, `wave_N`
[S], and audiobat's spectrogram of it, `given_N` [1024, 128]. OUTPUTS hold the code's own spectrogram, `spectrogram_N`,
and the outputs of all blocks, cls first, from its own spectrogram, `tokens_N` [L, 513, D], and from the given one,
`given_tokens_N`. Where there is no spectrogram of its own, `why` says the reason.
"""

import sys

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel

RATE, FRAMES, MELS = 16_000, 1024, 128
MEAN, STD = -4.268, 4.569  # of AudioSet, which EAT's and SSLAM's pages tell to normalise by


def eat_spectrogram(wave):
    """A waveform [S] as EAT's page prepares it: Kaldi's filter bank of torchaudio, padded with zeros, normalised."""
    from torchaudio.compliance import kaldi

    wave = (wave - wave.mean())[None]
    settings = {"window_type": "hanning", "num_mel_bins": MELS, "dither": 0.0, "frame_shift": 10}
    mel = kaldi.fbank(wave, htk_compat=True, sample_frequency=RATE, use_energy=False, **settings)[:FRAMES]
    return (torch.nn.functional.pad(mel, (0, 0, 0, FRAMES - len(mel))) - MEAN) / (2 * STD)


def spectrogram_maker(model, folder):
    """A function of a waveform [S] to the model's input [1024, 128], as the model's own page or files make it."""
    if hasattr(model, "extract_features"):  # EAT and SSLAM, which bring no feature extractor
        return eat_spectrogram
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    return lambda wave: extractor(wave.numpy(), sampling_rate=RATE, return_tensors="pt")["input_features"][0, 0]


def block_outputs(model, spectrogram):
    """The outputs of all blocks [L, 1 + N, D] for a spectrogram [frames, mels], by hooks on the model's own modules."""
    named = model.named_modules()
    lists = [module for name, module in named if name.rpartition(".")[2] in ("blocks", "layers", "layer")]
    outputs = []

    def keep(module, inputs, output):  # EAT's blocks give their MLP's output besides
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in max(lists, key=len)]
    with torch.no_grad():
        x = spectrogram[None, None]
        model.extract_features(x) if hasattr(model, "extract_features") else model(x)
    for hook in hooks:
        hook.remove()
    return torch.cat(outputs).numpy()


def main(folder, inputs, outputs):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True, torch_dtype=torch.float32).eval()
    given, found = np.load(inputs), {}
    clips = sum(name.startswith("wave_") for name in given)
    for n in range(clips):
        found[f"given_tokens_{n}"] = block_outputs(model, torch.from_numpy(given[f"given_{n}"]))
    try:
        make = spectrogram_maker(model, folder)
        for n in range(clips):
            spectrogram = make(torch.from_numpy(given[f"wave_{n}"]))
            found[f"spectrogram_{n}"] = spectrogram.numpy()
            found[f"tokens_{n}"] = block_outputs(model, spectrogram)
    except (ImportError, OSError) as error:  # no torchaudio, or one that does not load beside this torch
        found["why"] = np.array(f"{type(error).__name__}: {error}".splitlines()[0])
    np.savez(outputs, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
