"""Figures of any sweep: IoU by number of labelled scans (the paper's Figs. 5 and 6), and the curves fitted to it.

The means of others are dashed lines behind what is ours, told apart without colours.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlseg_jax.figures.style import STYLE, MethodStyle
from tlseg_jax.report.stats.learning_fit import LearningCurve, NoCurve
from tlseg_jax.report.stats.sweep_stats import OtherScore, Score, ScoredSet

FEW = 30
"""Persons up to which each is drawn as a point too."""


DASHES = ((6, 2), (1.5, 1.5), (8, 1.5, 1.5, 1.5), (3, 1.2, 1.2, 1.2, 1.2, 1.2))
GREYS = ("0.15", "0.55")
"""With the dashes as many as `studies.other_results.MOST`."""


def _look(other: OtherScore) -> dict[str, Any]:
    """Of its line, as matplotlib takes it; by its place among the others the same in every figure."""
    row, column = divmod(other.place, len(DASHES))
    colour, dashes = GREYS[row % len(GREYS)], (0, DASHES[column])
    return {"color": colour, "linestyle": dashes, "linewidth": 1.1, "label": other.name}


def _draw_others(ax: Axes, others: Sequence[OtherScore], *, upright: bool = False) -> None:
    """Draw each mean through the whole panel, or `upright` where IoU runs across."""
    for o in others:
        if o.score:
            (ax.axvline if upright else ax.axhline)(o.score.mean, zorder=1, **_look(o))


def _handles(others: Sequence[OtherScore]) -> list[Line2D]:
    """A legend's entries, one a name."""
    each = {o.place: o for o in others if o.score}
    return [Line2D([], [], **_look(o)) for _, o in sorted(each.items())]


def _means_of(others: Sequence[OtherScore]) -> list[float]:
    return [o.score.mean for o in others if o.score]


def draw_boxes(
    scores: Sequence[Score], styles: Mapping[str, MethodStyle], *, others: Sequence[OtherScore] = ()
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
        _draw_others(ax, others)
        _iou_axis(ax, [*(v for s in scores for v in s.persons.values()), *_means_of(others)])
        ax.set_ylabel("IoU of a person")
        legend_below(figure, [*(styles[m].patch(m) for m in methods), *_handles(others)])
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
    panels: Mapping[str, Sequence[Score]], styles: Mapping[str, MethodStyle], *, others: Sequence[OtherScore] = ()
) -> Figure:
    """Fig. 6: mean IoU over persons by n with its 95% interval or the persons' own, a panel a test set.

    Args:
      panels: title -> scores of one test set.
      others: of all panels.
      styles: see `draw_boxes`.
    """
    return _by_test_set(panels, styles, others, _means, (max(4.4, 3.4 * len(panels) + 0.6), 3.2), 0.03)


def _means(ax: Axes, scores: Sequence[Score], style: MethodStyle, aside: float) -> list[float]:
    # Side by side, or intervals at the same n would hide one another.
    x = np.array([s.n for s in scores]) * 2 ** (0.07 * aside)
    ax.plot(x, [s.mean for s in scores], linewidth=1.1, **style.dots)
    for at, s in zip(x, scores, strict=True):
        if s.interval.low is not None and s.interval.high is not None:
            span = [s.interval.low, s.interval.high]
            ax.plot([at, at], span, color=style.colour, linewidth=1.3, alpha=0.75, zorder=2)
        each = s.interval.values
        ax.plot([at] * len(each), each, color=style.colour, marker=".", markersize=3, linestyle="none", alpha=0.6)
    return [v for s in scores for v in (s.mean, s.interval.low, *s.interval.values) if v is not None]


_Draw = Callable[[Axes, Sequence[Score], MethodStyle, float], list[float]]
"""Draws one method's scores on one test set, by n, so many places beside the middle method; gives what must be seen."""


def _by_test_set(
    panels: Mapping[str, Sequence[Score]],
    styles: Mapping[str, MethodStyle],
    others: Sequence[OtherScore],
    draw: _Draw,
    size: tuple[float, float],
    room: float,
) -> Figure:
    """Means over n, a panel a test set, with `room` below the lowest."""
    shown = _means_of(others)
    every = [s for scores in panels.values() for s in scores]
    methods = [m for m in styles if any(s.method == m for s in every)]
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (title, scores) in zip(row, panels.items(), strict=True):
            for i, m in enumerate(methods):
                own = sorted((s for s in scores if s.method == m), key=lambda s: s.n)
                shown += draw(ax, own, styles[m], i - (len(methods) - 1) / 2)
            _draw_others(ax, [o for o in others if o.test_set == scores[0].test_set])
            _number_axis(ax, sorted({s.n for s in scores}))
            ax.set_title(title, fontsize=8)
        _iou_axis(row[0], shown, room)
        row[0].set_ylabel("mean IoU of persons")
        legend_below(figure, [*(styles[m].handle(m) for m in methods), *_handles(others)])
    return figure


def draw_many(scores: Sequence[Score], methods: Sequence[str], *, others: Sequence[OtherScore] = ()) -> Figure:
    """Mean IoU with its interval of more methods than colours tell apart: a line a method, a panel for each n.

    The methods are drawn from top to bottom; for the other arguments see `draw_boxes`.
    """
    there = [m for m in methods if any(s.method == m for s in scores)]
    numbers = sorted({s.n for s in scores})
    with rc_context(STYLE):
        figure = Figure(
            figsize=(min(2.6 + 2.0 * len(numbers), 11), 0.9 + 0.17 * (len(there) + len(_means_of(others)))),
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
            _draw_others(ax, others, upright=True)
            ax.set_title(f"n = {n}", fontsize=8)
            ax.grid(axis="both", linewidth=0.3, alpha=0.5)
            ax.set_ylim(len(there) - 0.5, -0.5)
            ax.set_yticks(range(len(there)), there, fontsize=6.5)
            ax.set_xlabel("mean IoU")
        legend_below(figure, _handles(others))
    return figure


def _number_axis(ax: Axes, numbers: Sequence[int]) -> None:
    """A logarithmic axis of numbers of labelled scans, marked at those that were tried."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(numbers), [str(n) for n in numbers])
    ax.minorticks_off()
    ax.set_xlim(min(numbers) / 1.35, max(numbers) * 1.35)
    ax.set_xlabel("labelled scans, n")
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    ax.set_axisbelow(True)


def _iou_axis(ax: Axes, values: Sequence[float], room: float = 0.03) -> None:
    ax.set_ylim(max(-0.02, np.floor((min(values) - room) * 10) / 10), 1.02)
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    ax.set_axisbelow(True)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend in four columns, or as many fewer as the figure has room for; none without handles."""
    for columns in range(min(len(handles), 4), 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=7)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def draw_learning_curves(
    panels: Mapping[str, Sequence[Score]],
    fits: Mapping[tuple[ScoredSet, str], LearningCurve | NoCurve],
    styles: Mapping[str, MethodStyle],
    *,
    others: Sequence[OtherScore] = (),
) -> Figure:
    """Draw mean IoU over n with the fitted curves and their pointwise 95% intervals, a panel a test set.

    A method without a fit has its points alone. Curves end where the numbers tried do.

    Args:
      fits: of `learning_curves`.
      panels, styles, others: see `draw_means`.
    """

    def draw(ax: Axes, scores: Sequence[Score], style: MethodStyle, _: float) -> list[float]:
        fit = fits.get((scores[0].test_set, scores[0].method)) if scores else None
        if isinstance(fit, LearningCurve):
            x = np.geomspace(fit.n[0], fit.n[-1], 120)
            ax.plot(x, fit.at(x), color=style.colour, linewidth=1.2, zorder=2)
            band = fit.band(x)
            if band is not None:
                ax.fill_between(x, *band, color=style.colour, alpha=0.13, linewidth=0, zorder=1)
        for s in scores:
            each = s.interval.values
            ax.plot([s.n] * len(each), each, color=style.colour, marker=".", markersize=3, linestyle="none", alpha=0.4)
        if scores:
            ax.plot([s.n for s in scores], [s.mean for s in scores], linestyle="none", **style.dots)
        return [v for s in scores for v in (s.mean, *s.interval.values)]

    return _by_test_set(panels, styles, others, draw, (max(4.6, 3.5 * len(panels) + 0.6), 3.4), 0.05)
