#!/usr/bin/env bash
# PyTorch's LSTM takes many times longer on a CPU for packed sequences than for the same batch with its padding.
#
# Guess before the run: packing spares the frames of padding, so it is no slower than the padded batch.
# Seen with torch 2.13.0 (CPU build, Python 3.11, one thread), a layer and its backward pass over 16 sequences of 150 to
# 200 frames, 256 values wide, in both directions: packed sequences take six times the padded batch's
# time; two layers of 512 over 400 frames take ten times. The padded batch goes to oneDNN's kernel, packed sequences to a
# small matrix product for each frame. A recogniser on frozen features that packs, as most recipes do, spends nearly all
# of its time there.
#
# What to do on a CPU: turn each sequence about within its length, run an LSTM of one direction each way over the padded
# batch, and turn the result back; frames behind a sequence's end then have no say in it, as with packing.
# The default index serves the CUDA build of torch on Linux, several gigabytes; PIP_INDEX_URL may name one with CPU builds.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'P'
import sys
from time import process_time

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(1)
torch.manual_seed(0)
print("torch", torch.__version__)
layer = torch.nn.LSTM(256, 256, batch_first=True, bidirectional=True)
frames, lengths = torch.randn(16, 200, 256), torch.randint(150, 201, (16,))
lengths[0] = 200


def packed():
    return pad_packed_sequence(layer(pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False))[0])[0]


def padded():
    return layer(frames)[0]


seconds = {}
for run in (padded, packed, padded, packed):
    before = process_time()
    run().sum().backward()
    seconds.setdefault(run.__name__, []).append(process_time() - before)
ratio = min(seconds["packed"]) / min(seconds["padded"])
print(f"packed over padded: {ratio:.1f} times the processor's time ({seconds})")
sys.exit(0 if ratio > 2 else 1)
P
