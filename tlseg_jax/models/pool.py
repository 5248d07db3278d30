"""Max pooling by 2 that remembers its switches, and un-pooling by them (Zeiler & Fergus 2014), of any number of sides.

Written as comparisons of the strided sub-arrays, eight in 3D, rather than `reduce_window`, whose gradient is
slow on every backend; one fused pass each way.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8


def _pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    sides = x.shape[1:-1]
    if not 2 <= len(sides) <= 3 or any(s % 2 for s in sides):
        raise ValueError(f"pooling needs (batch, *sides, channels) of two or three even sides, not {x.shape}")
    first, *corners = (
        x[(slice(None), *(slice(i, None, 2) for i in corner))]
        for corner in itertools.product((0, 1), repeat=len(sides))
    )
    best, switches = first, jnp.zeros(first.shape, jnp.uint8)
    for number, candidate in enumerate(corners, 1):
        larger = candidate > best
        best = jnp.where(larger, candidate, best)
        switches = jnp.where(larger, jnp.uint8(number), switches)
    # The remainder changes nothing, but XLA's CPU compiler thinks it dear and keeps the result; else it finds the
    # largest of a cell anew for each voxel that is un-pooled. A barrier it takes away before it fuses.
    return best, lax.rem(switches, jnp.uint8(9))


@jax.custom_vjp
def switch_pool(
    x: Float[Array, "batch *sides channels"],
) -> tuple[Float[Array, "batch *halves channels"], UInt8[Array, "batch *halves channels"]]:
    """Max pooling over cells of 2x2 or 2x2x2.

    Args:
      x: of two or three even sides.

    Returns:
      The maxima, of half the sides, and the switches: which corner of the cell held the maximum, from 0 to 3 or 7, the
      last side fastest. A tie goes to the first corner, and so does its gradient.

    Raises:
      ValueError: other sides.
    """
    return _pool(x)


def _forward(x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    best, switches = _pool(x)
    return (best, switches), switches


def _backward(switches: jax.Array, gradients: tuple[jax.Array, Any]) -> tuple[jax.Array]:
    return (switch_unpool(gradients[0], switches),)


def switch_unpool(
    y: Float[Array, "batch *sides channels"], switches: UInt8[Array, "batch *sides channels"]
) -> Float[Array, "batch *twice channels"]:
    """Put each value back where its cell's maximum was; zero elsewhere.

    Args:
      y: the values.
      switches: from `switch_pool`.
    """
    batch, *sides, c = y.shape
    n = len(sides)
    corner = jnp.arange(2**n, dtype=jnp.uint8).reshape(1, *(1, 2) * n, 1)
    cell = (batch, *itertools.chain(*((s, 1) for s in sides)), c)
    out = jnp.where(switches.reshape(cell) == corner, y.reshape(cell), jnp.zeros((), y.dtype))
    return out.reshape(batch, *(2 * s for s in sides), c)


switch_pool.defvjp(_forward, _backward)


def cells(x: Float[Array, "batch *sides channels"], side: int) -> Float[Array, "batch *fewer _"]:
    """Each cell of `side` voxels a side as one voxel, its voxels as channels, the last side fastest.

    Args:
      x: of sides that divide by `side`.
      side: 1 gives `x`.
    """
    if side == 1:
        return x
    batch, *sides, c = x.shape
    n = len(sides)
    split = x.reshape(batch, *itertools.chain(*((s // side, side) for s in sides)), c)
    order = (0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return split.transpose(order).reshape(batch, *(s // side for s in sides), side**n * c)
