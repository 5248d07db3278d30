"""Planes of the 2D network back on the scan's own pixels; and the axes that slices are taken on."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.geometry import Affine
from tlseg_jax.preprocess.slice_resize import axes_of


def planes_on_scan(
    planes: NDArray[np.float32], affine: Affine, scan_shape: Sequence[int], scan_affine: Affine
) -> Iterator[NDArray[np.float32]]:
    """Predictions of planes, linearly interpolated onto the scan's own pixels, one after the other.

    Args:
      planes: (n, x, y) float32, such as probabilities of one structure.
      affine: (4, 4), (x, y of a plane, slice of the canonical volume) -> RAS mm.
      scan_shape: voxels on the axes of the scan's file.
      scan_affine: (4, 4), voxel of the file -> RAS mm.

    Yields:
      (x, y) float32 of the canonical volume's slices (left to right, back to front).
    """
    width, height, _ = canonical_shape(scan_affine, scan_shape)
    axes = axes_of(
        affine, canonical_affine(scan_affine, scan_shape), (width, height), (planes.shape[1], planes.shape[2])
    )
    left, right = (a.inverse.linear() for a in axes)
    for plane in planes:
        yield (left @ plane) @ right.T


def canonical_affine(affine: Affine, shape: Sequence[int]) -> Affine:
    """The affine of the volume on the RAS axes nearest to its own."""
    import nibabel as nib  # here and not above: a machine that only trains may not have it

    return np.asarray(affine @ nib.orientations.inv_ornt_aff(nib.io_orientation(affine), shape), np.float64)


def canonical_shape(affine: Affine, shape: Sequence[int]) -> tuple[int, int, int]:
    """Its voxels on those axes."""
    import nibabel as nib

    sides = [0, 0, 0]
    for axis, n in zip(nib.io_orientation(affine)[:, 0], shape, strict=True):
        sides[int(axis)] = n
    return (sides[0], sides[1], sides[2])
