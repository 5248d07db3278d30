"""Bland-Altman panels: the error of the predicted volume against the volume, a panel a method."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlseg_jax.figures.style import STYLE, MethodStyle
from tlseg_jax.report.stats.sweep_stats import VolumeAgreement
from tlseg_jax.report.words.study_words import counted

COLUMNS = 4


def draw_agreement(found: Sequence[VolumeAgreement], styles: Mapping[str, MethodStyle]) -> Figure:
    """Draw each method's persons, the bias and the limits of agreement with their 95% intervals as bands.

    The methods are drawn in this order on common axes.
    """
    columns = min(COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(0.7 + 2.1 * columns, 0.5 + 2.2 * rows), layout="constrained", facecolor="white")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for ax, one in zip(grid.ravel(), found, strict=False):
            _panel(ax, one, styles[one.method])
        for ax in grid.ravel()[len(found) :]:
            ax.set_visible(False)
        for ax in grid[:, 0]:
            ax.set_ylabel("predicted - reference [ml]")
        for i in range(columns):
            last = max(r for r in range(rows) if r * columns + i < len(found))
            grid[last, i].set_xlabel("mean of both [ml]")
            grid[last, i].tick_params(labelbottom=True)
    return figure


def _panel(ax: Axes, one: VolumeAgreement, style: MethodStyle) -> None:
    both = np.array(list(one.points.values()))
    ax.axhline(0, color="0.5", linewidth=0.6, zorder=0)
    ax.plot(both.mean(1), both[:, 1] - both[:, 0], linestyle="none", **style.dots | {"markersize": 4})
    if one.limits is not None:
        # The three lines may lie close together, so their numbers stand apart: beside, below and above.
        places = (
            (one.limits.bias, "-", 0, "bottom"),
            (one.limits.lower, "--", 1, "top"),
            (one.limits.upper, "--", 1, "bottom"),
        )
        for estimate, line, x, below in places:
            ax.axhline(estimate.value, color=style.colour, linewidth=1.1, linestyle=line, zorder=2)
            if estimate.low is not None and estimate.high is not None:
                ax.axhspan(estimate.low, estimate.high, color=style.colour, alpha=0.12, linewidth=0, zorder=1)
            ax.annotate(
                f"{estimate.value:+.2f}",
                (x, estimate.value),
                xycoords=("axes fraction", "data"),
                fontsize=6,
                ha="right" if x else "left",
                va=below,
            )
    ax.set_title(f"{one.method}, n = {one.n}\n{counted(len(both), 'person')}", fontsize=7.5)
