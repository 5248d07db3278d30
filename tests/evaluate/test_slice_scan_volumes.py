"""Ml of slices are counted in the scan's own voxels, as the label file has them and `predict` counts them."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid
from tlseg_jax.evaluate.predict import predict_scan
from tlseg_jax.evaluate.results import Results, evaluate_store
from tlseg_jax.preprocess.prepare_slices import prepare_slices
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError

CHAOS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "abdomen_mr_chaos"
SPEC = DatasetSpec(
    "coarse",
    ("liver",),
    PlaneGrid("MR", (40, 44), resize="fit", scaling="zscore", other_values="background", test_volumes=1),
    "coarse",
    ((1,),),
    exclusive=False,
)
Planes = NDArray[np.float32]


def bright(planes: Planes) -> Planes:
    """A network that takes what is brighter than the mean; its probability has a slope that interpolation sees."""
    return 1 / (1 + np.exp(-4 * planes[..., planes.shape[-1] // 2 : planes.shape[-1] // 2 + 1]))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real abdomens, one for test; the label maps' axes run another way than the images'."""
    if not CHAOS.is_dir():
        pytest.skip("no real scans here")
    folder = tmp_path_factory.mktemp("chaos")
    for n in (1, 2):
        for kind, name in (("image", "volume"), ("label", "segmentation")):
            nii = nib.load(CHAOS / f"{kind}_{n}.nii.gz")
            part = nii.slicer[:, :, 8:20]
            nib.save(part if kind == "image" else nib.as_closest_canonical(part), folder / f"{name}-{n}.nii.gz")
    return folder


def prepared(scans: Path, root: Path, **changes: Any) -> SliceStore:
    spec = SPEC.changed(**changes)
    return prepare_slices(spec, scans, root, workers=1, progress=False)


def scored(store: SliceStore, space: Any = "data") -> Results:
    return evaluate_store(store, "test", store.spec, None, bright, progress=False, space=space)


def own(scans: Path, number: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], float]:
    """`predict`'s liver and the file's, on axes from left to right, back to front and feet to head; a voxel's ml."""
    files = ScanFiles(str(number), scans / f"volume-{number}.nii.gz")
    made = predict_scan(files, SPEC, None, None, bright)
    ours = nib.as_closest_canonical(nib.Nifti1Image(made.label, made.affine))
    theirs = nib.as_closest_canonical(nib.load(scans / f"segmentation-{number}.nii.gz"))
    ml = float(np.prod(nib.load(files.image).header.get_zooms())) / 1000
    return np.asarray(ours.dataobj) == 1, np.asarray(theirs.dataobj) == 1, ml


def test_ml_are_those_of_the_label_file_and_of_predict(scans: Path, tmp_path: Path) -> None:
    ours, theirs, ml = own(scans, 2)
    (row,) = scored(prepared(scans, tmp_path)).rows["liver"]
    assert row.score.reference_ml == pytest.approx(theirs.sum() * ml, rel=1e-5)
    assert row.score.predicted_ml == pytest.approx(ours.sum() * ml, rel=1e-3)  # the store keeps float16


def test_of_some_slices_they_are_those_of_these_slices(scans: Path, tmp_path: Path) -> None:
    store = prepared(scans, tmp_path, with_structure=5, without_structure=1)
    r = store.record("2")
    z = [r["planes"][p] for p in r["samples"]]
    assert 5 <= len(z) < 12
    ours, theirs, ml = own(scans, 2)
    (row,) = scored(store).rows["liver"]
    assert row.score.reference_ml == pytest.approx(theirs[:, :, z].sum() * ml, rel=1e-5)
    assert row.score.predicted_ml == pytest.approx(ours[:, :, z].sum() * ml, rel=1e-3)


def test_the_score_on_the_scan_s_own_pixels(scans: Path, tmp_path: Path) -> None:
    store = prepared(scans, tmp_path)
    ours, theirs, _ = own(scans, 2)
    (row,) = scored(store, "scan").rows["liver"]
    assert row.test_set == "coarse_liver_scan"
    assert row.score.iou == pytest.approx((ours & theirs).sum() / (ours | theirs).sum(), abs=1e-3)
    (coarse,) = scored(store).rows["liver"]
    assert (row.score.reference_ml, row.score.predicted_ml) == (coarse.score.reference_ml, coarse.score.predicted_ml)
    label = scans / "segmentation-2.nii.gz"
    there = label.read_bytes()
    try:
        label.write_bytes(there + b" ")
        with pytest.raises(InputError, match=r"segmentation-2\.nii\.gz, the label that 2 of coarse .* is another file"):
            scored(store, "scan")
    finally:
        label.write_bytes(there)


def test_a_cap_on_the_slices_keeps_the_ml_in_step(scans: Path, tmp_path: Path) -> None:
    store = prepared(scans, tmp_path, max_slices=17, test_volumes=1)
    r = store.record("2")
    assert len(r["samples"]) == 5 == len(r["label_voxels"]["liver"])
    _, theirs, ml = own(scans, 2)
    (row,) = scored(store).rows["liver"]
    assert row.score.reference_ml == pytest.approx(theirs[:, :, :5].sum() * ml, rel=1e-5)
