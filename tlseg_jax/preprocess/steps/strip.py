"""What is head, what is brain, and a scan without its skull."""

from typing import Literal

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float32
from nibabel.affines import voxel_sizes
from scipy import ndimage

from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.reading.scan import Scan
from tlseg_jax.preprocess.steps.resample import mask_to_grid
from tlseg_jax.preprocess.steps.template import template_mask

MaskSource = Literal["supplied mask", "scan is already stripped", "template mask"]

LARGEST_BRAIN_ML = 2200.0
"""No brain with its fluid is larger (ICBM152: 1,890 ml); a head down to the chin is 3,000 ml and more."""

LEAST_BACKGROUND = 0.2
"""Share of exactly constant background below which a scan is not taken to be stripped."""


def _coarse_step(affine: Affine) -> tuple[int, ...]:
    return tuple(max(1, int(2.5 // s)) for s in voxel_sizes(affine))


def _largest(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    parts, n = ndimage.label(mask)
    if n < 2:
        return mask
    return np.asarray(parts == 1 + np.bincount(parts.ravel())[1:].argmax())


def foreground(image: Float32[np.ndarray, "x y z"], affine: Affine) -> Bool[np.ndarray, "x y z"]:
    """The head (or the brain, in a stripped scan): Otsu's threshold, largest part, holes filled.

    Found at about 2 mm, which is enough for a centre of mass, a mean or a bias field.

    Returns:
      (x, y, z) bool; all True where there is nothing to tell apart.
    """
    step = _coarse_step(affine)
    small = np.ascontiguousarray(image[tuple(slice(None, None, s) for s in step)])
    # A few very bright voxels (vessels, fat) would otherwise draw the threshold up.
    small = np.minimum(small, np.percentile(small, 99.5))
    otsu = sitk.GetArrayFromImage(sitk.OtsuThreshold(sitk.GetImageFromArray(small), 0, 1))
    mask = ndimage.binary_fill_holes(_largest(otsu > 0))
    if mask is None or not mask.any():
        return np.ones(image.shape, bool)
    for axis, s in enumerate(step):
        mask = np.repeat(mask, s, axis)
    return mask[tuple(slice(0, n) for n in image.shape)]


def own_brain(image: Float32[np.ndarray, "x y z"], affine: Affine) -> Bool[np.ndarray, "x y z"] | None:
    """The brain of a scan that is already stripped, or None where the scan still has its skull.

    Stripped means: an exactly constant background that makes up the volume's border and at least a
    fifth of it, around one region no larger than a brain can be. A head on a zeroed background has
    such a border too, but is larger.

    Returns:
      (x, y, z) bool, the region with its holes filled; None for a head.
    """
    sides = [image[0], image[-1], image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]]
    values, counts = np.unique(np.concatenate([s.ravel() for s in sides]), return_counts=True)
    background = values[counts.argmax()]
    inside = image != background
    if counts.max() < 0.5 * counts.sum() or 1 - inside.mean() < LEAST_BACKGROUND:
        return None
    step = _coarse_step(affine)
    small = ndimage.binary_fill_holes(_largest(inside[tuple(slice(None, None, s) for s in step)]))
    if small is None or not small.any():
        return None
    if small.sum() * np.prod(step) * abs(np.linalg.det(affine[:3, :3])) / 1000 > LARGEST_BRAIN_ML:
        return None
    filled = np.zeros(inside.shape, bool)
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    filled[box] = ndimage.binary_fill_holes(_largest(inside[box]))
    return filled


def brain_mask(
    scan: Scan, own: Bool[np.ndarray, "x y z"] | None, grid: Grid, space_to_world: Affine, mni_to_world: Affine | None
) -> tuple[Bool[np.ndarray, "i j k"], MaskSource]:
    """The brain on `grid`: the supplied mask, else the stripped scan's own region, else the template's.

    Args:
      space_to_world: (4, 4) the grid's space mm -> world mm.
      mni_to_world: (4, 4) MNI305 mm -> world mm; needed for the template's mask only.

    Returns:
      grid.shape bool, and which of the three it is.
    """
    if scan.mask is not None:
        return mask_to_grid(scan.mask, scan.affine, grid, space_to_world), "supplied mask"
    if own is not None:
        return mask_to_grid(own, scan.affine, grid, space_to_world), "scan is already stripped"
    if mni_to_world is None:
        raise ValueError("the template's mask needs a registration")
    mask, affine = template_mask()
    return mask_to_grid(mask, mni_to_world @ affine, grid, space_to_world), "template mask"


def strip(image: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    """The image with everything outside the mask set to 0 (Weatheritt et al., section 2, OAS-C)."""
    return np.where(mask, image, np.float32(0))
