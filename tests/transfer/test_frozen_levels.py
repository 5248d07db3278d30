"""Which levels give the same features in every step."""

from typing import Any

import pytest

from tlseg_jax.models.networks import get_network, variable_shapes
from tlseg_jax.transfer.freeze import Rule, get_rules, label_parameters
from tlseg_jax.transfer.frozen_levels import frozen_levels


def labels(network: str, rules: tuple[Rule, ...]) -> Any:
    return label_parameters(variable_shapes(get_network(network))["params"], rules)


@pytest.mark.parametrize(
    ("network", "freeze", "levels"),
    [
        ("switch32", "encoder", 4),
        ("switch8x2", "encoder_without_bottleneck", 3),
        ("unet_fast", "encoder", 3),
        ("unet3d256", "encoder", 3),
        ("unet3d256", "encoder_without_bottleneck", 2),
        ("unet2d", "first_two", 2),
        ("unet2d", "first_two_convolutions", 1),
        ("switch32", "none", 0),
    ],
)
def test_levels_of_the_named_freezings(network: str, freeze: str, levels: int) -> None:
    config, parts = get_network(network), labels(network, get_rules(freeze))
    assert frozen_levels(config, parts, "running") == levels
    assert frozen_levels(config, parts, "batch") == 0


def test_one_trained_parameter_ends_the_frozen_levels() -> None:
    rules = (
        Rule(r"encoder_1/bn_1/bias", "trained"),
        Rule(r"(encoder_\d|bottleneck)/", "frozen"),
        Rule(".*", "trained"),
    )
    assert frozen_levels(get_network("switch8x2"), labels("switch8x2", rules), "running") == 1
    first = (Rule(r"encoder_[12]/", "frozen"), Rule(".*", "trained"))
    assert frozen_levels(get_network("switch8x2"), labels("switch8x2", first), "running") == 0
