"""Features of components against closed forms for boxes and ellipsoids, and against loops over all voxels."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from tests.evaluate.slices import ball
from tlseg_jax.evaluate.component_features import FEATURES, component_features, find_body

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SPACING = (1.0, 2.0, 4.0)  # x, y, z
SIDES = np.array([4.0, 1.0, 2.0])  # in the order of the arrays: z, x, y
Table = dict[str, NDArray[np.float64]]


def features(
    mask: NDArray[np.bool_],
    image: NDArray[np.floating] | None = None,
    probability: NDArray[np.floating] | None = None,
    liver: NDArray[np.bool_] | None = None,
) -> Table:
    zero = np.zeros(mask.shape, np.float32)
    _, table = component_features(
        zero if probability is None else probability, mask, zero if image is None else image, SPACING, liver
    )
    return dict(zip(FEATURES, table.T, strict=True))


def test_shape_of_a_box() -> None:
    mask = np.zeros((8, 20, 20), np.bool_)
    mask[2:4, 5:11, 3:8] = True  # 8 mm, 6 mm, 10 mm
    f = {k: v[0] for k, v in features(mask).items()}
    assert f["voxels"] == 60 and f["volume_ml"] == pytest.approx(0.48)
    assert (f["extent_z_mm"], f["extent_x_mm"], f["extent_y_mm"]) == (8, 6, 10)
    assert f["slices"] == 2 and f["largest_slice_mm2"] == 60 and f["box_fill"] == 1
    area = 2 * (8 * 6 + 8 * 10 + 6 * 10)
    assert f["surface_per_volume"] == pytest.approx(area / 480)
    radius = (480 * 3 / 4 / np.pi) ** (1 / 3)
    assert f["sphericity"] == pytest.approx(4 * np.pi * radius**2 / area)
    # A box of side s has the variance s^2 / 12 on that axis.
    assert f["major_axis_mm"] == pytest.approx(2 * np.sqrt(5 / 12) * 10)
    assert f["elongation"] == pytest.approx(0.8) and f["flatness"] == pytest.approx(0.6)
    assert f["inner_radius_mm"] == 3  # three of 1 mm from the middle to the outside


def test_one_voxel_has_a_size() -> None:
    mask = np.zeros((3, 5, 5), np.bool_)
    mask[1, 2, 2] = True
    f = {k: v[0] for k, v in features(mask).items()}
    assert f["voxels"] == 1 and f["elongation"] == pytest.approx(0.5) and f["flatness"] == pytest.approx(0.25)
    assert f["inner_radius_mm"] == 1 and f["probability_std"] == 0 and f["rim_gradient"] == 0


def test_axes_of_a_turned_ellipsoid() -> None:
    at = np.stack(np.meshgrid(*map(np.arange, (24, 96, 48)), indexing="ij"), -1) * SIDES
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    along = (at - at.reshape(-1, 3).mean(0)) @ turn
    mask = ((along / (30.0, 20.0, 12.0)) ** 2).sum(-1) <= 1
    f = features(mask)
    assert f["major_axis_mm"][0] == pytest.approx(60, rel=0.03)
    assert f["elongation"][0] == pytest.approx(20 / 30, rel=0.03)
    assert f["flatness"][0] == pytest.approx(12 / 30, rel=0.03)


def test_against_loops_over_all_voxels() -> None:
    rng = np.random.default_rng(5)
    shape = (5, 14, 9)
    mask = ball((1, 3, 2), 1.8, shape) | ball((3, 10, 5), 1.5, shape) | ball((4, 3, 7), 1, shape)
    image = rng.normal(size=shape)
    probability = rng.random(shape)
    liver = np.zeros(shape, np.bool_)
    liver[0:4, 1:9, 1:8] = True
    labels, table = component_features(probability, mask, image, SPACING, liver)
    assert labels.max() == len(table) == 3 and ((labels > 0) == mask).all()
    everywhere = np.argwhere(np.ones(shape, np.bool_))
    slopes = np.gradient(image, *SIDES)
    # Voxel centres outside the liver, with a ring outside the volume
    ring = np.argwhere(~np.pad(liver, 1)) - 1
    for i in range(3):
        f = dict(zip(FEATURES, table[i], strict=True))
        at = np.argwhere(labels == i + 1)
        inside = {tuple(v) for v in at}
        values = np.array([image[v] for v in inside])
        assert f["intensity_mean"] == pytest.approx(values.mean())
        assert f["intensity_p90"] == pytest.approx(np.percentile(values, 90))
        assert (f["intensity_min"], f["intensity_max"]) == (values.min(), values.max())
        near = cdist(everywhere * SIDES, at * SIDES).min(1) <= 5
        shell = [tuple(v) for v in everywhere[near] if not mask[tuple(v)]]
        around = np.array([image[v] for v in shell])
        assert f["shell_mean"] == pytest.approx(around.mean()) and f["shell_std"] == pytest.approx(around.std())
        assert f["contrast"] == pytest.approx(values.mean() - around.mean())
        assert f["probability_shell"] == pytest.approx(np.mean([probability[v] for v in shell]))
        surface, rim = 0.0, []
        for v in inside:
            faces = 0
            for axis in range(3):
                for step in (-1, 1):
                    n = list(v)
                    n[axis] += step
                    if tuple(n) not in inside:
                        surface += SIDES.prod() / SIDES[axis]
                        faces += 1
            if faces:
                rim.append(np.sqrt(sum(s[v] ** 2 for s in slopes)))
        assert f["surface_per_volume"] == pytest.approx(surface / (len(at) * SIDES.prod()))
        assert f["rim_gradient"] == pytest.approx(np.mean(rim))
        out = cdist(at * SIDES, ring * SIDES).min(1)
        into = cdist(at * SIDES, np.argwhere(liver) * SIDES).min(1)
        signed = np.where([liver[tuple(v)] for v in at], out, -into)
        assert f["edge_nearest_mm"] == pytest.approx(signed.min(), rel=1e-6)
        assert f["edge_mean_mm"] == pytest.approx(signed.mean(), rel=1e-6)
        assert f["organ_share"] == pytest.approx(np.mean([liver[tuple(v)] for v in at]))
        offset = at.mean(0) * SIDES - np.argwhere(liver).mean(0) * SIDES
        centre = [f[f"centre_{a}_mm"] for a in "zxy"]
        assert centre == pytest.approx(offset) and f["centre_distance_mm"] == pytest.approx(np.linalg.norm(offset))


def test_moving_everything_changes_nothing() -> None:
    rng = np.random.default_rng(6)
    small = (5, 12, 12)
    mask, liver = ball((2, 6, 6), 1.7, small), ball((2, 6, 6), 5, small)
    image, probability = rng.normal(size=small), rng.random(small)

    def at(z: int, x: int, y: int) -> NDArray[np.float64]:
        def put(a: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.pad(a, ((9 + z, 9 - z), (9 + x, 9 - x), (9 + y, 9 - y)))

        return component_features(put(probability), put(mask), put(image), SPACING, put(liver))[1]

    assert at(0, 0, 0) == pytest.approx(at(2, -3, 1), rel=1e-6, abs=1e-6)


def test_what_does_not_exist_is_nan_and_the_rest_is_finite() -> None:
    whole = np.ones((2, 4, 4), np.bool_)
    f = features(whole, liver=np.zeros_like(whole))
    absent = {k for k, v in f.items() if np.isnan(v[0])}
    assert absent == {
        "probability_shell",
        "shell_mean",
        "shell_std",
        "contrast",
        "edge_nearest_mm",
        "edge_mean_mm",
        "centre_x_mm",
        "centre_y_mm",
        "centre_z_mm",
        "centre_distance_mm",
    }
    values = np.zeros((2, 4, 4))
    labels, table = component_features(values, values > 0, values, SPACING, None)
    assert labels.max() == 0 and table.shape == (0, len(FEATURES)) == (0, 36)


def test_body_is_the_largest_bright_part_with_its_holes() -> None:
    shape = (4, 40, 40)
    body = np.stack([ball((0, 20, 20), 14, (1, 40, 40))[0]] * 4)
    image = np.where(body, 0.4, -1.0) + np.random.default_rng(0).normal(0, 0.02, shape)
    image[:, 18:22, 18:22] = -1  # gas
    image[:, 36:39, 5:30] = 0.3  # the table
    assert np.array_equal(find_body(image), body)
    assert not find_body(np.zeros(shape)).any()


def canonical(path: Path) -> NDArray[np.float32]:
    """A scan as (planes, x, y)."""
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    scan = nib.as_closest_canonical(nib.load(path))
    return np.moveaxis(np.asarray(scan.dataobj, np.float32), 2, 0)


def test_tumours_of_a_real_ct_against_simpleitk() -> None:
    folder = DATA / "abdomen_ct_lits117"
    label = canonical(folder / "segmentation-117.nii.gz")
    image = np.clip(canonical(folder / "volume-117.nii.gz"), -160, 240)
    labels, table = component_features(image, label == 2, image, (1.0, 1.0, 1.0), label > 0)
    f = dict(zip(FEATURES, table.T, strict=True))
    parts = sitk.ConnectedComponentImageFilter()
    parts.SetFullyConnected(True)
    theirs = parts.Execute(sitk.GetImageFromArray((label == 2).astype(np.uint8)))
    numbers = sitk.GetArrayFromImage(theirs)
    shape, grey = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelIntensityStatisticsImageFilter()
    shape.Execute(theirs)
    grey.Execute(theirs, sitk.GetImageFromArray(image))
    assert len(table) == parts.GetObjectCount() == 70
    for i in range(len(table)):
        there = np.unique(numbers[labels == i + 1])
        assert len(there) == 1
        number = int(there[0])
        assert f["voxels"][i] == shape.GetNumberOfPixels(number)
        moments = shape.GetPrincipalMoments(number)  # of the voxels' centres: without their own size
        assert f["major_axis_mm"][i] == pytest.approx(2 * np.sqrt(5 * (moments[2] + 1 / 12)), rel=1e-6)
        assert f["intensity_mean"][i] == pytest.approx(grey.GetMean(number), rel=1e-5)
        assert f["intensity_max"][i] == grey.GetMaximum(number)
        assert f["organ_share"][i] == 1 and f["edge_nearest_mm"][i] > 0


@pytest.mark.parametrize("case", [1, 10, 20])
def test_a_body_on_real_mri_holds_its_organs_and_not_the_corners(case: int) -> None:
    folder = DATA / "abdomen_mr_chaos"
    image, organs = canonical(folder / f"image_{case}.nii.gz"), canonical(folder / f"label_{case}.nii.gz") > 0
    body = find_body(np.clip(image, *np.percentile(image, (0.5, 99.5))))
    assert body[organs].mean() > 0.995
    assert 0.4 < body.mean() < 0.75
    assert not body[:, :10, :10].any() and not body[:, -10:, -10:].any()
