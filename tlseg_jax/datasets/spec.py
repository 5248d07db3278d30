"""What a data set is: the paper's Table 1 as frozen dataclasses, and a user's own as a TOML file."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tlseg_jax.datasets.slice_spec import SliceSpec
from tlseg_jax.datasets.structures import ALL, BACKGROUND, Labels, LabelValues, mirrored
from tlseg_jax.runtime.errors import InputError

Shape3 = tuple[int, int, int]
Spacing3 = tuple[float, float, float]
Space = Literal["MNI305", "native"]
Normalise = Literal["volume", "mask"]

DIVISOR = 8
"""Patch sides divide by this: three 2x2x2 poolings (Weatheritt et al., section 3.1)."""


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """One row of Table 1 (Weatheritt et al. 2020, "Transfer Learning for Brain Segmentation").

    Attributes:
      name: short name, also the folder of the prepared store.
      structures: what the labels show, in words, in the order of their codes.
      space: "MNI305" (every scan is registered to it) or "native" (the scan's own RAS axes).
      dimensions: voxels of the resampled volume, axes x (left to right), y (back to front), z (up).
      spacing: voxel size in mm; None keeps each scan's field of view, so that its spacing varies.
      patch_size: voxels of the patch that the network sees, same axes.
      skull_strip: whether everything outside the brain is set to zero before normalising.
      normalise: z-score over the whole volume (the paper) or within the brain or head mask.
      flip_left_right: augmentation: flip the x axis at random.
      random_patch: patches come from anywhere in the volume, not from the one fixed box.
      random_rotations: augmentation: random 90 degree rotations and flips.
      train_count: scans for training in the paper; with test_count it gives the test fraction.
      test_count: scans held out in the paper.
      split_group: data sets of one group share subjects, and so share one split.
      label_values: for each structure the values of the label map that make it, or names of a `.seg.nrrd`'s segments.
        Of a single structure ("all",) takes every value above 0, and () the one value that each map holds, and refuses
        a map of several.
      exclusive: whether a voxel shows one structure at most: one softmax over them and the background; else they may
        contain each other, as a liver does its tumour: a sigmoid each.
      unmarked_value: value of the label map where nobody looked: what lies there counts nowhere.
      mirror_pairs: structures that are each other's mirror image, besides those named "_left" and "_right".
    """

    kind: ClassVar[Literal["volumes"]] = "volumes"

    name: str
    structures: tuple[str, ...]
    space: Space
    dimensions: Shape3
    spacing: Spacing3 | None
    patch_size: Shape3
    skull_strip: bool = False
    normalise: Normalise = "volume"
    flip_left_right: bool = True
    random_patch: bool = False
    random_rotations: bool = False
    train_count: int = 0
    test_count: int = 0
    split_group: str = ""
    label_values: tuple[LabelValues, ...] = ((),)
    exclusive: bool = True
    unmarked_value: int | None = None
    mirror_pairs: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> str:
        """The structures in words."""
        return ", ".join(self.structures)

    @property
    def labels(self) -> Labels:
        """How its label maps are read."""
        return Labels(self.structures, self.label_values, self.exclusive, self.unmarked_value)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Channels of a network's head."""
        return (BACKGROUND, *self.structures) if self.exclusive else self.structures

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """Where each structure is in a mirror (`structures.mirrored`); None: a mirrored label would be wrong."""
        return mirrored(self.structures, self.mirror_pairs)

    @property
    def test_fraction(self) -> float:
        """Share of the scans held out for test, from the paper's counts."""
        return self.test_count / (self.train_count + self.test_count)

    def at_spacing(self, spacing: float) -> "DatasetSpec":
        """The same field of view in isotropic voxels of `spacing` mm.

        Patch sides keep at least their length in mm and are rounded up to divide by 8. A spec
        whose spacing varies is taken as 1 mm.
        """
        if not 0.1 <= spacing <= 20:
            raise InputError(f"A spacing of {spacing} mm is not usable: give one between 0.1 and 20 mm.")
        old = self.spacing or (1.0, 1.0, 1.0)
        if old == (spacing,) * 3:
            return dataclasses.replace(self, spacing=old)
        dims = [round(d * s / spacing) for d, s in zip(self.dimensions, old, strict=True)]
        patch = [
            DIVISOR * math.ceil(round(p * s / spacing, 6) / DIVISOR) for p, s in zip(self.patch_size, old, strict=True)
        ]
        return dataclasses.replace(
            self,
            dimensions=(dims[0], dims[1], dims[2]),
            patch_size=(patch[0], patch[1], patch[2]),
            spacing=(spacing, spacing, spacing),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and TOML hold them; `spec_from_dict` reads them back."""

        def plain(v: Any) -> Any:
            return [plain(i) for i in v] if isinstance(v, tuple) else v

        return {k: plain(v) for k, v in dataclasses.asdict(self).items()}


_MNI305_DIMENSIONS = (172, 220, 156)
_MM = (1.0, 1.0, 1.0)

PAPER_SPECS: Mapping[str, DatasetSpec] = {
    s.name: s
    for s in (
        DatasetSpec(
            "hdt_c",
            ("caudate",),
            "MNI305",
            _MNI305_DIMENSIONS,
            _MM,
            (72, 112, 112),
            train_count=306,
            test_count=76,
            split_group="hdt",
        ),
        DatasetSpec(
            "mal_c",
            ("caudate",),
            "native",
            (192, 192, 160),
            None,
            (80, 112, 112),
            train_count=544,
            test_count=118,
            split_group="mal",
        ),
        DatasetSpec(
            "hdt_v",
            ("lateral ventricle",),
            "MNI305",
            _MNI305_DIMENSIONS,
            _MM,
            (96, 136, 112),
            train_count=306,
            test_count=76,
            split_group="hdt",
        ),
        DatasetSpec(
            "hdt_wb",
            ("whole brain",),
            "native",
            (256, 256, 192),
            (1.0, 1.0, 1.2),
            (64, 64, 64),
            random_patch=True,
            random_rotations=True,
            label_values=(ALL,),
            train_count=306,
            test_count=76,
            split_group="hdt",
        ),
        DatasetSpec(
            "oas_c",
            ("caudate",),
            "MNI305",
            _MNI305_DIMENSIONS,
            _MM,
            (72, 112, 112),
            skull_strip=True,
            flip_left_right=False,
            train_count=0,
            test_count=39,
            split_group="oas",
        ),
    )
}
"""The five data sets of Table 1. MAL-C's voxel spacing is "Various" there, hence None."""


AnySpec = DatasetSpec | SliceSpec
"""A data set of volumes for the 3D networks, or of slices for the 2D network."""
