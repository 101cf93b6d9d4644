#!/usr/bin/env bash
# In transformers an attention mask does not keep padding out of wav2vec 2.0 Conformer and data2vec-audio, nor out of SEW's
# classifier on a weighted sum of layers: a short clip beside a longer one gets other numbers than alone.
#
# Guess before the run: exact for all whose features are normalised by layer (feat_extract_norm="layer"), as for wav2vec 2.0;
# SEW on a weighted sum fails, or pools over wrong tokens, because its blocks run at half the rate of the mask.
# Seen with transformers 5.23.0, torch 2.13.0 (CPU build, Python 3.11), random weights, 0.5 s beside 1.0 s of noise: the
# tokens of wav2vec 2.0, WavLM and SEW are the same to 1e-6. Those of the Conformer differ by as much as the largest value,
# those of data2vec-audio by .9 of it: convolutions in the blocks, or of positions, one after the other, read what was
# written on padding (with kernels of 1 the difference is 0). SEW's logits with use_weighted_layer_sum=True, SUPERB's way to
# probe, differ by .5 of the largest: the mean is taken over twice as many tokens as the clip has. So probes and fine-tuned
# models of these kinds answer by the batch.
#
# What to do: clips of one length in a batch, without padding, or one clip at a time.
# The default index serves the CUDA build of torch on Linux, several gigabytes; PIP_INDEX_URL may name one with CPU builds.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$work/venv/bin/python" -W ignore - <<'P'
import sys

import torch
import transformers
from transformers import AutoConfig, AutoModelForAudioClassification

print("transformers", transformers.__version__, "torch", torch.__version__)
size = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 4, "num_labels": 3}
torch.manual_seed(0)
short, long = torch.randn(1, 8000), torch.randn(1, 16000)
batch = torch.cat([torch.nn.functional.pad(short, (0, 8000)), long])
mask = torch.ones(2, 16000, dtype=torch.long)
mask[0, 8000:] = 0
share = {}
for kind in ("wav2vec2", "wavlm", "sew", "wav2vec2-conformer", "data2vec-audio"):
    for weighted in (False, True):
        stable = {"do_stable_layer_norm": True} if kind in ("wav2vec2", "wavlm") else {}
        config = AutoConfig.for_model(
            kind, **size, **stable, feat_extract_norm="layer", use_weighted_layer_sum=weighted
        )
        torch.manual_seed(0)
        model = AutoModelForAudioClassification.from_config(config).eval()
        with torch.no_grad():
            alone = model.base_model(short).last_hidden_state[0]
            tokens = model.base_model(batch, attention_mask=mask).last_hidden_state[0, : len(alone)] - alone
            logits = model(batch, attention_mask=mask).logits[0] - model(short).logits[0]
            share[kind, weighted] = (
                float(tokens.abs().max() / alone.abs().max()), float(logits.abs().max() / model(short).logits.abs().max())
            )
        print(f"{kind:20} weighted sum {weighted!s:6} tokens {share[kind, weighted][0]:.1e}  logits {share[kind, weighted][1]:.1e}")
exact = [share[kind, weighted] for kind in ("wav2vec2", "wavlm") for weighted in (False, True)] + [share["sew", False]]
seen = max(map(max, exact)) < 1e-4 and share["sew", True][1] > 0.1
seen &= all(min(share[kind, False]) > 0.1 for kind in ("wav2vec2-conformer", "data2vec-audio"))
sys.exit(0 if seen else 1)
P
