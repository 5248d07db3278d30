"""Training losses of a study's methods in one figure, read from its cells."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlseg_jax.evaluate.convergence import smoothed
from tlseg_jax.evaluate.run_tables import Curve
from tlseg_jax.evaluate.table import read_table
from tlseg_jax.figures.curves import LOG_RANGE
from tlseg_jax.figures.method_style import MethodStyle
from tlseg_jax.figures.png import STYLE, save_figure, watermark
from tlseg_jax.figures.slice_curves import band
from tlseg_jax.runtime.errors import InputError

LINES: Sequence[str | tuple[int, tuple[float, ...]]] = ("-", (0, (5, 1.2)), (0, (1.5, 1)), (0, (6, 1, 1.5, 1)))
"""Line styles, for print in grey."""


def read_losses(cell: Path) -> Curve:
    """(step, training loss) of a run folder's history.csv; rows without a finite loss are left out.

    Raises:
      InputError: the file is missing or damaged, or holds no finite loss.
    """
    path = cell / "history.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist: remove that cell and run the sweep again, which trains it anew.")
    try:
        pairs = [(int(r["step"]), float(r["loss"])) for r in read_table(path, ("step", "loss")) if r["loss"]]
    except ValueError as e:
        raise InputError(
            f"{path} is damaged ({e}): remove that cell and run the sweep again, which trains it anew."
        ) from None
    found = [(s, v) for s, v in pairs if math.isfinite(v)]
    if not found:
        raise InputError(f"{path} holds no finite training loss: remove that cell and run the sweep again.")
    return found


def draw_loss_curves(
    curves: Mapping[str, Sequence[Curve]], styles: Mapping[str, MethodStyle], png: Path, *, heading: str = "",
    mark: str = "",
) -> None:  # fmt: skip
    """Draw the running median of each method's training loss, mean over its runs in a band from lowest to highest.

    Args:
      curves: method -> (step, loss) of each of its runs, one run or more.
      styles: how methods look in all figures of the study.
      png: the file; SVG too.
      heading: a line above.
      mark: a watermark.

    Raises:
      ValueError: there are no runs.
    """
    if not any(curves.values()):
        raise ValueError("there are no losses to draw")
    with rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.2), layout="constrained", facecolor="white")
        ax = figure.subplots()
        values: list[float] = []
        for i, (method, own) in enumerate((m, c) for m, c in curves.items() if c):
            steps, mean, low, high = band([smoothed(c) for c in own])
            colour, line = styles[method].colour, LINES[i % len(LINES)]
            ax.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.plot(steps, mean, color=colour, linestyle=line, linewidth=1.4, label=f"{method} ({len(own)})")
            values += [float(low.min()), float(high.max())]
        if min(values) > 0 and max(values) / min(values) > LOG_RANGE:
            ax.set_yscale("log")
        elif min(values) >= 0:
            ax.set_ylim(bottom=0)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        ax.set_xlabel("step")
        ax.set_ylabel("training loss, running median")
        ax.grid(axis="y", linewidth=0.3, alpha=0.5)
        figure.legend(loc="outside right upper", fontsize=7, title="method (runs)", handlelength=3)
        if heading:
            figure.suptitle(heading, fontsize=9, fontweight="bold", x=0.01, ha="left")
        watermark(figure, mark)
        save_figure(figure, png)
