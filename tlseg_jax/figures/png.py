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
}
"""Matplotlib settings to draw under: `with rc_context(STYLE): ...`."""

DPI = 200


def save_png(figure: Figure, path: Path) -> None:
    """Write `figure` beside `path`, flush it to the disk and rename it into place; make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with rc_context(STYLE), replacing(path, "wb") as f:
        figure.savefig(f, format="png", dpi=DPI)


def save_figure(figure: Figure, png: Path) -> None:
    """As `save_png`, and the same as SVG beside it; the same figure always gives the same bytes."""
    save_png(figure, png)
    with rc_context(STYLE | {"svg.hashsalt": "tlseg"}), replacing(png.with_suffix(".svg"), "wb") as f:
        figure.savefig(f, format="svg", metadata={"Date": None})


def watermark(figure: Figure, text: str) -> None:
    """Write `text`, such as "synthetic", large and faint across the figure; nothing if it is empty."""
    if text:
        figure.text(
            0.5, 0.5, text, fontsize=44, color="0.55", alpha=0.3, rotation=24, ha="center", va="center", zorder=100
        )
