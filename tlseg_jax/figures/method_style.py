"""How methods look in every figure: a colour, a marker and a hatch each, told apart in grey print too."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
