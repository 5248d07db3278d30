"""Ventricles and sulci widened or narrowed: the disease axis of the brain paper, as a deformation of a label map."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import Spacing3
from tlseg_jax.input.augment import linear
from tlseg_jax.input.synthesis.classes import ClassTable
from tlseg_jax.input.synthesis.deformation import along

VENTRICLES_MM = (-2.0, 4.0)
"""How far the ventricles' walls are moved outwards, at most where they are flat."""

SULCI_MM = (-1.0, 2.0)
"""How far the brain's surface is moved inwards."""

WIDTH_MM = 4.0
"""Standard deviation of the blur that spreads the movement of a wall to both sides. Below 1.6 of it a wall is moved
without a fold."""

POOL = 4
"""Voxels of the map that are taken together; they divide its sides."""


def displacement(
    classes: Integer[Array, "x y z"], table: ClassTable, spacing: Spacing3, ventricles: Array, surface: Array
) -> Float[Array, "3 i j k"]:
    """What to add to a place of the map so that what is looked up there has other ventricles and sulci.

    Along the gradient of a blurred mask, which is greatest at the wall and points inwards: looked up from further
    inside, the wall is further out.

    Args:
      classes: of a map.
      table: what they are.
      spacing: of a voxel, in mm.
      ventricles: mm by which their walls go outwards; negative narrows them.
      surface: mm by which the brain's surface goes inwards.

    Returns:
      In voxels, of each `POOL`-th voxel's block.
    """
    hollow = _pooled((classes >= table.ventricles) & (classes < table.fluid))
    brain = _pooled((classes >= 1) & (classes < table.fluid))
    total = jnp.zeros((3, *hollow.shape))
    for mask, mm in ((hollow, ventricles), (brain, -surface)):
        for axis, size in enumerate(mask.shape):
            mask = along(_blur(size, WIDTH_MM / (POOL * spacing[axis])), mask, axis)
        # A flat wall's blurred mask rises by 1 / (width sqrt(2 pi)).
        scale = mm * WIDTH_MM * math.sqrt(2 * math.pi)
        slopes = [_slope(mask, axis) / (POOL * spacing[axis]) / spacing[axis] for axis in range(3)]
        total = total + scale * jnp.stack(slopes)
    return total


def looked_up(field: Float[Array, "3 i j k"], at: Float[Array, "3 x y z"]) -> Float[Array, "3 x y z"]:
    """`displacement` at places of the map."""
    place = ((at + 0.5) / POOL - 0.5).reshape(3, -1)
    return jnp.stack([linear(f, place) for f in field]).reshape(at.shape)


def _pooled(mask: jax.Array) -> jax.Array:
    """Means of the middle 2 x 2 x 2 voxels of each block: the blur that follows needs no more."""
    parts = (mask[x::POOL, y::POOL, z::POOL] for x, y, z in itertools.product((1, 2), repeat=3))
    return sum(p.astype(jnp.float32) for p in parts) / 8  # type: ignore[return-value]


def _blur(size: int, sigma: float) -> NDArray[np.float32]:
    """(size, size): a Gaussian along an axis; beyond the ends the last voxel goes on."""
    reach = math.ceil(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    out = np.zeros((size, size), np.float32)
    for i in range(size):
        np.add.at(out[i], np.clip(np.arange(i - reach, i + reach + 1), 0, size - 1), weights)
    return out


def _slope(volume: jax.Array, axis: int) -> jax.Array:
    """Central differences; at the ends half of a one-sided one."""
    ends = [(1, 1) if a == axis else (0, 0) for a in range(3)]
    padded = jnp.pad(volume, ends, mode="edge")
    size = volume.shape[axis]
    after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    return (after - jax.lax.slice_in_dim(padded, 0, size, axis=axis)) / 2
