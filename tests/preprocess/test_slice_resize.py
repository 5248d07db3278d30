"""Resizing against block means, a fine grid and SciPy; choosing slices against plain rules."""

import numpy as np
import pytest
from scipy import ndimage

from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid
from tlseg_jax.preprocess.slice_choice import choose_slices, fewer_than_asked, with_neighbours
from tlseg_jax.preprocess.slice_resize import Resizer, axes_of, plan_axes, resized_affine

RNG = np.random.default_rng(0)


def spec(pixels: tuple[int, int], resize: str = "fit", pixel_mm: float | None = None) -> DatasetSpec:
    grid = PlaneGrid("MR", pixels, resize, pixel_mm)  # type: ignore[arg-type]
    return DatasetSpec("s", ("liver", "tumour"), grid, "s", ((1, 2), (2,)), exclusive=False)


def test_pad_keeps_the_pixels_and_the_middle() -> None:
    plane = RNG.normal(size=(31, 40)).astype(np.float32)
    axes = plan_axes((31, 40), (1, 1), spec((40, 33), "pad"))
    out = Resizer(axes).image(plane, -7)
    expected = np.full((40, 33), -7, np.float32)
    expected[5:36] = plane[:, 3:36]  # 31 in 40 leaves 4 or 5 below; 33 of 40 leaves 3 or 4
    np.testing.assert_array_equal(out, expected)
    bits = RNG.integers(0, 4, (31, 40)).astype(np.uint8)
    label = Resizer(axes).label(bits, 2)
    np.testing.assert_array_equal(label[5:36], bits[:, 3:36])
    assert label[:5].max() == label[36:].max() == 0


def test_shrinking_by_whole_numbers_is_the_block_mean() -> None:
    plane = RNG.normal(size=(64, 48)).astype(np.float32)
    resizer = Resizer(plan_axes((64, 48), (1, 1), spec((16, 24))))
    np.testing.assert_allclose(resizer.image(plane, 0), plane.reshape(16, 4, 24, 2).mean((1, 3)), atol=1e-6)
    bits = RNG.integers(0, 4, (64, 48)).astype(np.uint8)
    label = resizer.label(bits, 2)
    for bit in (0, 1):
        share = (bits >> bit & 1).reshape(16, 4, 24, 2).mean((1, 3))
        np.testing.assert_array_equal(label >> bit & 1, share >= 0.5)


def test_shrinking_by_any_ratio_is_the_mean_over_the_area() -> None:
    plane = RNG.normal(size=(50, 35)).astype(np.float32)
    fine = plane.repeat(18, 0).repeat(20, 1)  # 900 x 700: whole pixels of both grids
    out = Resizer(plan_axes((50, 35), (1, 1), spec((18, 20)))).image(plane, 0)
    np.testing.assert_allclose(out, fine.reshape(18, 50, 20, 35).mean((1, 3)), atol=1e-6)


def test_enlarging_is_linear_interpolation_with_the_border_repeated() -> None:
    plane = RNG.normal(size=(20, 17)).astype(np.float32)
    out = Resizer(plan_axes((20, 17), (1, 1), spec((33, 40)))).image(plane, 0)
    expected = ndimage.zoom(plane, (33 / 20, 40 / 17), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_spacing_gives_square_pixels_about_the_middle_and_the_lowest_value_outside() -> None:
    axes = plan_axes((40, 40), (1.0, 2.0), spec((20, 60), "spacing", 2.0))
    plane = RNG.normal(size=(40, 40)).astype(np.float32)
    out = Resizer(axes).image(plane, -3)
    np.testing.assert_allclose(out[:, 10:50], plane.reshape(20, 2, 40).mean(1), atol=1e-5)
    assert (out[:, :10] == -3).all() and (out[:, 50:] == -3).all()
    affine = resized_affine(np.diag([1.0, 2.0, 5.0, 1.0]), axes)
    assert np.linalg.norm(affine[:3, :3], axis=0).tolist() == [2, 2, 5]


@pytest.mark.parametrize("resize", ["pad", "fit", "spacing"])
def test_the_affine_follows_a_ball_of_known_place(resize: str) -> None:
    shape, mm = (90, 70), (0.7, 1.1)
    affine = np.array([[0.6, -0.2, 0, 5], [0.1, 1.0, 0, -8], [0, 0, 4, 0], [0, 0, 0, 1.0]])
    at = np.array([41.0, 30.0])
    x, y = np.indices(shape)
    blob = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 50).astype(np.float32)
    axes = plan_axes(shape, mm, spec((60, 60), resize, 1.3 if resize == "spacing" else None))
    out = Resizer(axes).image(blob, 0)
    i, j = np.indices(out.shape)
    centre = [(i * out).sum() / out.sum(), (j * out).sum() / out.sum(), 3, 1]
    np.testing.assert_allclose(resized_affine(affine, axes) @ centre, affine @ [*at, 3, 1], atol=0.05)
    for axis, again in zip(axes, axes_of(resized_affine(affine, axes), affine, shape, (60, 60)), strict=True):
        assert (again.source, again.target) == (axis.source, axis.target)
        assert again.scale == pytest.approx(axis.scale) and again.offset == pytest.approx(axis.offset)


def test_chosen_slices_are_as_many_as_asked_and_the_nearest() -> None:
    for _ in range(200):
        shows = RNG.random(int(RNG.integers(2, 60))) < RNG.random()
        n, m = int(RNG.integers(1, 31)), int(RNG.integers(0, 21))
        chosen = choose_slices(shows.tolist(), n, m)
        assert list(chosen) == sorted(set(chosen))
        present, absent = np.flatnonzero(shows), np.flatnonzero(~shows)
        has = [z for z in chosen if shows[z]]
        lacks = [z for z in chosen if not shows[z]]
        assert len(has) == min(n, len(present))
        assert len(lacks) == (min(m, len(absent)) if len(present) else 0)
        if not len(present):
            continue
        if len(has) > 1:  # evenly: ranks among those present step by a number or the next
            steps = np.diff(np.searchsorted(present, has))
            assert steps.max() - steps.min() <= 1 and {present[0], present[-1]} <= set(has)
        distance = {z: np.abs(present - z).min() for z in absent}
        left = [distance[z] for z in absent if z not in lacks]
        assert not lacks or not left or max(distance[z] for z in lacks) <= min(left)
        short = len(has) < n or len(lacks) < m
        assert bool(fewer_than_asked(chosen, shows.tolist(), n, m)) == short


def test_slices_without_are_taken_below_and_above_alike() -> None:
    shows = [False] * 10 + [True] * 5 + [False] * 10
    assert choose_slices(shows, 5, 4) == (8, 9, 10, 11, 12, 13, 14, 15, 16)
    assert choose_slices(shows, 1, 3) == (8, 9, 12, 15)
    assert choose_slices(shows, 0, 3) == tuple(range(25))
    assert with_neighbours((0, 8), 10, 2) == (0, 1, 2, 6, 7, 8, 9)
