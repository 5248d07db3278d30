"""Dropout: how many, how much, and that a bit serves one value only."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlseg_jax.models.dropout import Dropout, random_bits

pytestmark = pytest.mark.usefixtures("quick_compile")

SHAPE = (4, 30, 20, 40)


def drop(rate: float, x: Any, seed: int = 0, train: bool = True) -> Any:
    return Dropout(rate).apply({}, x, train, rngs={"dropout": jax.random.key(seed)})


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_share_scale_and_gradient(rate: float) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
    y, back = jax.vjp(lambda x: drop(rate, x), x)
    kept = np.asarray(y != 0)
    deviation = (rate * (1 - rate) / x.size) ** 0.5
    assert abs(kept.mean() - (1 - rate)) < 5 * deviation
    np.testing.assert_allclose(y, np.where(kept, x / (1 - rate), 0), rtol=1e-6)
    np.testing.assert_allclose(back(jnp.ones_like(x))[0], kept / (1 - rate), rtol=1e-6)


def test_off() -> None:
    x = jnp.ones(SHAPE)
    assert drop(0.5, x, train=False) is x
    assert Dropout(0.0).apply({}, x, True) is x


def test_the_key_decides_and_the_type_stays() -> None:
    x = jnp.ones(SHAPE, jnp.bfloat16)
    assert drop(0.5, x).dtype == jnp.bfloat16
    assert (drop(0.5, x, 1) == drop(0.5, x, 1)).all()
    assert 0.4 < float((drop(0.5, x, 1) == drop(0.5, x, 2)).mean()) < 0.6


@pytest.mark.parametrize("shape", [(2000, 32), (500, 3, 40), (4000, 5), (70_000,)])
def test_bits_are_fair_and_independent(shape: tuple[int, ...]) -> None:
    """Means along every axis, and the correlation of neighbours up to a word apart along the last."""
    bits = np.asarray(random_bits(jax.random.key(3), shape))
    assert bits.shape == shape
    assert bits.dtype == bool
    signs = bits * 2.0 - 1
    for axis in range(len(shape)):
        mean = signs.mean(axis=tuple(i for i in range(len(shape)) if i != axis))
        assert np.abs(mean).max() < 6 * (shape[axis] / bits.size) ** 0.5
    for apart in range(1, min(40, shape[-1])):
        product = signs[..., apart:] * signs[..., :-apart]
        assert abs(product.mean()) < 6 / product.size**0.5
