"""The gradient of a 3x3 or 3x3x3 convolution with respect to its kernel, as matrix products over blocks of rows.

XLA:CPU's own is the slowest part of a training step there. A product needs one operand shifted for each tap of the
kernel; shifting whole volumes is bound by memory, so this goes block by block, each small enough to stay in the cache
(benchmarks/conv_lowering.py).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

BLOCK = 12_544
"""Voxels a block, at most: a plane of 112x112."""


def kernel_gradient(
    x: Float[Array, "batch *sides channels"], g: Float[Array, "batch *sides features"]
) -> Float32[Array, "*threes channels features"]:
    """Gradient of the sum of `g` times `convolution(x, kernel)` with respect to `kernel`.

    Args:
      x: the convolution's input, of two or three sides.
      g: the gradient of its output.

    Returns:
      As many threes as sides.
    """
    batch, *sides, c = x.shape
    depth, height, width = (1, *sides) if len(sides) == 2 else sides
    f, taps = g.shape[-1], 3 ** (len(sides) - 1)
    deep = 1 if len(sides) == 3 else 0
    rows = max(r for r in range(1, height + 1) if height % r == 0 and (r == 1 or r * width <= BLOCK))
    blocks = height // rows
    x = x.reshape(batch, depth, height, width, c)
    x = jnp.pad(x, ((0, 0), (deep, deep), (1, 1), (0, 0), (0, 0))).reshape(-1, height + 2, width, c)
    g = g.reshape(-1, height, width, f)
    # One operand takes the taps along a row into its channels: the one that grows less. (A product with a vector is
    # slow, so not a single channel's.)
    spread_g = f <= c or c == 1

    def add(number: jax.Array, total: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        plane, top = number // blocks, number % blocks * rows
        first = plane + plane // depth * 2 * deep
        gs = lax.dynamic_slice(g, (plane, top, 0, 0), (1, rows, width, f))
        gs = (_along_row(gs) if spread_g else gs).reshape(rows * width, -1)
        out = []
        for tap, before in enumerate(total):
            at = (first + tap // 3, top + tap % 3, 0, 0)
            xs = lax.dynamic_slice(x, at, (1, rows, width, c))
            xs = (xs if spread_g else _along_row(xs)).reshape(rows * width, -1)
            out.append(before + jnp.einsum("nk,no->ko", xs, gs, preferred_element_type=jnp.float32))
        return tuple(out)

    shape = (c, 3 * f) if spread_g else (3 * c, f)
    total = lax.fori_loop(0, batch * depth * blocks, add, (jnp.zeros(shape, jnp.float32),) * taps)
    if spread_g:  # shifting the gradient to the right is shifting the input to the left
        stacked = jnp.stack(total).reshape(taps, c, 3, f)[:, :, ::-1].transpose(0, 2, 1, 3)
    else:
        stacked = jnp.stack(total).reshape(taps, 3, c, f)
    return stacked.reshape(*(3,) * len(sides), c, f)


def _along_row(v: jax.Array) -> jax.Array:
    """(1, rows, width, n) -> (1, rows, width, 3 n): each voxel with its two neighbours in the row."""
    width = v.shape[2]
    padded = jnp.pad(v, ((0, 0), (0, 0), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, :, i : i + width] for i in range(3)], axis=-1)
