"""Sides that divide by what a network's poolings need, and back."""

import jax
import jax.numpy as jnp


def pad_to_multiple(x: jax.Array, divisor: int) -> tuple[jax.Array, tuple[int, ...]]:
    """Zeros at the far end of each side, up to a multiple of `divisor`.

    Args:
      x: (batch, *sides, channels).
      divisor: what each side is to divide by.

    Returns:
      The padded array, and the sides that it had.
    """
    sides = x.shape[1:-1]
    pad = [(0, -s % divisor) for s in sides]
    if any(p for _, p in pad):
        x = jnp.pad(x, [(0, 0), *pad, (0, 0)])
    return x, sides


def crop(x: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """The beginning of each side of (batch, *larger sides, channels), as long as `sides` says."""
    return x[(slice(None), *(slice(s) for s in sides))]
