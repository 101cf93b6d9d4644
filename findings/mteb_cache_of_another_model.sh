#!/usr/bin/env bash
# mteb's CachedEmbeddingWrapper gives one model the embeddings of another: its files are named after the task alone.
#
# Guess before the run: the cache knows the model, since a model's description has a name and a revision.
# Seen with mteb 2.26.24 (Python 3.11): two encoders with different names and revisions, wrapped with one folder, one after
# the other in the same process or in two; the second is never called for clips that the first has embedded, and its
# scores are the first's. Nothing is printed. With another width the second ends in an error of shapes or wrong rows.
# (The cache of results, which `evaluate` keeps by itself, does tell models apart by name and revision. A model whose
# revision is None, though, is given the results of whichever revision of its name was written last.)
#
# What to do: one folder for each model.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# The default index serves the CUDA build of torch on Linux, several gigabytes; PIP_INDEX_URL may name one with CPU builds.
"$work/venv/bin/pip" install -q --disable-pip-version-check mteb==2.26.24 torch==2.13.0
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'P'
import sys

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.models import ModelMeta
from mteb.models.cache_wrappers import CachedEmbeddingWrapper

UNKNOWN = dict.fromkeys(
    "loader release_date languages n_parameters memory_usage_mb max_tokens embed_dim license open_weights "
    "public_training_code public_training_data use_instructions training_datasets".split()
)


class Model:
    """Embeds a clip as (its first sample, 0) or as (0, its first sample)."""

    def __init__(self, name, place):
        self.place, self.calls = place, 0
        facts = dict(name=name, revision=name[-1], framework=["NumPy"], similarity_fn_name="cosine")
        self.mteb_model_meta = ModelMeta(**UNKNOWN, **facts, modalities=["audio"])

    def encode(self, inputs, **_):
        self.calls += 1
        first = [clip["array"][0] for batch in inputs for clip in batch["audio"]]
        return np.stack([first, np.zeros(len(first))][:: 1 if self.place == 0 else -1], 1).astype(np.float32)

    def similarity(self, one, two):
        return one @ two.T

    similarity_pairwise = similarity


clips = [{"array": np.full(8, float(i + 1), np.float32), "sampling_rate": 16_000} for i in range(30)]
found = []
for model in (Model("org/a", 0), Model("org/b", 1)):
    task = mteb.get_task("ESC50Clustering")
    data = Dataset.from_dict({"audio": clips, "target": [i % 3 for i in range(30)]})
    task.dataset = DatasetDict(train=data.with_format("numpy"))
    task.data_loaded = True
    wrapped = CachedEmbeddingWrapper(model, "cache")
    mteb.evaluate(wrapped, task, cache=None, show_progress_bar=False)
    loader = mteb._create_dataloaders.create_dataloader(task.dataset["train"], task_metadata=task.metadata)
    row = wrapped.encode(loader, task_metadata=task.metadata, hf_split="train", hf_subset="default")[0]
    print("mteb", mteb.__version__, model.mteb_model_meta.name, "was called", model.calls, "times; its first clip:", row)
    found.append((model.calls, row.tolist()))
sys.exit(0 if found == [(1, [1.0, 0.0]), (0, [1.0, 0.0])] else 1)
P
