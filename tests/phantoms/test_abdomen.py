"""Procedural abdomens: plausible in HU and in MRI, consistent in 3D, imbalanced as the report says."""

import dataclasses
import functools

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.datasets.lookup import check_spec
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.geometry import Grid
from tlseg_jax.phantoms.abdomen import AbdomenScan, cohort_spec, draw_abdomen, drawn_person
from tlseg_jax.phantoms.abdomen_organs import LIVER_BOX, cavity, liver
from tlseg_jax.phantoms.abdomen_person import draw_abdomen_person
from tlseg_jax.phantoms.abdomen_scanner import ScanSampling, in_file_axes, thick_slices, thin_grid
from tlseg_jax.phantoms.abdomen_tumours import LARGE_ENOUGH_MM, draw_lesions
from tlseg_jax.runtime.errors import InputError

CT, MR = (cohort_spec(PAPERS[name]) for name in ("lits", "mri_artery"))
VOLUMES = range(6)


@functools.cache
def drawn(modality: str, volume: int) -> AbdomenScan:
    spec = CT if modality == "CT" else MR
    return draw_abdomen(spec, drawn_person(spec, volume), 0)


def tumour(scan: AbdomenScan) -> NDArray[np.bool_]:
    return scan.label == (2 if scan.image.min() < -500 else 1)  # only CT is that low


def liver_of(scan: AbdomenScan) -> NDArray[np.bool_]:
    """Of a CT, whose label shows it."""
    return scan.label > 0


def world(mask: NDArray[np.bool_], scan: AbdomenScan) -> NDArray[np.float64]:
    return nib.affines.apply_affine(scan.affine, np.argwhere(mask))


def test_reduced_specs_are_the_reports_data_sets_made_smaller() -> None:
    assert (CT.planes.pixels, CT.planes.with_structure, CT.planes.without_structure, CT.planes.max_slices) == (
        (96, 96),
        12,
        8,
        0,
    )
    assert (CT.planes.test_slices, CT.planes.test_volumes, MR.planes.test_volumes) == (0, 3, 4)
    assert MR.planes.pixels == (80, 65) and tuple(4 * n for n in MR.planes.pixels) == PAPERS["mri_artery"].planes.pixels
    for small, full in ((CT, PAPERS["lits"]), (MR, PAPERS["mri_artery"])):
        check_spec(small, "test")
        assert (small.name, small.structures, small.planes.window) == (full.name, full.structures, full.planes.window)


def test_other_data_sets_and_structures_are_refused() -> None:
    with pytest.raises(InputError, match=r"no built-in cohort for the data set 'mine'.*`store`"):
        cohort_spec(PAPERS["lits"].changed(name="mine"))
    with pytest.raises(InputError, match="has no label of the structure 'spleen'"):
        cohort_spec(PAPERS["lits"].changed(structures=("spleen",), label_values=((1,),)))
    with pytest.raises(InputError, match="'mri_artery' has no label of the structure 'liver'"):
        cohort_spec(PAPERS["mri_artery"].changed(structures=("liver",)))
    liver_only = PAPERS["lits"].changed(structures=("liver",), label_values=((1, 2),))
    assert cohort_spec(liver_only).structures == ("liver",)


@pytest.mark.parametrize("spec", [CT, MR], ids=["CT", "MR"])
def test_same_seed_same_voxels_and_another_seed_another_person(spec: object) -> None:
    a, b, c = (draw_abdomen(spec, 5, seed) for seed in (3, 3, 4))  # type: ignore[arg-type]
    for field in dataclasses.fields(AbdomenScan):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))
    assert a.image.shape != c.image.shape or (a.image != c.image).mean() > 0.5


@pytest.mark.parametrize("volume", VOLUMES)
def test_volumes_have_the_shape_and_kind_that_the_data_sets_promise(volume: int) -> None:
    for spec, deep in ((CT, range(20, 61)), (MR, range(18, 19))):
        s = drawn(spec.planes.modality, volume)
        assert s.image.shape == s.label.shape
        assert s.image.shape[:2] == spec.planes.pixels and s.image.shape[2] in deep
        assert (s.image.dtype, s.label.dtype) == (np.int16, np.uint8)
    assert len({drawn("CT", v).image.shape[2] for v in VOLUMES}) > 3, "ragged depth"


@pytest.mark.parametrize("volume", VOLUMES)
def test_the_liver_is_of_one_piece_on_the_right(volume: int) -> None:
    s = drawn("CT", volume)
    assert set(np.unique(s.label)) <= {0, 1, 2}
    parts, count = ndimage.label(liver_of(s))
    assert count and np.bincount(parts.ravel())[1:].max() > 0.99 * liver_of(s).sum()
    x = world(liver_of(s), s)[:, 0]
    assert (x > np.median(world(s.image > 0, s)[:, 0])).mean() > 0.7, "RAS: x grows to the right"
    assert 400 < liver_of(s).sum() * abs(np.linalg.det(s.affine)) / 1000 < 2600


def test_ct_is_in_hounsfield_units_and_mri_in_arbitrary_ones() -> None:
    gains = []
    for v in VOLUMES:
        s = drawn("CT", v)
        assert -1030 < np.percentile(s.image, 5) < -900 and 300 < s.image.max() < 2000  # air and bone
        inside = liver_of(s) & ~ndimage.binary_dilation(tumour(s))
        assert 45 < np.median(s.image[inside]) < 125 and 5 < s.image[inside].std() < 40
        assert drawn("MR", v).image.min() >= 0
        gains.append(np.median(drawn("MR", v).image[tumour(drawn("MR", v))]))
    assert max(gains) > 1.5 * min(gains)


def test_the_imbalance_is_the_reports() -> None:
    for modality, tumour_range in (("CT", (0.05, 0.4)), ("MR", (0.2, 0.6))):
        scans = [drawn(modality, v) for v in VOLUMES]
        slices = sum(s.image.shape[2] for s in scans)
        with_tumour = sum(int(tumour(s).any((0, 1)).sum()) for s in scans) / slices
        assert tumour_range[0] < with_tumour < tumour_range[1]
        assert 0 < sum(tumour(s).sum() for s in scans) < 0.01 * sum(s.image.size for s in scans)
        if modality == "CT":
            assert 0.35 < sum(int(liver_of(s).any((0, 1)).sum()) for s in scans) / slices < 0.75


def test_every_ct_has_the_slices_that_its_spec_asks_for_and_every_mri_a_tumour() -> None:
    for v in VOLUMES:
        shown = liver_of(drawn("CT", v)).any((0, 1))
        assert shown.sum() >= CT.planes.with_structure and (~shown).sum() >= CT.planes.without_structure
        assert tumour(drawn("MR", v)).any()
    assert sum(tumour(drawn("CT", v)).any() for v in VOLUMES) > len(VOLUMES) / 2


def test_tumours_are_not_to_be_had_with_a_threshold() -> None:
    """No HU finds the tumours in the scan, nor quite within the liver."""
    scans = [drawn("CT", v) for v in VOLUMES]
    values, truth, within = (
        np.concatenate([of(s).ravel() for s in scans]) for of in (lambda s: s.image, tumour, liver_of)
    )
    for inside, most in ((np.ones_like(within), 0.2), (within, 0.7)):
        x, y = values[inside], truth[inside]
        masks = [m for t in np.percentile(x[y], range(0, 101, 4)) for m in (x > t, x < t)]
        assert max(2 * (m & y).sum() / (m.sum() + y.sum()) for m in masks) < most


def test_ct_and_mr_show_other_persons() -> None:
    persons = {spec.planes.modality: {drawn_person(spec, v) for v in range(50)} for spec in (CT, MR)}
    assert not persons["CT"] & persons["MR"] and all(len(p) == 50 for p in persons.values())


def test_no_two_livers_look_alike() -> None:
    points = np.stack(np.meshgrid(*(np.arange(a, b, 8.0) for a, b in LIVER_BOX), indexing="ij")).astype(np.float32)
    inside = [liver(draw_abdomen_person(p, 0), points) < 0 for p in range(5)]
    for i in range(5):
        assert not (inside[i] & (cavity(points) > 0)).any()
        for j in range(i):
            assert 0.4 < (inside[i] & inside[j]).sum() / (inside[i] | inside[j]).sum() < 0.93


@pytest.mark.slow
def test_tumours_vary_in_number_size_and_contrast() -> None:
    found = [draw_lesions(draw_abdomen_person(p, 1), p, 1) for p in range(40)]
    tumours = [[t for t in one if t.kind != "cyst"] for one in found]
    counts = [len(t) for t in tumours]
    assert min(counts) == 0 and max(counts) >= 4 and 1.5 < np.mean(counts) < 4
    radii = np.array([t.radius for one in tumours for t in one])
    assert radii.min() < 6 and radii.max() > 18 and np.median(radii) < 13
    assert {t.kind for one in found for t in one} == {"hypodense", "hypervascular", "rim", "isodense", "cyst"}
    ct = np.array([t.ct.core for one in tumours for t in one])
    mr = np.array([max(t.mr.core, t.mr.rim) for one in tumours for t in one])
    assert (ct < -15).mean() > 0.4 and (ct > 10).any() and (np.abs(ct) < 15).any() and (mr > 0).all()


def test_a_least_number_of_tumours_is_kept_and_the_first_one_is_seen() -> None:
    for p in range(20):
        lesions = draw_lesions(draw_abdomen_person(p, 2), p, 2, least=1)
        assert lesions and lesions[0].kind != "cyst" and lesions[0].radius >= LARGE_ENOUGH_MM


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "SRA"])
def test_files_axes_keep_every_voxel_where_it_is(axes: str) -> None:
    affine = np.diag([4.0, 3.0, 10.0, 1.0])
    affine[:3, 3] = (-7, 5, -20)
    sampling = ScanSampling(Grid((5, 6, 7), affine), axes, 2, (100.0, -50.0, 3.0))
    values = np.arange(210).reshape(5, 6, 7)
    turned, turned_affine = in_file_axes(values, sampling)
    assert nib.aff2axcodes(turned_affine) == tuple(axes)
    index = np.argwhere(turned == values[4, 0, 2])[0]
    place = nib.affines.apply_affine(turned_affine, index)
    np.testing.assert_allclose(place - (100, -50, 3), nib.affines.apply_affine(affine, (4, 0, 2)))


def test_thin_slices_lie_within_the_thick_ones() -> None:
    affine = np.diag([4.0, 4.0, 12.0, 1.0])
    sampling = ScanSampling(Grid((2, 2, 3), affine), "RAS", 3, (0.0, 0.0, 0.0))
    thin = thin_grid(sampling)
    z = np.broadcast_to(thin.affine[2, 3] + thin.affine[2, 2] * np.arange(9), (2, 2, 9)).astype(np.float32)
    assert thin.shape == (2, 2, 9) and thin.affine[2, 2] == 4
    np.testing.assert_allclose(thick_slices(z, sampling)[0, 0], [0, 12, 24], atol=1e-5)
