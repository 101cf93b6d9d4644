#!/usr/bin/env bash
# The larger models of torchaudio.pipelines normalise a batch of waveforms as one: a clip's features depend on its
# neighbours.
#
# Guess before the run: each waveform gets zero mean and unit variance of its own, as in the projects that the weights
# come from and as the documentation says ("an additional layer normalization is performed on the input").
# Seen with torchaudio 2.11.1 and torch 2.13.0 (Python 3.11), a WAV2VEC2_XLSR53 of small size with random weights: a quiet
# clip beside a loud one has features that differ by two thirds of their largest value from those that it has alone;
# with itself as its neighbour it has the same. The cause is `layer_norm(waveforms, waveforms.shape)` over all axes. It
# concerns WAV2VEC2_LARGE_LV60K and its ASR models, XLSR, HUBERT_LARGE and larger, and WAVLM_LARGE, not the base models.
#
# What to do: give such a model one clip at a time, or normalise yourself and call `model.model`.
# The default index serves the CUDA build of torch on Linux, several gigabytes; PIP_INDEX_URL may name one with CPU builds.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps torchaudio==2.11.1
rm -r "$work"/venv/lib/python3*/site-packages/torchaudio/lib  # compiled for CUDA, and not used here
TORCH_HOME="$work/cache" "$work/venv/bin/python" - <<'P'
import dataclasses
import os
import sys

import torch
import torchaudio
from torchaudio.pipelines import WAV2VEC2_BASE, WAV2VEC2_XLSR53

print("torchaudio", torchaudio.__version__, "torch", torch.__version__)
folder = os.path.join(torch.hub.get_dir(), "checkpoints")
os.makedirs(folder)
small = {"encoder_embed_dim": 32, "encoder_num_layers": 2, "encoder_num_heads": 2, "encoder_ff_interm_features": 32}
differences = {}
for name, bundle in (("WAV2VEC2_BASE", WAV2VEC2_BASE), ("WAV2VEC2_XLSR53", WAV2VEC2_XLSR53)):
    sizes = {**bundle._params, **small, "encoder_pos_conv_groups": 4}
    torch.manual_seed(0)
    torch.save(torchaudio.models.wav2vec2_model(**sizes).state_dict(), os.path.join(folder, "tiny.pth"))
    model = dataclasses.replace(bundle, _path="tiny.pth", _params=sizes).get_model()
    quiet, loud = 0.01 * torch.randn(1, 16_000), torch.randn(1, 16_000)
    with torch.no_grad():
        alone, copies, mixed = (model.extract_features(x)[0][-1][0] for x in (quiet, quiet.repeat(2, 1), torch.cat([quiet, loud])))
    same, other = ((found - alone).abs().max().item() / alone.abs().max().item() for found in (copies, mixed))
    print(f"{name}: beside itself the quiet clip differs by {same:.1%} of its largest feature, beside a loud one by {other:.1%}")
    differences[name] = other
sys.exit(0 if differences["WAV2VEC2_BASE"] < 0.01 < 0.3 < differences["WAV2VEC2_XLSR53"] else 1)
P
