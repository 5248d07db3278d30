"""Figures drawn without any global state, and written whole or not at all."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tlseg_jax.runtime.files import replacing

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "hatch.linewidth": 0.4,
}
"""Matplotlib settings to draw under: `with rc_context(STYLE): ...`."""

DPI = 200


def save_png(figure: Figure, path: Path, *, heading: str = "", mark: str = "") -> None:
    """Write `figure` whole or not at all, and make its folder.

    Args:
      figure: drawn under `STYLE`.
      path: the PNG file.
      heading: a line above.
      mark: a watermark, large and faint across the figure, such as "synthetic".
    """
    if heading:
        figure.suptitle(heading, fontsize=9, fontweight="bold", x=0.01, ha="left")
    if mark:
        figure.text(
            0.5, 0.5, mark, fontsize=44, color="0.55", alpha=0.3, rotation=24, ha="center", va="center", zorder=100
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with rc_context(STYLE), replacing(path, "wb") as f:
        figure.savefig(f, format="png", dpi=DPI)


def save_figure(figure: Figure, png: Path, *, heading: str = "", mark: str = "") -> None:
    """As `save_png`, and the same as SVG beside it; the same figure always gives the same bytes."""
    save_png(figure, png, heading=heading, mark=mark)
    with rc_context(STYLE | {"svg.hashsalt": "tlseg"}), replacing(png.with_suffix(".svg"), "wb") as f:
        figure.savefig(f, format="svg", metadata={"Date": None})
