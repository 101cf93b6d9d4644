#!/usr/bin/env bash
# X-ARES's KNN divides each feature by its norm over all training clips, where cosine divides each clip by its own.
#
# Guess before the run: neighbours by cosine, as `normalize` on training and test features reads.
# Seen with xares 0.1.3 (Python 3.11): the training features are transposed before `normalize(..., dim=1)`, so that the norm
# is taken over clips; test clips are divided by their own. A test clip that equals a training clip is given the class of
# another one that is longer: of two training clips (1, 0) and (30, 40), the second is the nearest to (1, 0), with .9994
# over 0.0333 where cosines are 0.6 over 1. Scores of encoders whose embeddings differ in length are lower than with cosines.
#
# What to do: read the column of the MLP, or take neighbours from the embeddings in env/TASK/embeddings yourself.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# The default index serves the CUDA build of torch on Linux, several gigabytes; PIP_INDEX_URL may name one with CPU builds.
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pytorch-ignite==0.5.5 loguru==0.7.3
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps xares==0.1.3
"$work/venv/bin/python" - <<'P'
import sys
from importlib.metadata import version

import torch
from torch.nn.functional import cosine_similarity
from xares.trainer import KNN

train, test = torch.tensor([[1.0, 0.0], [30.0, 40.0]]), torch.tensor([[1.0, 0.0]])
knn = KNN(train, torch.tensor([0, 1]), nb_knn=1, num_classes=2)
found = int(knn(test).argmax())
print("xares", version("xares"), "torch", torch.__version__)
print("cosines:", cosine_similarity(test, train).tolist(), "X-ARES's products:", (test @ knn.train_features).tolist())
print("class of a test clip that equals the training clip of class 0:", found)
sys.exit(0 if found == 1 else 1)
P
