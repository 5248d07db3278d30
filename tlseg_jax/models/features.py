"""A network in two parts: features, which its first resolution levels give, and the rest, which needs nothing else.

Where those levels are frozen, the features of an image are the same in every step (`input/feature_cache.py`).
What a network's features hold is plain arrays:

skip_0, skip_1, ...   what each of the levels hands to the decoder, in the network's type.
switches_0, ...       of a network that un-pools: the corner of each maximum, uint8.
below                 what goes into the next level, or what the bottleneck gives where it is one of the levels.
frame                 (batch, *sides, 0), of no bytes: the sides of the image before it was padded.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from tlseg_jax.models.pad import Sides

Part = Literal["all", "features", "rest"]
"""What of a network is computed: image -> logits, image -> features, or features -> logits."""

Features = dict[str, Shaped[Array, "batch ..."]]

Down = Callable[[nn.Module, int, jax.Array], tuple[Features, jax.Array]]
"""(network, number of the level, its input) -> what the level keeps for the decoder, and what goes into the next."""

BELOW, FRAME = "below", "frame"


def check_part(x: jax.Array | Features, part: Part, levels: int, most: int) -> None:
    """Refuse what is no part of a network of `most` levels.

    Raises:
      ValueError: levels not from 1 to `most`, or other than 0 for the whole; or features where an image is wanted,
        or the other way round.
    """
    if levels not in ((0,) if part == "all" else range(1, most + 1)):
        raise ValueError(f"levels={levels} with part='{part}': give 0 with 'all', else 1 to {most}")
    if isinstance(x, dict) != (part == "rest"):
        raise ValueError(f"part='{part}' takes {'features' if part == 'rest' else 'an image'}")


def first_levels(
    net: nn.Module, down: Down, levels: int, x: Float[Array, "batch *padded channels"], sides: Sides
) -> Features:
    """The features of a network's first levels.

    Args:
      net: the network.
      down: a level of it on the way down.
      levels: how many.
      x: the input, padded.
      sides: of the image before it was padded.
    """
    features: Features = {}
    for i in range(levels):
        kept, x = down(net, i, x)
        features |= {f"{name}_{i}": array for name, array in kept.items()}
    return features | {BELOW: x, FRAME: jnp.zeros((x.shape[0], *sides, 0), jnp.uint8)}


def given_level(features: Features, i: int, levels: int) -> tuple[Features, Any]:
    """What `Down` gives of level `i`, from the features of `levels`: for a level that is in them too, all of them."""
    end = f"_{i}"
    kept = {name.removesuffix(end): array for name, array in features.items() if name.endswith(end)}
    return kept, features if i + 1 < levels else features[BELOW]


def sides_of(features: Features) -> Sides:
    """The sides of the image before it was padded."""
    return features[FRAME].shape[1:-1]
