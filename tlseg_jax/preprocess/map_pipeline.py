"""A label map with all its classes on a data set's grid, from which images are drawn in training."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from tlseg_jax.datasets.spec import DatasetSpec, Shape3
from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.codes import anywhere
from tlseg_jax.preprocess.pipeline import PrepareSettings, head_middle, shares_right
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan
from tlseg_jax.preprocess.steps.centres import register_map
from tlseg_jax.preprocess.steps.resample import codes_to_grid, to_grid
from tlseg_jax.preprocess.steps.template import mni305_grid, native_grid
from tlseg_jax.runtime.errors import InputError

FINEST_MM = 1.0
"""A map is kept in voxels of about this size, of which whole numbers make one of the grid's: partial volumes come from
averaging them. Label maps of heads are seldom finer."""

MOST_PER_VOXEL = 2
"""Voxels of a map to one of the grid, a side, at most: eight give partial volumes enough, and each costs time."""

MOST_CLASSES = 256
"""Of a byte a voxel, the background among them."""


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedMap:
    """A label map after every step; see `pipeline.Prepared` for what is not explained here.

    Attributes:
      classes: (x * a, y * b, z * c) places in `values`, for (a, b, c) of `map_factor`.
      values: the label map's, of which 0 is the first.
    """

    classes: UInt8[np.ndarray, "i j k"]
    values: tuple[int, ...]
    label: UInt8[np.ndarray, "x y z"]
    grid: Grid
    space_to_world: Affine
    seconds: dict[str, float]
    details: dict[str, Any]
    label_right: Mapping[str, float]


def map_factor(spec: DatasetSpec, most: int = MOST_PER_VOXEL) -> Shape3:
    """Voxels of the map to one of the grid, on each axis, and `most` at most.

    Raises:
      InputError: the data set's spacing varies.
    """
    if spec.volumes.spacing is None:
        raise InputError(
            f"{spec.name} keeps each scan's field of view, and drawn images need one voxel size: give `spacing`."
        )
    x, y, z = (min(most, max(1, round(s / FINEST_MM))) for s in spec.volumes.spacing)
    return (x, y, z)


def finer(grid: Grid, factor: Shape3) -> Grid:
    """The grid whose blocks of `factor` voxels are the voxels of `grid`."""
    parts = np.array(factor)
    affine = grid.affine @ np.diag([*(1 / parts), 1.0])
    affine[:3, 3] = grid.affine[:3] @ [*((1 / parts - 1) / 2), 1.0]
    x, y, z = (int(n * f) for n, f in zip(grid.shape, factor, strict=True))
    return Grid((x, y, z), affine)


def values_held(values: Integer[np.ndarray, "i j k"], name: str) -> tuple[int, ...]:
    """All values of a map, in order, with the background's 0 whether any voxel has it or not.

    Raises:
      ExclusionError: they are too many, or one is below 0; `name` is the file, for the message.
    """
    held = np.unique([0, *np.unique(values)])
    if held[0] != 0 or len(held) > MOST_CLASSES:
        raise ExclusionError(
            f"{name} holds {len(held)} values, from {held.min()} to {held.max()}, and images are drawn from at most "
            f"{MOST_CLASSES}, of 0 and more: give a map with fewer structures."
        )
    return tuple(int(v) for v in held)


def preprocess_map(scan: Scan, spec: DatasetSpec, settings: PrepareSettings, name: str) -> PreparedMap:
    """Place a label map in the data set's space and look its values up there, once, by the nearest voxel.

    Args:
      scan: whose image is the map's values; its label the structures' codes.
      settings: whether it is registered (`steps.centres`).

    Raises:
      ExclusionError: it cannot be registered, holds too many values, or nothing of its structures is on the grid.
    """
    start = time.perf_counter()
    assert scan.label is not None
    values = scan.image.astype(np.int32)
    details: dict[str, Any] = {}
    to_world = np.eye(4)
    if spec.volumes.space == "MNI305":
        if settings.registration == "auto":
            to_world, details["registration"] = register_map(values, scan.affine, name)
        grid, middle = mni305_grid(spec), 0.0
    else:
        grid = native_grid(spec, values.shape, scan.affine, values > 0)
        middle = head_middle(scan, values > 0)
    fine = to_grid(
        scan.image, scan.affine, finer(grid, map_factor(spec)), to_world, order=0, antialias=False, outside=0.0
    )
    whole = fine.astype(np.int32)
    held = values_held(whole, name)
    label = codes_to_grid(scan.label, scan.affine, grid, to_world, len(spec.structures), spec.exclusive)
    if not anywhere(label).any():
        raise ExclusionError(
            f"{name}: nothing of its structures is left on the {spec.volumes.space} grid: check the label, the "
            "orientation in the header, or choose a smaller `spacing`."
        )
    return PreparedMap(
        np.searchsorted(held, whole).astype(np.uint8),
        held,
        label,
        grid,
        to_world,
        {"place": round(time.perf_counter() - start, 3)},
        details,
        shares_right(label, spec, grid, middle),
    )
