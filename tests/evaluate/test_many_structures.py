"""Scores of several structures: each by itself, of those that a label map marks, where somebody looked."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import SIDE
from tests.many_structures import HALVES, write_halves
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.structures import structures_from
from tlseg_jax.evaluate.predict import predict_scan
from tlseg_jax.evaluate.results import IN_PERSON, common_structures, evaluate_store, format_summary, result_name
from tlseg_jax.geometry import Box, crop_or_pad
from tlseg_jax.preprocess.codes import UNMARKED, mask_of
from tlseg_jax.preprocess.pipeline import PrepareSettings, preprocess_scan
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies.assess import is_scored
from tlseg_jax.train.job_record import store_digest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WHOLE = Box((0, 0, 0), (SIDE,) * 3)


def halves(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two exclusive structures: bright voxels of either half of the patch, one voxel off the middle."""
    bright = (patches > 1.5).astype(np.float32)
    left = np.arange(patches.shape[1])[:, None, None] < SIDE // 2 + 1
    return np.stack([bright * left, bright * ~left], -1)


def test_each_structure_is_scored_by_itself(tmp_path: Path) -> None:
    store = write_halves(tmp_path / "s")
    results = evaluate_store(store, "test", store.spec, WHOLE, halves, progress=False)
    assert list(results.rows) == list(HALVES)
    for i, (structure, rows) in enumerate(results.rows.items()):
        assert {r.test_set for r in rows} == {f"tiny_{structure}"} and {r.structure for r in rows} == {structure}
        for row in rows:
            ours = halves(store.image(row.subject)[None].astype(np.float32))[0, ..., i] > 0
            theirs = store.label(row.subject) == i + 1
            assert row.score.iou == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())
            assert row.score.reference_ml == pytest.approx(theirs.sum() / 1000)
            np.testing.assert_array_equal(results.mask(structure, row.subject), ours)


def test_what_a_map_does_not_mark_has_no_row(tmp_path: Path) -> None:
    store = write_halves(tmp_path / "s", marked={"sub-4": ["half_right"]})
    results = evaluate_store(store, "test", store.spec, WHOLE, halves, progress=False).rows
    assert [r.subject for r in results["half_left"]] == ["sub-5"]
    assert [r.subject for r in results["half_right"]] == ["sub-4", "sub-5"]


def test_where_nobody_looked_nothing_counts(tmp_path: Path) -> None:
    store = write_halves(tmp_path / "s", unlooked=True)
    for i, rows in enumerate(evaluate_store(store, "test", store.spec, WHOLE, halves, progress=False).rows.values()):
        for row in rows:
            codes = store.label(row.subject)
            looked = codes != UNMARKED
            ours = (halves(store.image(row.subject)[None].astype(np.float32))[0, ..., i] > 0) & looked
            assert not looked.all() and row.score.iou == pytest.approx(
                (ours & (codes == i + 1)).sum() / (ours | (codes == i + 1)).sum()
            )


def test_names_of_test_sets_and_structures_in_common() -> None:
    one, lits = get_spec("hdt_c"), ("liver", "tumour")
    assert result_name(one, "caudate") == "hdt_c" and result_name(one, "caudate", "train", "scan") == "hdt_c_train_scan"
    # The paper tests a model of one data set on another, whatever its structure is called.
    assert common_structures(one, ("background", "structure"), "x") == ("caudate",)
    with pytest.raises(InputError, match="shows caudate and the network segments liver, tumour"):
        common_structures(one, lits, "x")


def test_the_terminal_s_table_ends_with_the_mean_of_the_structures() -> None:
    def entry(iou: float) -> dict[str, object]:
        of = {
            "n": 2,
            "iou_mean": iou,
            "iou_std": None,
            "dice_mean": iou,
            "predicted_ml_mean": 1.0,
            "reference_ml_mean": 1.0,
        }
        return of | {"store": "s", "structure": "a"}

    table = format_summary({"s_a": entry(0.5), "s_b": entry(0.7)}).splitlines()
    assert table[-1].split() == ["mean", "of", "2", "structures", "0.600", "-", "0.600"]
    assert len(format_summary({"s": entry(0.5)}).splitlines()) == 2


DEEP = ("caudate", "putamen", "pallidum", "thalamus", "hippocampus", "amygdala", "accumbens_area", "lateral_ventricle")


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True])
def test_real_structures_survive_registration_and_back(tmp_path: Path, nested: bool) -> None:
    """A network that answers with the registered reference: what is lost is lost on the way alone."""
    image, label = (DATA / "brain_oasis" / f"sub-1000_{part}.nii.gz" for part in ("T1w", "labels"))
    if not image.exists():
        pytest.skip("the real scans are not here")
    names, values = structures_from(
        "neuromorphometrics:" + ",".join(f"{s}_{d}" for s in DEEP for d in ("left", "right"))
    )
    if nested:  # both hemispheres' nuclei, of which the caudates are a part, of which the left one is
        names = ("nuclei", "caudate", "caudate_left")
        values = (tuple(v for (v,) in values[:6]), tuple(v for (v,) in values[:2]), values[0])
    spec = get_spec("hdt_wb").changed(space="MNI305", dimensions=(172, 220, 156), spacing=(1.0, 1.0, 1.0))
    spec = spec.changed(structures=names, label_values=values, patch_size=(176, 224, 160), exclusive=not nested)
    settings = PrepareSettings(bias_correction=False)
    codes = preprocess_scan(read_scan(ScanFiles("s", image, label), spec.labels), spec, settings).label
    assert codes is not None

    def reference(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = Box((-2, -2, -2), spec.volumes.patch_size)  # as a volume that is smaller than the tile is placed
        masks = [crop_or_pad(mask_of(codes, i, spec.exclusive), whole, "constant") for i in range(len(names))]
        return np.stack(masks, -1)[None].astype(np.float32)

    found = predict_scan(ScanFiles("s", image), spec, None, settings, reference, batch=1)
    truth = np.asarray(nib.load(label).dataobj)
    voxel_ml = abs(np.linalg.det(found.affine[:3, :3])) / 1000
    for name, of in zip(names, values, strict=True):
        ours, theirs = np.isin(found.label, of), np.isin(truth, of)  # in the training labels' own values
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) >= (0.95 if theirs.sum() * voxel_ml > 1 else 0.9)
        assert found.volumes_ml[name] == pytest.approx(ours.sum() * voxel_ml)


def test_a_run_is_scored_where_what_it_segments_is(tmp_path: Path) -> None:
    """Not every structure of a test set need be the network's; of those scored together none may be missing."""
    store = write_halves(tmp_path / "s")
    entry = {"data": store_digest(store, store.subjects("test")), "weights": "w", "tta": True, **IN_PERSON}
    left, right = (result_name(store.spec, s) for s in HALVES)

    def scored(sets: dict[str, object]) -> bool:
        write_json(tmp_path / "summary.json", {"weights": "w", "test_sets": sets})
        return is_scored(tmp_path, store)

    assert not scored({}) and scored({left: entry | {"together": [left]}})
    both = entry | {"together": [left, right]}
    assert scored({left: both, right: both}) and not scored({left: both})
    assert not scored({left: both, right: both | {"weights": "another's"}})
    assert not scored({left: both, right: both | {"tta": False}})  # as before passes were averaged
