"""What each remedy against fragility changes: its difference to the baseline at each n, with intervals."""

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlseg_jax.figures.method_style import MethodStyle
from tlseg_jax.figures.png import STYLE
from tlseg_jax.report.stats.method_tests import MethodTest


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
    """Of the difference: 0, the means and their intervals over persons, with room for those over seeds."""
    of = [v for t in tests for v in (t.test.mean_difference, t.test.low, t.test.high, *t.test.values)]
    values = [0.0, *(v for v in of if v is not None)]
    room = 0.6 * max(max(values) - min(values), 0.01)
    return min(values) - room, max(values) + room
