"""Label maps keep the scan's geometry to the bit, and nothing of a scan is overwritten or leaked."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tlseg_jax.evaluate.label_map import check_output, save_label_map
from tlseg_jax.preprocess.reading.header import read_header
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.runtime.errors import InputError

SHAPE = (6, 7, 5)
OBLIQUE = np.array([[-1.0, 0.1, 0.0, 20.0], [0.1, 0.9, 0.2, -30.0], [0.0, -0.2, 1.5, 12.0], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).random(SHAPE)
MASK = VOXELS > 0.6


def nifti(path: Path, qform: int, sform: int, units: str = "mm", kind: Any = nib.Nifti1Image) -> ScanFiles:
    image = kind((VOXELS * 1000).astype(np.int16), None)
    image.header["pixdim"][1:4] = (1.1, 0.9, 1.5)
    if qform:
        image.set_qform(nib.affines.from_matvec(np.diag([-1.1, 0.9, 1.5]), (5, 6, 7)), qform)
    if sform:
        image.set_sform(OBLIQUE, sform)
    image.header.set_xyzt_units(units)
    image.header["descrip"] = b"Jane Doe 1970"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(image, path)
    return ScanFiles("sub", path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    ("qform", "sform", "units"), [(1, 1, "mm"), (0, 4, "mm"), (2, 0, "micron"), (0, 0, "unknown"), (1, 3, "mm")]
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_label_map_has_the_scans_geometry_to_the_bit(
    tmp_path: Path, kind: Any, qform: int, sform: int, units: str, suffix: str
) -> None:
    files = nifti(tmp_path / "scan.nii.gz", qform, sform, units, kind)
    scan = nib.load(files.image)
    out = tmp_path / "new" / f"seg{suffix}"
    save_label_map(MASK, scan.affine, files, out)
    found = nib.load(out)
    assert type(found) is kind
    assert np.array_equal(found.affine, scan.affine)
    for field in ("qform_code", "sform_code", "xyzt_units", "srow_x", "quatern_c", "qoffset_y"):
        assert np.array_equal(found.header[field], scan.header[field])
    assert np.array_equal(found.header["pixdim"][:4], scan.header["pixdim"][:4])
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(found.dataobj), MASK.astype(np.uint8))
    assert b"Jane" not in bytes(out.read_bytes()) and not found.header.extensions
    assert b"Jane" not in found.header["descrip"].tobytes()
    assert [p.name for p in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("scan_suffix", [".mgz", ".nii.gz"])
@pytest.mark.parametrize("suffix", [".mgz", ".mgh", ".nii.gz"])
def test_mgh_and_nifti_convert_into_one_another(tmp_path: Path, scan_suffix: str, suffix: str) -> None:
    path = tmp_path / f"scan{scan_suffix}"
    nib.save((nib.MGHImage if scan_suffix == ".mgz" else nib.Nifti1Image)(VOXELS.astype(np.float32), OBLIQUE), path)
    scan = nib.load(path)
    out = tmp_path / f"seg{suffix}"
    save_label_map(MASK, scan.affine, ScanFiles("sub", path), out)
    # nib.load leaves a plain .mgh open, which is a warning here.
    found = nib.MGHImage.from_bytes(out.read_bytes()) if suffix == ".mgh" else nib.load(out)
    assert np.allclose(found.affine, scan.affine, atol=1e-5)
    assert np.array_equal(np.asarray(found.dataobj), MASK.astype(np.uint8))
    if suffix == ".nii.gz" and scan_suffix == ".mgz":
        assert found.header["qform_code"] == found.header["sform_code"] == 1
        assert found.header.get_xyzt_units()[0] == "mm"


def test_no_file_of_the_input_is_overwritten(tmp_path: Path) -> None:
    files = nifti(tmp_path / "scan.nii.gz", 1, 1)
    before = files.image.read_bytes()
    (tmp_path / "link.nii.gz").symlink_to(files.image)
    (tmp_path / "hard.nii.gz").hardlink_to(files.image)
    names = ["scan.nii.gz", "link.nii.gz", "hard.nii.gz", "x/../scan.nii.gz"]
    for name in names:
        with pytest.raises(InputError, match="never overwritten"):
            save_label_map(MASK, OBLIQUE, files, tmp_path / name)
    with_others = ScanFiles("sub", files.image, label=tmp_path / "l.nii.gz", mask=tmp_path / "m.nii.gz")
    for name in ("l.nii.gz", "m.nii.gz"):
        with pytest.raises(InputError, match="never overwritten"):
            check_output(with_others, tmp_path / name)
    assert files.image.read_bytes() == before


@pytest.mark.parametrize("name", ["seg", "seg.png", ".nii.gz", "seg.nii.bz2"])
def test_an_output_that_is_no_label_map_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="end it with"):
        check_output(ScanFiles("sub", tmp_path / "scan.nii"), tmp_path / name)


def test_an_output_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    files = nifti(tmp_path / "scan.nii.gz", 1, 1)
    with pytest.raises(InputError, match="cannot be made"):
        save_label_map(MASK, OBLIQUE, files, files.image / "seg.nii.gz")
    (tmp_path / "taken.nii.gz").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        save_label_map(MASK, OBLIQUE, files, tmp_path / "taken.nii.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.nii.gz", "taken.nii.gz"]


VALUES = np.random.default_rng(1).choice(np.array([0, 1, 2, 63], np.uint8), SHAPE)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz"])
def test_several_structures_keep_their_values(tmp_path: Path, suffix: str) -> None:
    files = nifti(tmp_path / "scan.nii.gz", 1, 1)
    scan = nib.load(files.image)
    save_label_map(VALUES, scan.affine, files, tmp_path / f"seg{suffix}")
    found = nib.load(tmp_path / f"seg{suffix}")
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(found.dataobj), VALUES)
    assert np.allclose(found.affine, scan.affine, atol=1e-5)


@pytest.mark.parametrize(("mask", "brightest"), [(MASK, 1), (VALUES, 63), (np.zeros(SHAPE, np.uint8), 1)])
def test_a_viewer_s_grey_scale_spans_the_values(tmp_path: Path, mask: Any, brightest: int) -> None:
    files = nifti(tmp_path / "scan.nii.gz", 1, 1)
    save_label_map(mask, OBLIQUE, files, tmp_path / "seg.nii")
    header = nib.load(tmp_path / "seg.nii").header
    assert (header["cal_min"], header["cal_max"]) == (0, brightest)
    assert np.isnan(header["scl_slope"])  # values are as stored, not rescaled


def test_a_scaled_scan_passes_on_no_scaling(tmp_path: Path) -> None:
    image = nib.Nifti1Image((VOXELS * 1000).astype(np.int16), OBLIQUE)
    image.header.set_slope_inter(2.5, -1024)
    nib.save(image, tmp_path / "ct.nii.gz")
    save_label_map(VALUES, OBLIQUE, ScanFiles("sub", tmp_path / "ct.nii.gz"), tmp_path / "seg.nii.gz")
    assert np.array_equal(np.asarray(nib.load(tmp_path / "seg.nii.gz").dataobj), VALUES)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_simpleitk_and_our_reader_find_an_itk_label_map_where_nibabel_finds_the_nifti_one(
    tmp_path: Path, suffix: str
) -> None:
    files = nifti(tmp_path / "scan.nii.gz", 0, 1)
    rigid = nib.affines.from_matvec(
        np.array([[-0.8, 0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]]) * (1.1, 0.9, 1.5), (20, -30, 12)
    )
    save_label_map(MASK, rigid, files, tmp_path / f"seg{suffix}")
    image = sitk.ReadImage(str(tmp_path / f"seg{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), MASK.astype(np.uint8).transpose(2, 1, 0))
    corner = rigid @ [5, 6, 4, 1]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((5, 6, 4)), corner[:3] * [-1, -1, 1], atol=1e-4)
    np.testing.assert_allclose(read_header(tmp_path / f"seg{suffix}").affine, rigid, atol=1e-5)
    assert {p.name for p in tmp_path.iterdir()} == {"scan.nii.gz", f"seg{suffix}"}


def test_no_part_of_a_scan_is_overwritten(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16)), str(tmp_path / "x.mhd"))
    (tmp_path / "x.raw").rename(tmp_path / "x.mha")
    head = (tmp_path / "x.mhd").read_text().replace("x.raw", "x.mha")
    (tmp_path / "x.mhd").write_text(head)
    with pytest.raises(InputError, match="never overwritten"):
        check_output(ScanFiles("x", tmp_path / "x.mhd"), tmp_path / "x.mha")
