"""The gradient of a 3x3 or 3x3x3 convolution with respect to its kernel, as matrix products over blocks of rows.

XLA:CPU's own is the slowest part of a training step there. A product needs one operand shifted for each tap of the
kernel; shifting whole volumes is bound by memory, so this goes block by block, each small enough to stay in the cache
(benchmarks/conv_lowering.py).
"""

import math

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
    rows = _most(height, width)
    # Small planes go several at once: a product of few voxels is over before it has begun.
    planes = _most(depth, height * width) if rows == height else 1
    block = (1, planes, rows, width)
    x = jnp.pad(x.reshape(batch, depth, height, width, c), ((0, 0), (deep, deep), (1, 1), (0, 0), (0, 0)))
    g = g.reshape(batch, depth, height, width, f)
    # One operand takes the taps along a row into its channels: the one that grows less. (A product with a vector is
    # slow, so not a single channel's.)
    spread_g = f <= c or c == 1

    def add(number: jax.Array, total: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        above, part = number // (height // rows), number % (height // rows)
        sample, first, top = above // (depth // planes), above % (depth // planes) * planes, part * rows
        gs = lax.dynamic_slice(g, (sample, first, top, 0, 0), (*block, f))
        gs = (_along_row(gs) if spread_g else gs).reshape(math.prod(block), -1)
        out = []
        for tap, before in enumerate(total):
            xs = lax.dynamic_slice(x, (sample, first + tap // 3, top + tap % 3, 0, 0), (*block, c))
            xs = (xs if spread_g else _along_row(xs)).reshape(math.prod(block), -1)
            out.append(before + jnp.einsum("nk,no->ko", xs, gs, preferred_element_type=jnp.float32))
        return tuple(out)

    shape = (c, 3 * f) if spread_g else (3 * c, f)
    total = lax.fori_loop(0, batch * (depth // planes) * (height // rows), add, (jnp.zeros(shape, jnp.float32),) * taps)
    if spread_g:  # shifting the gradient to the right is shifting the input to the left
        stacked = jnp.stack(total).reshape(taps, c, 3, f)[:, :, ::-1].transpose(0, 2, 1, 3)
    else:
        stacked = jnp.stack(total).reshape(taps, 3, c, f)
    return stacked.reshape(*(3,) * len(sides), c, f)


def _most(count: int, voxels: int) -> int:
    """The most of `count` rows or planes, each of so many voxels, that divide it and make a block."""
    return max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n * voxels <= BLOCK))


def _along_row(v: jax.Array) -> jax.Array:
    """(1, planes, rows, width, n) -> (1, planes, rows, width, 3 n): each voxel with its two neighbours in the row."""
    width = v.shape[3]
    padded = jnp.pad(v, ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, :, :, i : i + width] for i in range(3)], axis=-1)
