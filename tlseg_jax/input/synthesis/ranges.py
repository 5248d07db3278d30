"""How far what makes an image of a label map goes, and the grey values of its classes."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from tlseg_jax.input.synthesis.classes import ClassTable


@dataclasses.dataclass(frozen=True)
class Ranges:
    """What one drawn image may differ in from another; as it stands, in training.

    Attributes:
      t1_share: share of the samples whose grey values are about those of a T1 scan.
      contrast: of such a sample the distances of all grey values from white matter's are multiplied by a factor in this
        range: what grey and white matter differ by is another scanner's first difference.
      jitter: of such a sample each mean moves by so many of its own deviations, as a normal deviate.
      texture: the most deviation within a class, of samples at random.
      air: the brightest background.
      stripped: share of the samples whose head outside the brain is taken away.
      thinned: share of those that keep some of it.
      bias: range of the bias field's strength: its logarithm at coarse points lies between plus and minus this. What is
        left of it after the correction that scans go through is less.
      gamma: deviation of the logarithm of gamma (SynthSeg has 0.4 of all contrasts; half of these are T1's).
      blur_mm: range of the blur's standard deviation along an axis.
      thick_mm: range of the thickness of slices, of the samples that have thick ones.
      thick_axis: along which they are thick; None: any.
      noise: range of the noise's standard deviation, in standard deviations of the whole volume.
    """

    t1_share: float = 0.5
    contrast: tuple[float, float] = (0.5, 1.3)
    jitter: float = 0.5
    texture: float = 0.12
    air: float = 0.05
    stripped: float = 0.6
    thinned: float = 0.15
    bias: tuple[float, float] = (0.0, 0.4)
    gamma: float = 0.3
    blur_mm: tuple[float, float] = (0.0, 1.2)
    thick_mm: tuple[float, float] = (1.0, 6.0)
    thick_share: float = 0.25
    thick_axis: int | None = None
    noise: tuple[float, float] = (0.0, 0.1)


TRAINING = Ranges()


def grey_values(
    key: Key[Array, ""], table: ClassTable, ranges: Ranges = TRAINING
) -> tuple[Float[Array, " classes"], Float[Array, " classes"]]:
    """Mean and deviation of each class, both sides of a structure alike; the background is dark.

    In training half of the samples have means at random between 0 and 1, as SynthSeg's all have (Billot et al. 2023,
    section 3.2), the other half those of T1 scans, which came out better on T1 scans than either alone.
    """
    groups = len(table.t1)
    numbers, normal = jax.random.split(key)
    u = jax.random.uniform(numbers, (2 * groups + 4,))
    level, within = (jnp.asarray([pair[i] for pair in table.t1], jnp.float32) for i in (0, 1))
    at_random, texture = u[:groups], ranges.texture * u[groups : 2 * groups]
    which, contrast, air, dark = u[2 * groups :]
    low, high = ranges.contrast
    white = 0.98
    factor = low + (high - low) * contrast
    like_t1 = white + factor * (level - white) + ranges.jitter * within * jax.random.normal(normal, (groups,))
    known = (level >= 0) & (which < ranges.t1_share)
    means = jnp.where(known, jnp.maximum(like_t1, 0.02), at_random)[jnp.asarray(table.groups)]
    within = jnp.where(known, within * factor, texture)[jnp.asarray(table.groups)]
    background = jnp.where(dark < 0.5, 0.0, ranges.air * air)
    return means.at[0].set(background), within.at[0].set(background / 2)
