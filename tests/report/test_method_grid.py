"""Fig. 4: one slice, every method and n, in the paper's colours."""

import dataclasses
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from numpy.typing import NDArray

from tlseg_jax.figures.contours import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from tlseg_jax.report.figures.case_scans import CaseScan
from tlseg_jax.report.figures.method_grid import draw_method_grid

SHAPE = (40, 48, 30)
AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])
Masks = dict[tuple[str, int], NDArray[np.bool_]]


def box(x: int, y: int, z: int = 10) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[x : x + 8, y : y + 10, z : z + 8] = True
    return mask


def colours(path: Path) -> set[str]:
    pixels = imread(path)[: -int(0.3 * 200), :, :3]  # without the legend
    near = {
        c: int((np.abs(pixels - np.array(to_rgb(c))).max(-1) < 0.1).sum())
        for c in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE)
    }
    return {c for c, count in near.items() if count > 30}


def scan(affine: NDArray[np.float64] = AFFINE) -> CaseScan:
    return CaseScan(np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32), box(15, 20), affine)


def draw(masks: Masks, path: Path) -> None:
    draw_method_grid(masks, scan(), path, heading="sub-1", mark="synthetic")


def test_each_error_has_its_colour(tmp_path: Path) -> None:
    out = tmp_path / "figures" / "grid.png"
    for mask, seen in (
        (box(15, 20), {TRUE_POSITIVE}),
        (np.zeros(SHAPE, bool), {FALSE_NEGATIVE}),
        (box(19, 20), {TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE}),
    ):
        draw({("A", 2): mask, ("A", 4): mask, ("B", 2): mask}, out)
        assert colours(out) == seen
    assert sorted(p.name for p in out.parent.iterdir()) == ["grid.png", "grid.svg"]


def test_rows_are_methods_and_columns_numbers(tmp_path: Path) -> None:
    """A prediction in one cell alone is found in that cell of the picture."""
    out = tmp_path / "grid.png"
    names, numbers = ("first", "second", "third"), (2, 8, 32)
    for row, column in ((0, 1), (2, 0), (1, 2)):
        masks = {(m, k): np.zeros(SHAPE, bool) for m in names for k in numbers}
        masks[names[row], numbers[column]] = box(15, 20)
        draw(masks, out)
        picture = imread(out)[..., :3]
        red = np.argwhere(np.abs(picture - np.array(to_rgb(TRUE_POSITIVE))).max(-1) < 0.1)
        y, x = np.median(red[red[:, 0] < picture.shape[0] - 60], axis=0) / np.array(picture.shape[:2])
        assert int(y * 3.0) == row and int((x - 0.05) / 0.95 * 4) == column + 1


def test_voxel_axes_of_any_orientation_give_the_same_picture(tmp_path: Path) -> None:
    mask = box(18, 22)
    draw_method_grid({("A", 2): mask}, scan(), tmp_path / "a.png")
    flip = np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    turned = dataclasses.replace(scan(AFFINE @ flip), image=scan().image[::-1], reference=scan().reference[::-1])
    draw_method_grid({("A", 2): mask[::-1]}, turned, tmp_path / "b.png")
    assert np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))


def test_missing_masks_are_left_open(tmp_path: Path) -> None:
    draw({("A", 2): box(15, 20), ("B", 4): box(15, 20)}, tmp_path / "a.png")
    assert colours(tmp_path / "a.png") == {TRUE_POSITIVE}
