"""The common space: the MNI305 grid, the native grid, and the template that scans are registered to."""

import functools

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.geometry import Affine, Grid, canonical_grid

MNI305_ORIGIN = (-86.095, -126.51, -68.25)
"""World mm (RAS) of the first voxel of the average305 volume, 172x220x156 voxels of 1 mm."""

MNI305_DIMENSIONS = (172, 220, 156)

MNI305_TO_MNI152: Affine = np.array(
    [
        [0.9975, -0.0073, 0.0176, -0.0429],
        [0.0146, 1.0009, -0.0024, 1.5496],
        [-0.0130, -0.0093, 0.9971, 1.1840],
        [0, 0, 0, 1],
    ]
)
"""MNI305 mm -> MNI152 mm, as FreeSurfer publishes it (its wiki page on coordinate systems)."""


def mni305_grid(spec: DatasetSpec) -> Grid:
    """The spec's grid in MNI305 mm, axes RAS, with the middle of the average305 volume in its middle.

    172x220x156 voxels of 1 mm are that volume itself; at another spacing the field of view stays and
    the voxel centres move. A spec without spacing divides that field of view by its dimensions.
    """
    full = np.array(MNI305_DIMENSIONS, float)
    dims = np.array(spec.volumes.dimensions, float)
    spacing = np.array(spec.volumes.spacing if spec.volumes.spacing is not None else full / dims)
    centre = np.array(MNI305_ORIGIN) + (full - 1) / 2
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre - spacing * (dims - 1) / 2
    return Grid(spec.volumes.dimensions, affine)


def native_grid(
    spec: DatasetSpec, scan_shape: tuple[int, ...], scan_affine: Affine, foreground: Bool[np.ndarray, "x y z"]
) -> Grid:
    """The spec's grid in the scan's own world mm: nothing is registered.

    With a spacing, the axes are the world's RAS axes, whatever the file's are, and the grid's middle
    is the centre of mass of the head: scanners put the world's origin, and the head within the field
    of view, in no fixed place, and a patch box learned from some scans has to mean the same place in
    the others. Without a spacing ("Various" in Table 1), the scan's field of view is kept on its own
    axes, taken in the order and direction nearest to RAS, and divided into the spec's dimensions.

    Args:
      scan_affine: (4, 4) scan voxel -> world RAS mm.
      foreground: scan_shape bool, the head.
    """
    dims = np.array(spec.volumes.dimensions, float)
    if spec.volumes.spacing is not None:
        centre = scan_affine[:3] @ [*ndimage.center_of_mass(foreground), 1.0]
        affine = np.diag([*spec.volumes.spacing, 1.0])
        affine[:3, 3] = centre - np.array(spec.volumes.spacing) * (dims - 1) / 2
        return Grid(spec.volumes.dimensions, affine)
    whole = canonical_grid(Grid((scan_shape[0], scan_shape[1], scan_shape[2]), scan_affine))
    ratio = np.array(whole.shape) / dims
    scale = np.diag([*ratio, 1.0])
    scale[:3, 3] = (ratio - 1) / 2  # the borders coincide, not the centres of the first voxels
    return Grid(spec.volumes.dimensions, whole.affine @ scale)


@functools.cache
def template_image() -> tuple[Float32[np.ndarray, "x y z"], Affine]:
    """The registration target: the ICBM152 2009a T1 that nilearn packages, skull-stripped, 1 mm.

    Returns:
      (197, 233, 189) float32 from 0 to 1, and its affine, voxel -> MNI152 mm. No MNI305 volume is
      packaged anywhere; `MNI305_TO_MNI152` takes a registration to this one on to MNI305.
    """
    from nilearn.datasets import load_mni152_template  # two seconds, so only where it is needed

    image = load_mni152_template(resolution=1)
    volume = np.asarray(image.dataobj, np.float32)
    volume.setflags(write=False)
    return volume, np.asarray(image.affine, np.float64)


@functools.cache
def template_mask() -> tuple[Bool[np.ndarray, "x y z"], Affine]:
    """The template's brain with its holes filled: (197, 233, 189) bool, and voxel -> MNI305 mm."""
    volume, to_mni152 = template_image()
    mask = np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(volume > 0, iterations=2)))
    mask.setflags(write=False)
    return mask, np.linalg.inv(MNI305_TO_MNI152) @ to_mni152
