"""Planes of the 2D network back on the scan's own pixels; and the axes that slices are taken on."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from tlseg_jax.geometry import Affine
from tlseg_jax.preprocess.slice_resize import axes_of


def planes_on_scan(
    planes: Float32[np.ndarray, "planes x y"], affine: Affine, scan_shape: Sequence[int], scan_affine: Affine
) -> Iterator[Float32[np.ndarray, "width height"]]:
    """Predictions of planes, linearly interpolated onto the scan's own pixels, one after the other.

    Args:
      planes: such as probabilities of one structure.
      affine: (x, y of a plane, slice of the canonical volume) -> RAS mm.
      scan_affine: voxel of the file -> RAS mm.

    Yields:
      Those of the canonical volume's slices (left to right, back to front).
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
