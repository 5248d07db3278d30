"""Max pooling by 2 that remembers its switches, and un-pooling by them (Zeiler & Fergus 2014), of any number of sides.

Written as comparisons of the strided sub-arrays, eight in 3D, rather than `reduce_window`, whose gradient is
slow on every backend; one fused pass each way.
"""

import itertools

import jax
import jax.numpy as jnp


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
    return best, switches


@jax.custom_vjp
def switch_pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Max pooling over cells of 2x2 or 2x2x2.

    Args:
      x: (batch, *sides, channels), two or three even sides.

    Returns:
      The maxima (batch, *half the sides, channels), and the switches: which corner of the cell held the maximum,
      uint8 from 0 to 3 or 7, the last side fastest, of the same shape. A tie goes to the first corner, and so does its
      gradient.

    Raises:
      ValueError: other sides.
    """
    return _pool(x)


def _forward(x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    best, switches = _pool(x)
    return (best, switches), switches


def _backward(switches: jax.Array, gradients: tuple[jax.Array, jax.Array]) -> tuple[jax.Array]:
    return (switch_unpool(gradients[0], switches),)


def switch_unpool(y: jax.Array, switches: jax.Array) -> jax.Array:
    """Put each value back where its cell's maximum was; zero elsewhere.

    Args:
      y: (batch, *sides, channels).
      switches: from `switch_pool`, same shape.

    Returns:
      (batch, *twice the sides, channels).
    """
    batch, *sides, c = y.shape
    n = len(sides)
    corner = jnp.arange(2**n, dtype=jnp.uint8).reshape(1, *(1, 2) * n, 1)
    cell = (batch, *itertools.chain(*((s, 1) for s in sides)), c)
    out = jnp.where(switches.reshape(cell) == corner, y.reshape(cell), jnp.zeros((), y.dtype))
    return out.reshape(batch, *(2 * s for s in sides), c)


switch_pool.defvjp(_forward, _backward)
