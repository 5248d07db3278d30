"""The means of others beside a study's, as dashed lines: behind what is ours, told apart without colours."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

DASHES = ((6, 2), (1.5, 1.5), (8, 1.5, 1.5, 1.5), (3, 1.2, 1.2, 1.2, 1.2, 1.2))
GREYS = ("0.15", "0.55")
"""With the dashes as many as `studies.other_results.MOST`."""


@dataclasses.dataclass(frozen=True)
class OtherLine:
    """The mean IoU of one other on one test set; by its place among them, from 0, it looks the same in every figure."""

    name: str
    mean: float
    place: int

    @property
    def look(self) -> dict[str, Any]:
        """Of the line, as matplotlib takes it."""
        row, column = divmod(self.place, len(DASHES))
        return {"color": GREYS[row % len(GREYS)], "linestyle": (0, DASHES[column]), "linewidth": 1.1}


def draw_lines(ax: Axes, lines: Iterable[OtherLine], *, upright: bool = False) -> None:
    """Draw each through the whole panel, or `upright` where IoU runs across."""
    for line in lines:
        (ax.axvline if upright else ax.axhline)(line.mean, zorder=1, label=line.name, **line.look)


def line_handles(lines: Iterable[OtherLine]) -> list[Line2D]:
    """A legend's entries, one a name."""
    each = {line.place: line for line in lines}
    return [Line2D([], [], label=line.name, **line.look) for _, line in sorted(each.items())]
