"""The models' scores volume by volume: one line a volume, with each model's mean and its interval."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlseg_jax.evaluate.run_tables import name_n
from tlseg_jax.figures.png import STYLE, save_figure, watermark
from tlseg_jax.figures.slice_curves import MODEL_COLOURS, MODEL_MARKERS
from tlseg_jax.report.stats.compare_stats import mean_interval


def draw_dice_by_model(
    dice: Mapping[int | None, Mapping[str, Mapping[str, float]]],
    path: Path,
    *,
    heading: str = "",
    mark: str = "",
) -> None:
    """Draw the Dice of each volume under each model, a panel for each n, and write a PNG.

    Grey lines join one volume's scores. Beside them each model's mean over the volumes with its 95%
    bootstrap interval, where there are volumes enough for one. A score that is not finite is left out.

    Args:
      dice: n -> model -> volume -> Dice, 0 to 1, averaged over seeds; None stands for all volumes.
      path: the PNG file.
      heading: a line above.
      mark: a watermark, such as "synthetic".

    Raises:
      ValueError: there is nothing to draw.
    """
    if not dice or not any(dice.values()):
        raise ValueError("there are no scores to draw")
    width = max(2.6, 0.6 + 1.75 * len(dice))
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 2.9), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(dice), sharey=True, squeeze=False)[0]
        for ax, (n, models) in zip(panels, dice.items(), strict=True):
            _panel(ax, models)
            if len(dice) > 1:
                ax.set_title(f"n = {name_n(n)}", fontsize=8)
        panels[0].set_ylabel("Dice of a volume")
        panels[0].set_ylim(-0.02, 1.02)
        if heading:
            figure.suptitle(heading, fontsize=9, fontweight="bold", x=0.01, ha="left")
        watermark(figure, mark)
        save_figure(figure, path)


def _panel(ax: Axes, models: Mapping[str, Mapping[str, float]]) -> None:
    names = list(models)
    for volume in sorted({v for own in models.values() for v in own}):
        line = [models[m].get(volume, np.nan) for m in names]
        ax.plot(range(len(names)), line, color="0.7", linewidth=0.7, zorder=1)
    for i, m in enumerate(names):
        values = list(models[m].values())
        colour, marker = MODEL_COLOURS[m], MODEL_MARKERS[m]
        ax.plot([i] * len(values), values, color=colour, marker=marker, markersize=3, linestyle="none", alpha=0.7)
        found = mean_interval(values)
        if found.mean is None:
            continue
        x = i + 0.2
        if found.low is not None and found.high is not None:
            ax.plot([x, x], [found.low, found.high], color=colour, linewidth=1.6, zorder=3)
        ax.plot(
            x, found.mean, color=colour, marker=marker, markersize=6, markeredgecolor="white", markeredgewidth=0.6,
            zorder=4,
        )  # fmt: skip
        ax.text(x + 0.09, found.mean, f"{found.mean:.2f}", fontsize=6.5, va="center", ha="left", zorder=4)
    ax.set_xticks(range(len(names)), [f"model {m}" if len(names) < 3 else m for m in names])
    ax.set_xlim(-0.35, len(names) - 0.35)
    ax.grid(axis="y", linewidth=0.3, alpha=0.5)
    ax.set_axisbelow(True)
