"""What a scanner and its preparation make of grey values: skull, bias field, gamma, sharpness, noise, z-score."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from tlseg_jax.datasets.spec import Spacing3
from tlseg_jax.input.randomise import blur_matrix, slices_matrix, spread
from tlseg_jax.input.synthesis.deformation import along

STRIPPED, THINNED = 0.6, 0.15
"""Shares of the samples whose head outside the brain is taken away, and of those that keep some of it."""

BIAS = 0.4
"""The strongest bias field: its logarithm at coarse points lies between plus and minus this. What is left of it after
the correction that scans go through is less."""

COARSE = 4
"""Coarse points of the bias field an axis."""

GAMMA = 0.3
"""Deviation of the logarithm of gamma (SynthSeg has 0.4 of all contrasts; half of these are T1's)."""

BLUR_MM = 1.2
"""The widest blur: standard deviation along an axis."""

THICK_MM = 6.0
"""The thickest slices, of the samples that have thick ones."""

THICK_SHARE = 0.25
"""Share of the samples with thick slices."""

NOISE = 0.1
"""The most standard deviation of the noise, in standard deviations of the whole volume."""


def kept(key: Key[Array, ""], brain: Float[Array, "x y z"], spacing: Spacing3, always: bool) -> Float[Array, "x y z"]:
    """How much is left of each voxel by a skull strip: 0 to 1.

    As a blurred brain is cut at a random height, the fluid in sulci stays and that about the brain goes, and masks
    are now too wide and now too narrow. A blur that is wider by far leaves a thin layer of the head.

    Args:
      brain: share of each voxel that is brain, without the fluid about it.
      spacing: of a voxel, in mm.
      always: whether every sample is stripped; else `STRIPPED` and `THINNED` say how many.
    """
    u = jax.random.uniform(key, (3,))
    whole = (u[0] > STRIPPED + THINNED) & (not always)
    thin = (u[0] > STRIPPED) & (not always)
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
    key: Key[Array, ""], grey: Float[Array, "x y z"], spacing: Spacing3
) -> tuple[Float[Array, "x y z"], Float[Array, ""]]:
    """Grey values through bias field, gamma, blur and, of some samples, thick slices.

    Args:
      key: of the sample.
      grey: 0 or more, about 1 at most.
      spacing: of a voxel, in mm.

    Returns:
      The image and its gamma.
    """
    u = jax.random.uniform(key, (11 + COARSE**3,))
    bias = BIAS * u[0] * (2 * u[11:] - 1).reshape((COARSE,) * 3)
    gamma = jnp.exp(GAMMA * 2 * (u[8:11].sum() - 1.5))  # three make a normal deviate, nearly, of deviation one half
    image = jnp.maximum(grey * jnp.exp(spread(bias, grey.shape)), 1e-6) ** gamma
    thick = jnp.where(u[1] < THICK_SHARE, 1 + (THICK_MM - 1) * u[2], 0.0)
    axis_of = jnp.floor(3 * u[3]).astype(jnp.int32)
    for axis, size in enumerate(grey.shape):
        slices = jnp.maximum(thick / spacing[axis], 1.0)
        cut = slices_matrix(slices, u[4] * slices, size)
        cut = jnp.where((axis_of == axis) & (slices > 1), cut, jnp.eye(size))
        image = along(cut @ blur_matrix(BLUR_MM * u[5 + axis] / spacing[axis], size), image, axis)
    return image, gamma


def standardised(
    image: Float[Array, "x y z"], means: Float[Array, " classes"], weights: Float[Array, " classes"]
) -> Float[Array, "x y z"]:
    """The z-score of a patch by the whole volume that it would be a patch of.

    A real scan is z-scored over its whole volume (or a mask), of which a patch shows a part, so that its mean and
    deviation are not 0 and 1. Of a drawn one the map's own volume is known: each class's grey value and how much of the
    volume it fills.

    Args:
      image: the patch.
      means: of the classes, as they are in `image`.
      weights: how much of the volume each class fills; any scale.
    """
    share = weights / jnp.maximum(weights.sum(), 1e-6)
    mean = (share * means).sum()
    deviation = jnp.sqrt(jnp.maximum((share * (means - mean) ** 2).sum(), 1e-4))
    return (image - mean) / deviation
