"""Sums in chunks against the same sum by autograd at once."""

import pytest
import torch

from audiobat.engine.chunks import CPU_TOKENS, chunk_size, sum_in_chunks

CPU = torch.device("cpu")


def gradients(chunks: int) -> tuple[torch.Tensor, list[torch.Tensor | None], list[int]]:
    torch.manual_seed(0)
    source, weight, unused, frozen = (torch.randn(6, 6, requires_grad=grad) for grad in (True, True, True, False))
    tokens = source.tanh()  # made outside, with a gradient of its own

    def part(rows: slice, tokens: torch.Tensor) -> tuple[torch.Tensor, int]:
        hidden = tokens[rows] @ weight + tokens[rows] * frozen[rows]
        return (hidden + weight[rows]).square().sum(), rows.start

    rows = [slice(i, i + 6 // chunks) for i in range(0, 6, 6 // chunks)]
    total, starts = sum_in_chunks(part, rows, [tokens], [weight, unused, frozen])
    (0.5 * total).backward()
    return total.detach(), [source.grad, weight.grad, unused.grad, frozen.grad], starts


@pytest.mark.parametrize("chunks", [2, 3, 6])
def test_chunks_sum_to_the_loss_and_gradient_of_all_at_once(chunks):
    (total, grads, starts), (wanted, whole, _) = gradients(chunks), gradients(1)
    torch.testing.assert_close(total, wanted)
    for grad, other in zip(grads[:2], whole[:2], strict=True):
        torch.testing.assert_close(grad, other)
    assert grads[2:] == [None, None]  # an optimizer must not decay what nothing used
    assert starts == list(range(0, 6, 6 // chunks))


def test_a_gradient_that_two_tensors_share_is_not_added_twice():
    first, second = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    total, _ = sum_in_chunks(
        lambda factor: ((first + second).sum() * factor, None), [1.0, 2.0, 4.0], [], [first, second]
    )
    total.backward()
    assert first.grad.tolist() == second.grad.tolist() == [7.0] * 3


def test_without_gradients_nothing_is_kept():
    weight = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        total, _ = sum_in_chunks(lambda factor: (weight.sum() * factor, None), [1.0, 2.0], [], [weight])
    assert (float(total), total.requires_grad) == (9.0, False)


def test_all_chunks_are_of_one_size_and_none_is_above_the_limit():
    for rows, tokens, limit in [(32, 512, 32), (192, 513, 5), (7, 10, 3), (6, 10**6, 6), (4, 1, 9)]:
        size = chunk_size(rows, tokens, 512, limit, CPU)
        assert rows % size == 0
        assert size <= max(min(limit, CPU_TOKENS // tokens), 1)
    assert chunk_size(12, 1, 64, 5, CPU) == 4


def test_a_chunk_on_a_cpu_holds_as_many_values_whatever_the_width():
    assert chunk_size(128, 52, 128, 128, CPU) == 64
    assert chunk_size(32, 512, 192, 32, CPU) == 4
    assert chunk_size(16, 512, 384, 16, CPU) == chunk_size(16, 512, 768, 16, CPU) == 2
    assert chunk_size(192, 512, 768, 192, torch.device("cuda")) == 64
