"""What depends on a row's place in the global batch: on three ranks, of 3, 1 and 2 rows, as in one process of 6.

Run as a program it is the three ranks, which leave what they compute in a folder.
"""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from rank_processes import run_program, run_ranks
from torch import nn

from audiobat.engine.randomness import draw_rows, seed_step, step_seed
from audiobat.engine.ranks import any_rank, gather_rows, launch, mean_over_ranks, own_rows, place
from audiobat.engine.row_layers import RowBatchNorm, RowDropout

CPU = torch.device("cpu")
ROWS = (3, 1, 2)
STEP = (7, 4)  # seed and step


def rows_of(rank: int, world: int) -> torch.Tensor:
    """This rank's rows [M, 5] of six, or all."""
    whole = torch.arange(30.0).view(6, 5).sin()
    return whole.split(ROWS)[rank] if world > 1 else whole


def computed() -> dict[str, torch.Tensor]:
    """All that a rank computes of its rows."""
    rank, world = place()
    seed_step(*STEP, CPU)
    x = rows_of(rank, world).clone().requires_grad_()
    found = {
        "even": draw_rows(lambda n: torch.rand(n, 2), 6 // world, CPU),
        "uneven": draw_rows(lambda n: torch.randn(n, 2), len(x), CPU, even=False),
        "dropout": RowDropout(0.4)(x.detach()),
        "own": torch.rand(3),  # torch's own stream, which knows nothing of what was drawn for rows
        "halves": own_rows(torch.arange(6)),
        "gathered": gather_rows(own_rows(torch.arange(6).view(6, 1) > 2)),
        "padded": torch.tensor([any_rank(rank == 1), any_rank(False)]),
    }
    norm = RowBatchNorm(5)
    normal = norm(x)
    weights = torch.arange(30.0).view(6, 5).cos()
    weights = weights.split(ROWS)[rank] if world > 1 else weights
    error = (normal * weights).square()
    found["mean"] = mean_over_ranks(error.mean(), len(x))
    found["mean"].backward()
    found |= {"normal": normal, "gradient": x.grad, "norm mean": norm.running_mean, "norm variance": norm.running_var}
    found["norm steps"] = norm.num_batches_tracked
    none = torch.zeros(0 if rank else 4)  # items of rank 0 alone
    found["mean of some"] = mean_over_ranks(none.sum() + 2.0 * (rank == 0), none.numel())
    found["mean of none"] = mean_over_ranks(none.sum(), torch.tensor(0))
    return {name: value.detach() for name, value in found.items()}


def compute(folder: Path, world: int) -> None:
    with launch("cpu") as ranks:
        torch.save(computed(), folder / f"{ranks.rank}.pt")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    run_program(__file__, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(3)]


@pytest.fixture(scope="module")
def whole():
    return computed()


@pytest.mark.parametrize("name", ["even", "uneven", "dropout", "halves", "normal"])
def test_rows_of_the_ranks_in_their_order_are_those_of_one_process(parts, whole, name):
    torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name])


@pytest.mark.parametrize("name", ["mean", "mean of some", "mean of none"])
def test_parts_of_a_mean_average_to_the_mean_over_all_items(parts, whole, name):
    wanted = torch.tensor(2.0) if name == "mean of some" else whole[name]
    torch.testing.assert_close(torch.stack([part[name] for part in parts]).mean(), wanted)


def test_the_average_of_the_gradients_is_that_of_the_mean(parts, whole):
    """DDP divides each gradient by the number of ranks."""
    torch.testing.assert_close(torch.cat([part["gradient"] / 3 for part in parts]), whole["gradient"])


@pytest.mark.parametrize("name", ["gathered", "norm mean", "norm variance", "norm steps"])
def test_every_rank_has_what_one_process_has(parts, whole, name):
    for part in parts:
        torch.testing.assert_close(part[name], whole[name])


def test_what_one_rank_says_all_know(parts):
    assert [part["padded"].tolist() for part in parts] == [[True, False]] * 3


def test_each_ranks_own_stream_is_its_own(parts):
    torch.manual_seed(step_seed(*STEP, 2))
    assert torch.equal(parts[1]["own"], torch.rand(3))  # as if no layer had drawn
    assert len({tuple(part["own"].tolist()) for part in parts}) == 3


def test_alone_layers_are_torchs_own():
    x = rows_of(0, 1)
    torch.manual_seed(0)
    ours = RowDropout(0.4)(x), RowBatchNorm(5)(x)
    torch.manual_seed(0)
    theirs = nn.Dropout(0.4)(x), nn.BatchNorm1d(5)(x)
    assert all(map(torch.equal, ours, theirs))
    assert RowDropout(0.4).eval()(x) is x


if __name__ == "__main__":
    run_ranks([partial(compute, Path(sys.argv[1]))], worlds=[3])
