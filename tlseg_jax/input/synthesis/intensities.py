"""Grey values of the classes of a drawn image: at random, or about those of a T1 scan."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from tlseg_jax.input.synthesis.classes import ClassTable
from tlseg_jax.input.synthesis.ranges import TRAINING, Ranges


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
