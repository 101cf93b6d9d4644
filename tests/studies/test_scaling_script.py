"""benchmarks/scaling.py: exponents of known curves, and which record belongs to which model."""

import numpy as np
import pytest
import torch
from benchmark_scripts import load_script
from torch import nn

from audiobat.data.scenes import demo_folder
from audiobat.errors import AudiobatError

scaling = load_script("scaling")


def test_the_exponent_of_a_power_law_is_found():
    x = np.array([100, 1_000, 5_000])
    exponents, factors = scaling.fit(x, [1 - 0.9 * x**-0.05, 1 - 0.8 * x**-0.2])
    np.testing.assert_allclose(exponents, [0.05, 0.2])
    np.testing.assert_allclose(factors, [0.9, 0.8])


def test_models_of_one_name_have_a_record_each(tmp_path, monkeypatch):
    sizes = {"a/run": 2, "b/run": 3}
    calls = []

    def probe(model, scenes, config, out):
        calls.append(model)
        (out / "results").mkdir(parents=True)
        (out / "results/run_cgp_0.json").write_text(model)

    monkeypatch.setattr(scaling.audiobat, "load", lambda name: nn.ParameterList([torch.zeros(sizes[name])]))
    monkeypatch.setattr(scaling.audiobat, "probe", probe)
    scenes = demo_folder() / "events.csv"
    for _ in range(2):
        found = [scaling.probe(name, scenes, tmp_path).read_text() for name in sizes]
        assert found == calls == ["a/run", "b/run"]
    scaling.probe("a/run", demo_folder() / "unlabelled.csv", tmp_path)
    assert calls == ["a/run", "b/run", "a/run"]  # other clips need another record


def test_one_place_of_the_axis_gives_no_exponent(tmp_path):
    with pytest.raises(AudiobatError, match="two or more places of its axis"):
        scaling.points(["a", "b"], [5, 5], "scenes.csv", tmp_path)
    with pytest.raises(SystemExit):
        scaling.main(["scenes.csv", str(tmp_path)])
