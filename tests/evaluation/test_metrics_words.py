"""Word and character errors beside jiwer's, and edit distances beside a plain recursion."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from audiobat.evaluation.metrics.words import edit_distance, edits_of, word_edits

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/word_errors.json").read_text(encoding="utf-8"))


def test_errors_are_those_of_jiwer():
    words, characters = word_edits(GOLDEN["true"], GOLDEN["found"]), edits_of(GOLDEN["true"], GOLDEN["found"])
    assert words.edits.tolist() == GOLDEN["word_edits"]
    assert characters.edits.tolist() == GOLDEN["character_edits"]
    assert float(words.rate()) == pytest.approx(GOLDEN["wer"], abs=1e-12)
    assert float(characters.rate()) == pytest.approx(GOLDEN["cer"], abs=1e-12)


def test_the_distance_is_the_shortest_way_from_one_text_to_the_other():
    @cache
    def shortest(true: str, found: str) -> int:
        if not true or not found:
            return len(true) + len(found)
        kept = shortest(true[1:], found[1:]) + (true[0] != found[0])
        return min(kept, shortest(true[1:], found) + 1, shortest(true, found[1:]) + 1)

    rng = np.random.default_rng(0)
    for _ in range(200):
        true, found = ("".join(rng.choice(list("abc"), rng.integers(0, 9))) for _ in range(2))
        assert edit_distance(true, found) == shortest(true, found)


def test_a_rate_is_of_all_texts_together_and_of_the_drawn_ones_in_a_resample():
    edits = word_edits(["one two three", "four"], ["one two", "for four"])
    assert float(edits.rate()) == pytest.approx(2 / 4)  # not the mean of 1/3 and 1
    drawn = torch.tensor([[1.0, 1.0], [2.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    assert edits.rate(drawn).tolist() == pytest.approx([2 / 4, 2 / 6, 4 / 6])
