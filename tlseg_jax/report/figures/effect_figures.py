"""Differences with their intervals: effects of factors and remedies as forest plots, and a pair of data sets by n."""

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlseg_jax.figures.style import STYLE, MethodStyle
from tlseg_jax.report.stats.compare_stats import PairedTest
from tlseg_jax.report.stats.factor_analysis import POINTS, FactorAnalysis
from tlseg_jax.report.stats.method_tests import MethodTest
from tlseg_jax.report.stats.mixed_model import Effect

BLUE, VERMILLION = "#0072B2", "#D55E00"
LINE_INCHES = 0.22


def draw_forest(analyses: Sequence[FactorAnalysis], kind: str) -> Figure:
    """Effects of one kind ("main" or "interaction"), a panel a measure; filled where the 95% interval leaves out 0."""

    def of(analysis: FactorAnalysis) -> tuple[Effect, ...]:
        return analysis.main_effects if kind == "main" else analysis.interactions

    rows = list(dict.fromkeys((e.name, e.contrast) for a in analyses for e in of(a)))
    place = {row: len(rows) - 1 - i for i, row in enumerate(rows)}
    height = 1.2 + LINE_INCHES * len(rows) * (1 if kind == "main" else 1.6)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        panels = figure.subplots(1, len(analyses), sharey=True, squeeze=False)[0]
        for axes, analysis in zip(panels, analyses, strict=True):
            _draw_effects(axes, of(analysis), place, "o" if kind == "main" else "s")
            axes.set_title(analysis.measure, fontsize=8)
            axes.set_xlabel("difference in IoU points, 95% interval")
        panels[0].set_yticks(list(place.values()), [_label(row, rows) for row in rows])
        panels[0].set_ylim(-0.7, len(rows) - 0.3)
    return figure


def _label(row: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    """An effect's name; an interaction's levels only where the factors have more than two."""
    name, contrast = (
        text.replace(" - ", " \N{MINUS SIGN} ").replace(" x ", " \N{MULTIPLICATION SIGN} ").replace(" or ", "\nor ")
        for text in row
    )
    if " x " in row[0] and sum(other == row[0] for other, _ in rows) == 1:
        return name
    return f"{name}: {contrast}"


def _draw_effects(axes: Axes, effects: Sequence[Effect], place: Mapping[tuple[str, str], int], marker: str) -> None:
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=1)
    for e in effects:
        y = place[e.name, e.contrast]
        apart = e.low > 0 or e.high < 0
        axes.plot([e.low, e.high], [y, y], color=BLUE, linewidth=1.3, zorder=2)
        face = BLUE if apart else "white"
        axes.plot(e.difference, y, marker=marker, markersize=5, color=BLUE, markerfacecolor=face, zorder=3)
    axes.tick_params(axis="y", length=0)


def draw_pair(tests: Mapping[str, Mapping[int, PairedTest]], ylabel: str) -> Figure:
    """Mean difference of a pair by n with its 95% interval or the persons' own, by test set ("target", "unseen")."""
    look = {"target": (BLUE, "o", "-", 0.97), "unseen": (VERMILLION, "s", "--", 1.03)}
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=1)
        for role, by_n in tests.items():
            colour, marker, dash, aside = look[role]
            points = [(n * aside, t) for n, t in sorted(by_n.items()) if t.mean_difference is not None]
            axes.plot(
                [x for x, _ in points],
                [POINTS * (t.mean_difference or 0) for _, t in points],
                marker=marker,
                linestyle=dash,
                color=colour,
                label=f"{role} data",
                markersize=5,
            )
            for x, t in points:
                if t.low is not None and t.high is not None:
                    axes.plot([x, x], [POINTS * t.low, POINTS * t.high], color=colour, linewidth=1.3)
                each = [POINTS * v for v in t.values]
                axes.plot([x] * len(each), each, color=colour, marker=".", markersize=3, linestyle="none", alpha=0.6)
        numbers = sorted({n for by_n in tests.values() for n in by_n})
        axes.set_xscale("log", base=2)
        axes.set_xticks(numbers, [str(n) for n in numbers])
        axes.minorticks_off()
        axes.set_xlabel("labelled scans, n")
        axes.set_ylabel(ylabel)
        axes.legend()
    return figure


def draw_remedies(panels: Mapping[str, Sequence[MethodTest]], styles: Mapping[str, MethodStyle]) -> Figure:
    """A forest plot: a line for each remedy and n, a panel a test set, with the mean difference.

    Thick lines are 95% intervals over persons, thin ones over seeds (none for one seed). A thin line that is far
    longer is cut at the panel's edge.

    Args:
      panels: title -> tests of one test set (`second` is the remedy).
      styles: of all methods of the study.
    """
    every = [t for tests in panels.values() for t in tests]
    lines = list(dict.fromkeys((t.second, t.first, t.n) for t in every))
    places: dict[tuple[str, str, int], float] = {}
    y = 0.0
    for i, line in enumerate(lines):
        y += 1.0 if i and lines[i - 1][:2] == line[:2] else 2.0  # room for the remedy's name
        places[line] = y
    with rc_context(STYLE):
        low, high = _range(every)
        figure = Figure(
            figsize=(1.2 + 2.7 * len(panels), 0.9 + 0.17 * (y + 1)), layout="constrained", facecolor="white"
        )
        row = figure.subplots(1, len(panels), sharey=True, sharex=True, squeeze=False)[0]
        for ax, (title, tests) in zip(row, panels.items(), strict=True):
            _panel(ax, tests, places, styles)
            ax.set_title(title, fontsize=8)
            ax.set_xlabel("difference in mean IoU to the baseline")
            ax.set_ylim(y + 0.7, 0.2)
            ax.set_xlim(low, high)
        row[0].set_yticks(list(places.values()), [f"n = {n}" for _, _, n in places])
        for ax in row:
            ax.tick_params(axis="y", length=0)
            named = set()
            for second, first, n in places:
                if (second, first) not in named:
                    named.add((second, first))
                    ax.text(
                        0.01,
                        places[second, first, n] - 1,
                        f"{second} against {first}",
                        fontsize=6.8,
                        va="center",
                        fontweight="bold",
                        color=styles[second].colour,
                        transform=ax.get_yaxis_transform(),
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                    )
    return figure


def _panel(
    ax: Axes,
    tests: Sequence[MethodTest],
    places: Mapping[tuple[str, str, int], float],
    styles: Mapping[str, MethodStyle],
) -> None:
    ax.axvline(0, color="0.4", linewidth=0.7, zorder=0)
    ax.grid(axis="x", linewidth=0.3, alpha=0.5)
    for t in tests:
        if t.test.mean_difference is None:
            continue
        y, style = places[t.second, t.first, t.n], styles[t.second]
        over = t.seed_interval
        if over is not None:
            ax.plot(over, [y, y], color=style.colour, linewidth=0.6, alpha=0.8, marker="|", markersize=3, zorder=1)
        if t.test.low is not None and t.test.high is not None:
            span = [t.test.low, t.test.high]
            ax.plot(span, [y, y], color=style.colour, linewidth=3, alpha=0.45, solid_capstyle="butt", zorder=2)
        each = t.test.values
        ax.plot(each, [y] * len(each), color=style.colour, marker="|", markersize=6, linestyle="none", alpha=0.45)
        ax.plot(t.test.mean_difference, y, **style.dots)


def _range(tests: Sequence[MethodTest]) -> tuple[float, float]:
    """Of the difference: 0, the means and their intervals over persons, with some room for those over seeds."""
    of = [v for t in tests for v in (t.test.mean_difference, t.test.low, t.test.high, *t.test.values)]
    values = [0.0, *(v for v in of if v is not None)]
    low, high = min(values), max(values)
    limit, margin = 0.6 * max(high - low, 0.01), 0.05 * max(high - low, 0.01)
    seeds = [low, high, *(v for t in tests if t.seed_interval for v in t.seed_interval)]
    return max(low - limit, min(seeds)) - margin, min(high + limit, max(seeds)) + margin
