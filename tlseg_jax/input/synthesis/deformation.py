"""Where each voxel of a drawn sample comes from: an affine and a smooth displacement that never folds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import Shape3, Spacing3
from tlseg_jax.input.augment import rotation

CELL = 4
"""Voxels between the points where places are computed; between them they are interpolated linearly."""

DEGREES = 15.0
"""The largest rotation about an axis."""

STRETCH = 0.15
"""The largest change of an axis's scale, up or down."""

SHEAR = 0.012
"""The largest shear (SynthSeg, Table 1)."""

SHIFT_MM = 6.0
"""The largest shift along an axis."""

KNOTS_MM = 20.0
"""Distance of the control points of the displacement, a cubic B-spline."""

REACH = 0.4
"""The largest displacement of a control point, in distances of them. Below 1 / 2.48 of it the spline is one-to-one,
hence a diffeomorphism (Choi and Lee, Graphical Models 62, 2000)."""


def places(
    key: Key[Array, ""], sides: Shape3, spacing: Spacing3, wide: float = 1.0
) -> Float[Array, "3 points_x points_y points_z"]:
    """Where the points of a sample lie in the map, relative to the sample's first voxel.

    Args:
      wide: factor of all ranges.

    Returns:
      In voxels, at every `CELL`-th voxel of each axis from the first one to beyond the last.
    """
    knots = [math.ceil(n * s / KNOTS_MM) + 3 for n, s in zip(sides, spacing, strict=True)]
    # All numbers at once: the compiler works at every call of the generator afresh.
    u = wide * jax.random.uniform(key, (16 + 3 * math.prod(knots),), minval=-1, maxval=1)
    mm = jnp.asarray(spacing)[:, None, None, None]
    axes = [CELL * np.arange(points_of(n)) - (n - 1) / 2 for n in sides]
    at = jnp.stack(jnp.meshgrid(*map(jnp.asarray, axes), indexing="ij")).astype(jnp.float32) * mm
    moved = jnp.einsum("ij,jxyz->ixyz", _matrix(u[:12]), at, precision="highest")
    field = u[16:].reshape(3, *knots) * REACH * KNOTS_MM * jnp.abs(u[15])
    for axis, (n, s, k) in enumerate(zip(sides, spacing, knots, strict=True)):
        field = along(spline_matrix(points_of(n), CELL * s / KNOTS_MM, k), field, axis + 1)
    shift = u[12:15, None, None, None] * SHIFT_MM
    middle = jnp.asarray([(n - 1) / 2 for n in sides])[:, None, None, None]
    return (moved + field + shift) / mm + middle


def points_of(side: int) -> int:
    """Points on an axis of so many voxels."""
    return -(-side // CELL) + 1


def _matrix(u: jax.Array) -> jax.Array:
    """(3, 3): rotation, stretch and shear, by twelve numbers from -1 to 1."""
    shear = jnp.eye(3).at[jnp.array([0, 0, 1, 1, 2, 2]), jnp.array([1, 2, 0, 2, 0, 1])].set(u[6:] * SHEAR)
    return rotation(u[:3] * jnp.deg2rad(DEGREES)) @ (shear * (1 + STRETCH * u[3:6]))


def spline_matrix(points: int, step: float, knots: int) -> NDArray[np.float32]:
    """(points, knots): weights of a cubic B-spline's control points at places `step` knots apart."""
    place = np.arange(points) * step
    first = np.floor(place).astype(int)
    t = place - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    out = np.zeros((points, knots), np.float32)
    for i in range(4):
        np.add.at(out, (np.arange(points), np.minimum(first + i, knots - 1)), weights[:, i])
    return out


def linear_matrix(points: int, side: int) -> NDArray[np.float32]:
    """(side, points): linear interpolation from points `CELL` apart to all voxels of an axis."""
    place = np.arange(side) / CELL
    return np.maximum(1 - np.abs(place[:, None] - np.arange(points)), 0).astype(np.float32)


def nearest(
    classes: Integer[Array, "i j k"], at: Float[Array, "3 points_x points_y points_z"], sides: Shape3
) -> Integer[Array, "x y z"]:
    """The map's nearest voxel at each voxel of a sample; beyond the map's faces its outermost.

    Args:
      at: in voxels of `classes`, at the points of `places`.
    """
    for axis in (1, 2):
        at = along(linear_matrix(at.shape[axis + 1], sides[axis]), at, axis + 1)
    # The first axis last and without a product: between whole planes that lie in memory as they are, in a third of the
    # time on a CPU.
    below, above = (jax.lax.optimization_barrier(at)[:, a : at.shape[1] - 1 + a, None] for a in (0, 1))
    share = (jnp.arange(CELL) / CELL)[:, None, None]
    at = (below + (above - below) * share).reshape(3, -1, *at.shape[2:])[:, : sides[0]]
    limits = jnp.array(classes.shape)[:, None, None, None] - 1
    x, y, z = jnp.clip(jnp.floor(at + 0.5).astype(jnp.int32), 0, limits)
    _, height, depth = classes.shape
    return jnp.take(classes.reshape(-1), (x * height + y) * depth + z, mode="clip")


def along(matrix: NDArray[np.float32] | jax.Array, volume: jax.Array, axis: int) -> jax.Array:
    """An axis of a volume times a matrix, in full precision also where a GPU's matrix products are shorter."""
    axes = "abcd"[: volume.ndim]
    out = axes.replace(axes[axis], "i")
    return jnp.einsum(f"i{axes[axis]},{axes}->{out}", jnp.asarray(matrix), volume, precision="highest")
