#!/usr/bin/env bash
# Where X-ARES cuts clips, the crops of one clip in one batch are written under one name, and only the first is read again.
#
# Guess before the run: each crop is a sample of its own, in training and in the test.
# Seen with xares 0.1.3 and webdataset 1.0.2 (Python 3.11): an embedding's key is the clip's key and the number of its batch,
# so that three crops of 10 s of a clip of 30 s become three pairs of members with equal names. webdataset raises on the
# second ("duplicate file name in tar file"), X-ARES's handler turns that into a warning that its logger hides, and the
# first crop is left: of nine crops three. Tasks that cut are FMA (30-s clips: two thirds lost), FSD50K, LibriSpeech
# male/female, VoxCeleb1, VoxLingua33 and Clotho. Crops that fall into different batches are kept, so which are depends on
# the batch size.
#
# What to do: batch_size_encode=1 keeps all, as every crop is a batch.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# The default index serves the CUDA build of torch on Linux, several gigabytes; PIP_INDEX_URL may name one with CPU builds.
# torchaudio's wheel loads beside a CUDA build alone: what X-ARES takes of it is done by soundfile here.
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pytorch-ignite==0.5.5 loguru==0.7.3 \
  webdataset==1.0.2 soundfile==0.14.0 transformers==5.23.0 jiwer==4.0.0 tqdm
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps xares==0.1.3
cd "$work"
"$work/venv/bin/python" - <<'P'
import io
import sys
import tarfile
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
import torch

torchaudio = ModuleType("torchaudio")
torchaudio.__spec__ = ModuleSpec("torchaudio", None)
torchaudio.functional = ModuleType("torchaudio.functional")
torchaudio.functional.resample = lambda waveform, rate, target: waveform  # both are 16 kHz


def load(stream):
    samples, rate = soundfile.read(stream, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate


torchaudio.load = load
sys.modules["torchaudio"] = torchaudio

from xares.audiowebdataset import create_embedding_webdataset
from xares.task import TaskConfig, XaresTask

RATE, CROP = 16_000, 10


class MeanEncoder(torch.nn.Module):
    """A frame of a second holds its mean."""

    sampling_rate, output_dim, hop_size_in_ms = RATE, 1, 1000

    def forward(self, audio):
        return audio.unfold(1, RATE, RATE).mean(2, keepdim=True)


def write(batch_size):
    folder = Path(f"env{batch_size}") / "toy"
    folder.mkdir(parents=True)
    sound = io.BytesIO()
    levels = np.repeat(np.array([0.1, 0.2, 0.3], np.float32), CROP * RATE)  # a level for each crop
    soundfile.write(sound, levels, RATE, format="WAV", subtype="FLOAT")
    for split in ("train", "valid", "test"):
        with tarfile.open(folder / f"{split}0.tar", "w") as tar:
            for clip in "abc":
                for ending, content in (("wav", sound.getvalue()), ("json", b'{"label": 0}')):
                    entry = tarfile.TarInfo(f"{clip}.{ending}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    (folder / ".audio_tar_ready").touch()
    config = TaskConfig(name="toy", encoder=MeanEncoder(), env_root=folder.parent, crop_length=CROP)
    config.batch_size_encode = batch_size
    XaresTask(config).make_encoded_tar()
    [tar] = (folder / "embeddings" / "MeanEncoder").glob("*test*")
    members = len(tarfile.open(tar).getnames()) // 2
    read = create_embedding_webdataset([str(tar)], num_workers=0, label_processor=lambda label: label["label"])
    levels = sorted(round(float(frames[0]), 1) for (batch, _), *_ in read for frames in batch[:, 0])
    return members, levels


found = {batch_size: write(batch_size) for batch_size in (16, 1)}
print("xares", version("xares"), "webdataset", version("webdataset"))
for batch_size, (members, levels) in found.items():
    print(f"batches of {batch_size}: {members} crops written; levels of those read again: {levels}")
wanted = {16: (9, [0.1] * 3), 1: (9, [0.1] * 3 + [0.2] * 3 + [0.3] * 3)}
sys.exit(0 if found == wanted else 1)
P
