"""Fixtures of the tests that train."""

from collections.abc import Iterator
from typing import Any

import jax
import pytest

from tests.conftest import he_variables
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train import run as run_module


@pytest.fixture(scope="module")
def quick_start() -> Iterator[None]:
    """The first parameters by NumPy, still by seed: tracing them takes seconds."""

    def start(config: UNetConfig, key: jax.Array) -> dict[str, Any]:
        return he_variables(config, int(jax.random.key_data(key)[-1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "init_variables", start)
        yield
