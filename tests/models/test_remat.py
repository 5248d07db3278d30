"""Rematerialisation: the same values and gradients, and less kept."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import he_variables
from tlseg_jax.models.networks import NETWORKS, get_network, init_variables
from tlseg_jax.models.remat import Remat
from tlseg_jax.models.unet import UNetConfig

pytestmark = pytest.mark.usefixtures("quick_compile")


def forward(config: UNetConfig, remat: Remat, variables: dict[str, Any], x: jax.Array) -> Any:
    """params -> (loss, (logits, new averages)) in training."""

    def loss(params: Any) -> Any:
        y, moved = config.module(remat, "native").apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(7)},
        )
        return jnp.sum(jnp.sin(y)), (y, moved)

    return loss


@pytest.mark.slow
@pytest.mark.parametrize("name", ["switch8x2", "unet_fast", "unet3d256", "unet2d"])
def test_the_policies_agree_bit_for_bit_or_nearly(name: str) -> None:
    config = get_network(name)
    variables = init_variables(config, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, *(2 * config.divisor,) * config.dimensions, 1))
    results = [
        jax.jit(jax.value_and_grad(forward(config, remat, variables, x), has_aux=True))(variables["params"])
        for remat in get_args(Remat)
    ]
    for other in results[1:]:
        for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-5 * max(float(jnp.abs(a).max()), 1e-3))


@pytest.mark.parametrize(
    "name", ["switch32", *(pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS if n != "switch32")]
)
def test_each_policy_keeps_less_than_the_one_before(name: str) -> None:
    config = get_network(name)
    variables = he_variables(config)
    x = jnp.zeros((1, *(8 * config.divisor,) * config.dimensions, 1))

    def kept(remat: Remat) -> int:
        loss = forward(config, remat, variables, x)
        leaves = jax.tree.leaves(jax.eval_shape(lambda p: jax.vjp(loss, p, has_aux=True)[1], variables["params"]))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    none, block, full = (kept(r) for r in get_args(Remat))
    assert full < block < none
