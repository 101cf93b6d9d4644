#!/usr/bin/env bash
# PyTorch's FlopCounterMode counts the backward pass of a grouped convolution as if its weights had no groups.
#
# Guess before the run: backward is twice forward, as for a matrix product and for a convolution without groups (one
# convolution for the input's gradient, one for the weight's, each as large as forward).
# Seen with torch 2.13.0 (CPU build, Python 3.11), Conv2d and Conv1d of 64 channels: backward over forward is 2 for one
# group, 5 for 4, 17 for 16 and 65 for 64 groups, that is 1 + groups: the weight's gradient is counted `groups` times too
# high. Forward is right for all. With 64 groups (depthwise) the counted step is 22 times the true one. So the compute of
# a training with grouped or depthwise convolutions (the convolutional decoders and position embeddings of audio models
# have 16 groups) is overstated, and a utilisation that is computed from it can exceed 1.
#
# What to do: count such layers by hand, or count forward alone and take three times that for a step.
# The default index serves the CUDA build of torch on Linux, several gigabytes; PIP_INDEX_URL may name one with CPU builds.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'P'
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__)
expected = True
for name, kernel, shape in (("Conv2d", 3, (2, 64, 32, 8)), ("Conv1d", 9, (2, 64, 256))):
    for groups in (1, 4, 16, 64):
        layer = getattr(torch.nn, name)(64, 64, kernel, padding=kernel // 2, groups=groups, bias=False)
        x = torch.randn(shape, requires_grad=True)
        with FlopCounterMode(display=False) as forward:
            y = layer(x)
        with FlopCounterMode(display=False) as backward:
            y.sum().backward()
        true = 2 * y.numel() * layer.weight[0].numel()  # a multiply-add is two operations
        counted = forward.get_total_flops() / true, backward.get_total_flops() / true
        print(f"{name}, {groups:2} groups: forward {counted[0]:g} of the true count, backward {counted[1]:g} (2 is true)")
        expected &= counted == (1, 1 + groups)
sys.exit(0 if expected else 1)
P
