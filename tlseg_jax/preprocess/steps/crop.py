"""The fixed patch: one box for all scans, around where the training structures are."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from tlseg_jax.geometry import Box


def centre_of_mass(label: Bool[np.ndarray, "x y z"]) -> tuple[float, float, float]:
    """Mean voxel coordinates of a label (x, y, z) that is not empty."""
    x, y, z = ndimage.center_of_mass(label)
    return (float(x), float(y), float(z))


def tight_box(label: Bool[np.ndarray, "x y z"]) -> Box:
    """The smallest box that holds a label (x, y, z) that is not empty."""
    (found,) = ndimage.find_objects(label.astype(np.uint8))
    a, b, c = found
    return Box((a.start, b.start, c.start), (a.stop - a.start, b.stop - b.start, c.stop - c.start))


def patch_box(
    centres: Sequence[tuple[float, float, float]], patch_size: tuple[int, int, int], dimensions: tuple[int, int, int]
) -> Box:
    """The box "around the centre of mass of the training segmentations" (Weatheritt et al., section 3.2).

    Args:
      centres: centre of mass of each training label, in voxels of the grid.
      dimensions: voxels of the grid; a box that fits into it is moved inside where it would reach out.
    """
    x, y, z = np.mean(np.asarray(centres, float), axis=0)
    box = Box.centred((float(x), float(y), float(z)), patch_size)
    start = [min(max(a, 0), d - s) if s <= d else a for a, s, d in zip(box.start, patch_size, dimensions, strict=True)]
    return Box((start[0], start[1], start[2]), patch_size)


def encloses(box: Box, inner: Box) -> bool:
    """Whether `inner` lies wholly inside `box`."""
    return all(a <= b for a, b in zip(box.start, inner.start, strict=True)) and all(
        a >= b for a, b in zip(box.stop, inner.stop, strict=True)
    )


def lost_voxels(label: Bool[np.ndarray, "x y z"], box: Box) -> int:
    """How many voxels of a label (x, y, z) lie outside `box`."""
    inside = tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(box.start, box.stop, strict=True))
    return int(label.sum()) - int(label[inside].sum())


def box_warning(lost: Mapping[str, tuple[int, int]], patch_size: tuple[int, int, int]) -> str:
    """One sentence naming the subjects that the box cuts.

    Args:
      lost: subject -> voxels outside the box, voxels in all.
    """
    names = ", ".join(f"{s} ({a} of {b} voxels)" for s, (a, b) in lost.items())
    size = "x".join(map(str, patch_size))
    return (
        f"The {size} patch does not hold the whole label of {len(lost)} training subject(s): {names}; "
        "check their registration and labels, or give the data set a larger patch_size."
    )
