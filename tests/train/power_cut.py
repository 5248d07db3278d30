"""A training that ends without warning after so many steps, as by a kill."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tlseg_jax.train import job as job_module
from tlseg_jax.train.dispatch import Dispatch


class PowerCut(Exception):
    """Ends the process, as far as the training knows."""


@contextlib.contextmanager
def power_cut(after: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cut what is trained here after so many steps."""
    left = after

    class Cut(Dispatch):
        def __call__(self, state: Any, batches: Any, done: int = 0) -> Any:
            nonlocal left
            if left <= 0:
                raise PowerCut
            left -= len(batches)
            return super().__call__(state, batches, done)

    with monkeypatch.context() as patch:
        patch.setattr(job_module, "Dispatch", Cut)
        with pytest.raises(PowerCut):
            yield
