"""Axial slices with the errors of a segmentation, in the colours of the paper's Fig. 4.

Red outlines what was found (true positive), green what was missed (false negative) and blue what was
marked wrongly (false positive), each with a light fill, as neighbouring regions share an edge. Outlines
follow the voxels' edges, so nothing is smoothed away. One row a subject: the whole slice for
orientation, then slices through the structure, all rows at one scale.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Float32, Num, Shaped
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from tlseg_jax.figures.style import STYLE, save_png
from tlseg_jax.geometry import Affine, Grid, canonical_grid

TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE = "#ff2a2a", "#21e321", "#3d8bff"
"""Red, green and blue as in Fig. 4 of Weatheritt et al. 2020, bright enough to be seen on grey."""

YELLOW = "#ffd23f"
"""Of what is none of the errors: the reference alone, and the frame of the close views."""

FILL = 0.22
"""Opacity of the fill."""

MARGIN_MM = 9.0
"""Room around the reference in the close views."""


@dataclasses.dataclass(frozen=True, eq=False)
class ContourCase:
    """One subject to draw.

    Attributes:
      title: what the row shows, such as "best".
      subject: name of the scan.
      iou: its score.
      image: any intensity.
      predicted: the mask to judge.
      reference: the right one.
      affine: voxel -> RAS mm; any orientation.
      voxel_ml: ml of the person in a voxel, which on a template's grid is not that of the affine; None takes the
        affine's.
      volumes_ml: of the prediction and of the reference, as scored; None counts voxels.
    """

    title: str
    subject: str
    iou: float
    image: Float[np.ndarray, "x y z"]
    predicted: Bool[np.ndarray, "x y z"]
    reference: Bool[np.ndarray, "x y z"]
    affine: Affine
    voxel_ml: float | None = None
    volumes_ml: tuple[float, float] | None = None


def pick_cases(scores: Mapping[str, float]) -> dict[str, str]:
    """Title -> subject for the best, median and worst score; fewer where there are fewer subjects.

    The median is a real subject: of an even number the lower of the middle two. Ties go by name.

    Args:
      scores: subject -> IoU.
    """
    order = sorted(scores, key=lambda s: (-scores[s], s))
    if not order:
        return {}
    if len(order) == 1:
        return {"only subject": order[0]}
    cases = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    if len(order) == 2:
        del cases["median"]
    return cases


def draw_contours(
    cases: Sequence[ContourCase], path: Path, *, slices: int = 4, heading: str = "", mark: str = ""
) -> None:
    """Draw the cases, one a row with so many close views, and write a PNG.

    Slices are axial, seen from below as radiologists do: the subject's right is on the left. They are
    spread evenly over the area of the reference and the prediction together.
    """
    views = [SliceView.of(case) for case in cases]
    window = (max(v.extent_mm[0] for v in views), max(v.extent_mm[1] for v in views))
    close_width, row_height = 1.62, 1.62 * window[1] / window[0]
    whole = [v.size_mm for v in views]
    whole_width = row_height * max(w / h for w, h in whole)
    name_width, gap, row_gap, top, bottom = 0.2, 0.05, 0.32, 0.2 if heading else 0.0, 0.3
    width = name_width + whole_width + slices * (close_width + gap) + gap
    height = top + len(cases) * (row_height + row_gap) + bottom
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        if heading:
            figure.text(gap / width, 1 - 0.08 / height, heading, fontsize=9, fontweight="bold", va="top")
        for row, view in enumerate(views):
            y = bottom + (len(cases) - 1 - row) * (row_height + row_gap)

            def axes(x: float, w: float, y: float = y) -> Axes:
                return figure.add_axes((x / width, y / height, w / width, row_height / height))

            figure.text(gap / width, (y + row_height + 0.06) / height, view.caption(window), va="bottom")
            chosen = view.pick(slices)
            whole_ax = axes(gap, whole_width)
            draw_slice(whole_ax, view, chosen[len(chosen) // 2])
            show_whole(whole_ax, view, window)
            for i, k in enumerate(chosen):
                x = gap + whole_width + gap + i * (close_width + gap)
                _draw_close(axes(x, close_width), view, k, window, first=row == 0 and i == 0)
        error_legend(figure)
        save_png(figure, path, mark=mark)


@dataclasses.dataclass(frozen=True, eq=False)
class SliceView:
    """A case turned to RAS axes, with what the drawing needs to know of it."""

    case: ContourCase
    image: Float32[np.ndarray, "x y z"]
    predicted: Bool[np.ndarray, "x y z"]
    reference: Bool[np.ndarray, "x y z"]
    affine: Affine
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, case: ContourCase) -> "SliceView":
        turn = nib.orientations.io_orientation(case.affine)
        image, predicted, reference = (
            nib.orientations.apply_orientation(v, turn) for v in (case.image, case.predicted, case.reference)
        )
        grid = canonical_grid(Grid(case.image.shape, case.affine))
        return cls(case, image.astype(np.float32), predicted, reference, grid.affine, grid.spacing)

    @property
    def voxel_ml(self) -> float:
        """Volume in ml of the person."""
        given = self.case.voxel_ml
        return Grid(self.image.shape, self.affine).voxel_ml if given is None else given

    @property
    def shown(self) -> Bool[np.ndarray, "x y z"]:
        """What the close views must hold: the reference, or the prediction where there is none."""
        return self.reference if self.reference.any() else self.predicted

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """First and last edge of `shown` on x and y in mm from the volume's corner."""
        out = []
        for axis in (0, 1):
            other = tuple(a for a in range(3) if a != axis)
            at = np.flatnonzero(self.shown.any(axis=other))
            lo, hi = (at[0], at[-1] + 1) if at.size else (0, self.image.shape[axis])
            out.append((float(lo * self.spacing[axis]), float(hi * self.spacing[axis])))
        return (out[0], out[1])

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Width and height of the close view that `shown` needs."""
        (a, b), (c, d) = self.bounds
        return (b - a + 2 * MARGIN_MM, d - c + 2 * MARGIN_MM)

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of a whole slice."""
        return (self.image.shape[0] * self.spacing[0], self.image.shape[1] * self.spacing[1])

    def frame(self, window: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
        """Limits on x and y, in mm from the volume's corner, of a close view of `window` mm."""
        (a, b), (c, d) = self.bounds
        x, y = (a + b) / 2, (c + d) / 2
        return ((x - window[0] / 2, x + window[0] / 2), (y - window[1] / 2, y + window[1] / 2))

    def caption(self, window: tuple[float, float]) -> str:
        """The line above the row; it owns up to predicted voxels that no close view of `window` mm can show."""
        counted = (float(self.predicted.sum()) * self.voxel_ml, float(self.reference.sum()) * self.voxel_ml)
        predicted, reference = self.case.volumes_ml or counted
        beyond = self.beyond_ml(window)
        title = self.case.title[:1].upper() + self.case.title[1:]
        return (
            f"{title}: {self.case.subject}, IoU {self.case.iou:.2f}, {predicted:.1f} ml predicted, "
            f"{reference:.1f} ml reference"
            + (f"; {beyond:.2f} ml predicted lie beyond the close views" if beyond else "")
        )

    def beyond_ml(self, window: tuple[float, float]) -> float:
        """Predicted volume in ml, of all slices, that lies beside a close view of `window` mm."""
        inside = tuple(
            slice(max(0, math.floor(lo / s)), max(0, math.ceil(hi / s)))
            for (lo, hi), s in zip(self.frame(window), self.spacing[:2], strict=True)
        )
        beyond = int(self.predicted.sum()) - int(self.predicted[inside].sum())
        return beyond * self.voxel_ml

    def pick(self, count: int) -> list[int]:
        """Up to `count` slices, from low to high, at equal shares of the area of both masks."""
        area = (self.predicted | self.reference).sum((0, 1)).astype(float)
        if not area.any():
            area[:] = 1
        share = np.cumsum(area) / area.sum()
        wanted = (np.arange(count) + 0.5) / count
        return sorted({int(np.searchsorted(share, w)) for w in wanted})

    def grey(self) -> tuple[float, float]:
        """Intensities for black and white: the head's own range, not that of bright vessels."""
        head = self.image[self.image > self.image.mean()]
        low = float(np.percentile(self.image, 2))
        return (low, float(np.percentile(head, 99.5)) if head.size else low + 1)

    def z_mm(self, k: int) -> float:
        """Height of slice `k` in mm at the middle of the slice."""
        x, y, _ = self.image.shape
        return float((self.affine @ [(x - 1) / 2, (y - 1) / 2, k, 1])[2])


HALO = [withStroke(linewidth=1.6, foreground="black")]
"""White text stays readable on white matter."""


def draw_slice(ax: Axes, view: SliceView, k: int) -> None:
    """Slice `k` with the errors in the paper's colours; axes are in mm from the volume's corner."""
    w, h = view.size_mm
    low, high = view.grey()
    ax.imshow(
        view.image[:, :, k].T,
        origin="lower",
        extent=(0, w, 0, h),
        cmap="gray",
        vmin=low,
        vmax=high,
        interpolation="nearest",
        aspect="equal",
    )
    p, r = view.predicted[:, :, k], view.reference[:, :, k]
    sides = (view.spacing[0], view.spacing[1])
    # Red comes last: it wins the edges that it shares, and the fill tells what lies beyond them.
    for mask, colour in ((p & ~r, FALSE_POSITIVE), (r & ~p, FALSE_NEGATIVE), (p & r, TRUE_POSITIVE)):
        fill = np.zeros((*mask.T.shape, 4))
        fill[mask.T] = to_rgba(colour, FILL)
        ax.imshow(fill, origin="lower", extent=(0, w, 0, h), interpolation="nearest", aspect="equal")
        ax.add_collection(LineCollection(list(outline(mask, sides)), colors=colour, linewidths=0.9))
    bare_axes(ax, "black")


def bare_axes(ax: Axes, background: str) -> None:
    """Without ticks and frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_facecolor(background)
    for spine in ax.spines.values():
        spine.set_visible(False)


def outline(mask: Shaped[np.ndarray, "x y"], sides: tuple[float, float]) -> Num[np.ndarray, "edges 2 2"]:
    """Every voxel edge between inside and outside, or between two values of a label map.

    Args:
      mask: of one slice, or its label map.
      sides: voxel sides on x and y in mm.

    Returns:
      The two ends of each edge, x and y in mm from the corner of voxel (0, 0).
    """
    padded = np.pad(mask, 1)
    i, j = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    k, m = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    across = np.stack([np.stack([i, j], 1), np.stack([i, j + 1], 1)], 1)
    along = np.stack([np.stack([k, m], 1), np.stack([k + 1, m], 1)], 1)
    return np.concatenate([across, along]) * np.array(sides)


def show_close(ax: Axes, view: SliceView, window: tuple[float, float]) -> None:
    """Let of a drawn slice be seen what lies in the close view of `window` mm."""
    (x0, x1), (y0, y1) = view.frame(window)
    ax.set_xlim(x1, x0)  # the subject's right on the left
    ax.set_ylim(y0, y1)


def _draw_close(ax: Axes, view: SliceView, k: int, window: tuple[float, float], first: bool) -> None:
    draw_slice(ax, view, k)
    show_close(ax, view, window)
    label_axes(ax, 0.03, 0.03, f"z = {view.z_mm(k):.0f} mm", "left", "bottom")
    if first:
        length = 10.0
        (x0, x1), (y0, y1) = view.frame(window)
        x, y = x0 + 0.06 * (x1 - x0), y0 + 0.06 * (y1 - y0)
        ax.plot([x, x + length], [y, y], color="white", linewidth=1.4, path_effects=HALO)
        ax.text(
            x + length / 2,
            y + 0.02 * (y1 - y0),
            "1 cm",
            color="white",
            fontsize=7,
            ha="center",
            va="bottom",
            path_effects=HALO,
        )


def show_whole(ax: Axes, view: SliceView, window: tuple[float, float]) -> None:
    """Let a drawn slice be seen whole, with its sides' letters and a frame around the structure."""
    w, h = view.size_mm
    ax.set_xlim(w, 0)
    ax.set_ylim(0, h)
    (x0, x1), (y0, y1) = view.frame(window)
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=YELLOW, linewidth=0.7))
    label_axes(ax, 0.03, 0.5, "R", "left", "center")
    label_axes(ax, 0.97, 0.5, "L", "right", "center")


def label_axes(ax: Axes, x: float, y: float, text: str, ha: str, va: str) -> None:
    """White text at a part of the axes, readable on white matter too."""
    ax.text(x, y, text, transform=ax.transAxes, color="white", fontsize=7, ha=ha, va=va, path_effects=HALO)


def error_legend(figure: Figure) -> None:
    """What the colours mean, below."""
    handles = [
        Line2D([], [], color=colour, linewidth=2, label=label)
        for colour, label in (
            (TRUE_POSITIVE, "true positive"),
            (FALSE_NEGATIVE, "false negative (missed)"),
            (FALSE_POSITIVE, "false positive"),
        )
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=7, borderaxespad=0.2)
