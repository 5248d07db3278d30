"""How figures look: without any global state, written whole or not at all, and each method the same in all of them.

A method has a colour, a marker and a hatch, told apart in grey print too.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tlseg_jax.runtime.files import replacing

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "hatch.linewidth": 0.4,
}
"""Matplotlib settings to draw under: `with rc_context(STYLE): ...`."""

DPI = 200


def save_png(figure: Figure, path: Path, *, heading: str = "", mark: str = "") -> None:
    """Write `figure` whole or not at all, and make its folder.

    Args:
      figure: drawn under `STYLE`.
      path: the PNG file.
      heading: a line above.
      mark: a watermark, large and faint across the figure, such as "synthetic".
    """
    if heading:
        figure.suptitle(heading, fontsize=9, fontweight="bold", x=0.01, ha="left")
    if mark:
        figure.text(
            0.5, 0.5, mark, fontsize=44, color="0.55", alpha=0.3, rotation=24, ha="center", va="center", zorder=100
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with rc_context(STYLE), replacing(path, "wb") as f:
        figure.savefig(f, format="png", dpi=DPI)


def save_figure(figure: Figure, png: Path, *, heading: str = "", mark: str = "") -> None:
    """As `save_png`, and the same as SVG beside it; the same figure always gives the same bytes."""
    save_png(figure, png, heading=heading, mark=mark)
    with rc_context(STYLE | {"svg.hashsalt": "tlseg"}), replacing(png.with_suffix(".svg"), "wb") as f:
        figure.savefig(f, format="svg", metadata={"Date": None})


COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
"""Okabe & Ito's colours: blue, orange, green, vermillion, purple, sky, black."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 1.2)), (0, (1.5, 1)), (0, (6, 1, 1.5, 1)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "++++", "oooo")

MANY = 8
"""Methods that one figure can tell apart."""


@dataclasses.dataclass(frozen=True)
class MethodStyle:
    """Of one method."""

    colour: str
    marker: str
    hatch: str
    line: str | tuple[int, tuple[float, ...]] = "-"

    @property
    def dots(self) -> dict[str, Any]:
        """Of markers in front of lines, as matplotlib takes it."""
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
        return {"color": self.colour, "marker": self.marker, "markersize": 4.5, "zorder": 3, **edge}

    def handle(self, label: str) -> Line2D:
        """A legend's entry of lines and markers."""
        return Line2D([], [], color=self.colour, marker=self.marker, markersize=4, linewidth=1.2, label=label)

    def patch(self, label: str) -> Patch:
        """A legend's entry of boxes."""
        return Patch(facecolor=self.colour + "55", edgecolor=self.colour, hatch=self.hatch, label=label)


def style_methods(methods: Sequence[str]) -> dict[str, MethodStyle]:
    """Each method's style by its place in the study, so that it is the same in every figure.

    Beyond seven methods colours come again, with other markers.
    """
    return {
        m: MethodStyle(
            COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], HATCHES[i % len(HATCHES)], LINES[i % len(LINES)]
        )
        for i, m in enumerate(methods)
    }
