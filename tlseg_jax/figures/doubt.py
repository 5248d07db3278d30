"""One scan in three planes through its most doubtful place: outlines of the label map, and where passes disagree."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Num
from matplotlib import colormaps, rc_context
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.figures.contours import outline
from tlseg_jax.figures.style import STYLE, save_png
from tlseg_jax.geometry import Affine, Grid, canonical_grid

FAINTEST = 0.05
"""Share of the passes that disagree below which nothing is shown."""

ROW_INCHES = 2.3

AROUND_MM = 25.0
"""Room around the label map and its doubt."""


@dataclasses.dataclass(frozen=True, eq=False)
class DoubtCase:
    """A scan to draw.

    Attributes:
      title: one line above its row.
      image: (x, y, z), any intensity.
      label: (x, y, z) values, 0 for none.
      doubt: (x, y, z) share of the passes that say otherwise.
      affine: (4, 4) voxel -> RAS mm.
    """

    title: str
    image: Num[np.ndarray, "x y z"]
    label: Num[np.ndarray, "x y z"]
    doubt: Float[np.ndarray, "x y z"]
    affine: Affine


def draw_doubt(cases: Sequence[DoubtCase], path: Path) -> None:
    """Draw the cases, one a row, axial, coronal and sagittal, and write a PNG; the subject's right is on the left."""
    width, name, bottom = 3 * ROW_INCHES, 0.24, 0.3
    height = len(cases) * (ROW_INCHES + name) + bottom
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        for row, case in enumerate(cases):
            top = height - row * (ROW_INCHES + name)
            figure.text(0.06 / width, (top - 0.06) / height, case.title, va="top", fontweight="bold")
            for column, (grey, label, doubt, sides) in enumerate(_planes(case)):
                box = (column * ROW_INCHES, top - name - ROW_INCHES + 0.04, ROW_INCHES - 0.04, ROW_INCHES - 0.04)
                axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
                axes.set_facecolor("black")
                axes.set_xticks([])
                axes.set_yticks([])
                extent = (0.0, sides[0], 0.0, sides[1])
                axes.imshow(grey, cmap="gray", origin="lower", extent=extent, interpolation="nearest", vmin=0, vmax=1)
                heat = colormaps["autumn"](np.clip(doubt / 0.5, 0, 1))
                heat[..., 3] = np.where(doubt > FAINTEST, 0.75, 0)
                axes.imshow(heat, origin="lower", extent=extent, interpolation="nearest")
                edges = outline(label.T, (sides[0] / label.shape[1], sides[1] / label.shape[0]))
                axes.add_collection(LineCollection(list(edges), colors=(0.35, 0.85, 1.0, 0.9), linewidths=0.9))
                axes.set_aspect("equal")
        figure.text(
            0.06 / width,
            0.1 / height,
            "blue: outline of the label map; red to yellow: from few to half of the passes and more say otherwise",
        )
        save_png(figure, path)


def _planes(case: DoubtCase) -> list[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float32], list[float]]]:
    """Grey values 0 to 1, label, doubt and the sides in mm of three planes, cropped to the head."""
    turn = nib.orientations.io_orientation(case.affine)
    image, label, doubt = (nib.orientations.apply_orientation(v, turn) for v in (case.image, case.label, case.doubt))
    spacing = canonical_grid(Grid(case.image.shape, case.affine)).spacing
    low, high = np.percentile(image, (1, 99.5))
    grey = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    # A lone voxel of doubt is everywhere along an outline; a patch of it is a place to look at.
    wide = ndimage.uniform_filter(doubt.astype(np.float32), 5)
    where = np.unravel_index(int(wide.argmax()), wide.shape) if wide.any() else tuple(s // 2 for s in wide.shape)
    if not wide.any() and (label > 0).any():
        where = tuple(int(np.median(i)) for i in np.nonzero(label))
    box = _around((label > 0) | (doubt > FAINTEST), spacing)
    grey, label, doubt = grey[box], label[box], doubt[box]
    where = tuple(min(max(int(w) - b.start, 0), b.stop - b.start - 1) for w, b in zip(where, box, strict=True))
    out = []
    for axis, (across, up) in ((2, (0, 1)), (1, (0, 2)), (0, (1, 2))):
        cut = [np.take(v, where[axis], axis).T for v in (grey, label, doubt)]
        if across == 0:
            cut = [c[:, ::-1] for c in cut]  # as radiologists do
        sides = [cut[0].shape[1] * spacing[across], cut[0].shape[0] * spacing[up]]
        out.append((cut[0], cut[1].astype(np.int64), cut[2], sides))
    return out


def _around(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> tuple[slice, ...]:
    """The box of a mask with room; everything where it is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return tuple(slice(0, n) for n in mask.shape)
    room = [round(AROUND_MM / s) for s in spacing]
    return tuple(
        slice(max(s.start - r, 0), min(s.stop + r, n)) for s, r, n in zip(found[0], room, mask.shape, strict=True)
    )
