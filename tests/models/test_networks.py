"""The networks by name, and rebuilt from what a checkpoint says."""

import json

import jax
import pytest

from tlseg_jax.models.networks import NETWORKS, config_from_dict, get_network, init_variables, variable_shapes
from tlseg_jax.runtime.errors import InputError


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_either_kind_is_rebuilt_from_json(name: str) -> None:
    config = get_network(name)
    assert config.name == name
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert len(config.example().shape) == config.dimensions + 2


def test_a_description_without_dimensions_is_of_a_3d_network() -> None:
    description = get_network("switch32").to_dict()
    assert description.pop("dimensions") == 3
    assert config_from_dict(description) == get_network("switch32")
    with pytest.raises(InputError, match="has 4 dimensions: this version reads those of 2 or 3"):
        config_from_dict({"dimensions": 4})


def test_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="'swich32': did you mean switch32"):
        get_network("swich32")
    with pytest.raises(InputError, match="choose from switch32, switch8x2, unet3d256, unet2d"):
        get_network("zzz")


def test_a_start_has_the_shapes_that_are_promised() -> None:
    config = get_network("unet2d")
    like = jax.tree.map(lambda a: (a.shape, a.dtype), variable_shapes(config))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), init_variables(config, jax.random.key(0))) == like
