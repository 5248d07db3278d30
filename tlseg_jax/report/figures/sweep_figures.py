"""Figures of any sweep: IoU by number of labelled scans (the paper's Figs. 5 and 6), and the curves fitted to it.

The means of others are dashed lines behind what is ours, told apart without colours.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlseg_jax.figures.style import STYLE, MethodStyle
from tlseg_jax.report.stats.learning_fit import LearningCurve, NoCurve
from tlseg_jax.report.stats.sweep_stats import Score

FEW = 30
"""Persons up to which each is drawn as a point too."""


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


def draw_boxes(
    scores: Sequence[Score], styles: Mapping[str, MethodStyle], *, others: Sequence[OtherLine] = ()
) -> Figure:
    """Fig. 5: box plots of the persons' IoU, grouped by n, methods in the order of `styles`.

    A box holds the middle half of the persons, its line is the median, the whiskers reach the last person within
    1.5 box heights. Up to 30 persons are drawn as points as well, beyond that only those outside the whiskers.

    Args:
      scores: of one test set.
      styles: of all methods of the study; those without scores leave no gap.
      others: means to be drawn as lines.
    """
    methods = [m for m in styles if any(s.method == m for s in scores)]
    numbers = sorted({s.n for s in scores})
    step = 1 / (len(methods) + 1)
    with rc_context(STYLE):
        width = float(np.clip(1.0 + 0.24 * len(numbers) * (len(methods) + 1), 3.4, 11))
        figure = Figure(figsize=(width, 3.2), layout="constrained", facecolor="white")
        ax = figure.subplots()
        for s in scores:
            at = numbers.index(s.n) + (methods.index(s.method) - (len(methods) - 1) / 2) * step
            _box(ax, at, 0.8 * step, np.array(list(s.persons.values())), styles[s.method])
        for i in range(len(numbers) - 1):
            ax.axvline(i + 0.5, color="0.85", linewidth=0.6, zorder=0)
        ax.set_xlim(-0.5, len(numbers) - 0.5)
        ax.set_xticks(range(len(numbers)), [str(n) for n in numbers])
        ax.tick_params(axis="x", length=0)
        ax.set_xlabel("labelled scans, n")
        draw_lines(ax, others)
        _iou_axis(ax, [*(v for s in scores for v in s.persons.values()), *(o.mean for o in others)])
        ax.set_ylabel("IoU of a person")
        legend_below(figure, [*(styles[m].patch(m) for m in methods), *line_handles(others)])
    return figure


def _box(ax: Axes, at: float, width: float, values: np.ndarray, style: MethodStyle) -> None:
    line = {"color": style.colour, "linewidth": 0.9}
    few = len(values) <= FEW
    drawn = ax.boxplot(
        [values],
        positions=[at],
        widths=width,
        patch_artist=True,
        showfliers=not few,
        manage_ticks=False,
        boxprops={"facecolor": style.colour + "40", "edgecolor": style.colour, "linewidth": 0.8},
        medianprops={"color": style.colour, "linewidth": 1.8},
        whiskerprops=line,
        capprops=line,
        flierprops={"marker": style.marker, "markersize": 2, "markeredgecolor": style.colour, "markeredgewidth": 0.5},
    )
    for patch in drawn["boxes"]:
        patch.set_hatch(style.hatch)
    if few:
        # Side by side by rank, so that equal ones do not hide one another: the same picture each time.
        order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        x = at + width * 0.32 * ((order * 0.618) % 1 * 2 - 1)
        small = {"markersize": 2.6, "markeredgewidth": 0.3, "zorder": 4}
        ax.plot(x, values, linestyle="none", **style.dots | small)


def draw_means(
    panels: Mapping[str, Sequence[Score]],
    styles: Mapping[str, MethodStyle],
    *,
    others: Mapping[str, Sequence[OtherLine]] | None = None,
) -> Figure:
    """Fig. 6: mean IoU over persons by n with its 95% interval or the persons' own, a panel a test set.

    Args:
      panels: title -> scores of one test set.
      others: title -> means to be drawn as lines.
      styles: see `draw_boxes`.
    """
    every = [s for scores in panels.values() for s in scores]
    methods = [m for m in styles if any(s.method == m for s in every)]
    lines = [o for of_panel in (others or {}).values() for o in of_panel]
    with rc_context(STYLE):
        figure = Figure(figsize=(max(4.4, 3.4 * len(panels) + 0.6), 3.2), layout="constrained", facecolor="white")
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (title, scores) in zip(row, panels.items(), strict=True):
            for i, m in enumerate(methods):
                own = sorted((s for s in scores if s.method == m), key=lambda s: s.n)
                # Side by side, or intervals at the same n would hide one another.
                x = np.array([s.n for s in own]) * 2 ** (0.07 * (i - (len(methods) - 1) / 2))
                _means(ax, x, own, styles[m])
            draw_lines(ax, (others or {}).get(title, ()))
            number_axis(ax, sorted({s.n for s in scores}))
            ax.set_title(title, fontsize=8)
        shown = [v for s in every for v in (s.mean, s.interval.low, *s.interval.values) if v is not None]
        _iou_axis(figure.axes[0], [*shown, *(o.mean for o in lines)])
        figure.axes[0].set_ylabel("mean IoU of persons")
        legend_below(figure, [*(styles[m].handle(m) for m in methods), *line_handles(lines)])
    return figure


def _means(ax: Axes, x: np.ndarray, scores: Sequence[Score], style: MethodStyle) -> None:
    ax.plot(x, [s.mean for s in scores], linewidth=1.1, **style.dots)
    for at, s in zip(x, scores, strict=True):
        if s.interval.low is not None and s.interval.high is not None:
            span = [s.interval.low, s.interval.high]
            ax.plot([at, at], span, color=style.colour, linewidth=1.3, alpha=0.75, zorder=2)
        each = s.interval.values
        ax.plot([at] * len(each), each, color=style.colour, marker=".", markersize=3, linestyle="none", alpha=0.6)


def draw_many(scores: Sequence[Score], methods: Sequence[str], *, others: Sequence[OtherLine] = ()) -> Figure:
    """Mean IoU with its interval of more methods than colours tell apart: a line a method, a panel for each n.

    The methods are drawn from top to bottom; for the other arguments see `draw_boxes`.
    """
    there = [m for m in methods if any(s.method == m for s in scores)]
    numbers = sorted({s.n for s in scores})
    with rc_context(STYLE):
        figure = Figure(
            figsize=(min(2.6 + 2.0 * len(numbers), 11), 0.9 + 0.17 * (len(there) + len(others))),
            layout="constrained",
            facecolor="white",
        )
        row = figure.subplots(1, len(numbers), sharey=True, sharex=True, squeeze=False)[0]
        for ax, n in zip(row, numbers, strict=True):
            for s in scores:
                if s.n != n:
                    continue
                y = there.index(s.method)
                if s.interval.low is not None and s.interval.high is not None:
                    ax.plot([s.interval.low, s.interval.high], [y, y], color="#0072B2", linewidth=1.2, alpha=0.6)
                each = s.interval.values
                ax.plot(each, [y] * len(each), color="#0072B2", marker="|", markersize=4, linestyle="none", alpha=0.6)
                ax.plot(s.mean, y, color="#0072B2", marker="o", markersize=3.5)
            draw_lines(ax, others, upright=True)
            ax.set_title(f"n = {n}", fontsize=8)
            ax.grid(axis="both", linewidth=0.3, alpha=0.5)
            ax.set_ylim(len(there) - 0.5, -0.5)
            ax.set_yticks(range(len(there)), there, fontsize=6.5)
            ax.set_xlabel("mean IoU")
        legend_below(figure, line_handles(others))
    return figure


def number_axis(ax: Axes, numbers: Sequence[int]) -> None:
    """A logarithmic axis of numbers of labelled scans, marked at those that were tried."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(numbers), [str(n) for n in numbers])
    ax.minorticks_off()
    ax.set_xlim(min(numbers) / 1.35, max(numbers) * 1.35)
    ax.set_xlabel("labelled scans, n")
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    ax.set_axisbelow(True)


def _iou_axis(ax: Axes, values: Sequence[float]) -> None:
    ax.set_ylim(max(-0.02, np.floor((min(values) - 0.03) * 10) / 10), 1.02)
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    ax.set_axisbelow(True)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend in four columns, or as many fewer as the figure has room for; none without handles."""
    for columns in range(min(len(handles), 4), 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=7)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


Fits = Mapping[str, LearningCurve | NoCurve]
"""Method -> fit on one test set."""


def draw_learning_curves(
    panels: Mapping[str, tuple[Sequence[Score], Fits]],
    styles: Mapping[str, MethodStyle],
    *,
    others: Mapping[str, Sequence[OtherLine]] | None = None,
) -> Figure:
    """Draw mean IoU over n with the fitted curves and their pointwise 95% intervals, a panel a test set.

    A method without a fit has its points alone. Curves end where the numbers tried do.

    Args:
      panels: title -> scores of one test set and the fits by method.
      styles, others: see `draw_means`.
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
    return figure


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
