"""Boxes against NumPy's own padding and indexing, grids against nibabel."""

import json

import nibabel as nib
import numpy as np
import pytest

from tlseg_jax.geometry import Box, Grid, crop_or_pad, paste

VOLUME = np.random.default_rng(0).normal(size=(5, 6, 7))


def random_boxes(count: int) -> list[Box]:
    """Boxes that lie within, across and around the volume's border, but touch it."""
    rng = np.random.default_rng(1)
    boxes = []
    while len(boxes) < count:
        start, size = rng.integers(-8, 9, 3), rng.integers(1, 12, 3)
        if all(a < n and a + s > 0 for a, s, n in zip(start, size, VOLUME.shape, strict=True)):
            boxes.append(Box(tuple(map(int, start)), tuple(map(int, size))))  # type: ignore[arg-type]
    return boxes


@pytest.mark.parametrize("mode", ["edge", "constant"])
def test_crop_or_pad_is_an_index_into_a_widely_padded_volume(mode: str) -> None:
    margin = 20
    wide = np.pad(VOLUME, margin, mode=mode)  # type: ignore[call-overload]
    for box in random_boxes(200):
        expected = wide[tuple(slice(a + margin, b + margin) for a, b in zip(box.start, box.stop, strict=True))]
        np.testing.assert_array_equal(crop_or_pad(VOLUME, box, mode), expected)


def test_a_box_wholly_outside_is_zero() -> None:
    for start in [(-9, 0, 0), (5, 0, 0), (0, 6, 0), (0, 0, -30)]:
        assert not crop_or_pad(VOLUME, Box(start, (4, 4, 4))).any()


def test_paste_undoes_crop_where_they_overlap() -> None:
    for box in random_boxes(200):
        out = np.full(VOLUME.shape, np.nan)
        paste(crop_or_pad(VOLUME, box), box, out)
        at = np.indices(VOLUME.shape)
        inside = np.all([(at[i] >= box.start[i]) & (at[i] < box.stop[i]) for i in range(3)], axis=0)
        np.testing.assert_array_equal(np.isnan(out), ~inside)
        np.testing.assert_array_equal(out[inside], VOLUME[inside])


def test_paste_outside_writes_nothing() -> None:
    out = VOLUME.copy()
    paste(np.zeros((3, 3, 3)), Box((5, 0, 0), (3, 3, 3)), out)
    paste(np.zeros((3, 3, 3)), Box((0, -3, 0), (3, 3, 3)), out)
    np.testing.assert_array_equal(out, VOLUME)


def test_centred_is_the_nearest_box() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        centre, size = rng.uniform(-5, 30, 3), rng.integers(1, 20, 3)
        box = Box.centred(tuple(centre), tuple(map(int, size)))  # type: ignore[arg-type]
        middle = [(a + b - 1) / 2 for a, b in zip(box.start, box.stop, strict=True)]
        assert np.all(np.abs(np.subtract(middle, centre)) <= 0.5 + 1e-9)
        assert box.size == tuple(size)


def test_box_survives_json() -> None:
    box = Box((-1, 2, 3), (4, 5, 6))
    assert Box.from_dict(json.loads(json.dumps(box.to_dict()))) == box
    assert box.stop == (3, 7, 9)


def test_grid_spacing_and_volume_are_nibabels() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        size = rng.uniform(0.5, 3, 3)
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn * size, rng.normal(size=3)
        grid = Grid((3, 4, 5), affine)
        np.testing.assert_allclose(grid.spacing, nib.affines.voxel_sizes(affine))
        assert grid.voxel_ml == pytest.approx(size.prod() / 1000)
