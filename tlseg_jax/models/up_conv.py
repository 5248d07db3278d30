"""Transposed convolution whose output cells do not overlap, as a matrix product.

The gradients of XLA's own transposed convolution are slow on every backend.
"""

import itertools

import jax
import jax.numpy as jnp


def up_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """2x2 or 2x2x2 transposed convolution of stride 2, no bias.

    Args:
      x: (batch, *sides, channels), two or three sides.
      kernel: (*2, channels, features), as many twos as sides; [i, j] makes the pixel at (2 row + i, 2 column + j).

    Returns:
      (batch, *twice the sides, features).
    """
    batch, *sides, c = x.shape
    n, features = len(sides), kernel.shape[-1]
    flat = jnp.moveaxis(kernel, n, 0).reshape(c, -1)
    cells = jnp.dot(x.reshape(-1, c), flat).reshape(batch, *sides, *(2,) * n, features)
    order = (0, *itertools.chain(*((1 + i, 1 + n + i) for i in range(n))), 1 + 2 * n)
    return cells.transpose(order).reshape(batch, *(2 * s for s in sides), features)
