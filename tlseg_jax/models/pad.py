"""Sides that divide by what a network's poolings need, and back."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

Sides = tuple[Any, ...]
"""Of an image: whole numbers, or the symbols that an exported program has for them."""


def pad_to_multiple(
    x: Shaped[Array, "batch *sides channels"], divisor: int
) -> tuple[Shaped[Array, "batch *padded channels"], Sides]:
    """Zeros at the far end of each side, up to a multiple of `divisor`.

    Args:
      x: the input.
      divisor: what each side is to divide by.

    Returns:
      The padded array, and the sides that it had.
    """
    sides = x.shape[1:-1]
    pad = [(0, -s % divisor) for s in sides]
    if any(p for _, p in pad):
        x = jnp.pad(x, [(0, 0), *pad, (0, 0)])
    return x, sides


def crop(x: Shaped[Array, "batch *larger channels"], sides: Sides) -> Shaped[Array, "batch *sides channels"]:
    """The beginning of each side, as long as `sides` says."""
    return x[(slice(None), *(slice(s) for s in sides))]
