"""How much of the forward pass is kept for the backward pass, and how much is computed again."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn

Remat = Literal["none", "block", "full"]
"""Rematerialisation policies, from fastest to smallest:

none   every activation that a gradient needs is kept.
block  of each block of convolutions only the input is kept; the rest is computed again.
full   also each resolution level, with all that is coarser, is computed again from its input, level within level:
       little but the inputs of the network and of its head is kept from the forward pass. The finest level is
       computed twice more, the next three times, but each has an eighth (in 2D a quarter) of the work of the one
       above it. (Chen et al. 2016, section 4.3.)
"""


def rematerialised(block: type[nn.Module], remat: Remat) -> Any:
    """`block`, a module of its input and settings, which keeps nothing but that input where so asked."""
    if remat == "none":
        return block
    # Besides itself, the input and the samples' places, which are arrays.
    settings = [i for i, name in enumerate(inspect.signature(block.__call__).parameters) if i > 1 and name != "samples"]
    return nn.remat(block, static_argnums=tuple(settings))


Level = Callable[[nn.Module, int, Any], Any]
"""(network, number of the level, its input, or its features) -> its output; calls itself for the coarser levels."""


def rematerialised_level(level: Level, remat: Remat) -> Level:
    """`level`, which keeps nothing but its input where so asked."""
    if remat != "full":
        return level

    def call(net: nn.Module, i: int, x: Any) -> Any:
        return nn.remat(lambda inner, x: level(inner, i, x))(net, x)

    return call
