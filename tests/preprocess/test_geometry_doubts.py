"""Affines that were never set are told from those of scanners, in every place where volumes are reported."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import MakeStore
from tlseg_jax.evaluate.results import format_summary
from tlseg_jax.preprocess.reading.header import no_geometry, read_header
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies.assess import doubts_in

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHAPE = (12, 9, 10)


def doubt(path: Path) -> str:
    header = read_header(path)
    return no_geometry(path, header.affine, header.shape)


def test_a_file_without_sform_and_qform(tmp_path: Path) -> None:
    """nibabel then puts 1 mm voxels about the middle."""
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), None)
    assert (image.header["sform_code"], image.header["qform_code"]) == (0, 0)
    nib.save(image, path := tmp_path / "a.nii.gz")
    assert str(path) in doubt(path) and "about the middle" in doubt(path) and "no volume in ml" in doubt(path)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
def test_the_identity_and_its_mirror_images(signs: tuple[int, ...], tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.int16), np.diag([*signs, 1.0])), path := tmp_path / "a.nii.gz")
    assert "the identity" in doubt(path)


def test_real_scans_of_1_mm_have_a_geometry() -> None:
    scans = [*DATA.glob("brain_oasis*/*_T1w.nii.gz"), *DATA.glob("brain_freesurfer/*/*.mgz")]
    if not scans:
        pytest.skip("no real scans here")
    assert not [p for p in scans if doubt(p)]


def test_the_doubt_stands_below_the_scores(make_store: MakeStore) -> None:
    store = make_store()
    manifest = store.manifest
    manifest["subjects"]["sub-4"]["details"] = {"doubts": {"have no geometry": "sub-4 cannot be trusted."}}
    write_json(store.folder / "manifest.json", manifest)
    store = Store(store.folder)
    assert doubts_in(store, "test") == ["sub-4 cannot be trusted."] and doubts_in(store, "train") == []
    entry = {
        "n": 2,
        "iou_mean": 0.5,
        "iou_std": 0.1,
        "dice_mean": 0.6,
        "predicted_ml_mean": 1.0,
        "reference_ml_mean": 2.0,
    }
    lines = format_summary({"a": entry | {"doubts": doubts_in(store, "test")}, "b": entry}).splitlines()
    assert lines[-1] == "warning: sub-4 cannot be trusted." and len(lines) == 4
