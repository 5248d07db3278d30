"""Resampling against SimpleITK, known shifts, and its own inverse."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from tlseg_jax.geometry import Grid
from tlseg_jax.preprocess.steps.resample import mask_to_grid, to_grid, to_scan


def smooth(shape: tuple[int, int, int], seed: int = 0, sigma: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, sigma).astype(np.float32)


def some_affine(zoom: float = 1.0) -> np.ndarray:
    """Rotated, scaled and shifted, with a flipped axis, as scanners write them."""
    a, b = 0.3, -0.2
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    rz = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rx @ rz @ np.diag([-1.0, 1.1, 0.9]) * zoom
    affine[:3, 3] = (14.0, -12.0, 3.0)
    return affine


def test_identity_changes_nothing() -> None:
    v = smooth((11, 12, 13))
    grid = Grid((11, 12, 13), np.diag([1.0, 2.0, 3.0, 1.0]))
    for order in (1, 3):
        assert np.allclose(to_grid(v, grid.affine, grid, np.eye(4), order), v, atol=1e-5)


@pytest.mark.parametrize("order", [1, 3])
def test_agrees_with_simpleitk(order: int) -> None:
    v = smooth((30, 28, 26))
    v -= v.min()
    affine = some_affine()
    centre = affine @ [14.5, 13.5, 12.5, 1]
    grid_affine = np.diag([0.9, 1.0, 1.1, 1.0])
    grid_affine[:3, 3] = centre[:3] - grid_affine[:3, :3] @ [7, 7, 7]
    shift = np.eye(4)
    shift[:3, 3] = (0.7, -1.3, 0.4)
    mine = to_grid(v, affine, Grid((15, 15, 15), grid_affine), shift, order, antialias=False)

    image = sitk.GetImageFromArray(np.ascontiguousarray(v.transpose(2, 1, 0)))
    size = np.sqrt((affine[:3, :3] ** 2).sum(0))
    image.SetSpacing(size.tolist())
    image.SetDirection((affine[:3, :3] / size).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    reference = sitk.Image(15, 15, 15, sitk.sitkFloat32)
    reference.SetSpacing((0.9, 1.0, 1.1))
    reference.SetOrigin(grid_affine[:3, 3].tolist())
    move = sitk.TranslationTransform(3, (0.7, -1.3, 0.4))
    how = sitk.sitkLinear if order == 1 else sitk.sitkBSpline
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, reference, move, how)).transpose(2, 1, 0)
    # The two continue a spline differently past the border, so the corners are left out.
    inner = (slice(3, -3),) * 3
    assert np.abs(mine - theirs)[inner].max() < 2e-4 * v.max()


def test_cropped_filtering_gives_what_the_whole_volume_gives() -> None:
    v = smooth((60, 60, 60), sigma=1.0)
    small = np.eye(4)
    small[:3, 3] = (27.3, 25.1, 26.6)
    part = to_grid(v, np.eye(4), Grid((8, 8, 8), small), np.eye(4), order=3)
    whole = np.clip(ndimage.shift(v, (-0.3, -0.1, -0.6), order=3), v.min(), v.max())[27:35, 25:33, 26:34]
    assert np.abs(part - whole).max() < 1e-5


def test_coarser_grid_keeps_the_mean_and_removes_what_would_alias() -> None:
    i = np.indices((40, 40, 40)).sum(0)
    checks = (i % 2).astype(np.float32)  # the finest pattern there is: a coarser grid sees its mean
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = 5
    grid = Grid((8, 8, 8), affine)
    blurred = to_grid(checks, np.eye(4), grid, np.eye(4), order=1)
    assert np.abs(blurred - 0.5).max() < 0.02
    assert np.ptp(to_grid(checks, np.eye(4), grid, np.eye(4), order=1, antialias=False)) == 1.0


def test_spline_stays_within_the_range_and_outside_is_the_lowest() -> None:
    v = np.full((20, 20, 20), 10.0, np.float32)
    v[5:15, 5:15, 5:15] = 90
    affine = np.diag([0.7, 0.7, 0.7, 1.0])
    affine[:3, 3] = -5
    out = to_grid(v, np.eye(4), Grid((40, 40, 40), affine), np.eye(4), order=3)
    assert out.min() == 10 and out.max() == 90
    assert np.abs(out[:5] - 10).max() < 0.05  # all but the last ripples of the spline


def test_grid_that_misses_the_scan_is_all_outside() -> None:
    far = np.eye(4)
    far[:3, 3] = 1000
    out = to_grid(smooth((9, 9, 9)), np.eye(4), Grid((4, 4, 4), far), np.eye(4), outside=-7.0)
    assert (out == -7).all()


def test_there_and_back() -> None:
    v = smooth((32, 30, 28), sigma=4.0)
    v[0], v[-1] = 0, 0
    affine, space = some_affine(), some_affine()
    space[:3, 3] = (1, 2, 3)
    corners = np.linalg.inv(space) @ affine @ np.array([[15.5, 14.5, 13.5, 1.0]]).T
    grid_affine = np.diag([0.8, 0.8, 0.8, 1.0])
    grid_affine[:3, 3] = corners[:3, 0] - 0.8 * 39.5
    grid = Grid((80, 80, 80), grid_affine)
    there = to_grid(v, affine, grid, space, order=3, outside=0.0)
    back = to_scan(there, grid, space, (32, 30, 28), affine)
    inner = (slice(4, -4),) * 3
    assert np.abs(back - v)[inner].max() < 0.05 * np.abs(v).max()


def test_label_keeps_its_volume_in_millimetres() -> None:
    i = np.indices((40, 40, 40)) - 20.3
    ball = (i**2).sum(0) < 12**2
    for spacing in (0.7, 1.0, 2.0):
        affine = np.diag([spacing, spacing, spacing, 1.0])
        n = round(40 / spacing)
        out = mask_to_grid(ball, np.eye(4), Grid((n, n, n), affine), np.eye(4))
        assert out.sum() * spacing**3 == pytest.approx(ball.sum(), rel=0.03)


def test_to_scan_lands_where_nibabel_says() -> None:
    affine = some_affine()
    grid = Grid((50, 50, 50), np.diag([1.0, 1.0, 1.0, 1.0]) - np.array([[0, 0, 0, 25.0]] * 3 + [[0] * 4]))
    point = np.zeros(grid.shape, np.float32)
    voxel = np.array([12, 11, 10])
    world = nib.affines.apply_affine(affine, voxel)
    near = np.round(nib.affines.apply_affine(np.linalg.inv(grid.affine), world)).astype(int)
    point[tuple(near)] = 1
    point = ndimage.gaussian_filter(point, 2)
    back = to_scan(point, grid, np.eye(4), (24, 24, 24), affine)
    assert np.abs(np.array(np.unravel_index(back.argmax(), back.shape)) - voxel).max() <= 1
