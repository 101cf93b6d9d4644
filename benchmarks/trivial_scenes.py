"""What a trivial model gets on the demo's scenes: log-mel mean, deviation and maximum over time, logistic regression.

    python benchmarks/trivial_scenes.py [FOLDER]     (needs scikit-learn)

In: 1,200 training and 400 test scenes. Out: macro mAP over the 37 classes, and chance (the mean share of positives).
"""

import sys
import tempfile

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiobat.audio.frontends.base import build_frontend
from audiobat.config import FrontendConfig
from audiobat.data.loader import load_clips
from audiobat.data.scenes import write_scenes
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import split_for_probe

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def features(table):
    """Mean, deviation and maximum over time of 64 log-mel bins: [n, 192]."""
    frontend = build_frontend(FrontendConfig(hop_length=320, mel_bins=64))
    rows = []
    for batch in load_clips(table, 16_000, np.split(np.arange(len(table)), range(50, len(table), 50))):
        with torch.no_grad():
            spectrogram, _ = frontend(batch.waveform, None)  # all scenes have one length
        rows.append(torch.cat([spectrogram.mean(1), spectrogram.std(1), spectrogram.amax(1)], dim=1))
    return torch.cat(rows).numpy()


def fit(x, y, strength):
    return make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=strength, max_iter=500))).fit(x, y)


def macro_map(model, x, y):
    present = y.any(0)
    return average_precision_score(y[:, present], model.predict_proba(x)[:, present], average="macro")


def main():
    with tempfile.TemporaryDirectory() as folder:
        table = read_labelled_clips(write_scenes(sys.argv[1] if len(sys.argv) > 1 else folder))
        x = features(table)
    y = table.targets().astype(int)
    train, test = split_for_probe(table)
    held = np.arange(len(train)) % 10 == 0
    tuning = {c: macro_map(fit(x[train[~held]], y[train[~held]], c), x[train[held]], y[train[held]]) for c in STRENGTHS}
    best = max(tuning, key=tuning.get)
    print("held-out tenth:", {c: round(value, 3) for c, value in tuning.items()})
    print(f"C {best}: macro mAP {macro_map(fit(x[train], y[train], best), x[test], y[test]):.3f}")
    print(f"chance {y[test].mean():.3f}")


if __name__ == "__main__":
    main()
