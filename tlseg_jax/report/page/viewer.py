"""A scan with its truth and a prediction, to scroll through in the page (nilearn's viewer, self-contained).

Red is true positive, green false negative and blue false positive, as in the contour figures. Seen as
radiologists do: the subject's right is on the left.
"""

import base64
import dataclasses
import html
import re
import warnings
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from matplotlib.colors import ListedColormap
from nilearn.image import resample_img
from nilearn.plotting import view_img
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.figures.contours import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from tlseg_jax.geometry import Affine

CLASSES: Sequence[tuple[str, str]] = (
    ("true positive", TRUE_POSITIVE),
    ("false negative (missed)", FALSE_NEGATIVE),
    ("false positive", FALSE_POSITIVE),
)
"""Meaning and colour of the overlay's values 1, 2 and 3."""

MEANING = tuple(words for words, _ in CLASSES)

MAX_BYTES = 600_000
"""Of one viewer's HTML."""

VOXELS = 700_000
"""Tried first; fewer where the viewer comes out above `MAX_BYTES`."""

CLOSE_MM = 30.0
"""Room around both masks where the whole scan has too many voxels to be shown at its own size."""

COARSE = 1.5
"""How much larger voxels may become before the view comes closer instead."""

GREYS = 40
"""Levels of grey: no steps are seen between them, and they take half the bytes of 256."""

DIM = 0.3
"""How much darker than white the brightest voxels are: white matter would else be white all over."""

OPACITY = 0.6
"""Of the overlay, at first."""

STACK_SIDE = 1.0
"""Height in mm that a stack's slices are given in the viewer where they have no place along the body."""


@dataclasses.dataclass(frozen=True, eq=False)
class ViewerCase:
    """What to show.

    Attributes:
      title: such as "Worst of oas_c".
      caption: one or two sentences: whose, by which model, with which score.
      subject: name of the scan.
      image: (x, y, z), any intensity.
      reference: (x, y, z) bool.
      predicted: (x, y, z) bool.
      affine: (4, 4) voxel -> RAS mm; any orientation.
      stack: whether the z axis is a stack of slices that are no neighbours, whose order is all that is known.
      numbers: of a stack, the number of each slice in its volume; empty counts from 1.
      meaning: in words, where both masks are, where only the reference, and where only the prediction.
      note: what is said where the voxels are shown larger than they are.
    """

    title: str
    caption: str
    subject: str
    image: NDArray[np.floating]
    reference: Mask
    predicted: Mask
    affine: Affine
    stack: bool = False
    numbers: tuple[int, ...] = ()
    meaning: Sequence[str] = MEANING
    note: str = "the scores are of the voxels it was prepared with"

    def __post_init__(self) -> None:
        shapes = {self.image.shape, self.reference.shape, self.predicted.shape}
        if len(shapes) != 1 or self.image.ndim != 3:
            raise ValueError(f"the arrays of {self.subject} must be (x, y, z) of one shape, not {sorted(shapes)}")


@dataclasses.dataclass(frozen=True)
class Viewer:
    """A viewer for `write_page`.

    Attributes:
      title: of its heading.
      caption: plain sentences below it.
      subject: name of the scan.
      document: an HTML page of its own, for an iframe. Its global `tlsegBrain` is brainsprite's object.
      places: for each axial slice, from the feet up, what it is called, such as "z = 12 mm".
      start: sagittal, coronal and axial slice to show first; the sagittal ones count from the subject's right.
      key: meaning and colour of what is laid over the scan.
    """

    title: str
    caption: str
    subject: str
    document: str
    places: tuple[str, ...]
    start: tuple[int, int, int]
    key: Sequence[tuple[str, str]] = CLASSES


def make_viewer(case: ViewerCase) -> Viewer:
    """Make the viewer of a case: cropped, clipped to the 1st to 99.5th percentile, and small.

    The voxels are shown at their own size where that fits `MAX_BYTES`; else the view comes closer to the
    masks, then its voxels grow. The caption says so.

    Args:
      case: what to show.

    Raises:
      ValueError: the affine is singular.
    """
    case = _to_ras(case)
    voxels = float(VOXELS)
    while True:
        shown = _shrink(case, voxels)
        document = _document(shown)
        if len(document) <= MAX_BYTES:
            break
        voxels = min(voxels, float(np.prod(shown.image.shape))) * 0.9 * MAX_BYTES / len(document)
    return Viewer(
        case.title,
        f"{case.caption} {_size_note(case, shown)}".strip(),
        case.subject,
        document,
        _places(case, shown),
        _start(_classes(shown)),
        tuple((words, colour) for words, (_, colour) in zip(case.meaning, CLASSES, strict=True)),
    )


def _start(classes: NDArray[np.uint8]) -> tuple[int, int, int]:
    """The slices through most of both masks, in the viewer's order, which is mirrored on x."""
    x, y, z = (
        int(area.argmax()) if area.any() else len(area) // 2
        for area in ((classes > 0).sum(axes) for axes in ((1, 2), (0, 2), (0, 1)))
    )
    return (classes.shape[0] - 1 - x, y, z)


def _classes(case: ViewerCase) -> NDArray[np.uint8]:
    """1 where both masks are, 2 where only the reference, 3 where only the prediction."""
    found = np.zeros(case.image.shape, np.uint8)
    found[case.predicted & case.reference] = 1
    found[case.reference & ~case.predicted] = 2
    found[case.predicted & ~case.reference] = 3
    return found


def _to_ras(case: ViewerCase) -> ViewerCase:
    """Turned so that x runs to the right, y to the front and z up; a stack keeps its slices' order."""
    affine = np.asarray(case.affine, np.float64)
    turn = nib.orientations.io_orientation(affine)
    if np.isnan(turn).any():
        raise ValueError(f"the affine of {case.subject} is singular")
    if case.stack and (int(turn[2, 0]) != 2 or turn[2, 1] < 0):
        raise ValueError(f"the slices of {case.subject} must be stacked along z, upwards")
    image, reference, predicted = (
        nib.orientations.apply_orientation(v, turn) for v in (case.image, case.reference, case.predicted)
    )
    affine = affine @ nib.orientations.inv_ornt_aff(turn, case.image.shape)
    if case.stack:
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        affine = np.diag([sides[0], sides[1], STACK_SIDE, 1.0])
    return dataclasses.replace(
        case, image=image.astype(np.float32), reference=reference, predicted=predicted, affine=affine
    )


def _sides(case: ViewerCase) -> NDArray[np.float64]:
    return np.linalg.norm(case.affine[:3, :3], axis=0)


def _shrink(case: ViewerCase, voxels: float) -> ViewerCase:
    """Cropped and, where it must be, resampled to about `voxels` isotropic voxels; a stack keeps each slice."""
    sides = _sides(case)
    cropped = _crop(case, *_foreground(case))
    side = float(sides[:2].min() if case.stack else sides.min())
    if _count(cropped, side) > voxels * COARSE ** (2 if case.stack else 3):
        near = _near(case)
        if near is not None:
            low, high = _foreground(case)
            cropped = _crop(case, np.maximum(low, near[0]), np.minimum(high, near[1]))
    side *= max(1.0, (_count(cropped, side) / voxels) ** (1 / 2 if case.stack else 1 / 3))
    return _resample(cropped, side)


def _count(case: ViewerCase, side: float) -> float:
    """Voxels of this side that the field of view takes."""
    mm = _sides(case) * case.image.shape
    return float(np.prod(mm[:2] / side) * (case.image.shape[2] if case.stack else mm[2] / side))


def _foreground(case: ViewerCase) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and one past the last voxel of the largest bright thing, the head or body, and of both masks."""
    smooth = ndimage.uniform_filter(case.image, 3)
    low, high = np.percentile(smooth, (2, 98))
    parts, count = ndimage.label(smooth > low + 0.12 * (high - low))
    keep = case.reference | case.predicted
    if count:
        keep = keep | (parts == 1 + int(np.bincount(parts.ravel())[1:].argmax()))
    return _bounds(keep, 2, case.stack)


def _near(case: ViewerCase) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """The box of both masks with `CLOSE_MM` around; None where there is none."""
    both = case.reference | case.predicted
    if not both.any():
        return None
    at = np.argwhere(both)
    margin = np.ceil(CLOSE_MM / _sides(case)).astype(int)
    if case.stack:
        margin[2] = case.image.shape[2]
    return np.maximum(at.min(0) - margin, 0), np.minimum(at.max(0) + 1 + margin, case.image.shape)


def _bounds(mask: Mask, margin: int, stack: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
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
    return dataclasses.replace(
        case, image=case.image[part], reference=case.reference[part], predicted=case.predicted[part], affine=affine
    )


def _resample(case: ViewerCase, side: float) -> ViewerCase:
    """On a grid of `side` mm along RAS axes; of a stack only within the slices, which then count as `side` apart."""
    sides = _sides(case)
    target = np.array([side, side, sides[2] if case.stack else side])
    straight = np.abs(case.affine[:3, :3] - np.diag(sides)).max() < 1e-3 * side
    if straight and np.allclose(sides, target, rtol=1e-3):
        affine = np.diag([*target, 1.0])
        affine[:3, 3] = case.affine[:3, 3]
        found = dataclasses.replace(case, affine=affine)
    else:
        grown = target / sides
        blurred = ndimage.gaussian_filter(case.image, np.where(grown > 1.2, 0.4 * grown, 0))
        classes = _classes(case)
        image = _to_grid(blurred, case.affine, target, "linear")
        kept = np.rint(_to_grid(classes, case.affine, target, "nearest").get_fdata()).astype(np.uint8)
        found = dataclasses.replace(
            case,
            image=image.get_fdata(dtype=np.float32),
            reference=(kept == 1) | (kept == 2),
            predicted=(kept == 1) | (kept == 3),
            affine=image.affine,
        )
    if case.stack:
        affine = found.affine.copy()
        affine[2] = (0, 0, side, 0)
        found = dataclasses.replace(found, affine=affine)
    return found


def _to_grid(
    volume: NDArray[np.generic], affine: Affine, sides: NDArray[np.float64], interpolation: str
) -> nib.Nifti1Image:
    """The whole volume on axes parallel to RAS with voxels of these sides, outside filled with its lowest value."""
    corners = np.array(np.meshgrid(*[(-0.5, s - 0.5) for s in volume.shape], indexing="ij")).reshape(3, -1)
    mm = affine[:3, :3] @ corners + affine[:3, 3:]
    target = np.diag([*sides, 1.0])
    target[:3, 3] = mm.min(1) + sides / 2
    shape = tuple(int(n) for n in np.maximum(np.rint((mm.max(1) - mm.min(1)) / sides), 1))
    source = nib.Nifti1Image(volume.astype(np.float32), affine)
    return resample_img(
        source, target, shape, interpolation, fill_value=float(volume.min()), copy_header=True, force_resample=True
    )


def _document(case: ViewerCase) -> str:
    """Nilearn's page, with no address in it and its viewer reachable from outside."""
    low, high = np.percentile(case.image, (1, 99.5))
    spread = max(float(high - low), 1e-6)
    grey = np.rint(np.clip((case.image - low) / spread, 0, 1) * (GREYS - 1))
    affine = np.diag([*[_sides(case)[0]] * 3, 1.0])  # exactly isotropic: nilearn has nothing to resample
    overlay = nib.Nifti1Image(_classes(case).astype(np.float32), affine)
    with warnings.catch_warnings():
        # An overlay without a voxel below the threshold, or without one above it, is what it is.
        warnings.simplefilter("ignore", UserWarning)
        colours = ListedColormap([c for _, c in CLASSES], "errors").with_extremes(under=(0, 0, 0, 0))
        page = view_img(
            overlay,
            nib.Nifti1Image(grey.astype(np.float32), affine),
            cut_coords=(0, 0, 0),
            threshold=0.5,
            annotate=False,
            black_bg=True,
            cmap=colours,
            symmetric_cmap=False,
            dim=DIM,
            vmin=0.5,
            vmax=3.5,
            resampling_interpolation="nearest",
            opacity=OPACITY,
            radiological=True,
            title=None,
        ).html
    return reachable(page)


STYLE = (
    "<style>html,body{margin:0;background:#000}canvas{display:block}.hidden{display:none}"
    "body>div>div{display:none!important}</style>"
)
"""Black to the edge; nilearn's own slider is left out, as the page has one."""


def reachable(page: str) -> str:
    """Nilearn's page without its link to an icon on a server, and with brainsprite's object as `tlsegBrain`.

    Raises:
      RuntimeError: this version of nilearn starts its viewer in another way.
    """
    page = re.sub(r"<link\b[^>]*>", "", page)
    page, found = re.subn(r"\bbrain\s*=\s*brainsprite\(", "brain = window.tlsegBrain = brainsprite(", page)
    if found != 1 or "</head>" not in page:
        raise RuntimeError("nilearn's viewer starts in another way than in versions 0.12 to 0.14: pin nilearn to one")
    return page.replace("</head>", STYLE + "</head>", 1)


def _places(case: ViewerCase, shown: ViewerCase) -> tuple[str, ...]:
    count = shown.image.shape[2]
    if case.stack:
        numbers = case.numbers or tuple(range(1, count + 1))
        return tuple(f"slice {n} ({i} of {count})" for i, n in enumerate(numbers, 1))
    x, y = (shown.image.shape[0] - 1) / 2, (shown.image.shape[1] - 1) / 2
    mm = [float((shown.affine @ [x, y, k, 1])[2]) for k in range(count)]
    return tuple(f"z = {z:.0f} mm ({i} of {count})" for i, z in enumerate(mm, 1))


def _size_note(case: ViewerCase, shown: ViewerCase) -> str:
    here = _sides(shown)[0]
    own = _sides(case)
    if here > 1.02 * (own[:2].min() if case.stack else own.min()):
        note = f"Shown with voxels of {here:.3g} mm; {case.note}."
    else:
        note = ""
    return f"{note} The slices are no neighbours, so only the axial view is a picture.".strip() if case.stack else note


def srcdoc(viewer: Viewer) -> str:
    """The document as an attribute's value."""
    return html.escape(viewer.document, quote=True)


def png_parts(document: str) -> list[bytes]:
    """The PNG images inside a viewer's document, in order: scan, colours, overlay."""
    return [base64.b64decode(m) for m in re.findall(r'"data:image/png;base64,([^"]+)"', document)]
