"""The papers' data sets."""

from collections.abc import Mapping

from tlseg_jax.datasets.spec import ABDOMEN_WINDOW, DatasetSpec, PlaneGrid, VolumeGrid
from tlseg_jax.datasets.structures import ALL

_MNI305 = (172, 220, 156)
_MM = (1.0, 1.0, 1.0)

# Weatheritt et al. 2020, "Transfer Learning for Brain Segmentation", Table 1. MAL-C's voxel spacing is "Various" there.
_HDT_C = VolumeGrid("MNI305", _MNI305, _MM, (72, 112, 112), train_count=306, test_count=76)
_MAL_C = VolumeGrid("native", (192, 192, 160), None, (80, 112, 112), train_count=544, test_count=118)
_HDT_V = VolumeGrid("MNI305", _MNI305, _MM, (96, 136, 112), train_count=306, test_count=76)
_HDT_WB = VolumeGrid(
    "native",
    (256, 256, 192),
    (1.0, 1.0, 1.2),
    (64, 64, 64),
    random_patch=True,
    random_rotations=True,
    train_count=306,
    test_count=76,
)
_OAS_C = VolumeGrid(
    "MNI305", _MNI305, _MM, (72, 112, 112), skull_strip=True, flip_left_right=False, train_count=0, test_count=39
)

# Wang & Tang 2020, section 3.2.1: 30 slices with liver and the adjacent 20 without from each volume, the first
# 1,100 in all, the last 100 of them for test.
_LITS = PlaneGrid(
    "CT",
    (512, 512),
    scaling="window",
    window=ABDOMEN_WINDOW,
    with_structure=30,
    without_structure=20,
    max_slices=1100,
    test_slices=100,
)
# Sections 1.1 and 3.2.3: every slice of 36 volumes, the last four volumes for test.
_MRI_ARTERY = PlaneGrid("MR", (320, 260), test_volumes=4)

PAPERS: Mapping[str, DatasetSpec] = {
    s.name: s
    for s in (
        DatasetSpec("hdt_c", ("caudate",), _HDT_C, "hdt"),
        DatasetSpec("mal_c", ("caudate",), _MAL_C, "mal"),
        DatasetSpec("hdt_v", ("lateral ventricle",), _HDT_V, "hdt"),
        DatasetSpec("hdt_wb", ("whole brain",), _HDT_WB, "hdt", (ALL,)),
        DatasetSpec("oas_c", ("caudate",), _OAS_C, "oas"),
        # A tumour lies in the liver, so value 2 is both.
        DatasetSpec("lits", ("liver", "tumour"), _LITS, "lits", ((1, 2), (2,)), exclusive=False),
        DatasetSpec("mri_artery", ("tumour",), _MRI_ARTERY, "mri_artery", ((1,),), exclusive=False),
    )
}
"""The five data sets of Table 1 and the two of the liver report."""
