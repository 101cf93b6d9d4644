"""Write tasks.json: random vectors with labels, and what the task classes of mteb 2.26.24 measure on them.

    python -m venv /tmp/mteb && /tmp/mteb/bin/pip install mteb==2.26.24
    /tmp/mteb/bin/python tests/golden/make_task_goldens.py

The task classes are the ones of MAEB's audio tasks. The vectors are handed to them by an encoder that looks its input,
a number as text, up in a table, so that no audio is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskClustering, AbsTaskPairClassification, AbsTaskRetrieval
from mteb.abstasks.regression import AbsTaskRegression
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta

CLASSES, TRAIN, TEST, DIM = 6, 90, 70, 12
SCALES = (1.0, 0.02)  # of vectors: k-shot's regularised classifier depends on it
KEPT = (
    *("accuracy", "f1", "v_measure", "cosine_ap", "cosine_accuracy", "cosine_f1", "max_ap", "r2", "kendalltau", "rmse"),
    *("ndcg_at_10", "map_at_1000", "recall_at_10", "hit_rate_at_5", "hit_rate_at_1"),
)
METADATA = {
    "description": "random vectors",
    "dataset": {"path": "none", "revision": "none"},
    "category": "t2t",
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
}


def material() -> dict[str, Any]:
    """Vectors [n, D], a class and a number of each, the first ones to train on; pairs of the others."""
    rng = np.random.default_rng(5)
    classes = rng.integers(CLASSES, size=TRAIN + TEST)
    vectors = rng.normal(size=(CLASSES, DIM))[classes] + rng.normal(scale=1.6, size=(len(classes), DIM))
    numbers = vectors @ rng.normal(size=DIM) + rng.normal(scale=3, size=len(classes))
    pairs = [sorted(rng.choice(np.arange(TRAIN, TRAIN + TEST), 2, replace=False).tolist()) for _ in range(200)]
    return {
        "vectors": vectors.round(2).tolist(),
        "classes": classes.tolist(),
        "numbers": numbers.round(2).tolist(),
        "pairs": [list(pair) for pair in dict.fromkeys(map(tuple, pairs))],
    }


class Table(AbsEncoder):
    """An encoder that looks vectors up."""

    mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "golden/table", "revision": "1"})

    def __init__(self, vectors: list[list[float]], scale: float) -> None:
        self.vectors = np.array(vectors, np.float32) * np.float32(scale)

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        """The vectors of the numbers that `inputs` names."""
        return np.concatenate([self.vectors[[int(text) for text in batch["text"]]] for batch in inputs])


def task(base: type, type_name: str, main: str, dataset: Any, **fields: Any) -> Any:
    """A task of a real class on our own rows."""
    metadata = TaskMetadata(name=f"Golden{base.__name__}", type=type_name, main_score=main, **METADATA)
    made = type(f"Golden{base.__name__}", (base,), {"metadata": metadata, **fields})()
    made.dataset, made.data_loaded = dataset, True
    made.load_data = lambda *_, **__: None
    return made


def scores(model: Table, made: Any) -> dict[str, Any]:
    """What `evaluate` of a task gives for its test split."""
    found = made.evaluate(model, split="test", subsets_to_run=["default"], encode_kwargs={"batch_size": 32})["default"]
    return {name: found[name] for name in KEPT if name in found}


def rows(places: range, **columns: list[Any]) -> Dataset:
    """A split, whose texts are the places of vectors."""
    return Dataset.from_dict(
        {"text": [str(i) for i in places], **{k: [v[i] for i in places] for k, v in columns.items()}}
    )


def measured(data: dict[str, Any], scale: float) -> dict[str, dict[str, Any]]:
    """The kit's numbers by task."""
    model, train, test = Table(data["vectors"], scale), range(TRAIN), range(TRAIN, TRAIN + TEST)
    classes, numbers, pairs = data["classes"], data["numbers"], data["pairs"]
    labelled = DatasetDict(train=rows(train, label=classes), test=rows(test, label=classes))
    valued = DatasetDict(train=rows(train, value=numbers), test=rows(test, value=numbers))
    clustered = DatasetDict(test=rows(test, labels=classes).rename_column("text", "sentences"))
    both = [[str(pair[side]) for pair in pairs] for side in (0, 1)]
    same = [int(classes[a] == classes[b]) for a, b in pairs]
    paired = DatasetDict(test=Dataset.from_dict({"sentence1": both[0], "sentence2": both[1], "labels": same}))
    documents = Dataset.from_dict(
        {"id": [f"d{i:03d}" for i in test], "text": [str(i) for i in test], "title": [""] * TEST}
    )
    relevant = {f"d{i:03d}": {f"d{j:03d}": 1 for j in test if j != i and classes[i] == classes[j]} for i in test}
    found = task(AbsTaskRetrieval, "Retrieval", "ndcg_at_10", None, ignore_identical_ids=True)
    found.dataset = {
        "default": {
            "test": {
                "corpus": documents,
                "queries": documents.select_columns(["id", "text"]),
                "relevant_docs": relevant,
                "top_ranked": None,
            }
        }
    }
    return {
        "kshot": scores(model, task(AbsTaskClassification, "Classification", "accuracy", labelled)),
        "clustering": scores(
            model,
            task(AbsTaskClustering, "Clustering", "v_measure", clustered, max_fraction_of_documents_to_embed=None),
        ),
        "pairs": scores(model, task(AbsTaskPairClassification, "PairClassification", "max_ap", paired)),
        "regression": scores(model, task(AbsTaskRegression, "Regression", "kendalltau", valued)),
        "retrieval": scores(model, found),
    }


if __name__ == "__main__":
    data = material()
    found = [{"scale": scale, "scores": measured(data, scale)} for scale in SCALES]
    golden = {"mteb": mteb.__version__, "train": TRAIN, **data, "cases": found}
    Path(__file__).with_name("tasks.json").write_text(json.dumps(golden) + "\n")
    for case in found:
        print(case)
