"""Image and codes from a label map, every step of it anew, keyed by (seed, step, sample) as augmentation is.

After SynthSeg (Billot et al., Medical Image Analysis 2023, arXiv 2107.09559), whose networks see no scan: deformed
labels, a grey value a class, and what scanners do to them. Here labels are looked up once, by the nearest voxel
at the maps' resolution, and averaging down to the grid of training makes partial volumes of grey values.

    image, codes = draw_batch(classes, shares, seed, step, synthesis)
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from tlseg_jax.datasets.spec import Normalise, Shape3, Spacing3
from tlseg_jax.input.augment import WholeNumber, sample_keys
from tlseg_jax.input.synthesis import atrophy, deformation, scanner
from tlseg_jax.input.synthesis.classes import ClassTable
from tlseg_jax.input.synthesis.ranges import TRAINING, Ranges, grey_values
from tlseg_jax.preprocess.codes import UNMARKED

_KEY = 0x5EED
"""Apart from the keys that augmentation makes of the same sample's."""

MARGIN_MM = 20.0
"""What is read of a map on each side of a patch, from where a deformation may bring it in."""


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """All that samples of a data set are drawn by.

    Attributes:
      sides: voxels of a sample.
      spacing: of a sample's voxel, in mm.
      factor: voxels of the map to one of a sample, on each axis.
      normalise: what the z-score is over: the whole volume, or the head or brain.
      ranges: how far contrast, bias field, sharpness and noise go.
    """

    table: ClassTable
    sides: Shape3
    spacing: Spacing3
    factor: Shape3
    structures: int
    exclusive: bool = True
    skull_strip: bool = False
    normalise: Normalise = "volume"
    ranges: Ranges = TRAINING

    @property
    def fine(self) -> Spacing3:
        """mm of a voxel of the map."""
        return _three(s / f for s, f in zip(self.spacing, self.factor, strict=True))

    @property
    def margin(self) -> Shape3:
        """Voxels of the map beyond a sample's own on each side, whole voxels of the sample's and a multiple of 4."""
        return _three(4 * f * math.ceil(MARGIN_MM / (4 * s)) for s, f in zip(self.spacing, self.factor, strict=True))

    @property
    def map_sides(self) -> Shape3:
        """Voxels of the map that a sample is drawn from."""
        return _three(n * f + 2 * m for n, f, m in zip(self.sides, self.factor, self.margin, strict=True))


def draw_batch(
    classes: Integer[Array, "batch i j k"],
    shares: Float[Array, "batch classes"],
    seed: WholeNumber,
    step: WholeNumber,
    synthesis: Synthesis,
    first: WholeNumber = 0,
) -> tuple[Float[Array, "batch x y z"], Integer[Array, "batch x y z"]]:
    """Draw every sample of a batch with its own key.

    Args:
      classes: (batch, *synthesis.map_sides) of the maps, with their margins.
      shares: how much of its whole volume each class fills, for the z-score.
      first: place of the first sample in the whole batch, where this is a part of one.

    Returns:
      z-scored images and codes (`preprocess.codes`).
    """
    keys = sample_keys(seed, step, classes.shape[0], first)
    return jax.vmap(lambda k, c, s: draw(jax.random.fold_in(k, _KEY), c, s, synthesis))(keys, classes, shares)


def draw(
    key: Key[Array, ""], classes: Integer[Array, "i j k"], shares: Float[Array, " classes"], synthesis: Synthesis
) -> tuple[Float[Array, "x y z"], Integer[Array, "x y z"]]:
    """Draw one sample from the map of its box and margin; the same key always does the same."""
    shape, look = jax.random.split(key)
    # Else XLA's CPU code looks each voxel up anew for all that is made of it.
    moved = jax.lax.optimization_barrier(deformed(shape, classes, synthesis))
    return painted(look, moved, shares, synthesis), codes_of(moved, synthesis)


def deformed(key: Key[Array, ""], classes: Integer[Array, "i j k"], synthesis: Synthesis) -> Integer[Array, "a b c"]:
    """The classes of a sample, at the map's resolution: (side * factor) on each axis."""
    where, widen = jax.random.split(key)
    sides = _three(n * f for n, f in zip(synthesis.sides, synthesis.factor, strict=True))
    at = deformation.places(where, sides, synthesis.fine) + jnp.asarray(synthesis.margin)[:, None, None, None]
    u, v = jax.random.uniform(widen, (2,))
    (narrow, wide), (shallow, deep) = atrophy.VENTRICLES_MM, atrophy.SULCI
    hollow = (classes >= synthesis.table.ventricles) & (classes < synthesis.table.fluid)
    field = atrophy.displacement(hollow, synthesis.fine, narrow + (wide - narrow) * u)
    moved = deformation.nearest(classes, at + atrophy.looked_up(field, at), sides)
    return atrophy.sulci(
        jax.lax.optimization_barrier(moved), synthesis.table, synthesis.factor, shallow + (deep - shallow) * v
    )


def painted(
    key: Key[Array, ""], moved: Integer[Array, "a b c"], shares: Float[Array, " classes"], synthesis: Synthesis
) -> Float[Array, "x y z"]:
    """The image of a sample's classes."""
    values, strip, scan, level, normal = jax.random.split(key, 5)
    table, factor, spacing, ranges = synthesis.table, synthesis.factor, synthesis.spacing, synthesis.ranges
    means, within = grey_values(values, table, ranges)
    grey = averaged(jnp.take(means, moved, mode="clip"), factor)
    # Of the mean of a voxel's parts, as if they were independent: drawn where there are fewer.
    spread = averaged(jnp.take(within, moved, mode="clip"), factor) / math.sqrt(math.prod(factor))
    brain, fluid, head = (
        averaged((moved >= a) & (moved < b), factor)
        for a, b in ((1, table.fluid), (table.fluid, table.outside), (table.outside, len(table.values)))
    )
    grey, spread, brain, fluid, head = jax.lax.optimization_barrier((grey, spread, brain, fluid, head))
    texture, noise = jax.random.normal(normal, (2, *grey.shape))
    keep = jax.lax.optimization_barrier(scanner.kept(strip, brain, spacing, synthesis.skull_strip, ranges))
    image, gamma = scanner.acquired(scan, jnp.maximum(grey + spread * texture, 0) * keep, spacing, ranges)
    # What is left of the fluid and of the head in the patch stands for what is left in the volume.
    parts = ((fluid, table.outside - table.fluid), (head, len(table.values) - table.outside))
    of_part = [jnp.full(count, ((p * keep).sum() + 1e-6 * keep.mean()) / (p.sum() + 1e-6)) for p, count in parts]
    left = jnp.concatenate([jnp.ones(table.fluid), *of_part])
    means, weights = means.at[0].multiply(keep.min()) ** gamma, shares * left
    air = 0.0 if synthesis.normalise == "mask" else 1 - weights[1:].sum()
    image = scanner.standardised(image, means, weights.at[0].set(air))
    return image + scanner.within(ranges.noise, jax.random.uniform(level)) * noise


def codes_of(moved: Integer[Array, "a b c"], synthesis: Synthesis) -> Integer[Array, "x y z"]:
    """The codes of a sample's classes on its own voxels.

    As `resample.codes_to_grid` has them: what fills half of a voxel, alone or, of exclusive structures, together with
    others, of which the one of the largest share counts.
    """
    codes = jnp.asarray(synthesis.table.codes, jnp.uint8)[moved]
    shape = synthesis.factor
    if math.prod(shape) == 1:
        return codes
    count = synthesis.structures
    if not synthesis.exclusive:
        masks = (averaged((codes >> i) & 1, shape) >= 0.5 for i in range(count))
        return sum(m.astype(jnp.uint8) << i for i, m in enumerate(masks))  # type: ignore[return-value]
    filled = averaged(codes > 0, shape) >= 0.5
    best = most = jnp.zeros(filled.shape)
    for code in (*range(1, count + 1), *((UNMARKED,) if UNMARKED in synthesis.table.codes else ())):
        share = averaged(codes == code, shape)
        best = jnp.where(share > most, code, best)
        most = jnp.maximum(most, share)
    return jnp.where(filled, best, 0).astype(jnp.uint8)


def averaged(fine: Array, factor: Shape3) -> Float[Array, "x y z"]:
    """Means of blocks of `factor` voxels."""
    # A sum of strided parts: of a reduction over small axes XLA's CPU code takes five times as long.
    parts = [fine[tuple(slice(a, None, f) for a, f in zip(at, factor, strict=True))] for at in np.ndindex(*factor)]
    return sum(p.astype(jnp.float32) for p in parts) / len(parts)  # type: ignore[return-value]


def _three(values: object) -> tuple:  # type: ignore[type-arg]
    return tuple(values)  # type: ignore[arg-type]
