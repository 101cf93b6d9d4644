"""MTEB itself, on its own tasks, with small synthetic sounds in the place of their data: `make kits` runs this."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny_encoder import RATE, write_encoder

mteb = pytest.importorskip("mteb", reason="make kits installs it")

from datasets import Dataset, DatasetDict  # noqa: E402
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData  # noqa: E402

from audiobat.zoo.integrations.frames import FrameEmbedder  # noqa: E402
from audiobat.zoo.integrations.mteb import AudiobatEncoder  # noqa: E402

CLASSES = 3
LABELS = [i % CLASSES for i in range(45)]  # enough for each of MTEB's random folds to hold all classes


def sound(i: int, rate: int = RATE) -> dict:
    """A tone of the class of clip `i`, of one of two lengths, in noise."""
    rng = np.random.default_rng(i)
    times = np.arange(round(rate * (1 + 0.25 * (i % 2)))) / rate
    tone = 0.3 * np.sin(2 * np.pi * 300 * 2 ** LABELS[i] * times + rng.uniform(0, 6))
    return {"array": (tone + 0.02 * rng.normal(size=times.size)).astype("f"), "sampling_rate": rate}


SOUNDS = [sound(i) for i in range(len(LABELS))]


def task(name: str, dataset, **choice):
    """MTEB's own task of that name, with other data."""
    found = mteb.get_task(name, **choice)
    found.dataset, found.data_loaded = dataset, True
    return found


def labelled(column: str, labels=LABELS) -> Dataset:
    return Dataset.from_dict({"audio": SOUNDS, column: labels})


def retrieval(ranked: bool) -> dict:
    """The first three sounds are queries; of the others, those of a query's class are relevant."""
    others = range(CLASSES, len(SOUNDS))
    ids = [f"d{i}" for i in others]
    relevant = {f"q{q}": {f"d{i}": int(LABELS[i] == q) for i in others} for q in range(CLASSES)}
    return {
        "test": RetrievalSplitData(
            queries=Dataset.from_dict({"id": list(relevant), "audio": SOUNDS[:CLASSES]}),
            corpus=Dataset.from_dict({"id": ids, "audio": SOUNDS[CLASSES:]}),
            relevant_docs=relevant,
            top_ranked=dict.fromkeys(relevant, ids) if ranked else None,
        )
    }


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> AudiobatEncoder:
    return AudiobatEncoder(write_encoder(tmp_path_factory.mktemp("models") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def vectors(encoder) -> np.ndarray:
    """The sounds' embeddings, one clip at a time."""
    frames = FrameEmbedder(encoder.frames.encoder)
    return np.stack([frames(torch.from_numpy(clip["array"])[None]).mean(1)[0].numpy() for clip in SOUNDS])


def score(encoder, task) -> float:
    found = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False).task_results[0]
    return found.get_score()


def test_classification_and_clustering(encoder):
    assert score(encoder, task("ESC50", DatasetDict(train=labelled("target")))) > 0.9
    shuffled = np.random.default_rng(0).permutation(LABELS).tolist()
    assert score(encoder, task("ESC50", DatasetDict(train=labelled("target", shuffled)))) < 0.7
    assert score(encoder, task("ESC50Clustering", DatasetDict(train=labelled("target")))) > 0.9


def test_multilabel_classification(encoder):
    named = labelled("sound", [[f"tone {label}"] for label in LABELS])
    data = {"curated": DatasetDict(train=named, test=named)}
    assert score(encoder, task("FSD2019Kaggle", data, hf_subsets=["curated"])) > 0.9


def test_pair_classification_is_average_precision_of_cosines(encoder, vectors):
    pairs = [(i, j) for i in range(12) for j in range(i)]
    same = [int(LABELS[i] == LABELS[j]) for i, j in pairs]
    columns = {"audio1": [SOUNDS[i] for i, _ in pairs], "audio2": [SOUNDS[j] for _, j in pairs], "label": same}
    found = score(encoder, task("ESC50PairClassification", DatasetDict(test=Dataset.from_dict(columns))))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = average_precision_score(same, [unit[i] @ unit[j] for i, j in pairs])
    assert found == pytest.approx(wanted, abs=1e-4)


def test_retrieval_and_reranking_rank_by_cosine(encoder, vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit[:CLASSES] @ unit[CLASSES:].T
    relevant = np.array(LABELS[CLASSES:]) == np.arange(CLASSES)[:, None]
    wanted = np.mean([average_precision_score(r, c) for r, c in zip(relevant, cosines, strict=True)])
    ranked = task("ESC50AudioReranking", {"default": retrieval(ranked=True)})
    assert score(encoder, ranked) == pytest.approx(wanted, abs=1e-4)
    gains = np.take_along_axis(relevant, np.argsort(-cosines)[:, :10], 1) / np.log2(np.arange(2, 12))
    ideal = (1 / np.log2(np.arange(2, 12))).sum()  # there are more than ten relevant sounds
    free = task("JamAltArtistA2ARetrieval", {"en": retrieval(ranked=False)}, hf_subsets=["en"])
    assert score(encoder, free) == pytest.approx(gains.sum(1).mean() / ideal, abs=1e-4)


def test_tasks_with_text_are_refused_before_any_audio_is_read(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "encode", None)
    with pytest.raises(ValueError, match="audiobat/tiny supports"):
        score(encoder, task("ESC50_Zeroshot", DatasetDict(train=labelled("target"))))


def test_results_of_models_and_layers_are_kept_apart(tmp_path: Path):
    """One result cache, two models of one name: neither gets the other's results, and each gets its own again."""
    cache = mteb.ResultCache(tmp_path / "cache")
    folders = [write_encoder(tmp_path / str(seed) / "tiny", seed=seed) for seed in (0, 1)]
    models = [AudiobatEncoder(folder, device="cpu") for folder in folders]
    models += [AudiobatEncoder(folders[0], device="cpu", layer=1), AudiobatEncoder(folders[0], device="cpu")]
    runs = []
    for number, model in enumerate(models):
        encode = model.encode
        model.encode = lambda inputs, n=number, f=encode, **kwargs: runs.append(n) or f(inputs, **kwargs)
        data = DatasetDict(train=labelled("target"))
        mteb.evaluate(model, task("ESC50", data), cache=cache, show_progress_bar=False)
    assert runs == [0, 1, 2]  # the fourth is the first


def test_the_benchmark_that_the_docs_name_suits_the_encoder(encoder):
    benchmark = mteb.get_benchmark("MAEB(v1, audio-only)")
    assert {modality for task in benchmark.tasks for modality in task.metadata.modalities} == {"audio"}
    meta = encoder.mteb_model_meta
    assert (meta.modalities, meta.embed_dim, meta.framework) == (["audio"], encoder.frames.encoder.dim, ["PyTorch"])
    assert meta.n_parameters == sum(p.numel() for p in encoder.frames.encoder.parameters())
