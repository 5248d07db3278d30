"""Rates that fall from the output down: the order of each network's blocks, and the updates that follow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlseg_jax.models.networks import NETWORKS, get_network, variable_shapes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.transfer.layerwise import check_layer_decay, depths

DECAY = 0.6
ORDERS = {
    "switch8x2": ["head", "final", "decoder_2", "decoder_1", "bottleneck", "encoder_2", "encoder_1", "encoder_0"],
    "unet_fast": ["head", "decoder_1 up_1", "decoder_0 up_0", "bottleneck", "encoder_1", "encoder_0"],
}


@pytest.mark.parametrize("network", ORDERS)
def test_the_order_is_that_of_the_way_back_from_the_output(network: str) -> None:
    params = variable_shapes(get_network(network))["params"]
    expected = {name: i for i, names in enumerate(ORDERS[network]) for name in names.split()}
    assert depths(params) == expected


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_an_order_without_gaps(network: str) -> None:
    found = depths(variable_shapes(get_network(network))["params"])
    assert set(found.values()) == set(range(max(found.values()) + 1))
    assert found["head"] == 0 and found["encoder_0"] == max(found.values())


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
@pytest.mark.parametrize("unfreezing", ["at_once", "warmup_all"])
def test_each_update_is_the_usual_one_times_its_factor(optimiser: str, unfreezing: str) -> None:
    rng = np.random.default_rng(0)
    names = ["head", "up_1", "decoder_1", "decoder_0", "bottleneck", "encoder_1", "encoder_0"]
    depth = dict(zip(names, [0, 1, 1, 2, 3, 4, 5], strict=True))
    trees: list[Any] = [
        {n: {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 2)), jnp.float32), "bias": jnp.ones(2)} for n in names}
        for _ in range(2)
    ]
    labels = jax.tree.map(lambda _: "trained", trees[0]) | {"encoder_1": {"kernel": "frozen", "bias": "trained"}}
    given = {"optimiser": optimiser, "unfreezing": unfreezing, "learning_rate": 0.1}

    def last_update(decay: float) -> Any:
        made = make_optimiser(get_recipe("default").override(layer_decay=decay, **given), 20, labels)
        state = made.init(trees[0])
        for _ in range(4):
            update, state = made.update(trees[1], state, trees[0])
        return update

    usual, scaled = last_update(1.0), last_update(DECAY)
    for name in names:
        for leaf in ("kernel", "bias"):
            assert np.any(usual[name][leaf]) == ((name, leaf) != ("encoder_1", "kernel"))
            np.testing.assert_allclose(scaled[name][leaf], usual[name][leaf] * DECAY ** depth[name], rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5, float("nan")])
def test_no_factor_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match=r"`layer_decay=.*` is not a factor"):
        check_layer_decay(decay)
