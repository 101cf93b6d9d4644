"""The package in double precision, so that a difference of formulas shows beside none of rounding."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """All that is made inside is of `dtype`; of float64 is also what the package wants in float32."""
    before, to_float = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(dtype)
    if dtype == torch.float64:
        torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.Tensor.float = to_float
