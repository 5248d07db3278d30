"""Fig. 4: one slice of one subject as every method segments it with every number of labelled scans."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tlseg_jax.evaluate.metrics import Mask, score
from tlseg_jax.figures.contours import (
    YELLOW,
    ContourCase,
    SliceView,
    bare_axes,
    draw_slice,
    error_legend,
    label_axes,
    outline,
    show_close,
    show_whole,
)
from tlseg_jax.figures.style import STYLE, save_figure
from tlseg_jax.report.figures.case_scans import CaseScan

PANEL = 1.25
"""Width of a panel in inches."""

LEAST_MM = 40.0
"""A small structure is not drawn larger than fits a window of this side."""


def draw_method_grid(
    masks: Mapping[tuple[str, int], Mask],
    scan: CaseScan,
    path: Path,
    *,
    methods: Sequence[str] = (),
    heading: str = "",
    mark: str = "",
) -> None:
    """Draw the axial slice where the reference is largest: a row a method, a column a number of labelled scans.

    The first column shows the reference (GT) and, below it, the whole slice. Colours are those of the paper's Fig. 4:
    red is found, green is missed, blue is marked wrongly. Each panel names the IoU of the whole volume, and the
    predicted volume that lies beside the view, if any. A method and n without a mask has an empty panel.

    Args:
      masks: (method, n) -> predicted mask (x, y, z) bool.
      scan: on the masks' grid.
      path: the PNG file; the SVG is written beside it.
      methods: from top to bottom; by default in the order of `masks`.
      heading, mark: see `save_png`.
    """
    names = [m for m in (methods or dict.fromkeys(m for m, _ in masks)) if any(m == key for key, _ in masks)]
    numbers = sorted({n for _, n in masks})
    views = {
        where: SliceView.of(ContourCase("", "", 0.0, scan.image, mask, scan.reference, scan.affine, scan.voxel_ml))
        for where, mask in masks.items()
    }
    first = next(iter(views.values()))
    k = int(np.argmax(first.shown.sum((0, 1))))
    window = _window(first)
    side, gap, left, top, bottom = PANEL * window[1] / window[0], 0.04, 0.22, 0.42 if heading else 0.2, 0.3
    rows = max(len(names), 2)
    width = left + (1 + len(numbers)) * (PANEL + gap)
    height = top + rows * (side + gap) + bottom
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")

        def axes(row: int, column: int) -> Axes:
            x, y = left + column * (PANEL + gap), height - top - (row + 1) * side - row * gap
            return figure.add_axes((x / width, y / height, PANEL / width, side / height))

        _reference(axes(0, 0), first, k, window)
        whole = axes(1, 0)
        _bare(whole, first, k)
        show_whole(whole, first, window)  # which is not stretched to the panels' shape
        for row, method in enumerate(names):
            y = height - top - row * (side + gap) - side / 2
            beside = (left / 2 / width, y / height)
            figure.text(*beside, method, rotation=90, fontsize=7, fontweight="bold", ha="center", va="center")
            for i, n in enumerate(numbers):
                ax = axes(row, i + 1)
                if row == 0:
                    ax.set_title(f"n = {n}", fontsize=8, pad=3)
                _panel(ax, views.get((method, n)), k, window)
        if heading:
            figure.text(0.04 / width, 1 - 0.06 / height, heading, fontsize=9, fontweight="bold", va="top")
        error_legend(figure)
        save_figure(figure, path, mark=mark)


def _window(view: SliceView) -> tuple[float, float]:
    """Width and height of the panels in mm: what holds the reference, not smaller than a small structure needs."""
    w, h = view.extent_mm
    return (max(w, LEAST_MM), max(h, LEAST_MM))


def _panel(ax: Axes, view: SliceView | None, k: int, window: tuple[float, float]) -> None:
    if view is None:
        bare_axes(ax, "0.93")
        ax.text(0.5, 0.5, "not there", transform=ax.transAxes, fontsize=6.5, color="0.35", ha="center", va="center")
        return
    draw_slice(ax, view, k)
    show_close(ax, view, window)
    found = score(view.predicted, view.reference, view.spacing)
    label_axes(ax, 0.03, 0.97, f"IoU {found.iou:.2f}", "left", "top")
    beyond = view.beyond_ml(window)
    if beyond:
        amount = f"{beyond:.2f}" if beyond >= 0.01 else "< 0.01"
        label_axes(ax, 0.03, 0.03, f"{amount} ml beside", "left", "bottom")


def _reference(ax: Axes, view: SliceView, k: int, window: tuple[float, float]) -> None:
    _bare(ax, view, k)
    edges = outline(view.reference[:, :, k], (view.spacing[0], view.spacing[1]))
    ax.add_collection(LineCollection(list(edges), colors=YELLOW, linewidths=1.0))
    show_close(ax, view, window)
    ax.set_title("GT", fontsize=8, pad=3)
    label_axes(ax, 0.03, 0.03, f"z = {view.z_mm(k):.0f} mm", "left", "bottom")


def _bare(ax: Axes, view: SliceView, k: int) -> None:
    """The slice without any mask."""
    nothing = np.zeros_like(view.reference)
    draw_slice(ax, dataclasses.replace(view, predicted=nothing, reference=nothing), k)
