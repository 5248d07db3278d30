"""Example slices: the image, the truth and what each model makes of it (Figs. 11 to 13 of Wang & Tang 2020)."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from tlseg_jax.evaluate.inference import THRESHOLD
from tlseg_jax.figures.contours import bare_axes, label_axes, outline
from tlseg_jax.figures.style import STYLE, save_figure

MAP = "magma"
"""Even steps of probability look even, and grow lighter in print."""

TRUTH_LINE, FOUND_LINE = "#ffffff", "#56d7ff"

PANEL = 1.5
"""Width of a panel in inches."""


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleCase:
    """One slice to draw.

    Attributes:
      title: what the row shows, such as "volume-33, z = 41".
      image: any intensity; RAS axes, so x grows to the subject's right and y to the front.
      truth: where the structure is.
      probability: of each model, 0 to 1.
      spacing: sides of a pixel on x and y in mm.
    """

    title: str
    image: Float[np.ndarray, "x y"]
    truth: Bool[np.ndarray, "x y"]
    probability: Mapping[str, Float[np.ndarray, "x y"]]
    spacing: tuple[float, float]


def draw_examples(cases: Sequence[ExampleCase], path: Path, *, heading: str = "", mark: str = "") -> None:
    """Draw the slices, one a row, and write a PNG.

    Columns: the image, the truth, then the probability of each model with the outline at 0.5 and the
    truth's. The slice's Dice at 0.5 stands below each. Seen from below as radiologists do: the subject's
    right is on the left, the front is up.
    """
    models = sorted({m for c in cases for m in c.probability})
    columns = ["image", "truth", *(f"model {m}" for m in models)]
    heights = [PANEL * _mm(c)[1] / _mm(c)[0] for c in cases]
    gap, name, dice, top, bottom, right = 0.05, 0.2, 0.17, 0.45 if heading else 0.22, 0.3, 0.55
    width = gap + len(columns) * (PANEL + gap) + right
    height = top + sum(h + name + dice for h in heights) + bottom
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        if heading:
            figure.text(gap / width, 1 - 0.06 / height, heading, fontsize=9, fontweight="bold", va="top")
        y = height - top
        for i, title in enumerate(columns):
            x = gap + i * (PANEL + gap) + PANEL / 2
            figure.text(x / width, (y + 0.05) / height, title, ha="center", va="bottom", fontweight="bold")
        for case, h in zip(cases, heights, strict=True):
            y -= name + h
            figure.text(gap / width, (y + h + 0.05) / height, case.title, va="bottom", fontsize=7)
            for i in range(len(columns)):
                x = gap + i * (PANEL + gap)
                if i >= 2 and models[i - 2] not in case.probability:
                    continue
                ax = figure.add_axes((x / width, y / height, PANEL / width, h / height))
                if i == 0:
                    _image(ax, case)
                elif i == 1:
                    _show(ax, case, case.truth, 0, 1, MAP)
                else:
                    p = case.probability[models[i - 2]]
                    _show(ax, case, p, 0, 1, MAP)
                    found = p > THRESHOLD
                    _edge(ax, case, case.truth, TRUTH_LINE, 0.7)
                    _edge(ax, case, found, FOUND_LINE, 0.9)
                    middle, below = (x + PANEL / 2) / width, (y - 0.03) / height
                    figure.text(middle, below, _dice(found, case.truth), ha="center", va="top", fontsize=7)
            y -= dice
        # As tall as the first row: a scale is read as well on a short bar as on a long one.
        below = height - top - name - heights[0]
        bar = figure.add_axes(((width - right + 0.08) / width, below / height, 0.09 / width, heights[0] / height))
        figure.colorbar(ScalarMappable(Normalize(0, 1), MAP), cax=bar, ticks=[0, 0.25, 0.5, 0.75, 1])
        bar.tick_params(labelsize=7, length=2)
        bar.set_title("prob.", fontsize=7)
        _legend(figure)
        save_figure(figure, path, mark=mark)


def _mm(case: ExampleCase) -> tuple[float, float]:
    return (case.image.shape[0] * case.spacing[0], case.image.shape[1] * case.spacing[1])


def _show(ax: Axes, case: ExampleCase, values: NDArray[Any], low: float, high: float, colours: str) -> None:
    w, h = _mm(case)
    ax.imshow(
        values.T.astype(np.float32),
        origin="lower",
        extent=(0, w, 0, h),
        cmap=colours,
        vmin=low,
        vmax=high,
        interpolation="nearest",
        aspect="equal",
    )
    ax.set_xlim(w, 0)  # the subject's right on the left
    ax.set_ylim(0, h)
    bare_axes(ax, "0.8")  # which is seen where a value is NaN


def _image(ax: Axes, case: ExampleCase) -> None:
    known = case.image[np.isfinite(case.image)].astype(np.float64)
    low, high = np.percentile(known, (1, 99.5)) if known.size else (0.0, 1.0)
    _show(ax, case, case.image, float(low), float(max(high, low + 1e-6)), "gray")
    label_axes(ax, 0.04, 0.5, "R", "left", "center")
    label_axes(ax, 0.96, 0.5, "L", "right", "center")


def _edge(ax: Axes, case: ExampleCase, mask: NDArray[np.bool_], colour: str, width: float) -> None:
    ax.add_collection(LineCollection(list(outline(mask, case.spacing)), colors=colour, linewidths=width))


def _dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> str:
    """The slice's Dice in words; there is none to speak of where neither mask has a pixel."""
    total = int(found.sum()) + int(truth.sum())
    if not total:
        return "nothing there, none marked"
    return f"Dice {2 * int((found & truth).sum()) / total:.2f}"


def _legend(figure: Figure) -> None:
    grey = withStroke(linewidth=3.4, foreground="0.4")
    handles = [
        Line2D([], [], color=FOUND_LINE, linewidth=2, label=f"model's outline at {THRESHOLD:g}"),
        Line2D([], [], color=TRUTH_LINE, linewidth=2, label="truth", path_effects=[grey]),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=2, fontsize=7, borderaxespad=0.2)
