"""Ventricles and sulci widened or narrowed: the disease axis of the brain paper, as changes of a label map."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from tlseg_jax.datasets.spec import Shape3, Spacing3
from tlseg_jax.input.augment import linear
from tlseg_jax.input.randomise import blur_matrix
from tlseg_jax.input.synthesis.classes import ClassTable
from tlseg_jax.input.synthesis.deformation import along

VENTRICLES_MM = (-2.0, 4.0)
"""How far the ventricles' walls are moved outwards, at most where they are flat."""

SULCI = (-0.7, 1.0)
"""Which share of the voxels of tissue that touch the fluid about the brain become fluid; below 0, which share of those
of fluid that touch tissue become tissue. A sulcus is too narrow to be widened by a smooth displacement."""

WIDTH_MM = 4.0
"""Standard deviation of the blur that spreads the movement of a wall to both sides. Below 1.6 of it a wall is moved
without a fold."""

POOL = 4
"""Voxels of the map that are taken together; they divide its sides."""


def displacement(hollow: Bool[Array, "x y z"], spacing: Spacing3, walls: Array | float) -> Float[Array, "3 i j k"]:
    """What to add to a place of the map so that what is looked up there has wider or narrower ventricles, or others.

    Along the gradient of their blurred mask, which is greatest at the wall and points inwards: looked up from further
    inside, the wall is further out.

    Args:
      hollow: where they are in a map.
      walls: mm by which the walls go outwards; negative narrows.

    Returns:
      In voxels, of each `POOL`-th voxel's block.
    """
    inside = _pooled(hollow)
    for axis, size in enumerate(inside.shape):
        inside = along(blur_matrix(jnp.float32(WIDTH_MM / (POOL * spacing[axis])), size), inside, axis)
    # A flat wall's blurred mask rises by 1 / (width sqrt(2 pi)).
    scale = walls * WIDTH_MM * math.sqrt(2 * math.pi)
    return jnp.stack([scale * _slope(inside, a) / (POOL * spacing[a]) / spacing[a] for a in range(3)])


def sulci(moved: Integer[Array, "x y z"], table: ClassTable, factor: Shape3, share: Array) -> Integer[Array, "x y z"]:
    """The classes with the brain's surface one voxel further in or out, in a share of its voxels.

    The share is of each block of `factor` voxels, which are averaged afterwards: a part of a voxel's thickness.

    Args:
      moved: of a sample, at the map's resolution.
      table: what they are; without fluid about the brain nothing changes.
      share: from -1 to 1, see `SULCI`.
    """

    def tissue(of: Array) -> Array:
        return (of >= 1) & (of < table.ventricles)

    def fluid(of: Array) -> Array:
        return (of >= table.fluid) & (of < table.outside)

    x, y, z = (jnp.arange(n) % f for n, f in zip(moved.shape, factor, strict=True))
    place = (x[:, None, None] * factor[1] + y[:, None]) * factor[2] + z
    parts = jnp.round(jnp.abs(share) * math.prod(factor)).astype(jnp.int32)

    def once(_: Any, of: Array) -> Array:
        padded = jnp.pad(of, 1, mode="edge")
        near_fluid, near_tissue = jnp.zeros(of.shape, bool), jnp.zeros_like(of)
        for at in ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)):
            neighbour = jax.lax.slice(padded, at, [a + n for a, n in zip(at, of.shape, strict=True)])
            near_fluid |= fluid(neighbour)
            near_tissue = jnp.maximum(near_tissue, jnp.where(tissue(neighbour), neighbour, 0))
        wider = jnp.where(tissue(of) & near_fluid, jnp.asarray(table.fluid, of.dtype), of)
        narrower = jnp.where(fluid(of) & (near_tissue > 0), near_tissue, of)
        return jnp.where(place < parts, jnp.where(share > 0, wider, narrower), of)

    # A loop, whose result XLA's CPU code keeps: plain operations it does anew for all that is made of them.
    return jax.lax.fori_loop(0, jnp.minimum(parts, 1), once, moved)


def looked_up(field: Float[Array, "3 i j k"], at: Float[Array, "3 x y z"]) -> Float[Array, "3 x y z"]:
    """`displacement` at places of the map."""
    place = ((at + 0.5) / POOL - 0.5).reshape(3, -1)
    return jnp.stack([linear(f, place) for f in field]).reshape(at.shape)


def _pooled(mask: jax.Array) -> jax.Array:
    """Means of the middle 2 x 2 x 2 voxels of each block: the blur that follows needs no more."""
    parts = (mask[x::POOL, y::POOL, z::POOL] for x, y, z in itertools.product((1, 2), repeat=3))
    return sum(p.astype(jnp.float32) for p in parts) / 8  # type: ignore[return-value]


def _slope(volume: jax.Array, axis: int) -> jax.Array:
    """Central differences; at the ends half of a one-sided one."""
    ends = [(1, 1) if a == axis else (0, 0) for a in range(3)]
    padded = jnp.pad(volume, ends, mode="edge")
    size = volume.shape[axis]
    after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    return (after - jax.lax.slice_in_dim(padded, 0, size, axis=axis)) / 2
