"""The learning curve is drawn for any losses."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tlseg_jax.figures.curves import draw_learning_curve

FALLING = [(i, float(np.exp(-i / 60))) for i in range(1, 301)]


@pytest.mark.parametrize(
    "losses",
    [
        FALLING,
        FALLING[::-1],
        [(1, 0.5)],
        [(1, 0.0), (2, 0.0)],
        [(i, -0.1 * i) for i in range(30)],
        [(i, float("nan")) for i in range(30)],
        [*FALLING, (301, float("inf")), (302, float("nan"))],
        [(i, 0.7) for i in range(1000)],
        [(i, 10.0 ** (-i / 20)) for i in range(100)],
    ],
)
@pytest.mark.parametrize("validation", [None, [(100, 0.2), (200, 0.7), (300, float("nan"))], [(50, float("nan"))]])
def test_any_losses_are_drawn_without_a_warning(
    tmp_path: Path, losses: list[tuple[int, float]], validation: list[tuple[int, float]] | None
) -> None:
    out = tmp_path / "figures" / "curve.png"
    draw_learning_curve(losses, out, validation=validation, heading="hdt_c", mark="synthetic")
    height = imread(out).shape[0]
    assert height == (920 if validation else 580)
    assert [p.name for p in out.parent.iterdir()] == ["curve.png"]


def test_the_order_of_the_steps_does_not_matter(tmp_path: Path) -> None:
    draw_learning_curve(FALLING, tmp_path / "a.png")
    draw_learning_curve(FALLING[::-1], tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
