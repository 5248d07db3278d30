"""A scan with truth and prediction laid over it, to look through in the page with NiiVue.

Here is what goes into the page: the voxels, as NIfTI files, and a picture of the three planes, which is shown until
NiiVue has started, on paper, and where a browser cannot start it. Red is true positive, green false negative and blue
false positive, as in the contour figures. Seen as radiologists do: the subject's right is on the left.
"""

import base64
import dataclasses
import gzip
import io
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.figures.contours import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from tlseg_jax.geometry import Affine, Grid, turned_grid

COLOURS = (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE)
"""Of the overlay's values 1, 2 and 3."""

MEANING = ("true positive", "false negative (missed)", "false positive")

SWITCHES: Sequence[tuple[str, tuple[int, ...]]] = (("truth", (1, 2)), ("prediction", (1, 3)))
"""What a reader switches on and off, and the overlay's values that it has."""

MAX_BYTES = 1_400_000
"""Of one scan in the page, as text: six of them, NiiVue and the figures stay below 15 MB."""

CLOSE_MM = 30.0
"""Room around the overlay where the whole scan has too many voxels to be shown at its own size."""

COARSE = 1.5
"""How much larger voxels may become before the view comes closer instead."""

GREYS = 64
"""Levels of grey: no steps are seen between them, and they take much less than 256."""

OPACITY = 0.6
"""Of the overlay, at first."""

STILL = 240
"""Pixels of the picture's height, at most."""

AXES = ("sagittal", "coronal", "axial")
"""Planes of constant x, y and z."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """What is laid over a scan.

    Attributes:
      name: of the structure; one of several is chosen from tabs.
      caption: one or two sentences: by which model, with which score.
      classes: (x, y, z), 0 where there is nothing, else the values of `MEANING`; see `compared`.
    """

    name: str
    caption: str
    classes: NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class ViewerCase:
    """What to show.

    Attributes:
      title: such as "Worst of oas_c".
      subject: name of the scan.
      image: (x, y, z), any intensity.
      affine: (4, 4) voxel -> RAS mm; any orientation.
      layers: one or more; the first is shown first.
      stack: whether the z axis is a stack of slices that are no neighbours, whose order is all that is known.
      numbers: of a stack, the number of each slice in its volume; empty counts from 1.
      meaning: of the overlay's values, in words.
      switches: what can be switched on and off, with the values that it has.
      note: what is said where the voxels are shown larger than they are.
    """

    title: str
    subject: str
    image: NDArray[np.floating]
    affine: Affine
    layers: tuple[Layer, ...]
    stack: bool = False
    numbers: tuple[int, ...] = ()
    meaning: Sequence[str] = MEANING
    switches: Sequence[tuple[str, tuple[int, ...]]] = SWITCHES
    note: str = "the scores are of the voxels it was prepared with"


@dataclasses.dataclass(frozen=True)
class ShownLayer:
    """A `Layer` of a `Viewer`.

    Attributes:
      file: the classes as a gzipped NIfTI file, as text (base64).
      start: voxel through which the planes lie first.
    """

    name: str
    caption: str
    file: str
    start: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Viewer:
    """A viewer for a section of the page; what is not said here is as in `ViewerCase`.

    Attributes:
      note: a sentence on how the voxels are shown; "" where there is nothing to say.
      file: the scan as a gzipped NIfTI file, as text (base64), its axes turned to RAS.
      places: for each voxel along x, y and z what its plane is called, such as "z = 12 mm (3 of 40)".
      still: the planes through the first layer's start, as a PNG; of a stack the axial one alone.
      key: meaning and colour of the overlay's values.
    """

    title: str
    subject: str
    note: str
    file: str
    layers: tuple[ShownLayer, ...]
    places: tuple[tuple[str, ...], ...]
    still: bytes
    stack: bool
    key: Sequence[tuple[str, str]]
    switches: Sequence[tuple[str, tuple[int, ...]]]


def compared(reference: Mask, predicted: Mask) -> NDArray[np.uint8]:
    """1 where both masks are, 2 where only the reference, 3 where only the prediction; (x, y, z)."""
    return np.select([predicted & reference, reference, predicted], [1, 2, 3], 0).astype(np.uint8)


def make_viewer(case: ViewerCase) -> Viewer:
    """Make the viewer of a case: cropped, clipped to the 1st to 99.5th percentile, and small.

    The voxels are shown at their own size where that fits `MAX_BYTES`; else the view comes closer to the overlays,
    then the voxels grow. The note says so.

    Raises:
      ValueError: the affine is singular, or the slices of a stack do not lie along z, upwards.
    """
    case = _to_ras(case)
    own = side = _side(case)
    shown = whole = _near_enough(case)
    while len(file := _file(_greys(shown.image), shown.affine)) > MAX_BYTES:
        side *= 1.1
        shown = _coarser(whole, side)
    note = f"Shown with voxels of {side:.3g} mm; {case.note}." if side > own else ""
    if case.stack:
        note = f"{note} The slices are no neighbours, so only the axial view is a picture.".strip()
    return Viewer(
        case.title,
        case.subject,
        note,
        file,
        tuple(ShownLayer(x.name, x.caption, _file(x.classes, shown.affine), _start(x.classes)) for x in shown.layers),
        _places(shown),
        _still(shown),
        case.stack,
        tuple(zip(case.meaning, COLOURS, strict=True)),
        case.switches,
    )


def _side(case: ViewerCase) -> float:
    """The smallest side of a voxel in mm, of a stack within its slices."""
    return float(_sides(case)[: 2 if case.stack else 3].min())


def _sides(case: ViewerCase) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(case.affine[:3, :3], axis=0))


def _with(case: ViewerCase, affine: Affine, image: NDArray[np.floating], classes: Sequence[NDArray]) -> ViewerCase:
    layers = tuple(dataclasses.replace(x, classes=c) for x, c in zip(case.layers, classes, strict=True))
    return dataclasses.replace(case, affine=affine, image=image, layers=layers)


def _to_ras(case: ViewerCase) -> ViewerCase:
    """Turned so that x runs to the right, y to the front and z up; a stack keeps its slices' order."""
    affine = np.asarray(case.affine, np.float64)
    turn = nib.orientations.io_orientation(affine)
    if np.isnan(turn).any() or abs(np.linalg.det(affine)) < 1e-12:
        raise ValueError(f"the affine of {case.subject} is singular")
    if case.stack and (int(turn[2, 0]) != 2 or turn[2, 1] < 0):
        raise ValueError(f"the slices of {case.subject} must be stacked along z, upwards")

    def turned(volume: NDArray) -> NDArray:
        return np.ascontiguousarray(nib.orientations.apply_orientation(volume, turn))

    affine = turned_grid(Grid(case.image.shape, affine), turn).affine
    if case.stack:  # slices that are no neighbours have no place along the body
        affine = np.diag([*np.linalg.norm(affine[:3, :2], axis=0), 1.0, 1.0])
    return _with(case, affine, turned(case.image).astype(np.float32), [turned(x.classes) for x in case.layers])


def _near_enough(case: ViewerCase) -> ViewerCase:
    """Cropped at the head or body, and closer to the overlays where that would be far too large."""
    low, high = _foreground(case)
    whole = _crop(case, low, high)
    most = MAX_BYTES * COARSE ** (2 if case.stack else 3)
    marked = _marked(case)
    if not marked.any() or len(_file(_greys(whole.image), whole.affine)) <= most:
        return whole
    near = _bounds(marked, np.ceil(CLOSE_MM / _sides(case)).astype(int), case.stack)
    return _crop(case, np.maximum(low, near[0]), np.minimum(high, near[1]))


def _marked(case: ViewerCase) -> Mask:
    return np.asarray(np.any([x.classes > 0 for x in case.layers], axis=0))


def _foreground(case: ViewerCase) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and one past the last voxel of the largest bright thing, the head or body, and of all overlays."""
    smooth = ndimage.uniform_filter(case.image, 3)
    low, high = np.percentile(smooth, (2, 98))
    parts, count = ndimage.label(smooth > low + 0.12 * (high - low))
    keep = _marked(case)
    if count:
        keep = keep | (parts == 1 + int(np.bincount(parts.ravel())[1:].argmax()))
    return _bounds(keep, np.full(3, 2), case.stack)


def _bounds(mask: Mask, margin: NDArray[np.int_], stack: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    at = np.argwhere(mask)
    shape = np.array(mask.shape)
    low, high = (at.min(0) - margin, at.max(0) + 1 + margin) if len(at) else (0 * shape, shape)
    low, high = np.maximum(low, 0), np.minimum(high, shape)
    if stack:
        low[2], high[2] = 0, shape[2]
    return low, high


def _crop(case: ViewerCase, low: NDArray[np.intp], high: NDArray[np.intp]) -> ViewerCase:
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = case.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    return _with(case, affine, case.image[part], [x.classes[part] for x in case.layers])


def _coarser(case: ViewerCase, side: float) -> ViewerCase:
    """With voxels of `side` mm where theirs are smaller; of a stack only within the slices."""
    grown = np.maximum(side / _sides(case), 1.0)
    if case.stack:
        grown[2] = 1.0
    shape = np.maximum(np.rint(case.image.shape / grown), 1).astype(int)
    grown = case.image.shape / shape
    at = [(np.arange(n) + 0.5) * g - 0.5 for n, g in zip(shape, grown, strict=True)]
    blurred = ndimage.gaussian_filter(case.image, np.where(grown > 1.2, 0.4 * grown, 0))
    image = ndimage.map_coordinates(blurred, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    nearest = np.ix_(*[np.rint(a).astype(int) for a in at])
    affine = case.affine @ np.diag([*grown, 1.0])
    affine[:3, 3] += case.affine[:3, :3] @ ((grown - 1) / 2)
    return _with(case, affine, image, [x.classes[nearest] for x in case.layers])


def _greys(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """In `GREYS` levels up to 255, the same from the 99.5th percentile on."""
    low, high = np.percentile(image, (1, 99.5))
    level = np.rint(np.clip((image - low) / max(float(high - low), 1e-6), 0, 1) * (GREYS - 1))
    return (level * (255 // (GREYS - 1))).astype(np.uint8)


def _file(volume: NDArray[np.uint8], affine: Affine) -> str:
    plain = nib.Nifti1Image(volume, affine)
    return base64.b64encode(gzip.compress(plain.to_bytes(), 6, mtime=0)).decode("ascii")


def _start(classes: NDArray[np.uint8]) -> tuple[int, int, int]:
    """The planes through most of the overlay."""
    areas = [(classes > 0).sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (int(area.argmax()) if area.any() else len(area) // 2 for area in areas)
    return x, y, z


def _places(case: ViewerCase) -> tuple[tuple[str, ...], ...]:
    shape, found = case.image.shape, []
    for axis, name in enumerate("xyz"):
        middle = [(n - 1) / 2 for n in shape]
        each = []
        for k in range(shape[axis]):
            middle[axis] = k
            mm = float((case.affine @ [*middle, 1])[axis])
            each.append(f"{name} = {round(mm) + 0:d} mm ({k + 1} of {shape[axis]})")
        found.append(tuple(each))
    if case.stack:
        numbers = case.numbers or tuple(range(1, shape[2] + 1))
        found[2] = tuple(f"slice {n} ({i} of {shape[2]})" for i, n in enumerate(numbers, 1))
    return tuple(found)


def _still(case: ViewerCase) -> bytes:
    """The planes through the first layer's start side by side, as a PNG, with the right on the left."""
    sides, start, classes = _sides(case), _start(case.layers[0].classes), case.layers[0].classes
    grey = _greys(case.image)
    planes = []
    for axis in (2,) if case.stack else (2, 1, 0):
        across, up = (a for a in range(3) if a != axis)
        here = [slice(None)] * 3
        here[axis] = slice(start[axis], start[axis] + 1)
        rgb = np.repeat(np.squeeze(grey[tuple(here)], axis)[..., None], 3, -1).astype(np.float64)
        marked = np.squeeze(classes[tuple(here)], axis)
        for value, colour in enumerate(COLOURS, 1):
            tint = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
            rgb[marked == value] = (1 - OPACITY) * rgb[marked == value] + OPACITY * tint
        turned = np.rint(rgb).astype(np.uint8).swapaxes(0, 1)[::-1]
        if axis:
            turned = turned[:, ::-1]
        mm = sides[[across, up]] * marked.shape
        planes.append((Image.fromarray(np.ascontiguousarray(turned)), mm))
    scale = STILL / max(mm[1] for _, mm in planes)
    sizes = [(max(1, round(mm[0] * scale)), max(1, round(mm[1] * scale))) for _, mm in planes]
    sheet = Image.new("RGB", (sum(w for w, _ in sizes) + 4 * (len(sizes) - 1), STILL))
    left = 0
    for (plane, _), (width, height) in zip(planes, sizes, strict=True):
        grown = plane.resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(grown, (left, (STILL - height) // 2))
        left += width + 4
    out = io.BytesIO()
    sheet.quantize(128, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()
