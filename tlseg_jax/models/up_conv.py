"""Up-sampling: each value repeated, or a transposed convolution with output cells that do not overlap.

The convolution is a matrix product, as the gradients of XLA's own are slow on every backend.
"""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float


def up_convolution(
    x: Float[Array, "batch *sides channels"], kernel: Float[Array, "*cell channels features"]
) -> Float[Array, "batch *larger features"]:
    """Transposed convolution whose stride is its kernel's side, such as 2x2x2 of stride 2; no bias.

    Args:
      x: of two or three sides.
      kernel: of equal sides; of 2x2 [i, j] makes the pixel at (2 row + i, 2 column + j).
    """
    batch, *sides, c = x.shape
    n, side, features = len(sides), kernel.shape[0], kernel.shape[-1]
    flat = jnp.moveaxis(kernel, n, 0).reshape(c, -1)
    cells = jnp.dot(x.reshape(-1, c), flat).reshape(batch, *sides, *(side,) * n, features)
    order = (0, *itertools.chain(*((1 + i, 1 + n + i) for i in range(n))), 1 + 2 * n)
    return cells.transpose(order).reshape(batch, *(side * s for s in sides), features)


def up_nearest(x: Float[Array, "batch *sides channels"]) -> Float[Array, "batch *twice channels"]:
    """Each value in all cells of 2x2 or 2x2x2.

    Args:
      x: of two or three sides.
    """
    batch, *sides, c = x.shape
    cell = x.reshape(batch, *itertools.chain(*((s, 1) for s in sides)), c)
    cells = jnp.broadcast_to(cell, (batch, *itertools.chain(*((s, 2) for s in sides)), c))
    return cells.reshape(batch, *(2 * s for s in sides), c)
