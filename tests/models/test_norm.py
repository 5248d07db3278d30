"""Batch normalisation against flax's, in value, gradients and running averages, and by what it keeps."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlseg_jax.models.norm import BatchNorm

pytestmark = pytest.mark.usefixtures("quick_compile")


class Flax(nn.Module):
    """The same from flax."""

    momentum: float

    @nn.compact
    def __call__(self, x: jax.Array, average: bool, relu: bool) -> jax.Array:
        y = nn.BatchNorm(use_running_average=average, momentum=self.momentum, name="bn")(x)
        return nn.relu(y) if relu else y


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_against_flax(average: bool, relu: bool) -> None:
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(1, 2, (3, 4, 5, 6)), jnp.float32) for _ in range(2))
    params = {
        "scale": jnp.asarray(rng.normal(size=6), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=6), jnp.float32),
    }
    stats = {
        "mean": jnp.asarray(rng.normal(size=6), jnp.float32),
        "var": jnp.asarray(rng.uniform(1, 2, 6), jnp.float32),
    }

    def run(module: nn.Module, wrap: Any) -> Any:
        def loss(x: jax.Array, params: Any) -> Any:
            variables = {"params": wrap(params), "batch_stats": wrap(stats)}
            y, moved = module.apply(variables, x, average, relu, mutable=["batch_stats"])
            return jnp.sum(y * weight), (y, moved.get("batch_stats", wrap(stats)))

        (_, (y, moved)), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, params)
        return y, moved, gradients

    ours = run(BatchNorm(0.8), lambda v: v)
    y, moved, gradients = run(Flax(0.8), lambda v: {"bn": v})
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves((y, moved["bn"], gradients)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_is_kept_is_the_input_in_its_own_type() -> None:
    x = jnp.ones((2, 8, 8, 8, 4), jnp.bfloat16)
    variables = BatchNorm(0.9).init(jax.random.key(0), x, False, True)

    def apply(x: jax.Array) -> jax.Array:
        return BatchNorm(0.9).apply(variables, x, False, True, mutable=["batch_stats"])[0]

    kept = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(apply, x)[1], x))
    assert sum(k.size * k.dtype.itemsize for k in kept) < 1.1 * x.nbytes


def test_running_averages_start_at_zero_and_one_and_stay_in_init() -> None:
    variables = BatchNorm(0.9).init(jax.random.key(0), 5 + jnp.ones((1, 2, 2, 3)), False, False)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(3))
