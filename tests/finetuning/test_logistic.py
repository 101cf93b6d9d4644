"""Logistic regression: scikit-learn's answer, and inputs that tell nothing."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from audiobat.finetuning.logistic import fit_logistic


def rows(count: int, dim: int, classes: int, noise: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dim)) * rng.uniform(0.1, 30, dim) + rng.normal(scale=5, size=dim)
    standard = (vectors - vectors.mean(0)) / vectors.std(0)
    logits = standard @ rng.normal(size=(dim, classes)) + noise * rng.logistic(size=(count, classes)) - 1
    return vectors.astype(np.float32), standard, logits


@pytest.mark.parametrize("penalty", [1.0, 30.0])
def test_the_answer_is_that_of_scikit_learn(penalty: float):
    vectors, standard, logits = rows(300, 6, 3, 1.0)
    several, one = logits > 0, np.eye(3, dtype=bool)[logits.argmax(1)]
    weight, bias = fit_logistic(vectors, several, "bce", penalty)
    found = vectors @ weight.numpy().T + bias.numpy()
    for label in range(3):
        known = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=1000).fit(standard, several[:, label])
        np.testing.assert_allclose(found[:, label], known.decision_function(standard), atol=2e-3)
    weight, bias = fit_logistic(vectors, one, "ce", penalty)
    found = torch.from_numpy(vectors @ weight.numpy().T + bias.numpy()).softmax(1).numpy()
    known = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=1000).fit(standard, logits.argmax(1))
    np.testing.assert_allclose(found, known.predict_proba(standard), atol=1e-3)


def test_a_coordinate_that_never_changes_and_a_class_that_never_holds_do_no_harm():
    vectors, _, logits = rows(100, 4, 2, 1.0)
    vectors[:, 2] = 1e4
    targets = np.stack([logits[:, 0] > 0, np.zeros(100, bool)], 1)
    weight, bias = fit_logistic(vectors, targets, "bce", 10.0)
    assert torch.isfinite(weight).all()
    assert (weight[:, 2] == 0).all()
    scores = torch.from_numpy(vectors) @ weight.T + bias
    assert float(scores[:, 1].sigmoid().max()) < 0.02  # never there, but one may come
