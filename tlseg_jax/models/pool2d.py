"""2x2 max pooling of planes, written as comparisons: the gradient of `reduce_window` is slow on every backend."""

import jax
import jax.numpy as jnp


def _pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    best = x[:, ::2, ::2]
    switches = jnp.zeros(best.shape, jnp.uint8)
    for corner in range(1, 4):
        candidate = x[:, corner >> 1 :: 2, corner & 1 :: 2]
        larger = candidate > best
        best = jnp.where(larger, candidate, best)
        switches = jnp.where(larger, jnp.uint8(corner), switches)
    return best, switches


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Max pooling over 2x2 cells.

    Args:
      x: (batch, height, width, channels), even sides.

    Returns:
      (batch, height/2, width/2, channels). A tie's gradient goes to the first of the cell.
    """
    return _forward(x)[0]


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    if x.ndim != 4 or any(s % 2 for s in x.shape[1:3]):
        raise ValueError(f"2x2 pooling needs (batch, height, width, channels) of even sides, not {x.shape}")
    return _pool(x)


def _backward(switches: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    b, h, w, c = gradient.shape
    corner = jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 2, 1, 2, 1)
    cell = (b, h, 1, w, 1, c)
    out = jnp.where(switches.reshape(cell) == corner, gradient.reshape(cell), jnp.zeros((), gradient.dtype))
    return (out.reshape(b, 2 * h, 2 * w, c),)


max_pool.defvjp(_forward, _backward)
