"""A kill at any instant at which code under test changes the disk: before and after each call that does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test may catch it."""


@contextmanager
def killed_at(instant: int, touched: Sequence[tuple[Any, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Raise Killed at instant `instant`, from 0, of those before and after each call of `touched`: owner and name."""
    left = instant

    def kill_in_time():
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    def around(real):
        def call(*args, **kwargs):
            kill_in_time()
            result = real(*args, **kwargs)
            kill_in_time()
            return result

        return call

    with monkeypatch.context() as patch:
        for owner, name in touched:
            patch.setattr(owner, name, around(getattr(owner, name)))
        yield
