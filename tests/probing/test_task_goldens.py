"""The tasks beside MTEB's own task classes on the same vectors: `tests/golden/make_task_goldens.py` ran those."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from audiobat.config import ProbeConfig, from_dict
from audiobat.data.build import clip_table
from audiobat.data.split import Split
from audiobat.evaluation.unit_scoring import UnitOutputs, evaluate_units
from audiobat.probing.tasks import build_tasks, task_class

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tasks.json").read_text())
KIT_SEED = 42
NAMES = {  # of our metrics: those of the kit
    "kshot": {"accuracy": "accuracy", "f1_macro": "f1"},
    "clustering": {"v_measure": "v_measure"},
    "pairs": {"ap": "cosine_ap", "accuracy_best": "cosine_accuracy", "f1_best": "cosine_f1", "ap_max": "max_ap"},
    "regression": {"r2": "r2", "kendall": "kendalltau", "rmse": "rmse"},
    "retrieval": {name: name for name in task_class("retrieval").definitions},
}


def measured(kind: str, scale: float, folder: Path, seed: int = KIT_SEED, **fields) -> UnitOutputs:
    """What a task finds on the golden vectors."""
    vectors = np.array(GOLDEN["vectors"], np.float32) * np.float32(scale)
    names = [f"{i:03d}.wav" for i in range(len(vectors))]
    pairs = folder / "pairs.csv"
    same = [GOLDEN["classes"][a] == GOLDEN["classes"][b] for a, b in GOLDEN["pairs"]]
    rows = [f"{names[a]},{names[b]},{int(one)}" for (a, b), one in zip(GOLDEN["pairs"], same, strict=True)]
    pairs.write_text("\n".join(["path,other,same", *rows]) + "\n")
    table = clip_table(
        folder,
        names,
        labels=[[f"class {c}"] for c in GOLDEN["classes"]],
        columns={"number": [str(n) for n in GOLDEN["numbers"]]},
    )
    own = {"pairs": {"file": str(pairs)}, "regression": {"column": "number"}}
    config = from_dict(ProbeConfig, {"tasks": [kind], "by_task": {kind: {**own.get(kind, {}), **fields}}})
    ids = np.arange(len(vectors))
    split = Split(ids[: GOLDEN["train"]], ids[GOLDEN["train"] :])
    [task] = build_tasks(config, table, [split]).values()
    return task.measure(SimpleNamespace(vectors=lambda clip_ids: vectors[clip_ids]), split, seed)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"scale {case['scale']}")
@pytest.mark.parametrize("kind", NAMES)
def test_a_task_measures_what_its_kit_does(kind, case, tmp_path):
    outputs = measured(kind, case["scale"], tmp_path)
    wanted = {ours: case["scores"][kind][theirs] for ours, theirs in NAMES[kind].items()}
    found = outputs.numbers()
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)
    metrics = evaluate_units([outputs], seed=0)
    assert list(metrics) == list(task_class(kind).definitions)
    assert all(metric.low <= metric.value <= metric.high and metric.low < metric.high for metric in metrics.values())


def test_the_kits_k_shot_number_depends_on_the_scale_of_vectors_and_standardised_ones_do_not(tmp_path):
    kit, own = (
        [
            measured("kshot", case["scale"], tmp_path, standardise=standardise).numbers()["accuracy"]
            for case in GOLDEN["cases"]
        ]
        for standardise in (False, True)
    )
    assert abs(kit[0] - kit[1]) > 0.05
    assert own[0] == pytest.approx(own[1], abs=1e-6)


def test_clusters_of_noise_get_what_chance_gives_and_no_more(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).normal(size=np.shape(GOLDEN["vectors"]))
    assert measured("clustering", 1.0, tmp_path).numbers()["v_measure_chance"] < 0.15
    monkeypatch.setitem(GOLDEN, "vectors", noise.tolist())
    found = measured("clustering", 1.0, tmp_path).numbers()
    assert found["v_measure_chance"] == pytest.approx(found["v_measure"], abs=0.04)
    assert found["v_measure"] > 0.05


@pytest.mark.parametrize("kind", ["kshot", "clustering"])
def test_a_seed_decides_what_a_task_draws(kind, tmp_path):
    first, again, other = (measured(kind, 1.0, tmp_path, seed=seed).numbers() for seed in (1, 1, 2))
    assert first == again
    assert first != other
