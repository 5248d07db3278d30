"""The built-in abdomens on disk."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.phantoms.abdomen import cohort_spec, draw_abdomen, drawn_person
from tlseg_jax.phantoms.abdomen_cohort import write_abdomens
from tlseg_jax.runtime.errors import InputError

CT, MR = (
    cohort_spec(PAPERS[name]).changed(pixels=pixels) for name, pixels in (("lits", (40, 40)), ("mri_artery", (40, 33)))
)
"""Coarse, so that drawing is quick."""


def write(spec: DatasetSpec, folder: Path, **kwargs: Any) -> Path:
    return write_abdomens(spec, folder, **({"volumes": 2, "progress": False} | kwargs))


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_ct_files_have_the_names_of_lits_and_other_tools_read_them(tmp_path: Path) -> None:
    folder = write(CT, tmp_path / "deep" / "lits")
    assert folder == tmp_path / "deep" / "lits"
    pairs = [f"{kind}-{v}.nii.gz" for kind in ("segmentation", "volume") for v in range(2)]
    assert names(folder) == ["README.txt", "cohort.json", *pairs]
    assert "Synthetic" in (folder / "README.txt").read_text()
    scan = draw_abdomen(CT, drawn_person(CT, 1), 0)
    image, label = (nib.load(folder / f"{kind}-1.nii.gz") for kind in ("volume", "segmentation"))
    np.testing.assert_array_equal(np.asarray(image.dataobj), scan.image)
    np.testing.assert_array_equal(np.asarray(label.dataobj), scan.label)
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-3)
    np.testing.assert_allclose(label.affine, image.affine)
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    assert nib.aff2axcodes(image.affine) in (("R", "A", "S"), ("L", "A", "S"))
    other = sitk.ReadImage(str(folder / "volume-1.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other).T, scan.image)
    np.testing.assert_allclose(other.GetSpacing(), image.header.get_zooms(), rtol=1e-5)


def test_mri_files_have_the_reports_layout(tmp_path: Path) -> None:
    folder = write(MR, tmp_path / "mr")
    cases = [f"case-{n:02d}/{kind}.nii.gz" for n in (1, 2) for kind in ("artery", "label")]
    assert names(folder) == ["README.txt", *cases, "cohort.json"]
    for n in (1, 2):
        image, label = (nib.load(folder / f"case-{n:02d}" / f"{kind}.nii.gz") for kind in ("artery", "label"))
        assert image.shape == label.shape == (40, 33, 18) and image.get_data_dtype() == np.int16
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert set(np.unique(np.asarray(label.dataobj))) == {0, 1}
        assert not np.allclose(image.affine, np.diag([*image.header.get_zooms(), 1]))


def test_the_files_do_not_depend_on_workers_and_more_volumes_keep_the_first(tmp_path: Path) -> None:
    one, two = write(CT, tmp_path / "one", workers=1), write(CT, tmp_path / "two", workers=3, volumes=3)
    for name in ("volume-0.nii.gz", "volume-1.nii.gz", "segmentation-1.nii.gz"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert (one / "volume-0.nii.gz").read_bytes() != (one / "volume-1.nii.gz").read_bytes()


def test_faults_are_named(tmp_path: Path) -> None:
    folder = write(MR, tmp_path / "c")
    assert write(MR, tmp_path / "c") == folder
    with pytest.raises(InputError, match=r"different: dataset, modality, pixels"):
        write(CT, tmp_path / "c")
    with pytest.raises(InputError, match="not usable"):
        write(CT, tmp_path / "new", volumes=0)
    with pytest.raises(InputError, match="not drawn at 512x512 pixels"):
        write(PAPERS["lits"], tmp_path / "new")
    with pytest.raises(InputError, match="no built-in cohort for the data set 'mine'"):
        write(CT.changed(name="mine"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
