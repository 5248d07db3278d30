"""Scores against SimpleITK, and against shapes whose scores are known."""

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.evaluate.metrics import SubjectScore, hausdorff, score, summarise, surface_distances

SPACING = (0.8, 1.1, 2.5)


def random_masks(seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two blobs with holes and islands that overlap in part, clear of the border."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.standard_normal((22, 20, 16)), 1.5) for _ in range(3)]
    a, b = smooth[0] + smooth[1] > 0.05, smooth[0] + smooth[2] > 0.08
    inner = np.zeros(a.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return a & inner, b & inner


def itk(mask: NDArray[np.bool_]) -> sitk.Image:
    image = sitk.GetImageFromArray(mask.transpose(2, 1, 0).astype(np.uint8))
    image.SetSpacing(SPACING)
    return image


@pytest.mark.parametrize("seed", range(4))
def test_overlap_and_volumes_equal_simpleitk(seed: int) -> None:
    a, b = random_masks(seed)
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(itk(b), itk(a))
    found = score(a, b, SPACING)
    assert found.iou == pytest.approx(measures.GetJaccardCoefficient())
    assert found.dice == pytest.approx(measures.GetDiceCoefficient())
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    assert found.reference_ml == pytest.approx(b.sum() * math.prod(SPACING) / 1000)
    assert found.predicted_ml == pytest.approx(a.sum() * math.prod(SPACING) / 1000)
    assert found.hd95_mm is None and found.asd_mm is None


@pytest.mark.parametrize("seed", range(4))
def test_surface_distances_equal_simpleitk_on_its_own_contours(seed: int) -> None:
    a, b = random_masks(seed)
    contours = [sitk.LabelContour(itk(m), fullyConnected=False) for m in (a, b)]
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(*contours)
    there, back = surface_distances(a, b, SPACING)
    assert hausdorff(there, back, 100) == pytest.approx(measure.GetHausdorffDistance(), rel=1e-5)
    # Distances of the whole surface, from SimpleITK's own distance maps.
    expected = []
    for mine, other in (contours, contours[::-1]):
        away = sitk.Abs(sitk.SignedMaurerDistanceMap(other, squaredDistance=False, useImageSpacing=True))
        expected.append(sitk.GetArrayFromImage(away)[sitk.GetArrayFromImage(mine) > 0])
    assert np.allclose(np.sort(there), np.sort(expected[0]), atol=1e-4)
    assert np.allclose(np.sort(back), np.sort(expected[1]), atol=1e-4)
    found = score(a, b, SPACING, distances=True)
    assert found.asd_mm == pytest.approx(np.concatenate(expected).mean(), rel=1e-4)
    worst = max(np.percentile(e, 95) for e in expected)
    assert found.hd95_mm == pytest.approx(worst, rel=1e-4)


def test_a_cube_moved_by_two_voxels_has_known_scores() -> None:
    a = np.zeros((20, 20, 20), bool)
    a[4:10, 4:10, 4:10] = True
    b = np.roll(a, 2, axis=2)
    there, back = surface_distances(a, b, SPACING)
    assert hausdorff(there, back, 100) == pytest.approx(2 * SPACING[2])
    assert score(a, b, SPACING).iou == pytest.approx(4 / 8)


def test_concentric_spheres_are_their_difference_in_radius_apart() -> None:
    at = np.stack(np.meshgrid(*[np.arange(61) - 30] * 3, indexing="ij"), -1)
    r = np.sqrt((at**2).sum(-1))
    found = score(r <= 24, r <= 18, (0.5, 0.5, 0.5), distances=True)
    assert found.asd_mm == pytest.approx(3.0, abs=0.25)  # half a voxel
    assert found.hd95_mm == pytest.approx(3.0, abs=0.3)
    assert found.reference_ml == pytest.approx(4 / 3 * math.pi * 9**3 / 1000, rel=0.01)
    assert found.iou == pytest.approx((18 / 24) ** 3, rel=0.01)


def test_a_mask_that_fills_the_volume_has_its_border_as_surface() -> None:
    full = np.ones((5, 5, 5), bool)
    there, back = surface_distances(full, full, (1, 1, 1))
    assert there.size == back.size == 125 - 27
    assert not there.any()


def test_swapping_the_masks_changes_no_score_but_swaps_the_volumes() -> None:
    a, b = random_masks(9)
    one, other = score(a, b, SPACING, distances=True), score(b, a, SPACING, distances=True)
    assert (one.iou, one.dice, one.hd95_mm) == (other.iou, other.dice, other.hd95_mm)
    assert one.asd_mm == pytest.approx(other.asd_mm)
    assert (one.predicted_ml, one.reference_ml) == (other.reference_ml, other.predicted_ml)


def test_empty_masks_follow_the_convention() -> None:
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    assert score(empty, empty, (1, 1, 1), distances=True) == SubjectScore(1, 1, 0, 0, 0, 0, True, 1)
    for one, other in ((empty, full), (full, empty)):
        found = score(one, other, (1, 1, 1), distances=True)
        assert (found.iou, found.dice, found.hd95_mm, found.asd_mm, found.nsd) == (0, 0, None, None, 0)
    with pytest.raises(ValueError, match="not empty"):
        surface_distances(empty, full, (1, 1, 1))


def test_surface_dice_is_the_share_of_both_surfaces_within_a_millimetre() -> None:
    """Two slabs a step apart along an axis of 0.6 mm: near after one step, not after two."""
    slab = np.zeros((20, 6, 6), bool)
    slab[5:12] = True
    for step, expected in ((0, 1.0), (1, 1.0)):
        found = score(np.roll(slab, step, 0), slab, (0.6, 1, 1), distances=True)
        assert found.nsd == pytest.approx(expected)
    far = score(np.roll(slab, 3, 0), slab, (0.6, 1, 1), distances=True)
    there, back = surface_distances(np.roll(slab, 3, 0), slab, (0.6, 1, 1))
    assert far.nsd == pytest.approx(np.mean(np.concatenate([there, back]) <= 1.0)) and 0 < far.nsd < 1


@pytest.mark.usefixtures("unchecked")
def test_masks_of_another_shape_or_kind_are_refused() -> None:
    mask = np.zeros((4, 4, 4), bool)
    with pytest.raises(ValueError, match="one shape"):
        score(mask, mask[:3], (1, 1, 1))
    with pytest.raises(ValueError, match="bool"):
        score(mask.astype(np.uint8), mask, (1, 1, 1))  # type: ignore[arg-type]


def test_a_summary_has_the_sample_deviation_and_counts_what_is_undefined() -> None:
    scores = [
        SubjectScore(0.5, 0.6, 10, 12, 2.0, 1.0, True),
        SubjectScore(0.7, 0.8, 10, 9, 4.0, 2.0, True),
        SubjectScore(0.0, 0.0, 10, 0, None, None, True),
    ]
    summary = summarise(scores)
    iou = np.array([0.5, 0.7, 0.0])
    assert summary["n"] == 3
    assert summary["iou_mean"] == pytest.approx(0.4)
    assert summary["iou_std"] == pytest.approx(math.sqrt(((iou - 0.4) ** 2).sum() / 2))
    assert summary["dice_mean"] == pytest.approx(1.4 / 3)
    assert summary["volume_error_ml_mean"] == pytest.approx(-3)
    assert summary["empty_predictions"] == 1
    assert (summary["distances_n"], summary["distances_undefined"]) == (2, 1)
    assert summary["hd95_mm_mean"] == pytest.approx(3)
    json.dumps(summary, allow_nan=False)


def test_a_summary_of_one_subject_has_no_deviation_and_no_distances_unless_asked() -> None:
    summary = summarise([SubjectScore(0.5, 0.6, 1, 1)])
    assert summary["iou_std"] is None
    assert not any("mm" in k or "distances" in k for k in summary)
    missed = summarise([SubjectScore(0, 0, 1, 0, None, None, True)])
    assert missed["hd95_mm_mean"] is None and missed["distances_undefined"] == 1
    json.dumps([summary, missed], allow_nan=False)
    with pytest.raises(ValueError, match="no scores"):
        summarise([])
