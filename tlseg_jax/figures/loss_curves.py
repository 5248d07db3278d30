"""Losses over the steps of runs: one method's own (Figs. 7 to 9 of Wang & Tang 2020), and all in one (Fig. 10)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from tlseg_jax.evaluate.convergence import Line, finite, smoothed
from tlseg_jax.evaluate.run_curves import Curve, Epoch, RunCurves
from tlseg_jax.figures.style import COLOURS, STYLE, MethodStyle, save_figure

DRAW_COLOUR, WHOLE_COLOUR, VALIDATION = "#7f7f7f", "#1a1a1a", "#b3441e"

BACKED: Any = {"frameon": True, "framealpha": 0.8, "edgecolor": "none"}
"""A legend stays readable over a curve that does not fall."""

WIDTH = 5.2
"""Inches."""

LOG_RANGE = 8.0
"""Losses that span more than this factor are drawn on a logarithmic axis."""

WIDE = 300.0
"""Losses that span more than this factor have ticks at powers of ten alone."""


def draw_own_curves(
    runs: Sequence[RunCurves], path: Path, *, colour: str = COLOURS[0], heading: str = "", mark: str = ""
) -> None:
    """Draw the losses of one method's runs and write a PNG (Figs. 7 to 9).

    Faint: the training loss of every batch of every run. Strong: its running median, averaged over the
    runs. Grey: the loss on the fixed draw of test slices. Black: the loss on the whole test set at the
    ends of epochs, each run's and their mean. The losses that were not measured are not drawn. Validations, where
    there are any, have a panel below, with the best.

    Args:
      runs: one a seed.
      path: the PNG file; the SVG is written beside it.
      colour: of the training loss.
      heading, mark: see `save_png`.
    """
    with rc_context(STYLE):
        panels = 1 + any(_some(t.validation) for t in runs)
        figure = Figure(figsize=(WIDTH, 1.3 + 1.7 * panels), layout="constrained", facecolor="white")
        ax, *below = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        for t in runs:
            steps, values = finite(t.losses)
            ax.plot(steps, values, color=colour, linewidth=0.5, alpha=max(0.12, 0.35 / len(runs)), zorder=1)
        steps, mean, _, _ = band([smoothed(t.losses) for t in runs])
        ax.plot(
            steps,
            mean,
            color=colour,
            linewidth=1.6,
            label="training, running median" + (f" (mean of {len(runs)} seeds)" if len(runs) > 1 else ""),
            marker=_dot(steps),
            markersize=3,
            zorder=3,
        )
        draws = [finite(t.draw_losses) for t in runs if _some(t.draw_losses)]
        if draws:
            steps, mean, low, high = band(draws)
            ax.fill_between(steps, low, high, color=DRAW_COLOUR, alpha=0.25, linewidth=0, zorder=1.5)
            ax.plot(
                steps,
                mean,
                color=DRAW_COLOUR,
                linewidth=1.0,
                label="test, fixed draw of slices",
                marker=_dot(steps),
                markersize=3,
                zorder=2,
            )
        whole = [finite(t.test_losses) for t in runs if _some(t.test_losses)]
        for own in whole:
            ax.plot(*own, color=WHOLE_COLOUR, linestyle="none", marker="o", markersize=1.8, alpha=0.5, zorder=4)
        if whole:
            steps, mean, _, _ = band(whole)
            ax.plot(
                steps,
                mean,
                color=WHOLE_COLOUR,
                linewidth=1.0,
                linestyle=(0, (4, 2)),
                marker="D",
                markersize=3.2,
                label="test, whole set at the epoch's end",
                zorder=4,
            )
        ax.set_ylabel("loss")
        _loss_axis(ax, [v for line in ax.lines for v in np.asarray(line.get_ydata(), np.float64)])
        for one in below:
            _draw_validation(one, [finite(t.validation) for t in runs if _some(t.validation)])
        (below or [ax])[-1].set_xlabel("step")
        _epoch_axis(ax, _longest(runs), ticks=True)
        ax.legend(loc="upper right", fontsize=7, **BACKED)
        save_figure(figure, path, heading=heading, mark=mark)


def _draw_validation(ax: Axes, lines: Sequence[Line]) -> None:
    for steps, values in lines:
        ax.plot(steps, values, color=VALIDATION, linewidth=1.4, marker="o", markersize=3)
    ax.set_ylabel("validation IoU")
    ax.set_ylim(0, 1.02)
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    best, step = max((float(v), int(s)) for steps, values in lines for s, v in zip(steps, values, strict=True))
    # In a corner: curves of scores rise to the right, so the lower right one is free if any is.
    y, va = (0.05, "bottom") if best > 0.3 else (0.95, "top")
    ax.text(0.98, y, f"best {best:.3f} at step {step}", transform=ax.transAxes, fontsize=7, ha="right", va=va)
    ax.plot(step, best, marker="o", markersize=5.5, color=VALIDATION, fillstyle="none")


def draw_curves_together(
    runs: Mapping[str, Sequence[RunCurves]],
    styles: Mapping[str, MethodStyle],
    path: Path,
    *,
    heading: str = "",
    mark: str = "",
) -> None:
    """Draw several methods in one picture and write a PNG (Fig. 10).

    Above: the running median of the training loss, mean over the seeds in a band from the lowest to the
    highest. Below, where it was measured: the loss on the whole test set at the ends of epochs, or on the
    fixed draw of test slices where only that is there.

    Args:
      runs: method -> its runs, one a seed.
      styles: how methods look in all figures of a study.
      path: the PNG file; the SVG is written beside it.
      heading, mark: see `save_png`.
    """
    every = [t for own in runs.values() for t in own]
    whole = any(_some(t.test_losses) for t in every)
    panels = 2 if whole or any(_some(t.draw_losses) for t in every) else 1
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 2.0 * panels), layout="constrained", facecolor="white")
        axes: NDArray[np.object_] = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        _draw_bands(axes[0], {m: [smoothed(t.losses) for t in own] for m, own in runs.items()}, styles, legend=True)
        axes[0].set_ylabel("training loss" + ("" if len(every) == len(runs) else ", mean and range of seeds"))
        if panels == 2:
            below = {
                m: [finite(c) for t in own if _some(c := t.test_losses if whole else t.draw_losses)]
                for m, own in runs.items()
            }
            _draw_bands(axes[1], below, styles, legend=False)
            axes[1].set_ylabel("test loss, " + ("whole set" if whole else "fixed draw of slices"))
        axes[-1].set_xlabel("step")
        for i, ax in enumerate(axes):
            _epoch_axis(ax, _longest(every), ticks=i == 0)
        save_figure(figure, path, heading=heading, mark=mark)


def band(lines: Sequence[Line]) -> tuple[NDArray[np.float64], ...]:
    """Mean, lowest and highest of several lines at every step of any of them.

    Between its steps a line is straight; beyond its ends it counts nowhere.

    Returns:
      steps, mean, low and high, each (steps,).
    """
    steps = np.unique(np.concatenate([s for s, _ in lines]))
    table = np.stack([np.interp(steps, s, v, left=np.nan, right=np.nan) for s, v in lines])
    # Two lines that do not overlap leave a hole between them, where there is nothing to average.
    known = np.isfinite(table).any(0)
    steps, table = steps[known], table[:, known]
    return steps, np.nanmean(table, 0), np.nanmin(table, 0), np.nanmax(table, 0)


def _draw_bands(
    ax: Axes, lines: Mapping[str, Sequence[Line]], styles: Mapping[str, MethodStyle], *, legend: bool
) -> None:
    drawn: list[float] = []
    for method, own in lines.items():
        if not own:
            continue
        steps, mean, low, high = band(own)
        few = len(steps) < 40
        style = styles[method]
        ax.fill_between(steps, low, high, color=style.colour, alpha=0.18, linewidth=0)
        ax.plot(
            steps,
            mean,
            color=style.colour,
            linestyle=style.line,
            linewidth=1.5,
            marker=style.marker if few else None,
            markersize=4,
            label=f"{method} ({len(own)})",
        )
        drawn += [*low, *high]
    _loss_axis(ax, drawn)
    if legend:
        ax.legend(loc="upper right", fontsize=7, title="method (runs)", title_fontsize=7, handlelength=3, **BACKED)


def _loss_axis(ax: Axes, drawn: ArrayLike) -> None:
    """Scale an axis of losses: logarithmic where all are above 0 and span more than `LOG_RANGE`."""
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    values = np.asarray(drawn, np.float64)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() / values.min() > LOG_RANGE:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1,) if values.max() / values.min() > WIDE else (1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif values.size and values.min() >= 0:
        ax.set_ylim(0, max(1.06 * float(values.max()), 1e-12))


def _epoch_axis(ax: Axes, epochs: Sequence[Epoch], *, ticks: bool) -> None:
    """Whole steps from 0 on, thin lines at the ends of epochs and, with `ticks`, their numbers above."""
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
    shown = epochs[:: max(1, len(epochs) // 12)] if len(epochs) > 14 else epochs
    for e in shown:
        ax.axvline(e.step, color="0.88", linewidth=0.5, zorder=0)
    if ticks and shown:
        above = ax.secondary_xaxis("top")
        above.set_xticks([e.step for e in shown], [str(e.epoch) for e in shown])
        above.tick_params(length=2, labelsize=7)
        above.set_xlabel("end of epoch", fontsize=7)
        above.spines["top"].set_visible(False)


def _longest(runs: Sequence[RunCurves]) -> tuple[Epoch, ...]:
    return max((t.epochs for t in runs), key=len)


def _some(curve: Curve) -> bool:
    return any(np.isfinite(v) for _, v in curve)


def _dot(steps: NDArray[np.float64]) -> str | None:
    """A line of one or two points would not be seen."""
    return "o" if len(steps) < 20 else None
