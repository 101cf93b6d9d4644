"""A row of the table: what is compared, whose formulas it is held against, and how far it is from them."""

from typing import NamedTuple

from torch import Tensor

Named = dict[str, Tensor]


class Row(NamedTuple):
    """Differences are the largest of any value, relative to the largest value of its tensor."""

    what: str
    source: str
    compared: str
    difference: float  # of both in float64
    single: float | None = None  # of the package in float32
    tolerance: float = 1e-8
    single_tolerance: float = 1e-4

    @property
    def holds(self) -> bool:
        """Whether both differences are within their tolerances."""
        within = self.single is None or self.single <= self.single_tolerance
        return self.difference <= self.tolerance and within


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest value of `wanted`."""
    return furthest(found, wanted) / max(float(wanted.abs().max()), 1e-30)


def furthest(found: Tensor, wanted: Tensor) -> float:
    """The largest distance of two tensors' values."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    assert bool(wanted.isfinite().all())
    return float((found.detach().double() - wanted.detach().double()).abs().nan_to_num(nan=float("inf")).max())


def largest(found: Named, wanted: Named, start: Named | None = None) -> float:
    """The largest of all tensors' differences, of how far they moved from `start` where that is given.

    A tensor of nothing but rounding, as the gradient of a bias that changes nothing, is measured by the others.
    """
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())
    sizes = {name: (value - start[name] if start else value).detach().double() for name, value in wanted.items()}
    floor = 1e-6 * max(float(size.abs().max()) for size in sizes.values())
    worst = 0.0
    for name, value in wanted.items():
        worst = max(worst, furthest(found[name], value) / max(float(sizes[name].abs().max()), floor))
    return worst
