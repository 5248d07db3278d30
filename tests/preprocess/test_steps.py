"""Grids, bias field, skull strip, z-score and patch box, each against something known."""

import numpy as np
import pytest
from scipy import ndimage

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan
from tlseg_jax.preprocess.steps import crop
from tlseg_jax.preprocess.steps.bias import correct_bias
from tlseg_jax.preprocess.steps.normalise import zscore
from tlseg_jax.preprocess.steps.strip import brain_mask, foreground, own_brain, strip
from tlseg_jax.preprocess.steps.template import MNI305_TO_MNI152, mni305_grid, native_grid, template_mask


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> np.ndarray:
    at = np.indices(shape) - np.array(centre)[:, None, None, None]
    return (at**2).sum(0) < radius**2


# --- grids -------------------------------------------------------------------------------------


def test_mni305_grid_is_the_average305_volume_and_keeps_its_field_of_view() -> None:
    spec = get_spec("hdt_c")
    one = mni305_grid(spec)
    assert one.shape == (172, 220, 156) and one.spacing == (1, 1, 1)
    assert np.allclose(one.affine[:3, 3], (-86.095, -126.51, -68.25))
    for spacing in (2.0, 3.0, 0.8):
        other = mni305_grid(spec.at_spacing(spacing))
        assert other.spacing == pytest.approx((spacing,) * 3)
        middle = [g.affine @ [*(np.array(g.shape) - 1) / 2, 1] for g in (one, other)]
        assert np.allclose(*middle)
        assert np.allclose(np.array(other.shape) * spacing, one.shape, atol=spacing)


def test_native_grid_follows_the_head_not_the_file() -> None:
    spec = get_spec("hdt_wb").at_spacing(4.0)
    head = ball((60, 64, 50), (20, 40, 25), 10)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (100, -30, 7)
    flipped = np.diag([-1.0, 1, -1, 1]) @ np.eye(4)
    flipped[0, 3], flipped[2, 3] = 59, 49
    a = native_grid(spec, head.shape, affine, head)
    b = native_grid(spec, head.shape, affine @ flipped, head[::-1, :, ::-1])
    assert a.shape == b.shape and np.allclose(a.affine, b.affine, atol=1e-4)
    assert np.allclose(a.affine @ [*(np.array(a.shape) - 1) / 2, 1], affine @ [20, 40, 25, 1])
    assert np.allclose(a.affine[:3, :3], np.eye(3) * 4)


def test_native_grid_without_spacing_keeps_the_field_of_view() -> None:
    spec = get_spec("mal_c")
    shape = (256, 160, 200)
    affine = np.zeros((4, 4))  # the first axis runs down, the second left, the third to the front
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -1.0, -1.2, 0.9, 1
    affine[:3, 3] = (90, -80, 120)
    grid = native_grid(spec, shape, affine, np.ones(shape, bool))
    assert grid.shape == (192, 192, 160)
    assert np.allclose(grid.spacing, (160 * 1.2 / 192, 200 * 0.9 / 192, 256 * 1.0 / 160))
    assert (np.diag(grid.affine)[:3] > 0).all()
    corners = [
        np.sort([(m @ [*c, 1])[:3] for c in ([-0.5] * 3, np.array(n) - 0.5)], axis=0)
        for m, n in ((affine, shape), (grid.affine, grid.shape))
    ]
    assert np.allclose(*corners)


def test_template_brain_is_where_brains_are() -> None:
    mask, affine = template_mask()
    volume = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    assert 1500 < volume < 2100
    assert np.allclose(
        MNI305_TO_MNI152 @ affine, np.array([[1, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]])
    )
    centre = affine @ [*ndimage.center_of_mass(mask), 1]
    assert np.abs(centre[:3] - (0, -20, 10)).max() < 12


# --- foreground and strip ----------------------------------------------------------------------


def test_foreground_is_the_head_with_its_dark_parts() -> None:
    rng = np.random.default_rng(0)
    head, hole = ball((64,) * 3, (32, 32, 32), 24), ball((64,) * 3, (32, 32, 32), 8)
    image = np.where(head & ~hole, 100.0, 5.0) + rng.normal(0, 2, head.shape)
    image[0, 0, 0] = 1e5  # one hot voxel
    found = foreground(image.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert 2 * (found & head).sum() / (found.sum() + head.sum()) > 0.97


def test_stripped_brain_and_head_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    texture = rng.normal(100, 10, (64,) * 3).astype(np.float32)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    brain, head = ball((64,) * 3, (32, 32, 32), 24), ball((64,) * 3, (32, 32, 32), 31)
    assert 1000 < brain.sum() * 0.027 < 2200 < head.sum() * 0.027
    found = own_brain(np.where(brain, texture, 0).astype(np.float32), affine)
    assert found is not None and (found == brain).all()
    assert own_brain(np.where(head, texture, 0).astype(np.float32), affine) is None  # zeroed background
    assert own_brain(np.where(brain, texture, rng.normal(0, 1, head.shape)).astype(np.float32), affine) is None


def test_mask_comes_from_the_best_source_there_is() -> None:
    spec = get_spec("oas_c").at_spacing(4.0)
    grid = mni305_grid(spec)
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, grid.shape).astype(np.float32)
    supplied = np.zeros(grid.shape, bool)
    supplied[10:20, 10:20, 10:20] = True
    eye = np.eye(4)
    mask, how = brain_mask(Scan(image, grid.affine, None, supplied), None, grid, eye, eye)
    assert how == "supplied mask" and (mask == supplied).all()
    mask, how = brain_mask(Scan(image, grid.affine), supplied, grid, eye, eye)
    assert how == "scan is already stripped" and (mask == supplied).all()
    mask, how = brain_mask(Scan(image, grid.affine), None, grid, eye, eye)
    assert how == "template mask" and 1500 < mask.sum() * grid.voxel_ml < 2000
    cut = strip(image, mask)
    assert (cut[~mask] == 0).all() and (cut[mask] == image[mask]).all()


# --- bias field --------------------------------------------------------------------------------


def test_bias_field_is_found_and_divided_out() -> None:
    rng = np.random.default_rng(0)
    shape = (64, 64, 64)
    head, inner = ball(shape, (32, 32, 32), 28), ball(shape, (32, 32, 32), 18)
    truth = np.where(inner, 150.0, np.where(head, 90.0, 0.0))
    truth[20:30, 25:40, 30:40] = 60
    x, y, z = np.indices(shape) / 63 - 0.5
    field = np.exp(0.5 * x - 0.4 * y * z + 0.3 * z)
    noisy = (truth * field + rng.normal(0, 1, shape)).clip(0).astype(np.float32)
    out, found = correct_bias(noisy, np.diag([2.0, 2.0, 2.0, 1.0]), head)
    spread = [v[inner & (truth == 150)].std() / v[inner & (truth == 150)].mean() for v in (noisy, out)]
    assert spread[1] < 0.35 * spread[0]
    assert out[head].mean() == pytest.approx(noisy[head].mean(), rel=1e-4)
    assert np.corrcoef(np.log(found[head]), np.log(field[head]))[0, 1] > 0.95


def test_bias_correction_leaves_zero_at_zero_and_takes_negative_values() -> None:
    rng = np.random.default_rng(0)
    head = ball((32,) * 3, (16, 16, 16), 12)
    image = np.where(head, rng.normal(100, 5, head.shape), 0).astype(np.float32)
    out, _ = correct_bias(image, np.diag([4.0, 4.0, 4.0, 1.0]), head)
    assert (out[~head] == 0).all()
    shifted, _ = correct_bias(image - 50, np.diag([4.0, 4.0, 4.0, 1.0]), head)
    assert np.isfinite(shifted).all() and (shifted[~head] == -50).all()


# --- z-score -----------------------------------------------------------------------------------


def test_zscore_over_volume_and_mask() -> None:
    image = np.random.default_rng(0).gamma(2, 100, (20, 20, 20)).astype(np.float32)
    z = zscore(image)
    assert z.dtype == np.float32 and abs(z.mean()) < 1e-5 and abs(z.std() - 1) < 1e-5
    mask = image > 100
    z = zscore(image, mask)
    assert abs(z[mask].mean()) < 1e-5 and abs(z[mask].std() - 1) < 1e-5
    with pytest.raises(ExclusionError, match=r"^a\.nii has the same value everywhere"):
        zscore(np.full((3, 3, 3), 7, np.float32), None, "a.nii")


# --- patch box ---------------------------------------------------------------------------------


def test_patch_box_is_centred_on_the_mean_and_stays_inside() -> None:
    box = crop.patch_box([(40.0, 50.0, 30.0), (44.0, 52.0, 34.0)], (16, 24, 8), (86, 110, 78))
    assert box == Box((34, 40, 28), (16, 24, 8)) or np.allclose(
        np.array(box.start) + (np.array(box.size) - 1) / 2, (42, 51, 32), atol=0.5
    )
    assert crop.patch_box([(2.0, 50.0, 77.0)], (16, 24, 8), (86, 110, 78)).start[0] == 0
    assert crop.patch_box([(2.0, 50.0, 77.0)], (16, 24, 8), (86, 110, 78)).stop[2] == 78


def test_lost_voxels_are_counted() -> None:
    label = np.zeros((20, 20, 20), bool)
    label[2:8, 5:9, 10:12] = True
    assert crop.tight_box(label) == Box((2, 5, 10), (6, 4, 2))
    assert crop.encloses(Box((2, 5, 10), (6, 4, 2)), crop.tight_box(label))
    cut = Box((3, 0, 0), (16, 16, 16))
    assert not crop.encloses(cut, crop.tight_box(label))
    assert crop.lost_voxels(label, cut) == 8
    assert crop.lost_voxels(label, Box((-3, -1, 4), (16, 16, 16))) == 0
    assert crop.centre_of_mass(label) == (4.5, 6.5, 10.5)
    text = crop.box_warning({"sub-3": (8, 48)}, (16, 16, 16))
    assert "sub-3 (8 of 48 voxels)" in text
