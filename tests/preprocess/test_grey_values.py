"""Label maps that are given as scans, and scans that must not be taken for one."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tlseg_jax.preprocess.reading.grey_values import check_grey
from tlseg_jax.preprocess.reading.scan import ExclusionError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
PATH = Path("x.nii.gz")


def areas(values: int, side: int = 24) -> np.ndarray:
    """Boxes of equal voxels around a head, each with a number of its own, as a label map has them."""
    image = np.zeros((side, side, values), np.float32)
    for k in range(values):
        image[4:20, 4:20, k] = k + 1
    return image


@pytest.mark.parametrize("values", [1, 3, 40, 190])
def test_a_label_map_is_refused_with_what_it_holds_and_the_remedy(values: int) -> None:
    with pytest.raises(ExclusionError) as e:
        check_grey(PATH, areas(values))
    text = str(e.value)
    assert text.startswith(
        f"x.nii.gz looks like a label map, not a scan: it holds {values + 1} whole numbers alone (0, 1"
    )
    assert text.endswith("give the scan that it belongs to.")


def test_eight_bit_scans_pass_also_with_a_window_that_cuts_most_of_them_off() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (24, 24, 6)).astype(np.float32)
    check_grey(PATH, grey)
    check_grey(PATH, np.clip(grey, 100, 150) - 100)  # four fifths of the voxels are 0 or 50
    check_grey(PATH, np.rint(grey / 20))  # 13 values and no even areas


def test_scans_of_other_numbers_pass_whatever_their_areas() -> None:
    check_grey(PATH, areas(40) + 0.25)
    check_grey(PATH, areas(40) - 1024)
    check_grey(PATH, areas(2000, 20)[:, :, ::4])  # more values than structures have


@pytest.mark.skipif(not REAL.exists(), reason="needs the real scans in ../shared/data")
@pytest.mark.parametrize(
    ("pattern", "labels"),
    [
        ("abdomen_ct_msd/volume-*", False),
        ("abdomen_ct_msd/segmentation-*", True),
        ("abdomen_ct_lits117/volume-*", False),
        ("abdomen_ct_lits117/segmentation-*", True),
        ("abdomen_ct_mr_totalseg/example_*_sm.nii.gz", False),
        ("abdomen_ct_mr_totalseg/example_seg*", True),
        ("abdomen_mr_chaos/image_*", False),
        ("abdomen_mr_chaos/label_*", True),
        ("brain_oasis/*100[0-2]_T1w.nii.gz", False),
        ("brain_oasis/*100[0-2]_labels.nii.gz", True),
        ("brain_freesurfer/*/T1.mgz", False),
        ("brain_freesurfer/*/orig.mgz", False),
        ("brain_freesurfer/*/brain*.mgz", False),
        ("brain_freesurfer/*/a*.mgz", True),
        ("brain_labelmaps/seg_0[1-3]*", True),
    ],
)
def test_real_scans_pass_and_real_label_maps_do_not(pattern: str, labels: bool) -> None:
    paths = sorted(REAL.glob(pattern))
    assert paths
    for path in paths:
        image = np.asarray(nib.load(path).dataobj, np.float32)  # type: ignore[attr-defined]
        if labels:
            with pytest.raises(ExclusionError, match="looks like a label map"):
                check_grey(path, image)
        else:
            check_grey(path, image)
