"""Millilitres and millimetres of registered scans are the person's: phantoms of known size, and a real scan."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.evaluate.predict import predict_scan
from tlseg_jax.evaluate.results import SubjectRow, evaluate_store
from tlseg_jax.figures.contours import ContourCase, SliceView
from tlseg_jax.geometry import Box, Grid
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.prepare_subject import origin
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.store.provenance import checksums_of
from tlseg_jax.preprocess.store.store import Store, write_subject
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SIDES = (36, 34, 32)
TO_PERSON = np.array([[0.8, 0.1, 0.0, 5.0], [-0.05, 0.9, 0.08, -3.0], [0.0, 0.12, 0.7, 2.0], [0, 0, 0, 1]])
"""The template of these tests -> the person: a head far smaller than the template's, turned and askew."""
TEMPLATE = Grid(SIDES, np.diag([1.5, 1.0, 1.2, 1.0]))
SCAN = Grid((50, 40, 44), np.array([[-0.8, 0, 0, 42.0], [0, 0, 1.0, -8], [0, 0.9, 0, -2], [0, 0, 0, 1]]))
RADII = {"reference": 8.0, "predicted": 6.5}


def ball(grid: Grid, to_person: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """A ball in the person, on a grid."""
    middle = (TO_PERSON @ TEMPLATE.affine @ [*((n - 1) / 2 for n in SIDES), 1.0])[:3]
    at = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1) @ (to_person @ grid.affine)[:3, :3].T
    return np.asarray(np.linalg.norm(at + (to_person @ grid.affine)[:3, 3] - middle, axis=-1) < radius)


@pytest.fixture
def phantom(tmp_path: Path) -> Store:
    """One person, registered, whose image is what is to be predicted: a ball of 6.5 mm in one of 8 mm."""
    paths = {}
    for kind, radius in (("image", RADII["predicted"]), ("label", RADII["reference"])):
        paths[kind] = tmp_path / f"{kind}.nii.gz"
        values = ball(SCAN, np.eye(4), radius).astype(np.uint8 if kind == "label" else np.float32)
        nib.save(nib.Nifti1Image(values, SCAN.affine), paths[kind])
    files = ScanFiles("a", paths["image"], paths["label"])
    folder = tmp_path / "store" / "balls"
    write_subject(
        folder / "subjects" / "a.zarr",
        ball(TEMPLATE, TO_PERSON, RADII["predicted"]),
        ball(TEMPLATE, TO_PERSON, RADII["reference"]),
    )
    record = origin(files) | {
        "split": "test",
        "shape": list(SIDES),
        "affine": TEMPLATE.affine.tolist(),
        "space_to_world": TO_PERSON.tolist(),
        "scan_shape": list(SCAN.shape),
        "scan_affine": SCAN.affine.tolist(),
        "label_ml": {"ball": float(ball(SCAN, np.eye(4), RADII["reference"]).sum()) * SCAN.voxel_ml},
        "fingerprint": "f",
        **{f"{k}_sha256": v for k, v in checksums_of(files).items()},
    }
    spec = DatasetSpec(
        "balls", ("ball",), VolumeGrid("MNI305", SIDES, (1.5, 1.0, 1.2), (32, 32, 32), test_count=1), "balls"
    )
    write_json(
        folder / "manifest.json",
        {"format": 1, "spec": spec.to_dict(), "parameters": {}, "patch_box": None, "subjects": {"a": record}},
    )
    return Store(folder)


def scored(store: Store, **more: Any) -> SubjectRow:
    ((row,),) = evaluate_store(
        store, "test", store.spec, Box((0, 0, 0), SIDES), lambda x: x[..., None], distances=True, progress=False, **more
    ).rows.values()
    return row


def surface(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Voxels with a face neighbour outside, as points; by shifting, for a mask clear of the border."""
    inside = np.ones_like(mask)
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(mask, step, axis)
    return np.argwhere(mask & ~inside).astype(np.float64)


@pytest.mark.parametrize("space", ["data", "scan"])
def test_volumes_and_distances_of_a_registered_phantom_are_those_of_its_balls(phantom: Store, space: Any) -> None:
    row = scored(phantom, space=space)
    s = row.score
    assert row.test_set == ("balls" if space == "data" else "balls_scan")
    assert s.reference_ml == pytest.approx(4 / 3 * math.pi * RADII["reference"] ** 3 / 1000, rel=0.01)
    assert s.predicted_ml == pytest.approx(4 / 3 * math.pi * RADII["predicted"] ** 3 / 1000, rel=0.03)
    assert s.iou == pytest.approx((RADII["predicted"] / RADII["reference"]) ** 3, abs=0.03)
    grid, to_person = (TEMPLATE, TO_PERSON) if space == "data" else (SCAN, np.eye(4))
    reference = ball(grid, to_person, RADII["reference"])
    # On the scan's own voxels the prediction is an interpolated one: it is compared with the drawn ball loosely.
    predicted = ball(grid, to_person, RADII["predicted"])
    a, b = (surface(m) @ (to_person @ grid.affine)[:3, :3].T for m in (predicted, reference))
    apart = cdist(a, b)
    there, back = apart.min(1), apart.min(0)
    exact = space == "data"
    hd95, asd = max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()
    assert s.hd95_mm == pytest.approx(hd95, abs=1e-6 if exact else 0.35)
    assert s.asd_mm == pytest.approx(asd, abs=1e-6 if exact else 0.1)


def test_the_caption_of_a_registered_scan_tells_the_person_s_millilitres(phantom: Store) -> None:
    mask = phantom.label("a") > 0
    case = ContourCase(
        "best", "a", 1.0, phantom.image("a"), mask, mask, TEMPLATE.affine, phantom.person_grid("a").voxel_ml
    )
    ml = mask.sum() * abs(np.linalg.det(TO_PERSON[:3, :3] @ TEMPLATE.affine[:3, :3])) / 1000
    window = (5.0, 5.0)
    view = SliceView.of(case)
    assert f"{ml:.1f} ml predicted, {ml:.1f} ml reference" in view.caption(window)
    assert 0 < view.beyond_ml(window) < ml
    assert "7.5 ml predicted, 8.1 ml reference" in SliceView.of(
        dataclasses.replace(case, volumes_ml=(7.5, 8.1))
    ).caption(window)


def test_a_store_that_lacks_a_transform_is_refused_and_nothing_is_scored_in_template_ml(phantom: Store) -> None:
    for key in ("space_to_world", "scan_affine", "label_ml"):
        manifest = json.loads(json.dumps(phantom.manifest))
        del manifest["subjects"]["a"][key]
        with pytest.raises(InputError, match=f"manifest.json lacks the '{key}' of a, .* prepare the data set again"):
            scored(phantom.with_manifest(manifest))


@pytest.mark.parametrize("kind", ["image", "label"])
def test_an_original_file_that_moved_or_changed_is_named(phantom: Store, kind: str) -> None:
    path = Path(phantom.record("a")[kind])
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + b"x")
    with pytest.raises(InputError, match=rf"{path.name}, the {kind} that a of balls .* checksum differs\)") as e:
        scored(phantom, space="scan")
    assert "\n" not in str(e.value)
    path.unlink()
    with pytest.raises(InputError, match=rf"{path.name}, the {kind} .* is not there: put it back, or prepare"):
        scored(phantom, space="scan")
    assert scored(phantom).score.reference_ml > 0  # which needs no file


def lookalike(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """A network that takes dark tissue for the structure: ragged, smooth in its probability, no good."""
    return (1 / (1 + np.exp(4 * patches - 2)))[..., None].astype(np.float32)


@pytest.mark.slow  # two registrations
def test_a_real_scan_s_volumes_are_its_label_file_s_and_those_of_predict(tmp_path: Path) -> None:
    source = DATA / "brain_oasis"
    if not source.exists():
        pytest.skip("the real scans are not here")
    (tmp_path / "scans").mkdir()
    for subject in ("sub-1000", "sub-1012"):
        for part in ("T1w", "labels"):
            (tmp_path / "scans" / f"{subject}_{part}.nii.gz").symlink_to(source / f"{subject}_{part}.nii.gz")
    spec, settings = get_spec("hdt_c").at_spacing(2.0), PrepareSettings(bias_correction=False)
    store = prepare_dataset(
        spec,
        tmp_path / "scans",
        tmp_path / "store",
        settings,
        label_values=(36, 37),
        workers=1,
        test_fraction=1.0,
        progress=False,
    )
    box = Box((23, 40, 11), store.spec.volumes.patch_size)
    both: dict[str, dict[str, SubjectRow]] = {}
    for space in ("data", "scan"):
        (rows,) = evaluate_store(store, "test", store.spec, box, lookalike, space=space, progress=False).rows.values()
        both[space] = {r.subject: r for r in rows}
    for subject in store.subjects("test"):
        label = nib.load(source / f"{subject}_labels.nii.gz")
        truth = np.isin(np.asarray(label.dataobj), (36, 37))
        voxel = abs(np.linalg.det(label.affine[:3, :3])) / 1000
        files = ScanFiles(subject, source / f"{subject}_T1w.nii.gz")
        prediction = predict_scan(files, store.spec, box, settings, lookalike)
        for rows_of in both.values():
            found = rows_of[subject].score
            assert found.reference_ml == pytest.approx(truth.sum() * voxel, rel=1e-6)
            assert found.predicted_ml == pytest.approx(prediction.volumes_ml["caudate"], rel=1e-4)
        p = prediction.label.astype(bool)
        assert both["scan"][subject].score.iou == pytest.approx((p & truth).sum() / (p | truth).sum(), rel=1e-3)
        # The prepared label, on its coarser grid, is the same but for rounding; in the template's mm it is not.
        prepared = (store.label(subject) > 0).sum()
        assert prepared * store.person_grid(subject).voxel_ml == pytest.approx(truth.sum() * voxel, rel=0.06)
    small = store.subjects("test")[1]
    nominal = (store.label(small) > 0).sum() * store.grid(small).voxel_ml
    assert nominal > 1.4 * both["data"][small].score.reference_ml
