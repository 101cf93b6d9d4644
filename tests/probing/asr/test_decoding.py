"""Decoders beside a search over every path: the text whose paths have most probability in all."""

import itertools

import pytest
import torch

from audiobat.probing.asr.decoding import beam_search, best_paths


def probabilities_of_texts(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Every text of log-probabilities [frames, classes] with the sum over all of its paths."""
    frames, classes = log_probs.shape
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=frames):
        text = tuple(unit for unit, _ in itertools.groupby(path) if unit)
        chance = float(log_probs[range(frames), list(path)].double().sum().exp())
        found[text] = found.get(text, 0.0) + chance
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_of_all_beginnings_finds_the_likeliest_text(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = (1.5 * torch.randn(6, 5, 3, generator=generator)).log_softmax(-1)
    lengths = torch.tensor([5, 5, 4, 3, 1, 5])
    found = beam_search(log_probs, lengths, 400)
    for clip, length in enumerate(lengths.tolist()):
        texts = probabilities_of_texts(log_probs[clip, :length])
        assert tuple(found[clip]) == max(texts, key=lambda text: texts[text])


def test_a_text_of_many_paths_beats_the_likeliest_path() -> None:
    # Two frames: blank .6, a .4 each. The path of blanks has .36; the text "a" has .64 in three paths.
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    lengths = torch.tensor([2])
    assert best_paths(log_probs, lengths) == [[]]
    assert beam_search(log_probs, lengths, 2) == [[1]]


def test_repeats_are_one_character_unless_a_blank_divides_them() -> None:
    path = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 0, 3]])
    log_probs = (20.0 * torch.nn.functional.one_hot(path, 4)).log_softmax(-1)
    lengths = torch.tensor([9])
    assert best_paths(log_probs, lengths) == [[1, 1, 2, 3]]
    for width in (1, 4):
        assert beam_search(log_probs, lengths, width) == [[1, 1, 2, 3]]


def test_what_lies_behind_the_end_of_a_clip_has_no_say() -> None:
    log_probs = torch.randn(4, 30, 6, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    lengths = torch.tensor([30, 12, 7, 1])
    for decode in (best_paths, lambda probs, ends: beam_search(probs, ends, 8)):
        together = decode(log_probs, lengths)
        for clip, length in enumerate(lengths.tolist()):
            alone = decode(log_probs[clip : clip + 1, :length], torch.tensor([length]))
            assert alone == together[clip : clip + 1]


def test_a_wider_beam_finds_no_less_likely_text() -> None:
    log_probs = torch.randn(1, 40, 5, generator=torch.Generator().manual_seed(3)).log_softmax(-1)
    frames = torch.tensor([40])

    def chance(text: list[int]) -> float:
        loss = torch.nn.functional.ctc_loss(
            log_probs.transpose(0, 1).double(), torch.tensor([text]), frames, torch.tensor([len(text)])
        )
        return -float(loss) * len(text)

    narrow, wide = (chance(beam_search(log_probs, frames, width)[0]) for width in (2, 64))
    assert wide >= narrow
    assert wide > chance(best_paths(log_probs, frames)[0])
