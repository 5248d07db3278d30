"""Bias-field correction: the slow change of brightness over a scan, divided out."""

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float32
from nibabel.affines import voxel_sizes

from tlseg_jax.geometry import Affine
from tlseg_jax.runtime.threads import one_itk_thread

WORKING_MM = 4.0
"""The field is estimated at about this spacing: it varies over centimetres."""

ITERATIONS = (25, 25, 25)
"""At most so many iterations at each of the levels, whose spline meshes double."""


def correct_bias(
    image: Float32[np.ndarray, "x y z"], affine: Affine, mask: Bool[np.ndarray, "x y z"]
) -> tuple[Float32[np.ndarray, "x y z"], Float32[np.ndarray, "x y z"]]:
    """Estimate the bias field and divide it out.

    The paper (section 3.2) uses N3 (Sled et al. 1998); this is its successor N4 (Tustison et al.
    2010) from SimpleITK, which fits the same model. The field is estimated on a shrunken copy and
    applied at the scan's own resolution.

    Args:
      image: (x, y, z); a volume with values below 0 is lifted to 0 for the estimate.
      affine: (4, 4) voxel -> mm.
      mask: (x, y, z) bool, the head or brain, where the estimate is made.

    Returns:
      The corrected image, (x, y, z) float32, of the same mean within the mask, and the field.
    """
    low = min(float(image.min()), 0.0)
    lifted = image - np.float32(low)
    step = [max(1, round(WORKING_MM / s)) for s in voxel_sizes(affine)]
    cut = tuple(slice(s // 2, None, s) for s in step)
    small, where = lifted[cut], (mask & (lifted > 0))[cut]
    if where.sum() < 100:  # nothing to estimate a field from
        return image, np.ones_like(image)
    spacing = [float(s * k) for s, k in zip(voxel_sizes(affine), step, strict=True)]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(ITERATIONS))
    n4.SetConvergenceThreshold(1e-3)
    inputs = []
    for volume in (small, where.astype(np.uint8)):
        itk = sitk.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0)))
        itk.SetSpacing(spacing)
        inputs.append(itk)
    with one_itk_thread():
        n4.Execute(*inputs)
        log_small = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(inputs[0])).transpose(2, 1, 0)
    log_field = _enlarge(log_small.astype(np.float32), image.shape, step)
    field = np.exp(log_field)
    corrected = lifted / field
    before, after = float(lifted[mask].mean()), float(corrected[mask].mean())
    field *= np.float32(after / before)
    return (lifted / field + np.float32(low)).astype(np.float32), field


def _enlarge(
    small: Float32[np.ndarray, "x y z"], shape: tuple[int, ...], step: list[int]
) -> Float32[np.ndarray, "i j k"]:
    """A smooth volume sampled every `step` voxels, on every voxel; continued flat past its border."""
    out = small
    for axis, (n, s) in enumerate(zip(shape, step, strict=True)):
        at = (np.arange(n) - s // 2) / s
        at = np.clip(at, 0, out.shape[axis] - 1)
        low = np.minimum(at.astype(int), max(out.shape[axis] - 2, 0))
        high = np.minimum(low + 1, out.shape[axis] - 1)
        weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        out = np.take(out, low, axis) * (1 - weight) + np.take(out, high, axis) * weight
    return out
