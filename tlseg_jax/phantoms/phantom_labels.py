"""Who drew the label: a careful rater, or a program with a program's errors."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.ndimage import label as components

from tlseg_jax.phantoms.phantom_shapes import Floats, random_field

LabelQuality = Literal["exact", "manual", "automatic"]

RATER_MM = 0.15
"""How far a rater's outline strays from the boundary, one standard deviation."""


def draw_label(
    distance: Floats,
    along: Floats | None,
    points: Floats,
    spacing: tuple[float, float, float],
    quality: LabelQuality,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """The label map of a structure, (x, y, z) 0 or 1.

    An automatic label is smoothed, its boundary wanders by about a millimetre, it is a little too
    large or too small as a whole, its tail may be missing, and it leaks into a neighbour. None of
    this can be told from the image.

    Args:
      distance: (x, y, z) mm, signed distance to the structure.
      along: (x, y, z) position along a curved structure, 0 at its head and 1 at its tail, or None.
      points: (3, x, y, z) MNI305 mm.
      spacing: voxel size in mm.
    """
    if quality == "exact":
        return (distance < 0).astype(np.uint8)
    if quality == "manual":
        wander = random_field(rng, 5.0, 3.0)
        near = np.abs(distance) < 3 * RATER_MM
        out = distance < 0
        out[near] = distance[near] + RATER_MM * np.clip(wander.at(points[:, near]), -2.5, 2.5) < 0
        return _without_crumbs(out)
    wander = random_field(rng, 5.0, 3.0)
    amount = rng.uniform(0.3, 0.7)
    offset = np.clip(rng.normal(0.1, 0.2), -0.3, 0.6)
    cut = rng.uniform(0.55, 0.95)
    strength = rng.uniform(1.0, 2.8)
    picks = rng.random(3)
    edge = gaussian_filter(distance, 1.0 / np.array(spacing), truncate=3.0)
    near = np.abs(edge) < 5
    edge[near] += amount * np.clip(wander.at(points[:, near]), -3, 3) - offset
    if along is not None:
        edge = np.maximum(edge, np.where(along > cut, np.float32(1), np.float32(-1)) * 8)
    # Leaks: a few balls across the boundary.
    rim = np.argwhere(np.abs(edge) < 1)
    for pick in picks if len(rim) else ():
        centre = points[(slice(None), *rim[int(pick * len(rim))])]
        if along is not None:
            away = np.sqrt(((points - centre.reshape(3, 1, 1, 1)) ** 2).sum(0))
            edge = np.minimum(edge, away - np.float32(strength))
    return _without_crumbs(edge < 0)


def _without_crumbs(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The mask without parts smaller than a tenth of its largest."""
    parts, count = components(mask, np.ones((3, 3, 3)))
    if count < 2:
        return mask.astype(np.uint8)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= 0.1 * sizes.max())[parts].astype(np.uint8)
