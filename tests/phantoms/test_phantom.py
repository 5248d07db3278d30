"""Phantom heads: plausible, repeatable, and with factors that do not disturb one another."""

import dataclasses
import functools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.geometry import Box, Grid
from tlseg_jax.phantoms.phantom import Phantom, PhantomSettings, draw_person, grid_for, settings_for
from tlseg_jax.phantoms.phantom_scanner import draw_pose
from tlseg_jax.phantoms.phantom_shapes import ellipsoid, generator_of, tube
from tlseg_jax.runtime.errors import InputError

PERSONS = range(4)

HEADS = [n for n, s in PAPERS.items() if s.kind == "volumes"]


def spec_of(name: str, spacing: float = 2.0) -> DatasetSpec:
    return PAPERS[name].at_spacing(spacing)


@functools.cache
def drawn(name: str, person: int) -> Phantom:
    spec = spec_of(name)
    return draw_person(settings_for(spec), person, 0, grid_for(spec))


@functools.cache
def varied(person: int, **changes: str) -> Phantom:
    settings = dataclasses.replace(PhantomSettings(), **changes)  # type: ignore[arg-type]
    return draw_person(settings, person, 0, deep_grid())


@functools.cache
def deep_grid() -> Grid:
    """The 2 mm voxels about the deep structures only: quicker to draw."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-49, -91, -37)
    return Grid((50, 68, 42), affine)


def ml(phantom: Phantom, grid: Grid) -> float:
    return float(phantom.label.sum()) * grid.voxel_ml


def iou(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float((a & b).sum() / (a | b).sum())


def world(label: NDArray[np.uint8], grid: Grid) -> NDArray[np.float64]:
    return np.argwhere(label) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def test_mni305_grid_is_the_published_one_and_keeps_its_field_of_view() -> None:
    fine, coarse = grid_for(PAPERS["hdt_c"]), grid_for(spec_of("hdt_c"))
    assert fine.shape == (172, 220, 156)
    np.testing.assert_allclose(fine.affine[:3, 3], (-86.095, -126.51, -68.25))
    np.testing.assert_allclose(coarse.affine[:3, 3], np.array((-86.095, -126.51, -68.25)) + 0.5)
    low = [g.affine[:3, 3] - np.array(g.spacing) / 2 for g in (fine, coarse)]
    np.testing.assert_allclose(low[0], low[1])


@pytest.mark.parametrize("name", HEADS)
def test_volumes_have_the_shape_and_kind_that_the_data_set_promises(name: str) -> None:
    p = drawn(name, 0)
    assert p.image.shape == p.label.shape == p.brain.shape == spec_of(name).volumes.dimensions
    assert (p.image.dtype, p.label.dtype, p.brain.dtype) == (np.float32, np.uint8, np.bool_)
    assert np.isfinite(p.image).all() and p.image.min() >= 0 and p.image.std() > 0
    assert set(np.unique(p.label)) == {0, 1}


def test_same_seed_same_voxels_and_another_seed_another_head() -> None:
    grid = deep_grid()
    a, b, c = (draw_person(PhantomSettings(), 1, seed, grid) for seed in (3, 3, 4))
    for field in dataclasses.fields(Phantom):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))
    assert iou(a.label, c.label) < 0.95
    assert np.corrcoef(a.image.ravel(), c.image.ravel())[0, 1] < 0.99


def test_hdt_c_and_hdt_v_are_one_image_with_two_structures() -> None:
    c, v = drawn("hdt_c", 2), drawn("hdt_v", 2)
    np.testing.assert_array_equal(c.image, v.image)
    assert not (c.label & v.label)[ndimage.binary_erosion(c.label)].any()
    # They touch: the caudate is the ventricle's side wall.
    assert (ndimage.binary_dilation(c.label, iterations=2) & (v.label > 0)).sum() > 50


def test_hdt_wb_is_the_same_persons_brain_in_another_pose() -> None:
    """Resampled by its pose, the native brain mask falls on the registered one of that person only."""
    native_grid, grid = grid_for(spec_of("hdt_wb")), grid_for(spec_of("hdt_c"))

    def brain_in_mni(person: int) -> NDArray[np.uint8]:
        to_mni = draw_pose("native", generator_of(0, person, "hdt", "pose", "native"))
        m = np.linalg.inv(to_mni @ native_grid.affine) @ grid.affine
        brain = drawn("hdt_wb", person).brain.astype(np.float32)
        moved = ndimage.affine_transform(brain, m[:3, :3], m[:3, 3], output_shape=grid.shape, order=1)
        return (moved > 0.5).astype(np.uint8)

    # The registered scan keeps an error of about 1 mm, so that the agreement is not perfect.
    overlap = [iou(brain_in_mni(0), drawn("hdt_c", p).brain.astype(np.uint8)) for p in range(3)]
    assert overlap[0] > 0.93
    assert overlap[0] > max(overlap[1:])


def test_volumes_in_health_are_plausible() -> None:
    grid = deep_grid()
    caudate = [ml(varied(p, disease="healthy"), grid) / 2 for p in PERSONS]
    ventricle = [ml(varied(p, disease="healthy", structure="lateral ventricle"), grid) for p in PERSONS]
    assert all(2.8 < v < 5.2 for v in caudate) and 3.3 < np.mean(caudate) < 4.6
    assert all(8 < v < 30 for v in ventricle) and 12 < np.mean(ventricle) < 25
    native = grid_for(spec_of("hdt_wb"))
    assert all(800 < ml(drawn("hdt_wb", p), native) < 1500 for p in range(3))


def test_disease_acts_on_the_structures_that_it_should() -> None:
    grid = deep_grid()

    def mean(disease: str, structure: str) -> float:
        return float(np.mean([ml(varied(p, disease=disease, structure=structure), grid) for p in PERSONS]))

    healthy, hd, ad = ({s: mean(d, s) for s in ("caudate", "lateral ventricle")} for d in ("healthy", "HD", "AD"))
    assert 0.5 < hd["caudate"] / healthy["caudate"] < 0.8
    assert 0.85 < ad["caudate"] / healthy["caudate"] < 1.0
    assert (
        1.05
        < hd["lateral ventricle"] / healthy["lateral ventricle"]
        < ad["lateral ventricle"] / healthy["lateral ventricle"]
    )


def test_caudates_are_a_left_and_a_right_one_that_bend_in_a_c() -> None:
    grid = deep_grid()
    for p in PERSONS:
        label = varied(p, disease="healthy").label
        parts, count = ndimage.label(label, np.ones((3, 3, 3)))
        assert count == 2
        for part in (1, 2):
            at = world((parts == part).astype(np.uint8), grid)
            assert abs(np.sign(at[:, 0]).mean()) == 1, "a caudate crosses the midline"
            head, tail = at[at[:, 1] > 12], at[at[:, 1] < -25]
            assert len(head) > len(tail) > 0
            # The tail curls outwards, and ends below the top of the body.
            assert np.abs(tail[:, 0]).mean() > np.abs(head[:, 0]).mean() + 6
            top = at[np.argmax(at[:, 2])]
            assert -32 < top[1] < 5 and tail[:, 2].min() < top[2] - 6
        at = world(label, grid)
        assert at[:, 1].min() > -50 and at[:, 1].max() < 35


def test_structures_lie_in_the_brain_and_the_brain_in_the_head() -> None:
    for name in HEADS:
        p = drawn(name, 1)
        # A rater's outline of the whole brain strays over its edge by a fraction of a millimetre.
        assert p.brain[p.label > 0].mean() > (0.99 if name == "hdt_wb" else 0.999)
        if name != "oas_c":
            assert p.image[p.brain].mean() > 2 * p.image[:3, :3, -3:].mean()


def test_oas_c_is_zero_outside_the_brain_and_only_there() -> None:
    p = drawn("oas_c", 0)
    assert not p.image[~p.brain].any()
    assert (p.image[p.brain] > 0).mean() > 0.999


def test_the_patch_of_table_1_holds_nearly_every_label() -> None:
    for name in ("hdt_c", "hdt_v", "oas_c"):
        labels = [drawn(name, p).label for p in PERSONS]
        x, y, z = np.mean([ndimage.center_of_mass(v) for v in labels], axis=0)
        box = Box.centred((x, y, z), spec_of(name).volumes.patch_size)
        inside = tuple(slice(max(a, 0), b) for a, b in zip(box.start, box.stop, strict=True))
        assert all(v[inside].sum() > 0.995 * v.sum() for v in labels)


@pytest.mark.parametrize(
    ("change", "image_same", "label_same"),
    [
        ({"scanner": "registry"}, False, True),
        ({"skull": "stripped"}, False, True),
        ({"label_quality": "automatic"}, True, False),
        ({"structure": "lateral ventricle"}, True, False),
        ({"disease": "AD"}, False, False),
    ],
)
def test_factors_are_independent(change: dict[str, str], image_same: bool, label_same: bool) -> None:
    a, b = varied(1), varied(1, **change)
    assert np.array_equal(a.image, b.image) == image_same
    assert np.array_equal(a.label, b.label) == label_same


def test_label_quality_orders_the_agreement_with_the_truth() -> None:
    scores = {
        q: np.mean([iou(varied(p, label_quality="exact").label, varied(p, label_quality=q).label) for p in PERSONS])
        for q in ("manual", "automatic")
    }
    assert 0.85 < scores["manual"] < 1
    assert 0.55 < scores["automatic"] < scores["manual"] - 0.1


def test_contrast_is_that_of_a_t1_scan() -> None:
    """Fluid is dark, and the caudate's grey lies below the brightest of the brain, which is its white matter."""
    for person in PERSONS:
        caudate, ventricle = drawn("hdt_c", person), drawn("hdt_v", person)
        grey = np.median(caudate.image[ndimage.binary_erosion(caudate.label)])
        white = np.percentile(caudate.image[caudate.brain], 85)
        assert np.median(ventricle.image[ndimage.binary_erosion(ventricle.label)]) < 0.6 * grey
        assert 0.55 * white < grey < 0.9 * white


def test_spacing_changes_the_sampling_and_not_the_person() -> None:
    """The same box in 1 mm voxels, block averaged, is the caudate that was drawn at 2 mm."""
    coarse = deep_grid()
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = coarse.affine[:3, 3] - 0.5
    fine = Grid((100, 136, 84), affine)
    settings = PhantomSettings(label_quality="exact", disease="healthy")
    label = draw_person(settings, 0, 0, fine).label.reshape(50, 2, 68, 2, 42, 2).mean((1, 3, 5)) >= 0.5
    assert iou(label.astype(np.uint8), draw_person(settings, 0, 0, coarse).label) > 0.85


def test_a_grid_that_misses_the_head_is_air() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 500
    p = draw_person(PhantomSettings(), 0, 0, Grid((8, 8, 8), affine))
    assert not p.label.any() and not p.brain.any()


def test_no_cohort_for_a_users_own_data_set() -> None:
    mine = PAPERS["hdt_c"].changed(name="mine")
    with pytest.raises(InputError, match=r"no built-in cohort for the data set 'mine'.*`store`"):
        settings_for(mine)


def test_shapes_against_plain_geometry() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(-20, 20, (3, 4000)).astype(np.float32)
    sphere = ellipsoid(p, (1.0, 2.0, 3.0), (7.0, 7.0, 7.0))
    true = np.linalg.norm(p - np.array([[1], [2], [3]]), axis=0) - 7
    far = true > -4  # near the middle the distance is only roughly right
    np.testing.assert_allclose(sphere[far], true[far], atol=1e-3)
    inside = ((p / np.array([[10], [6], [4]])) ** 2).sum(0) < 1
    np.testing.assert_array_equal(ellipsoid(p, (0.0, 0.0, 0.0), (10.0, 6.0, 4.0)) < 0, inside)
    straight, along = tube([(0, -15, 0, 3), (0, -5, 0, 3), (0, 5, 0, 3), (0, 15, 0, 3)]).distance(p, 50.0)
    capsule = np.hypot(np.hypot(p[0], p[2]), np.maximum(np.abs(p[1]) - 15, 0)) - 3
    np.testing.assert_allclose(straight, capsule, atol=0.1)
    np.testing.assert_allclose(along, np.clip((p[1] + 15) / 30, 0, 1), atol=0.02)
