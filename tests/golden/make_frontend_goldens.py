"""Write frontend.npz: what torchaudio 2.11 makes of three short signals, for tests/audio/test_frontend.py.

torchaudio is no dependency of this project. Run this in an environment of its own:

    python -m venv golden && golden/bin/pip install torch==2.13.0 numpy && golden/bin/pip install --no-deps torchaudio
    rm -r golden/lib/python3.*/site-packages/torchaudio/lib    # CUDA-linked; not needed for features
    golden/bin/python tests/golden/make_frontend_goldens.py
"""

from pathlib import Path

import numpy as np
import torch
from torchaudio.compliance import kaldi
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

SAMPLES = 4000
MEL_SETTINGS = {  # the fields of FrontendConfig
    "default": {"sample_rate": 16_000, "n_fft": 1024, "win_length": 1024, "f_min": 0.0, "f_max": None},
    "fft512": {"sample_rate": 16_000, "n_fft": 512, "win_length": 512, "f_min": 0.0, "f_max": None},
    "band": {"sample_rate": 16_000, "n_fft": 1024, "win_length": 800, "f_min": 50.0, "f_max": 7000.0},
    "rate32k": {"sample_rate": 32_000, "n_fft": 1024, "win_length": 1024, "f_min": 0.0, "f_max": None},
}
HOP, BINS, TOP_DB = 160, 128, 80.0


def make_signals() -> dict[str, np.ndarray]:
    """Return three int16 signals: broadband noise, a chirp with a tone and an offset, and a quiet hum after a click."""
    rng = np.random.default_rng(0)
    t = np.arange(SAMPLES) / 16_000
    chirp = 0.4 * np.sin(2 * np.pi * (50 + 14_000 * t) * t) + 0.2 * np.sin(2 * np.pi * 440 * t) + 0.1
    hum = 1e-3 * np.sin(2 * np.pi * 100 * t) + 2e-4 * rng.standard_normal(SAMPLES)
    hum[5] = 0.5
    signals = {"noise": 0.1 * rng.standard_normal(SAMPLES), "chirp": chirp, "hum": hum}
    return {name: np.round(signal * 2**15).astype(np.int16) for name, signal in signals.items()}


def main() -> None:
    """Write the signals, filter banks and log-mels, each [T, F], beside this file."""
    signals = make_signals()
    arrays = {f"signal/{name}": signal for name, signal in signals.items()}
    for setting, s in MEL_SETTINGS.items():
        rate, n_fft, win = s["sample_rate"], s["n_fft"], s["win_length"]
        mel = MelSpectrogram(rate, n_fft, win, HOP, s["f_min"], s["f_max"], n_mels=BINS)
        arrays[f"filters/{setting}"] = mel.mel_scale.fb.numpy()
        for name, signal in signals.items():
            waveform = torch.from_numpy(signal / 2**15).float()[None]
            arrays[f"{setting}/{name}"] = AmplitudeToDB(top_db=TOP_DB)(mel(waveform))[0].T.numpy()
    for name, signal in signals.items():
        waveform = torch.from_numpy(signal / 2**15).float()[None]
        arrays[f"kaldi/{name}"] = kaldi.fbank(
            waveform - waveform.mean(),
            htk_compat=True,
            sample_frequency=16_000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=BINS,
            dither=0.0,
            frame_shift=10,
        ).numpy()
    filters, _ = kaldi.get_mel_banks(BINS, 512, 16_000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    arrays["filters/kaldi"] = torch.nn.functional.pad(filters, (0, 1)).T.numpy()  # the Nyquist bin has no weight
    np.savez_compressed(Path(__file__).with_name("frontend.npz"), **arrays)


if __name__ == "__main__":
    main()
