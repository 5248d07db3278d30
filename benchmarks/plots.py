"""Each part's main figure as a plot: one line a case, its median as a dot and its spread as a bar; or curves."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import Result, named
from tlseg_jax.runtime.files import replacing


@dataclasses.dataclass(frozen=True)
class Point:
    """One case: `value`, between `low` and `high`."""

    label: str
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, label: str, ratio: Mapping[str, float]) -> "Point":
        """From a ratio with its spread."""
        return cls(label, ratio["median"], ratio["low"], ratio["high"])


@dataclasses.dataclass(frozen=True)
class Plot:
    """What an axis shows, the line to reach, and the cases."""

    axis: str
    goal: float
    points: Sequence[Point]


@dataclasses.dataclass(frozen=True)
class Curves:
    """Scores against seconds, a panel a data set and number of labelled scans.

    Attributes:
      panels: title -> network -> (seconds, mean, lowest) of each budget, the shortest first.
    """

    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]]

    @property
    def points(self) -> Sequence[Any]:
        """All of them; empty where there is nothing to draw."""
        return [p for curves in self.panels.values() for curve in curves.values() for p in curve]


def _step_time(result: Result) -> Plot:
    points = [
        Point(f"{case['size']['name']}, {form}", *[row["of_roofline"]] * 3)
        for case in result["cases"]
        for form, row in case["forms"].items()
        if "seconds" in row
    ]
    return Plot("share of the roofline (1: nothing but arithmetic, or nothing but copying)", 1.0, points)


def _compare(result: Result) -> Plot:
    points = [Point.of(f"{named(c)}, {c['dtype']}", c["ratio_to_pytorch"]) for c in result["cases"]]
    return Plot("seconds of a step, ours / the best PyTorch", 1.0, points)


def _freezing(result: Result) -> Plot:
    points = [
        Point.of(f"{case['size']['name']}, {case['dtype']}, {name}", row["share"]["seconds"])
        for case in result["cases"]
        for name, row in case["freezings"].items()
        if name != "none" and "seconds" in row["share"]
    ]
    return Plot("seconds of a step, frozen / full", 1.0, points)


def _features(result: Result) -> Plot:
    points = [Point.of(f"{named(c)}, {c['dtype']}", c["ratio_kept_to_computed"]) for c in result["cases"]]
    return Plot("seconds of a frozen step, features kept / computed", 1.0, points)


def _loader(result: Result) -> Plot:
    points = [Point.of(f"{c['data']}, {named(c)}", c["ratio_store_to_held"]) for c in result["cases"]]
    return Plot("seconds of a step, from the store / on a batch in memory", 1.0, points)


def _memory_limits(result: Result) -> Plot:
    points = [
        Point(f"{c['name']}, {c['dtype']}, remat {c['remat']}", *[c["residuals"] / 1e9] * 3) for c in result["cases"]
    ]
    return Plot("GB kept for the gradients (line: the papers' card, 11 GB)", 11.0, points)


def _time_to_score(result: Result) -> Curves:
    runs: dict[str, dict[str, dict[float, list[Mapping[str, Any]]]]] = {}
    for r in result["runs"]:
        panel = runs.setdefault(f"{r['data']}, n = {r['n']}", {})
        panel.setdefault(r["network"], {}).setdefault(r["budget"], []).append(r)

    def point(of: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
        return (
            statistics.mean(r["taken"] for r in of),
            statistics.mean(r["dice"] for r in of),
            statistics.mean(r["lowest"] for r in of),
        )

    return Curves(
        {
            title: {name: [point(budgets[b]) for b in sorted(budgets)] for name, budgets in panel.items()}
            for title, panel in runs.items()
        }
    )


PLOTS: Mapping[str, Callable[[Result], Plot | Curves]] = {
    "time_to_score": _time_to_score,
    "step_time": _step_time,
    "compare": _compare,
    "freezing": _freezing,
    "features": _features,
    "loader": _loader,
    "memory_limits": _memory_limits,
}
"""By part; the others have no plot."""


def draw(plot: Plot | Curves, title: str, path: Path) -> None:
    """Write a plot as a PNG, whole or not at all.

    Args:
      plot: at least one point.
    """
    from matplotlib.figure import Figure  # here, so that a machine that only measures needs no matplotlib

    if isinstance(plot, Curves):
        figure = Figure(figsize=(4.2 * len(plot.panels), 3.4), layout="constrained")
        figure.suptitle(f"{title}: mean Dice, and that of the lowest scan (dotted)", fontsize=10)
        for axes, (name, curves) in zip(
            figure.subplots(1, len(plot.panels), squeeze=False)[0], plot.panels.items(), strict=True
        ):
            for number, (network, curve) in enumerate(curves.items()):
                seconds, mean, lowest = zip(*curve, strict=True)
                axes.plot(seconds, mean, "o-", color=f"C{number}", markersize=4, label=network)
                axes.plot(seconds, lowest, ":", color=f"C{number}", linewidth=1)
            axes.set_title(name, fontsize=9)
            axes.set_xlabel("seconds, from nothing", fontsize=9)
            axes.set_xlim(left=0)
            axes.set_ylim(0, 1)
            axes.grid(color="0.9")
            axes.legend(fontsize=8)
        save(figure, path)
        return
    rows = range(len(plot.points))
    figure = Figure(figsize=(9, 1.3 + 0.28 * len(plot.points)), layout="constrained")
    axes: Any = figure.subplots()
    values = [p.value for p in plot.points]
    below = [max(p.value - p.low, 0) for p in plot.points]
    above = [max(p.high - p.value, 0) for p in plot.points]
    axes.barh(rows, values, height=0.6, color="0.85", zorder=1)
    axes.errorbar(values, rows, xerr=[below, above], fmt="o", markersize=4, capsize=3, color="C0", zorder=3)
    axes.axvline(plot.goal, color="C3", linewidth=1, zorder=2)
    axes.set_yticks(rows, [p.label for p in plot.points], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(plot.axis, fontsize=9)
    axes.set_title(title, fontsize=10)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb") as f:
        # Without the name and version of the program: the same results give the same file.
        figure.savefig(f, format="png", dpi=120, metadata={"Software": None})
