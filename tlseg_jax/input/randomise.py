"""Domain randomisation of a scan: another contrast, bias field, sharpness and slice thickness for each sample.

After SynthSeg (Billot et al., Medical Image Analysis 2023), which draws such images from label maps so that a network
sees no one scanner's look twice. Here the scan itself is redrawn, so that no label but the target's is needed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

SEGMENTS = 6
"""Pieces of the grey value curve."""

STEEPNESS = (0.3, 1.7)
"""Slopes of the pieces, up or down: grey values that differ a little still do afterwards."""

REACH = 2.5
"""The curve spans the patch's mean plus and minus so many standard deviations, straight on beyond."""

CONTRAST = 0.25
"""Standard deviation of the grey values that the bias field is laid on, whose mean is 0.5."""

BIAS = 0.6
"""The strongest bias field: its logarithm at coarse points lies between plus and minus this."""

COARSE = 4
"""Coarse points of the bias field an axis."""

BLUR = 1.0
"""The widest blur: standard deviation along an axis, in voxels."""

THICKNESS = 3.0
"""The thickest slices, in voxels."""

NOISE = 0.12
"""The most standard deviation of the noise, in standard deviations of the patch."""

SCALE = 1.25
"""The patch's deviation changes by a factor of this at most, up or down."""

SHIFT = 0.3
"""The patch's mean changes by this at most, up or down, in standard deviations of the scan."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Look:
    """What was drawn for one patch.

    Attributes:
      slopes: (SEGMENTS,) of the grey value curve.
      field: (COARSE, COARSE, COARSE) logarithm of the bias field at its coarse points.
      widths: (3,) of the blur, in voxels.
      axis: along which the slices are thick, 0 to 2.
      thickness: of the slices, in voxels.
      offset: of the first slice's centre, in voxels.
      noise: its standard deviation.
      noise_key: what its values are drawn with.
      scale: factor of the patch's deviation.
      shift: of the patch's mean.
    """

    slopes: jax.Array
    field: jax.Array
    widths: jax.Array
    axis: jax.Array
    thickness: jax.Array
    offset: jax.Array
    noise: jax.Array
    noise_key: jax.Array
    scale: jax.Array
    shift: jax.Array


def randomise(key: Key[Array, ""], image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """Redraw one patch; the same key always does the same. See `draw_look` and `apply_look`."""
    return apply_look(draw_look(key), image)


def draw_look(key: Key[Array, ""]) -> Look:
    """A random look.

    How likely a piece of the curve is to rise is drawn for the whole curve, so that contrasts like the scan's own,
    the most frequent, inverted ones and folded ones all come.
    """
    values, noise = jax.random.split(key)
    # All numbers at once: the compiler works at every call of the generator afresh.
    sizes = (SEGMENTS, SEGMENTS, COARSE**3, 3, 8)
    u = jax.random.uniform(values, (sum(sizes),))
    steepness, signs, field, widths, rest = jnp.split(u, np.cumsum(sizes)[:-1])
    rising, bias, axis, thickness, offset, level, scale, shift = rest
    low, high = STEEPNESS
    slopes = (low + (high - low) * steepness) * jnp.where(signs < jnp.sqrt(rising), 1, -1)
    thickness = 1 + (THICKNESS - 1) * thickness
    return Look(
        slopes=slopes,
        field=BIAS * bias * (2 * field - 1).reshape((COARSE,) * 3),
        widths=BLUR * widths,
        axis=jnp.floor(3 * axis).astype(jnp.int32),
        thickness=thickness,
        offset=offset * thickness,
        noise=NOISE * level,
        noise_key=noise,
        scale=jnp.exp((2 * scale - 1) * np.log(SCALE)),
        shift=SHIFT * (2 * shift - 1),
    )


def apply_look(look: Look, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """A patch as another scanner might have shown it.

    In this order: grey values through the curve, which need not rise, the bias field, the Gaussian blur, thick slices
    with linear interpolation between them, noise, and z-scoring. As the z-score is of the whole scan, the patch gets
    its own mean and deviation back, changed a little, as another contrast would change them.

    Args:
      image: z-scored.

    Returns:
      Finite; a patch of one grey value stays of one.
    """
    mean, deviation = image.mean(), image.std()
    grey = remap(look.slopes, _standardise(image) / (2 * REACH) + 0.5)
    # Standardised first: a curve that is nearly flat here would leave the bias field nothing but itself to show.
    grey = (0.5 + CONTRAST * _standardise(grey)) * jnp.exp(spread(look.field, image.shape))
    for axis, size in enumerate(image.shape):
        slices = slices_matrix(look.thickness, look.offset, size)
        matrix = jnp.where(look.axis == axis, slices, jnp.eye(size)) @ blur_matrix(look.widths[axis], size)
        grey = _along(matrix, grey, axis)
    grey = _standardise(grey) + look.noise * jax.random.normal(look.noise_key, image.shape)
    return grey / jnp.sqrt(1 + look.noise**2) * deviation * look.scale + mean + look.shift


def remap(slopes: Float[Array, " pieces"], grey: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Grey values of about 0 to 1 through a curve of straight pieces of equal width, the outer ones without end.

    Args:
      slopes: 2 or more.
    """
    pieces = slopes.shape[0]
    # A sum of ramps: plain arithmetic on every voxel, where looking up each voxel's piece would gather.
    out = slopes[0] * jnp.minimum(grey, 1 / pieces)
    for i in range(1, pieces - 1):
        out += slopes[i] * jnp.clip(grey - i / pieces, 0.0, 1 / pieces)
    return out + slopes[-1] * jnp.maximum(grey - (pieces - 1) / pieces, 0.0)


def blur_matrix(sigma: Float[Array, ""], size: int) -> Float[Array, "{size} {size}"]:
    """A Gaussian blur along an axis, of the voxels that there are."""
    distance = jnp.arange(size)[:, None] - jnp.arange(size)[None]
    return jax.nn.softmax(-0.5 * (distance / jnp.maximum(sigma, 1e-3)) ** 2)


def slices_matrix(thickness: Float[Array, ""], offset: Float[Array, ""], size: int) -> Float[Array, "{size} {size}"]:
    """An axis cut into slices, each the mean over its thickness, and interpolated back to its voxels.

    Args:
      thickness: of a slice, and the distance of their centres, in voxels; 1 at offset 0 changes nothing.
      offset: of the first centre, in voxels.
    """
    voxel = jnp.arange(size)
    place = (voxel - offset) / thickness
    below = jnp.floor(place)

    def profile(number: jax.Array) -> jax.Array:
        centre = jnp.clip(offset + number * thickness, 0, size - 1)[:, None]
        far = jnp.minimum(voxel + 0.5, centre + thickness / 2)
        covered = jnp.maximum(far - jnp.maximum(voxel - 0.5, centre - thickness / 2), 0.0)
        return covered / covered.sum(1, keepdims=True)

    share = (place - below)[:, None]
    return (1 - share) * profile(below) + share * profile(below + 1)


def spread(coarse: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Values at coarse points, smoothly over a volume: Gaussian weights of half the points' distance."""
    for axis, size in enumerate(shape):
        points = coarse.shape[axis]
        place = (jnp.arange(size) + 0.5) / size * points - 0.5
        coarse = _along(jax.nn.softmax(-2 * (place[:, None] - jnp.arange(points)) ** 2), coarse, axis)
    return coarse


def _standardise(volume: jax.Array) -> jax.Array:
    """Mean 0 and deviation 1; zeros where all values are the same."""
    return (volume - volume.mean()) / jnp.maximum(volume.std(), 1e-6)


def _along(matrix: jax.Array, volume: jax.Array, axis: int) -> jax.Array:
    return jnp.moveaxis(jnp.tensordot(matrix, volume, (1, axis)), 0, axis)
