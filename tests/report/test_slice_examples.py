"""Example slices stand the right way round, at their true shape, with each model in its column."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from tlseg_jax.figures.slice_examples import PANEL, ExampleCase, draw_examples
from tlseg_jax.figures.style import DPI

SHAPE = (40, 30)


def case(
    image: NDArray[np.floating] | None = None,
    truth: NDArray[np.bool_] | None = None,
    probability: dict[str, NDArray[np.floating]] | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> ExampleCase:
    none = np.zeros(SHAPE, np.float32)
    return ExampleCase(
        "volume-1, z = 4",
        none if image is None else image,
        np.zeros(SHAPE, bool) if truth is None else truth,
        {"A": none} if probability is None else probability,
        spacing,
    )


def panel(picture: NDArray[np.float32], column: int, height_mm: float, width_mm: float) -> NDArray[np.float32]:
    """The pixels of a panel of the only row, from the layout that the docstring tells: image, truth, models."""
    left = round((0.05 + column * (PANEL + 0.05)) * DPI)
    top = round((0.22 + 0.2) * DPI)
    tall = round(PANEL * height_mm / width_mm * DPI)
    return picture[top : top + tall, left : left + round(PANEL * DPI), :3]


def test_the_subjects_right_is_on_the_left_and_the_front_is_up(tmp_path: Path) -> None:
    truth = np.zeros(SHAPE, bool)
    truth[36:, 26:] = True  # x grows to the right, y to the front
    draw_examples([case(truth=truth)], tmp_path / "e.png")
    seen = panel(imread(tmp_path / "e.png"), 1, 30, 40).sum(-1)
    h, w = seen.shape
    assert seen[h // 20, w // 20] > 2.5
    for y, x in ((h // 20, -w // 20), (-h // 20, w // 20), (-h // 20, -w // 20)):
        assert seen[y, x] < 0.2


def test_each_model_has_its_column_and_an_absent_one_stays_empty(tmp_path: Path) -> None:
    full, none = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    draw_examples([case(probability={"A": none, "C": full})], tmp_path / "e.png")
    picture = imread(tmp_path / "e.png")
    middle = [panel(picture, i, 30, 40)[50:100, 50:100].mean((0, 1)) for i in range(4)]
    assert middle[2].max() < 0.1  # the dark end of the map
    assert middle[3].min() > 0.7  # the bright end
    draw_examples(
        [case(probability={"A": none, "B": full}), case(probability={"A": none})], tmp_path / "f.png", mark="synthetic"
    )
    assert imread(tmp_path / "f.png").shape[1] == picture.shape[1]


def test_pixels_have_their_shape_in_mm(tmp_path: Path) -> None:
    draw_examples([case()], tmp_path / "square.png")
    draw_examples([case(spacing=(1.0, 2.0))], tmp_path / "tall.png")
    heights = [imread(tmp_path / f"{n}.png").shape[0] for n in ("square", "tall")]
    assert heights[1] - heights[0] == pytest.approx(PANEL * 30 / 40 * DPI, abs=2)


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_odd_images_are_drawn_without_a_warning(tmp_path: Path, value: float) -> None:
    image = np.full(SHAPE, value, np.float16)
    truth = np.ones(SHAPE, bool)
    out = tmp_path / "figures" / "e.png"
    draw_examples([case(image, truth, {"A": image}), case(image, truth, {"B": image})], out, heading="Examples")
    assert sorted(p.name for p in out.parent.iterdir()) == ["e.png", "e.svg"]
    assert imread(out).std() > 0.01
