"""What a scanner and its preparation make of grey values: skull, bias field, gamma, sharpness, noise, z-score."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from tlseg_jax.datasets.spec import Spacing3
from tlseg_jax.input.randomise import blur_matrix, slices_matrix, spread
from tlseg_jax.input.synthesis.deformation import along
from tlseg_jax.input.synthesis.ranges import TRAINING, Ranges

COARSE = 4
"""Coarse points of the bias field an axis."""


def kept(
    key: Key[Array, ""], brain: Float[Array, "x y z"], spacing: Spacing3, always: bool, ranges: Ranges = TRAINING
) -> Float[Array, "x y z"]:
    """How much is left of each voxel by a skull strip: 0 to 1.

    As a blurred brain is cut at a random height, the fluid in sulci stays and that about the brain goes, and masks
    are now too wide and now too narrow. A blur that is wider by far leaves a thin layer of the head.

    Args:
      brain: share of each voxel that is brain, without the fluid about it.
      always: whether every sample is stripped; else `ranges` say how many.
      ranges: likewise how many keep some of the head.
    """
    u = jax.random.uniform(key, (3,))
    whole = (u[0] > ranges.stripped + ranges.thinned) & (not always)
    thin = (u[0] > ranges.stripped) & (not always)
    width = jnp.where(thin, 6 + 6 * u[1], 1.5 + 2.0 * u[1])
    cut = jnp.where(thin, 0.01 + 0.09 * u[2], 0.1 + 0.4 * u[2])
    blurred = brain
    for axis, size in enumerate(brain.shape):
        blurred = along(blur_matrix(width / spacing[axis], size), blurred, axis)
    # Over about a voxel, which a mask at the scan's own resolution would cut in two: so flat is the blur of a wall.
    ramp = jnp.minimum(max(spacing) / (2.5 * width), 0.9 - cut)
    soft = jnp.clip((blurred - cut) / ramp, 0, 1)
    return jnp.where(whole, 1.0, soft)


def acquired(
    key: Key[Array, ""], grey: Float[Array, "x y z"], spacing: Spacing3, ranges: Ranges = TRAINING
) -> tuple[Float[Array, "x y z"], Float[Array, ""]]:
    """Grey values through bias field, gamma, blur and, of some samples, thick slices.

    Args:
      grey: 0 or more, about 1 at most.

    Returns:
      The image and its gamma.
    """
    u = jax.random.uniform(key, (11 + COARSE**3,))
    bias = within(ranges.bias, u[0]) * (2 * u[11:] - 1).reshape((COARSE,) * 3)
    # Three make a normal deviate, nearly, of deviation one half.
    gamma = jnp.exp(ranges.gamma * 2 * (u[8:11].sum() - 1.5))
    image = jnp.maximum(grey * jnp.exp(spread(bias, grey.shape)), 1e-6) ** gamma
    thick = jnp.where(u[1] < ranges.thick_share, within(ranges.thick_mm, u[2]), 0.0)
    axis_of = jnp.floor(3 * u[3]).astype(jnp.int32) if ranges.thick_axis is None else ranges.thick_axis
    for axis, size in enumerate(grey.shape):
        slices = jnp.maximum(thick / spacing[axis], 1.0)
        cut = slices_matrix(slices, u[4] * slices, size)
        cut = jnp.where((axis_of == axis) & (slices > 1), cut, jnp.eye(size))
        image = along(cut @ blur_matrix(within(ranges.blur_mm, u[5 + axis]) / spacing[axis], size), image, axis)
    return image, gamma


def within(ends: tuple[float, float], u: jax.Array) -> jax.Array:
    """The place in a range that a number of 0 to 1 stands for."""
    low, high = ends
    return low + (high - low) * u


def standardised(
    image: Float[Array, "x y z"], means: Float[Array, " classes"], weights: Float[Array, " classes"]
) -> Float[Array, "x y z"]:
    """The z-score of a patch by the whole volume that it would be a patch of.

    A real scan is z-scored over its whole volume (or a mask), of which a patch shows a part, so that its mean and
    deviation are not 0 and 1. Of a drawn one the map's own volume is known: each class's grey value and how much of the
    volume it fills.

    Args:
      means: of the classes, as they are in `image`.
      weights: how much of the volume each class fills; any scale.
    """
    share = weights / jnp.maximum(weights.sum(), 1e-6)
    mean = (share * means).sum()
    deviation = jnp.sqrt(jnp.maximum((share * (means - mean) ** 2).sum(), 1e-4))
    return (image - mean) / deviation
