"""The model `brain`, from the command to the label map, on real heads that it has never seen."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
STRUCTURES = ("caudate", "putamen", "pallidum", "thalamus", "hippocampus", "amygdala", "accumbens", "ventricle")
"""In the order of the label map's values, each left and right."""

MANUAL = {"caudate": (37, 36), "putamen": (58, 57), "thalamus": (60, 59), "ventricle": (52, 51)}
FREESURFER = {"caudate": (11, 50), "putamen": (12, 51), "thalamus": (10, 49), "ventricle": (4, 43)}
OLD = DATA / "brain_oasis_old"
SKULL = DATA / "brain_freesurfer" / "visualqc"


def segmented(scan: Path, out: Path) -> tuple[NDArray[Any], str]:
    """What the command writes and says, in the scan's own voxels."""
    call = ("experiments.predict", "--model=brain", f"--input={scan}", f"--output={out}")
    done = subprocess.run([sys.executable, "-m", *call], cwd=ROOT, capture_output=True, text=True, check=True)
    found: Any = nib.load(out)
    source: Any = nib.load(scan)
    assert found.shape == source.shape and np.allclose(found.affine, source.affine, atol=1e-4)
    return np.asarray(found.dataobj), done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="real scans are not on this machine")
@pytest.mark.parametrize(
    ("scan", "label", "values"),
    [
        (OLD / "sub-1122_T1w.nii.gz", OLD / "sub-1122_labels.nii.gz", MANUAL),
        (SKULL / "orig.mgz", SKULL / "aparc+aseg.mgz", FREESURFER),
    ],
    ids=["wide ventricles", "with skull"],
)
def test_it_finds_both_sides_and_never_confuses_them(
    scan: Path, label: Path, values: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    found, said = segmented(scan, tmp_path / "seg.nii.gz")
    theirs = np.asarray(nib.load(label).dataobj)  # type: ignore[attr-defined]
    assert "caudate_left (value 1)" in said and "lateral_ventricle_right (value 16)" in said
    assert f"segmenting {scan}: it is read, registered to the standard head and sent through the network" in said
    for structure, sides in values.items():
        at = 2 * STRUCTURES.index(structure) + 1
        for side in (0, 1):
            ours, right, other = found == at + side, theirs == sides[side], theirs == sides[1 - side]
            assert 2 * (ours & right).sum() / (ours.sum() + right.sum()) > 0.72
            assert (ours & other).sum() < 0.02 * ours.sum()  # they touch at the middle
