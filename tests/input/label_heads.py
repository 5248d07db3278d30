"""Tiny whole-head label maps with FreeSurfer's values."""

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

WHITE, CORTEX, VENTRICLE, THALAMUS, CAUDATE = (2, 41), (3, 42), (4, 43), (10, 49), (11, 50)
FLUID, SCALP = 24, 511
VALUES = {0, *WHITE, *CORTEX, *VENTRICLE, *THALAMUS, *CAUDATE, FLUID, SCALP}


def label_head(side: int = 48, size: float = 1.0) -> NDArray[np.int16]:
    """A head of about `side` mm, its left side at low x: scalp, fluid, cortex, white matter, and three pairs inside."""
    x, y, z = np.indices((side,) * 3) - (side - 1) / 2
    unit = side / 48 * size

    def ball(radius: float, at: tuple[float, float, float] = (0, 0, 0), wide: float = 1.0) -> NDArray[np.bool_]:
        a, b, c = (v * unit for v in at)
        return ((np.abs(x) - a) / wide) ** 2 + (y - b) ** 2 + (z - c) ** 2 < (radius * unit) ** 2

    out = np.zeros((side,) * 3, np.int16)
    for mask, (left, right) in (
        (ball(22), (SCALP, SCALP)),
        (ball(19.5), (FLUID, FLUID)),
        (ball(18), CORTEX),
        (ball(14.5), WHITE),
        (ball(5, (5, 1, 4)), VENTRICLE),
        (ball(4, (8, 7, 4)), CAUDATE),
        (ball(4, (5, -6, -4)), THALAMUS),
    ):
        out[mask] = np.where(x < 0, left, right)[mask]
    return out


def write_heads(folder: Path, count: int = 3, mm: float = 1.0) -> Path:
    """Maps of some sizes in a new folder, voxels of so many mm, axes LIA as FreeSurfer's."""
    folder.mkdir()
    affine = np.array([[-1.0, 0, 0, 30], [0, 0, 1, -20], [0, -1, 0, 25], [0, 0, 0, 1]]) * [[mm], [mm], [mm], [1]]
    for i in range(count):
        ras = label_head(size=1 - 0.05 * i)
        nib.Nifti1Image(ras[::-1, :, ::-1].transpose(0, 2, 1), affine).to_filename(folder / f"seg_{i}.nii.gz")
    return folder
