"""One scan through every step: the right voxels in the right place, with and without a label."""

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.pipeline import PrepareSettings, needs_registration, preprocess_scan
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan
from tlseg_jax.preprocess.steps.resample import to_grid, to_scan
from tlseg_jax.preprocess.steps.template import mni305_grid

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SKIP = PrepareSettings(registration="skip", bias_correction=False)


def at_4mm(name: str = "hdt_c", **changes: object) -> DatasetSpec:
    return get_spec(name).at_spacing(4.0).changed(**changes)  # type: ignore[arg-type]


def phantom(spec: DatasetSpec) -> Scan:
    """A ball with a smaller ball in it, on the MNI305 grid of `spec`."""
    grid = mni305_grid(spec)
    at = np.indices(grid.shape) - (np.array(grid.shape)[:, None, None, None] - 1) / 2
    radius = np.sqrt((at**2).sum(0))
    rng = np.random.default_rng(0)
    image = np.where(radius < 15, 100.0, 0) + np.where(radius < 4, 60, 0) + rng.normal(0, 3, grid.shape)
    return Scan(image.astype(np.float32), grid.affine, (radius < 4).astype(np.uint8))


def test_a_scan_already_in_its_space_is_only_normalised() -> None:
    spec = at_4mm()
    scan = phantom(spec)
    out = preprocess_scan(scan, spec, SKIP)
    assert (out.grid.affine == mni305_grid(spec).affine).all() and (out.space_to_world == np.eye(4)).all()
    assert out.grid.shape == mni305_grid(spec).shape
    expected = (scan.image - scan.image.mean()) / scan.image.std()
    assert out.image.dtype == np.float32 and np.allclose(out.image, expected, atol=1e-4)
    assert out.label is not None and scan.label is not None and (out.label == scan.label).all()
    assert {"resample", "normalise"} <= out.seconds.keys()


def test_no_label_is_needed_and_none_is_used() -> None:
    spec = at_4mm()
    scan = phantom(spec)
    bare = preprocess_scan(dataclasses.replace(scan, label=None), spec, SKIP)
    assert bare.label is None
    assert (bare.image == preprocess_scan(scan, spec, SKIP).image).all()


def test_a_known_registration_is_used_and_kept() -> None:
    spec = at_4mm()
    scan = phantom(spec)
    move = nib.affines.from_matvec(np.diag([1.1, 0.95, 1.0]), [30, -40, 25])
    elsewhere = dataclasses.replace(scan, affine=move @ scan.affine)
    out = preprocess_scan(elsewhere, spec, PrepareSettings(bias_correction=False), move)
    assert np.allclose(out.image, preprocess_scan(scan, spec, SKIP).image, atol=1e-3)
    assert (out.space_to_world == move).all()
    back = to_scan(out.label.astype(np.float32), out.grid, out.space_to_world, scan.image.shape, elsewhere.affine)  # type: ignore[union-attr]
    assert ((back >= 0.5) == scan.label).all()


@pytest.mark.parametrize("name", ["hdt_wb", "mal_c"])
def test_any_orientation_gives_the_same_native_volume(name: str) -> None:
    spec = get_spec(name)
    spec = spec.changed(dimensions=(48, 48, 40), spacing=(4.0, 4.0, 4.8) if spec.volumes.spacing else None)
    scan = phantom(at_4mm())
    turned = nib.Nifti1Image(scan.image, scan.affine).as_reoriented([[2, -1], [0, 1], [1, -1]])
    label = nib.Nifti1Image(scan.label.astype(np.uint8), scan.affine).as_reoriented([[2, -1], [0, 1], [1, -1]])  # type: ignore[union-attr]
    other = Scan(
        np.asarray(turned.dataobj, np.float32), turned.affine, (np.asarray(label.dataobj) > 0).astype(np.uint8)
    )
    a, b = (preprocess_scan(s, spec, PrepareSettings(bias_correction=False)) for s in (scan, other))
    assert np.allclose(a.grid.affine, b.grid.affine, atol=1e-4)
    assert a.grid.shape == b.grid.shape == spec.volumes.dimensions
    assert np.allclose(a.image, b.image, atol=1e-3)
    assert a.label is not None and b.label is not None and (a.label == b.label).all()
    assert a.label.sum() * a.grid.voxel_ml == pytest.approx(scan.label.sum() * 0.064, rel=0.1)  # type: ignore[union-attr]


def test_skull_strip_comes_before_the_z_score() -> None:
    spec = at_4mm("oas_c")
    scan = phantom(spec)
    mask = ndimage.binary_dilation(scan.label, iterations=4)
    out = preprocess_scan(dataclasses.replace(scan, mask=mask), spec, SKIP)
    assert out.details["brain_mask"] == "supplied mask"
    assert len(np.unique(out.image[~mask])) == 1 and abs(out.image.mean()) < 1e-4
    assert abs(out.image.std() - 1) < 1e-4


def test_z_score_within_the_mask() -> None:
    spec = at_4mm(normalise="mask")
    scan = phantom(spec)
    mask = ndimage.binary_dilation(scan.label, iterations=3)
    out = preprocess_scan(dataclasses.replace(scan, mask=mask), spec, SKIP)
    assert abs(out.image[mask].mean()) < 1e-4 and abs(out.image[mask].std() - 1) < 1e-3
    head = preprocess_scan(scan, spec, SKIP).image  # no mask: within the head
    assert abs(head[ndimage.binary_erosion(scan.image > 50, iterations=2)].mean()) < 0.2


def test_when_a_registration_is_needed() -> None:
    scan = phantom(at_4mm())
    auto = PrepareSettings()
    assert needs_registration(scan, get_spec("hdt_c"), auto)
    assert not needs_registration(scan, get_spec("hdt_c"), SKIP)
    assert not needs_registration(scan, get_spec("hdt_wb"), auto)
    native_stripped = get_spec("hdt_wb").changed(skull_strip=True)
    assert needs_registration(scan, native_stripped, auto)
    assert not needs_registration(dataclasses.replace(scan, mask=scan.label > 0), native_stripped, auto)


def test_a_label_outside_the_grid_is_an_exclusion() -> None:
    spec = at_4mm()
    scan = phantom(spec)
    far = dataclasses.replace(scan, affine=nib.affines.from_matvec(np.eye(3), [0, 0, 150]) @ scan.affine)
    with pytest.raises(ExclusionError, match=r"^a\.nii: nothing of its label is left"):
        preprocess_scan(far, spec, SKIP, name="a.nii")


def test_settings_survive_a_manifest() -> None:
    settings = PrepareSettings("skip", False, 1)
    assert PrepareSettings.from_dict(settings.to_dict() | {"register": {}}) == settings


@pytest.mark.slow
def test_a_head_is_stripped_by_the_template_where_there_is_no_mask() -> None:
    path = DATA / "brain_freesurfer" / "sample_ecog"
    if not path.exists():
        pytest.skip("the FreeSurfer heads are not here")
    image, brain = nib.load(path / "T1.mgz"), nib.load(path / "brainmask.mgz")
    truth = (np.asarray(brain.dataobj) > 0).astype(np.float32)
    scan = Scan(np.asarray(image.dataobj, np.float32), np.asarray(image.affine, float))
    spec = at_4mm("hdt_wb", skull_strip=True, dimensions=(64, 64, 48))
    out = preprocess_scan(scan, spec, PrepareSettings())
    assert out.details["brain_mask"] == "template mask" and (out.space_to_world == np.eye(4)).all()
    mask = out.image != np.median(out.image)
    expected = to_grid(truth, scan.affine, out.grid, np.eye(4), order=1) >= 0.5
    assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) > 0.85
