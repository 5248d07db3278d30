"""Learning curves: each method's mean IoU over n and the power law that was fitted to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlseg_jax.figures.method_style import MethodStyle
from tlseg_jax.figures.png import STYLE, save_figure
from tlseg_jax.report.figures.other_lines import OtherLine, draw_lines, line_handles
from tlseg_jax.report.figures.sweep_figures import legend_below, number_axis
from tlseg_jax.report.stats.learning_fit import LearningCurve, NoCurve
from tlseg_jax.report.stats.sweep_stats import Score

Fits = Mapping[str, LearningCurve | NoCurve]
"""Method -> fit on one test set."""


def draw_learning_curves(
    panels: Mapping[str, tuple[Sequence[Score], Fits]],
    styles: Mapping[str, MethodStyle],
    path: Path,
    *,
    others: Mapping[str, Sequence[OtherLine]] | None = None,
    heading: str = "",
    mark: str = "",
) -> None:
    """Draw mean IoU over n with the fitted curves and their pointwise 95% intervals, a panel a test set.

    A method without a fit has its points alone. Curves end where the numbers tried do.

    Args:
      panels: title -> scores of one test set and the fits by method.
      styles, path, others, heading, mark: see `sweep_figures.draw_means`.
    """
    every = [s for scores, _ in panels.values() for s in scores]
    methods = [m for m in styles if any(s.method == m for s in every)]
    lines = [o for of_panel in (others or {}).values() for o in of_panel]
    with rc_context(STYLE):
        figure = Figure(figsize=(max(4.6, 3.5 * len(panels) + 0.6), 3.4), layout="constrained", facecolor="white")
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (title, (scores, fits)) in zip(row, panels.items(), strict=True):
            numbers = sorted({s.n for s in scores})
            for m in methods:
                own = [s for s in scores if s.method == m]
                if own:
                    _curve(ax, own, fits.get(m), styles[m])
            draw_lines(ax, (others or {}).get(title, ()))
            number_axis(ax, numbers)
            ax.set_title(title, fontsize=8)
        low = min([*(v for s in every for v in (s.mean, *s.interval.values)), *(o.mean for o in lines)])
        row[0].set_ylim(max(-0.02, np.floor((low - 0.05) * 10) / 10), 1.02)
        row[0].set_ylabel("mean IoU of persons")
        legend_below(figure, [*(styles[m].handle(m) for m in methods), *line_handles(lines)])
        save_figure(figure, path, heading=heading, mark=mark)


def _curve(ax: Axes, scores: Sequence[Score], fit: LearningCurve | NoCurve | None, style: MethodStyle) -> None:
    if isinstance(fit, LearningCurve):
        x = np.geomspace(fit.n[0], fit.n[-1], 120)
        ax.plot(x, fit.at(x), color=style.colour, linewidth=1.2, zorder=2)
        band = fit.band(x)
        if band is not None:
            ax.fill_between(x, *band, color=style.colour, alpha=0.13, linewidth=0, zorder=1)
    for s in scores:
        each = s.interval.values
        ax.plot([s.n] * len(each), each, color=style.colour, marker=".", markersize=3, linestyle="none", alpha=0.4)
    ax.plot([s.n for s in scores], [s.mean for s in scores], linestyle="none", **style.dots)
