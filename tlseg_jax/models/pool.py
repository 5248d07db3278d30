"""2x2x2 max pooling that remembers its switches, and un-pooling by them (Zeiler & Fergus 2014).

Written as comparisons of the eight strided sub-volumes rather than `reduce_window`, whose gradient is
slow on every backend; one fused pass each way.
"""

import jax
import jax.numpy as jnp


def _check_even(x: jax.Array) -> None:
    if x.ndim != 5 or any(s % 2 for s in x.shape[1:4]):
        raise ValueError(f"2x2x2 pooling needs (batch, depth, height, width, channels) of even sides, not {x.shape}")


def _pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    best = x[:, ::2, ::2, ::2]
    switches = jnp.zeros(best.shape, jnp.uint8)
    for corner in range(1, 8):
        i, j, k = corner >> 2, corner >> 1 & 1, corner & 1
        candidate = x[:, i::2, j::2, k::2]
        larger = candidate > best
        best = jnp.where(larger, candidate, best)
        switches = jnp.where(larger, jnp.uint8(corner), switches)
    return best, switches


@jax.custom_vjp
def switch_pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Max pooling over 2x2x2 cells.

    Args:
      x: (batch, depth, height, width, channels), even sides.

    Returns:
      The maxima (batch, depth/2, height/2, width/2, channels), and the switches: which corner of the
      cell held the maximum, uint8 0 to 7 of the same shape. A tie goes to the first corner, and so
      does its gradient.
    """
    _check_even(x)
    return _pool(x)


def _forward(x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    _check_even(x)
    best, switches = _pool(x)
    return (best, switches), switches


def _backward(switches: jax.Array, gradients: tuple[jax.Array, jax.Array]) -> tuple[jax.Array]:
    return (switch_unpool(gradients[0], switches),)


def switch_unpool(y: jax.Array, switches: jax.Array) -> jax.Array:
    """Put each value back where its cell's maximum was; zero elsewhere.

    Args:
      y: (batch, depth, height, width, channels).
      switches: from `switch_pool`, same shape.

    Returns:
      (batch, 2 depth, 2 height, 2 width, channels).
    """
    b, d, h, w, c = y.shape
    corner = jnp.arange(8, dtype=jnp.uint8).reshape(1, 1, 2, 1, 2, 1, 2, 1)
    cell = (b, d, 1, h, 1, w, 1, c)
    out = jnp.where(switches.reshape(cell) == corner, y.reshape(cell), jnp.zeros((), y.dtype))
    return out.reshape(b, 2 * d, 2 * h, 2 * w, c)


switch_pool.defvjp(_forward, _backward)
