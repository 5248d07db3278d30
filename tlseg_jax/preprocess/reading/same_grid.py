"""Whether a label map or mask lies on its image's voxels, in whatever order its file has them."""

from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped
from nibabel.orientations import apply_orientation

from tlseg_jax.geometry import turned_grid
from tlseg_jax.preprocess.reading.header import Header, read_header
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.reading.scan_file import fault

_CORNER_MM = 1e-3

OFF_GRID = 0.05
"""Part of a voxel by which a label map's grid may be off its image's: no outline is drawn that well."""

Turn = Float[np.ndarray, "3 2"]
"""As nibabel has it: the image's axis that each axis of the file lies along, and -1 where it runs backwards."""


def turn_onto(image: Header, other: Header) -> Turn:
    """How a file's axes must be reordered and reversed to run as its image's do.

    Converters reverse axes, as dcm2niix does with DICOM's rows: the voxels are the same, in another order.
    """
    return np.asarray(nib.io_orientation(np.linalg.inv(image.affine) @ other.affine))


def turned(array: Shaped[np.ndarray, "i j k"], turn: Turn) -> Shaped[np.ndarray, "x y z"]:
    """A file's voxels on its image's axes; a view, and itself where nothing is to be turned."""
    return array if _stays(turn) else np.asarray(apply_orientation(array, turn))


def read_others(files: ScanFiles, image: Header, single_slice: bool = False) -> tuple[dict[Path, Header], list[str]]:
    """The headers of a scan's label map and mask, checked to be on its voxels; and warnings, of which some are empty.

    Raises:
      ExclusionError: see `read_header` and `check_same_grid`.
    """
    others, warnings = {}, [image.warning]
    for path in (files.label, files.mask):
        if path is not None:
            others[path] = read_header(path, single_slice)
            warnings += [others[path].warning, check_same_grid(files.image, image, path, others[path])]
    return others, warnings


def check_same_grid(image_path: Path, image: Header, path: Path, other: Header) -> str:
    """Check that a label map or mask lies on its image's voxels, whichever way its axes run.

    Returns:
      A warning where a corner voxel is more than 0.001 mm and less than 5 % of a voxel off the image's; else empty.

    Raises:
      ExclusionError: the shapes differ, or a corner voxel is more than that off.
    """
    remedy = f"resample it to the grid of {image_path.name}"
    a, b = ("x".join(map(str, h.shape)) for h in (other, image))
    turn = turn_onto(image, other)
    theirs = other.grid if _stays(turn) else turned_grid(other.grid, turn)
    if theirs.shape != image.shape:
        raise fault(path, f"has {a} voxels and its image has {b}", remedy)
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in image.shape], [1], indexing="ij"), -1).reshape(-1, 4)
    apart = float(np.linalg.norm(corners @ (theirs.affine - image.affine).T, axis=1).max())
    if apart <= _CORNER_MM:
        return ""
    in_voxels = corners @ (np.linalg.inv(image.affine) @ theirs.affine - np.eye(4)).T
    off = float(np.linalg.norm(in_voxels, axis=1).max())
    what = f"lies up to {apart:.3g} mm away from its image"
    if off >= OFF_GRID:
        raise fault(path, f"{what} (another affine)", remedy)
    return f"{path} {what}, {off:.2%} of a voxel: it is taken to be on the image's voxels."


def _stays(turn: Turn) -> bool:
    return np.array_equal(turn, [[0, 1], [1, 1], [2, 1]])
