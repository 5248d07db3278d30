"""Volumes from one voxel grid to another, interpolated once with every transform composed."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped, UInt8
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.codes import UNMARKED, encode, mask_of

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
SPLINE_REACH = 12
"""Voxels after which a cubic spline's prefilter has forgotten its boundary (0.27 ** 12 < 2e-7)."""

_Part = tuple[tuple[slice, ...], NDArray[np.float32]]
"""Where in an array, and the values there."""


def to_grid(
    volume: Shaped[np.ndarray, "x y z"],
    scan_affine: Affine,
    grid: Grid,
    space_to_world: Affine,
    order: int = 3,
    antialias: bool = True,
    outside: float | None = None,
) -> Float32[np.ndarray, "i j k"]:
    """A scan's image on `grid`, interpolated once.

    The transforms compose to one matrix: grid voxel -> space mm -> world mm -> scan voxel. Where the
    grid is coarser than the scan, the scan is first blurred by the Gaussian that turns its voxel
    into the grid's (widths at half height), so that fine detail does not alias.

    Args:
      scan_affine: (4, 4) scan voxel -> world RAS mm.
      grid: the voxels wanted; its affine gives mm in the grid's space.
      space_to_world: (4, 4) the grid's space mm -> world RAS mm.
      order: 1 linear, 3 cubic spline (0 to 5). The result stays within the volume's own range, as a
        spline would otherwise overshoot at the edge of a skull-stripped brain.
      outside: value where the scan does not reach; None takes the volume's lowest.

    Returns:
      grid.shape float32.
    """
    to_scan_voxel = np.linalg.inv(scan_affine) @ space_to_world @ grid.affine
    low, high = float(volume.min()), float(volume.max())
    beyond = low if outside is None else outside
    out = np.full(grid.shape, beyond, np.float32)
    if part := _pull(volume, to_scan_voxel, grid.shape, order, antialias, beyond):
        out[part[0]] = part[1]
    return np.clip(out, min(low, beyond), high, out=out)


def mask_to_grid(
    mask: Bool[np.ndarray, "x y z"], scan_affine: Affine, grid: Grid, space_to_world: Affine
) -> Bool[np.ndarray, "i j k"]:
    """A mask on `grid`: the share of each grid voxel that is inside, cut at one half.

    Linear interpolation of the mask (blurred before a coarser grid) keeps the boundary smooth and
    where it was, which nearest-neighbour would not. Same arguments and shapes as `to_grid`.
    """
    return to_grid(mask.astype(np.float32), scan_affine, grid, space_to_world, order=1, outside=0.0) >= 0.5


def codes_to_grid(
    codes: UInt8[np.ndarray, "x y z"],
    scan_affine: Affine,
    grid: Grid,
    space_to_world: Affine,
    structures: int,
    exclusive: bool,
) -> UInt8[np.ndarray, "i j k"]:
    """The codes of several structures on `grid`: each as `mask_to_grid` has it.

    Where exclusive structures have half of a voxel together, it is that of the largest share: where two of them meet at
    the background no gap is left.

    For the arguments see `to_grid`; `exclusive` says whether a voxel shows one structure at most.
    """
    if not exclusive:
        masks = [mask_of(codes, i, False) for i in range(structures)]
        return encode([mask_to_grid(m, scan_affine, grid, space_to_world) for m in masks], False)
    if structures == 1 and not (codes == UNMARKED).any():
        return mask_to_grid(codes > 0, scan_affine, grid, space_to_world).astype(np.uint8)
    out = np.zeros(grid.shape, np.uint8)
    largest = np.zeros(grid.shape, np.float32)
    inside = np.zeros(grid.shape, np.float32)
    for code in [*range(1, structures + 1), UNMARKED]:
        share = _share(codes == code, scan_affine, grid, space_to_world)
        ours = (share > largest) & (share > 0)
        out[ours] = code
        np.maximum(largest, share, out=largest)
        inside += share
    out[inside < 0.5 - 1e-5] = 0  # the shares of two that fill half of it may add up to a little less
    return out


def _share(
    mask: Bool[np.ndarray, "x y z"], scan_affine: Affine, grid: Grid, space_to_world: Affine
) -> Float32[np.ndarray, "i j k"]:
    """Which share of each grid voxel is inside; only the mask's own box is looked at, and what is around it."""
    found = _boxed(mask, scan_affine, space_to_world[:3, :3] @ grid.affine[:3, :3])
    if found is None:
        return np.zeros(grid.shape, np.float32)
    box, moved = found
    return to_grid(mask[box].astype(np.float32), moved, grid, space_to_world, order=1, outside=0.0)


def _boxed(where: NDArray[np.bool_], affine: Affine, wanted: NDArray[Any]) -> tuple[tuple[slice, ...], Affine] | None:
    """The box around a mask, with what linear interpolation and the blur before coarser voxels reach; None: empty.

    Args:
      affine: (4, 4) of its voxels.
      wanted: (3, 3) the voxels that it is interpolated on, as columns of mm.

    Returns:
      The box, and the affine of its voxels.
    """
    found = ndimage.find_objects(np.ascontiguousarray(where).view(np.uint8))
    if not found:
        return None
    margin = np.ceil(4 * _sigma(np.linalg.inv(affine[:3, :3]) @ wanted)).astype(int) + 2
    box = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(found[0], margin, strict=True))
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return box, moved


def _sigma(linear: NDArray[Any]) -> NDArray[Any]:
    """(3,) of the blur along input axes before output voxels, whose axes are columns in input voxels, are coarser."""
    # The output voxel, carried into input voxels, is wider than one along an axis by this factor.
    width = np.linalg.norm(linear, axis=1)
    sigma = FWHM_TO_SIGMA * np.sqrt(np.maximum(width**2 - 1, 0))
    sigma[width < 1.05] = 0  # a registration's few per cent are no reason to blur
    return sigma


def to_scan(
    volumes: Float[np.ndarray, "i j k *structures"],
    grid: Grid,
    space_to_world: Affine,
    scan_shape: tuple[int, int, int],
    scan_affine: Affine,
) -> Float32[np.ndarray, "x y z *structures"]:
    """A volume on `grid`, or maps of several structures, back on the scan's own voxels.

    The inverse of `to_grid`, by linear interpolation. Of several maps only the box where each is worth a thousandth.

    Args:
      space_to_world: (4, 4) the grid's space mm -> world RAS mm, as kept for this subject.
      scan_affine: (4, 4) scan voxel -> world RAS mm.

    Returns:
      0 outside the grid.
    """
    maps = volumes.reshape(*volumes.shape[:3], -1)
    least = 1e-3 if maps.shape[-1] > 1 else -np.inf
    out = np.zeros((maps.shape[-1], *scan_shape), np.float32)
    for i in range(maps.shape[-1]):
        found = _back(maps[..., i], maps[..., i] > least, grid, space_to_world, scan_shape, scan_affine)
        if found is not None:
            at, values = found
            out[i][at] = values
    return np.moveaxis(out, 0, -1) if volumes.ndim > 3 else out[0]


def codes_to_scan(
    volumes: Float[np.ndarray, "i j k structures"],
    grid: Grid,
    space_to_world: Affine,
    scan_shape: tuple[int, int, int],
    scan_affine: Affine,
    exclusive: bool,
) -> UInt8[np.ndarray, "x y z"]:
    """What probabilities say on the scan's own voxels: `codes.decide` of `to_scan`, without the maps in between.

    A structure is the most probable of S and the background only where it has 1 / (S + 1), and an independent one where
    it has half; interpolation adds nothing to a neighbourhood's highest value. So each is computed in the box around
    where it reaches that, and nothing is kept but the highest so far.

    For the arguments see `to_scan`; `exclusive` says whether a voxel shows one structure at most.
    """
    structures = volumes.shape[-1]
    alone = not exclusive or structures == 1
    least = (0.5 if alone else 1 / (structures + 1)) * (1 - 1e-5)  # rounding must not hide one
    there = volumes >= least
    codes = np.zeros(scan_shape, np.uint8)

    def back(volume: NDArray[Any], where: NDArray[np.bool_]) -> _Part | None:
        return _back(volume, where, grid, space_to_world, scan_shape, scan_affine)

    highest = np.zeros(() if alone else scan_shape, np.float32)
    if not alone:
        total = back(volumes.sum(-1), np.asarray(there.any(-1)))
        if total is None:
            return codes
        highest[total[0]] = 1 - total[1]
    with ThreadPoolExecutor(min(structures, os.cpu_count() or 1)) as pool:  # SciPy computes outside of Python's lock
        for i, part in enumerate(pool.map(lambda i: back(volumes[..., i], there[..., i]), range(structures))):
            if part is None:
                continue
            at, values = part
            if alone:
                codes[at] |= (values > 0.5).astype(np.uint8) << i
                continue
            higher = values > highest[at]
            np.copyto(codes[at], np.uint8(i + 1), where=higher)
            np.copyto(highest[at], values, where=higher)
    return codes


def _back(
    volume: NDArray[Any],
    where: NDArray[np.bool_],
    grid: Grid,
    space_to_world: Affine,
    scan_shape: tuple[int, int, int],
    scan_affine: Affine,
) -> _Part | None:
    """As `to_scan`, of the box around a mask alone; None: the mask is empty, or nothing of it is in the scan."""
    found = _boxed(where, grid.affine, np.linalg.inv(space_to_world)[:3, :3] @ scan_affine[:3, :3])
    if found is None:
        return None
    box, moved = found
    return _pull(volume[box], np.linalg.inv(space_to_world @ moved) @ scan_affine, scan_shape)


def _pull(
    volume: Shaped[np.ndarray, "x y z"],
    matrix: NDArray[Any],
    shape: tuple[int, int, int],
    order: int = 1,
    antialias: bool = True,
    outside: float = 0.0,
) -> _Part | None:
    """out[i] = volume[matrix @ i], `matrix` taking output voxels to input voxels, where the input reaches.

    None: it reaches nothing.
    """
    linear = matrix[:3, :3]
    sigma = _sigma(linear) if antialias else np.zeros(3)

    # Only the part of the input that the output touches is filtered, and only the part of the
    # output that the input reaches is computed.
    margin = np.ceil(4 * sigma) + (SPLINE_REACH if order > 1 else 1)
    src = _reach(matrix, shape, np.array(volume.shape), margin)
    rim = 1 + 1 / np.maximum(np.linalg.norm(linear, axis=1), 1e-6)
    dst = _reach(np.linalg.inv(matrix), volume.shape, np.array(shape), rim)
    if src is None or dst is None:
        return None
    part = volume[tuple(slice(a, b) for a, b in src)].astype(np.float32)
    if sigma.any():
        part = ndimage.gaussian_filter(part, sigma, mode="constant", cval=outside)
    offset = matrix[:3, 3] + linear @ dst[:, 0] - src[:, 0]
    values = ndimage.affine_transform(
        part,
        linear,
        offset=offset,
        output_shape=tuple(dst[:, 1] - dst[:, 0]),
        output=np.float32,
        order=order,
        mode="grid-constant",
        cval=outside,
    )
    return tuple(slice(a, b) for a, b in dst), values


def _reach(
    matrix: NDArray[Any], shape: tuple[int, ...], limit: NDArray[np.int64], margin: NDArray[Any]
) -> NDArray[np.int64] | None:
    """First and one past the last index, (3, 2), that a box of `shape` voxels touches through `matrix`."""
    corners = np.array([[*c, 1.0] for c in itertools.product(*[(-0.5, n - 0.5) for n in shape])])
    at = corners @ matrix[:3].T
    low = np.clip(np.floor(at.min(0) - margin), 0, limit)
    high = np.clip(np.ceil(at.max(0) + margin) + 1, 0, limit)
    return None if np.any(low >= high) else np.stack([low, high], 1).astype(np.int64)
