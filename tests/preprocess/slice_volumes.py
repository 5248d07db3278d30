"""Small volumes with labels, written as NIfTI files, for the tests of slices."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

AFFINE = np.array([[0.8, 0, 0, -20], [0, 0.9, 0, -30], [0, 0, 2.5, 10], [0, 0, 0, 1.0]])


def anatomy(
    shape: tuple[int, int, int] = (24, 20, 16), liver: tuple[int, int] = (4, 11), seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A CT in HU of a body in air, (x, y, z), and its labels: 1 in slices liver[0] to liver[1], 2 inside of it."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(shape)
    body = ((x - shape[0] / 2) / (shape[0] * 0.45)) ** 2 + ((y - shape[1] / 2) / (shape[1] * 0.45)) ** 2 < 1
    image = np.where(body, 30 + 10 * np.sin(x / 3 + y / 5 + z), -1000) + rng.normal(0, 5, shape)
    label = np.zeros(shape, np.uint8)
    label[5:15, 6:14, liver[0] : liver[1] + 1] = 1
    label[7:10, 8:11, (liver[0] + liver[1]) // 2] = 2
    return np.rint(image).astype(np.int16), label


def write_pair(
    folder: Path,
    name: str,
    image: NDArray[Any],
    label: NDArray[Any],
    affine: NDArray[Any] = AFFINE,
    end: str = ".nii.gz",
) -> None:
    """`volume-NAME` and `segmentation-NAME`, as LiTS has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("volume", image), ("segmentation", label)):
        nib.Nifti1Image(array, affine).to_filename(folder / f"{kind}-{name}{end}")
