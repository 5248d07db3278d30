"""The learning curve: training loss by step and, where there is one, the validation score below it."""

import math
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from tlseg_jax.evaluate.convergence import smoothed
from tlseg_jax.evaluate.run_curves import Curve
from tlseg_jax.figures.png import STYLE, save_png

LOSS, VALIDATION = "#1f4e8c", "#b3441e"
LOG_RANGE = 8.0
"""Losses that span more than this factor are drawn on a logarithmic axis."""


def draw_learning_curve(
    losses: Curve, path: Path, *, validation: Curve | None = None, heading: str = "", mark: str = ""
) -> None:
    """Draw the curve and write a PNG.

    The loss of every step is drawn faintly with its running median over it, as the loss of one small
    batch tells little. Its axis is logarithmic where all values are above 0 and span more than a
    factor of 8. Values that are not finite leave a gap.

    Args:
      losses: of the training steps.
      path: the PNG file.
      validation: IoUs; the best is marked.
      heading, mark: see `save_png`.
    """
    panels = 2 if validation else 1
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 1.2 + 1.7 * panels), layout="constrained", facecolor="white")
        axes: NDArray[np.object_] = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        _draw_losses(axes[0], losses)
        if validation:
            _draw_validation(axes[1], validation)
        axes[-1].set_xlabel("step")
        step_axis(axes[-1])
        save_png(figure, path, heading=heading, mark=mark)


def _sorted(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = np.array(sorted(curve), np.float64).reshape(-1, 2)
    return table[:, 0], np.where(np.isfinite(table[:, 1]), table[:, 1], np.nan)


def _draw_losses(ax: Axes, losses: Curve) -> None:
    steps, values = _sorted(losses)
    few = np.isfinite(values).sum() < 20
    ax.plot(
        steps,
        values,
        color=LOSS,
        linewidth=0.6 if not few else 1.2,
        alpha=1 if few else 0.35,
        marker="o" if few else None,
        markersize=2.5,
        label="each batch",
    )
    if not few:
        ax.plot(*smoothed(losses), color=LOSS, linewidth=1.4, label="running median")
        ax.legend(loc="upper right", fontsize=7)
    ax.set_ylabel("training loss")
    loss_axis(ax, values)


def loss_axis(ax: Axes, drawn: ArrayLike, wide: float = math.inf) -> None:
    """Scale an axis of losses: logarithmic where all are above 0 and span more than `LOG_RANGE`.

    Values that span more than a factor of `wide` have ticks at powers of ten alone.
    """
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    values = np.asarray(drawn, np.float64)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() / values.min() > LOG_RANGE:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1,) if values.max() / values.min() > wide else (1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif values.size and values.min() >= 0:
        ax.set_ylim(0, max(1.06 * float(values.max()), 1e-12))


def step_axis(ax: Axes) -> None:
    """Whole steps from 0 on."""
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))


def _draw_validation(ax: Axes, validation: Curve) -> None:
    steps, values = _sorted(validation)
    ax.plot(steps, values, color=VALIDATION, linewidth=1.4, marker="o", markersize=3)
    ax.set_ylabel("validation IoU")
    ax.set_ylim(0, 1.02)
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    if not np.isnan(values).all():
        best = int(np.nanargmax(values))
        text = f"best {values[best]:.3f} at step {steps[best]:.0f}"
        # In a corner: curves of scores rise to the right, so the lower right one is free if any is.
        y, va = (0.05, "bottom") if values[best] > 0.3 else (0.95, "top")
        ax.text(0.98, y, text, transform=ax.transAxes, fontsize=7, ha="right", va=va)
        ax.plot(steps[best], values[best], marker="o", markersize=5.5, color=VALIDATION, fillstyle="none")
