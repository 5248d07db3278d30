"""Label maps whose files hold the image's voxels in another order, as converters write them, are put in its order."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.preprocess.test_formats import SLICES, itk, real, same_locale, write_dicom
from tlseg_jax.datasets.structures import Labels
from tlseg_jax.preprocess.dry_run import check_source
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.reading.slice_read import SliceVolume, read_volume

__all__ = ["real", "same_locale"]  # fixtures

ORDERS = [(axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]


def write_ordered(source: Path, target: Path, axes: tuple[int, ...], signs: tuple[int, ...]) -> Path:
    """A NIfTI with its axes permuted and reversed, and the affine that says so, by NumPy alone."""
    image = nib.load(source)
    voxels = np.asarray(image.dataobj).transpose(axes)
    affine = image.affine[:, [*axes, 3]].copy()
    for i, sign in enumerate(signs):
        if sign < 0:
            voxels = np.flip(voxels, i)
            affine[:3, 3] += affine[:3, i] * (voxels.shape[i] - 1)
            affine[:3, i] *= -1
    nib.save(nib.Nifti1Image(np.ascontiguousarray(voxels), affine), target)
    return target


def sound(volume: SliceVolume) -> NDArray[Any]:
    assert volume.label is not None
    return volume.label


@pytest.mark.parametrize("at", range(0, len(ORDERS), 12))
def test_any_order_of_the_axes_is_the_same_label_map(at: int, real: Path, tmp_path: Path) -> None:
    plain = ScanFiles("a", real / "a_T1w.nii.gz", real / "a_labels.nii.gz", real / "a_labels.nii.gz")
    want, slices = read_scan(plain, Labels.of(36, 37)), read_volume(plain, SLICES)
    assert want.label is not None and want.label.any()
    for axes, signs in ORDERS[at : at + 12]:
        other = write_ordered(real / "a_labels.nii.gz", tmp_path / "a_labels.nii.gz", axes, signs)
        files = dataclasses.replace(plain, label=other, mask=other)
        found = read_scan(files, Labels.of(36, 37))
        np.testing.assert_array_equal(found.label, want.label)
        np.testing.assert_array_equal(found.mask, want.mask)
        assert not found.warnings
        there = read_volume(files, SLICES)
        np.testing.assert_array_equal(sound(there), sound(slices))
        np.testing.assert_array_equal(there.image, slices.image)
        assert there.z == slices.z and there.label_ml == slices.label_ml and there.scaling == slices.scaling


def test_a_label_map_as_dcm2niix_writes_it_beside_its_dicom_series(real: Path, tmp_path: Path) -> None:
    """DICOM's rows run to the back, those of dcm2niix's NIfTI to the front."""
    write_dicom(itk(real / "a_T1w.nii.gz"), tmp_path / "a_T1w")
    label = write_ordered(real / "a_labels.nii.gz", tmp_path / "a_labels.nii.gz", (0, 1, 2), (1, -1, 1))
    (row,) = check_source(find_scans(tmp_path))
    assert not row.problem
    (files,) = find_scans(tmp_path).scans
    assert files.label == label
    found = read_scan(files, Labels.of(36, 37))
    shutil.copy(real / "a_labels.nii.gz", label)
    want = read_scan(files, Labels.of(36, 37))
    assert want.label is not None and found.label is not None
    np.testing.assert_array_equal(found.label, want.label)
    # Whatever the axes, the label is where the caudates are: its middle in mm is that of the file itself.
    raw = nib.load(label)
    middle = raw.affine @ [*np.argwhere(np.isin(np.asarray(raw.dataobj), (36, 37))).mean(0), 1]
    np.testing.assert_allclose(found.affine @ [*np.argwhere(found.label).mean(0), 1], middle, atol=1e-2)
