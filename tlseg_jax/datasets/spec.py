"""What a data set is: what its labels show, and the grid of volumes or planes that a network sees of its scans."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

from tlseg_jax.datasets.structures import BACKGROUND, Labels, LabelValues, mirrored
from tlseg_jax.runtime.bounds import Bound, Count
from tlseg_jax.runtime.errors import InputError

Shape3 = tuple[int, int, int]
Spacing3 = tuple[float, float, float]
Space = Literal["MNI305", "native"]
Normalise = Literal["volume", "mask"]
Modality = Literal["CT", "MR"]
Resize = Literal["pad", "fit", "spacing"]
Scaling = Literal["window", "zscore"]
OtherValues = Literal["refuse", "background"]
Kind = Literal["volumes", "slices"]

Side = Annotated[int, Bound(1, 9999)]
Millimetres = Annotated[float, Bound(1e-6, 9999)]
PixelMillimetres = Annotated[float, Bound(0.05, 20)]

DIVISOR = 8
"""Patch sides divide by this: three 2x2x2 poolings (Weatheritt et al., section 3.1)."""

ABDOMEN_WINDOW = (-160.0, 240.0)
"""HU: level 40, width 400, the usual soft-tissue window of the abdomen. It holds fat (-100), the liver with and
without contrast (40 to 130) and its tumours, and spends no grey level on air and bone."""


@dataclasses.dataclass(frozen=True)
class VolumeGrid:
    """Volumes for the 3D networks, as a row of Table 1 says (Weatheritt et al. 2020).

    Attributes:
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
    """

    kind: ClassVar[Kind] = "volumes"
    axes: ClassVar[int] = 3
    exclusive: ClassVar[bool] = True
    first: ClassVar[tuple[str, ...]] = ("name", "structures")
    later: ClassVar[tuple[str, ...]] = ()

    space: Space
    dimensions: tuple[Side, Side, Side]
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None
    patch_size: tuple[Side, Side, Side]
    skull_strip: bool = False
    normalise: Normalise = "volume"
    flip_left_right: bool = True
    random_patch: bool = False
    random_rotations: bool = False
    train_count: Count = 0
    test_count: Count = 0

    @property
    def test_fraction(self) -> float:
        """Share of the scans held out for test, from the paper's counts."""
        return self.test_count / (self.train_count + self.test_count)

    def fault(self) -> str:
        """What does not fit; "": nothing."""
        if any(p % DIVISOR for p in self.patch_size):
            return f"patch_size {self.patch_size} must divide by {DIVISOR} on every side."
        if self.train_count + self.test_count <= 0:
            return "train_count and test_count give the split: at least one is above 0."
        return ""


@dataclasses.dataclass(frozen=True)
class PlaneGrid:
    """Axial slices for the 2D network (Wang & Tang 2020, sections 1.1 and 3.2).

    Attributes:
      modality: "CT" (Hounsfield units are expected) or "MR".
      pixels: of a prepared slice: x (left to right), y (back to front), as in 512,512.
      resize: how a slice comes to its pixels: pad keeps them and crops or pads about the middle; fit resamples its
        field of view; spacing resamples to pixel_mm, then crops or pads.
      pixel_mm: side of a pixel in mm, for resize=spacing.
      other_values: whether a label value that no structure names excludes the volume or is background.
      scaling: "window" clips to `window` and scales it to -1 to 1; "zscore" clips to the 0.5 and 99.5
        percentiles of the volume and standardises it.
      window: lowest and highest value (HU for CT), as in -160,240.
      with_structure: of a volume that show a structure, evenly spaced; 0 takes every slice of it.
      without_structure: of a volume, nearest to those, that show none.
      max_slices: of the whole data set, in the volumes' order; 0 has no limit.
      neighbours: on each side of a sample that are stored with it, for 2.5D input.
      test_slices: the last slices in order are for test; rounded to whole volumes.
      test_volumes: so many of the last volumes are for test, in place of the last slices.
      flip_left_right: augmentation: flip the x axis at random.
    """

    kind: ClassVar[Kind] = "slices"
    axes: ClassVar[int] = 2
    spacing: ClassVar[None] = None
    exclusive: ClassVar[bool] = False
    first: ClassVar[tuple[str, ...]] = ("kind", "name", "modality", "structures", "label_values")
    later: ClassVar[tuple[str, ...]] = ("flip_left_right", "exclusive", "unmarked_value", "mirror_pairs")
    random_rotations: ClassVar[bool] = False
    random_patch: ClassVar[bool] = False

    modality: Modality
    pixels: tuple[int, int]
    resize: Resize = "pad"
    pixel_mm: PixelMillimetres | None = None
    other_values: OtherValues = "refuse"
    scaling: Scaling = "zscore"
    window: tuple[float, float] | None = None
    with_structure: Count = 0
    without_structure: Count = 0
    max_slices: Count = 0
    neighbours: Annotated[int, Bound(0, 16)] = 1
    test_slices: Count = 0
    test_volumes: Count = 0
    flip_left_right: bool = False

    def fault(self) -> str:
        """What does not fit; "": nothing."""
        if self.scaling == "window" and (self.window is None or self.window[0] >= self.window[1]):
            return f"the window {self.window} must be two values, the lower one first."
        if self.resize == "spacing" and not self.pixel_mm:
            return "resize = 'spacing' needs pixel_mm, the side of a pixel in mm."
        if min(self.pixels) < 16:
            return f"slices of {self.pixels[0]}x{self.pixels[1]} pixels are too small: give 16 or more."
        return ""


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A data set of volumes or of slices.

    Attributes:
      name: short name, also the folder of the prepared store.
      structures: what the labels show, in words, in the order of their codes; of slices the last is the target.
      grid: the volumes or planes that a network sees.
      split_group: data sets of one group share subjects, and so share one split.
      label_values: for each structure the values of the label map that make it, or names of a `.seg.nrrd`'s segments.
        Of a single structure ("all",) takes every value above 0, and () the one value that each map holds, and refuses
        a map of several. Of structures that are not exclusive a value may serve several, as a tumour is also liver.
      exclusive: whether a voxel shows one structure at most: one softmax over them and the background; else they may
        contain each other, as a liver does its tumour: a sigmoid each. Files leave it out where it is usual: of volumes
        true, of slices false.
      unmarked_value: value of the label map where nobody looked: what lies there counts nowhere.
      mirror_pairs: structures that are each other's mirror image, besides those named "_left" and "_right".
    """

    name: str
    structures: tuple[str, ...]
    grid: VolumeGrid | PlaneGrid
    split_group: str = ""
    label_values: tuple[LabelValues, ...] = ((),)
    exclusive: bool = True
    unmarked_value: int | None = None
    mirror_pairs: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> Kind:
        """What its scans become."""
        return self.grid.kind

    @property
    def volumes(self) -> VolumeGrid:
        """The grid, where only volumes will do. Raises InputError: it is of slices."""
        if not isinstance(self.grid, VolumeGrid):
            raise InputError(f"{self.name} is a data set of slices, and one of volumes is wanted here: name another.")
        return self.grid

    @property
    def planes(self) -> PlaneGrid:
        """The grid, where only slices will do. Raises InputError: it is of volumes."""
        if not isinstance(self.grid, PlaneGrid):
            raise InputError(f"{self.name} is a data set of volumes, and one of slices is wanted here: name another.")
        return self.grid

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
    def target(self) -> str:
        """The structure that a study of slices is about."""
        return self.structures[-1]

    @property
    def alone(self) -> bool:
        """Whether it shows one structure of volumes, which goes by the data set's name, whatever a model calls it."""
        return self.kind == "volumes" and len(self.structures) == 1

    @property
    def alike(self) -> bool:
        """Whether all structures count alike; of slices whose structures may contain each other the target counts."""
        return self.exclusive or self.kind == "volumes"

    @property
    def counted(self) -> tuple[str, ...]:
        """The structures that tables and validation count."""
        return self.structures if self.alike else (self.target,)

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """Where each structure is in a mirror (`structures.mirrored`); None: a mirrored label would be wrong."""
        return mirrored(self.structures, self.mirror_pairs)

    def changed(self, **values: Any) -> "DatasetSpec":
        """A copy with other values of its own fields or of its grid's."""
        own = {f.name for f in dataclasses.fields(self)}
        grid = dataclasses.replace(self.grid, **{k: v for k, v in values.items() if k not in own})
        return dataclasses.replace(self, **{"grid": grid} | {k: v for k, v in values.items() if k in own})

    def at_spacing(self, spacing: float) -> "DatasetSpec":
        """The same field of view of volumes in isotropic voxels of `spacing` mm.

        Patch sides keep at least their length in mm and are rounded up to divide by 8. A spec
        whose spacing varies is taken as 1 mm.
        """
        if not 0.1 <= spacing <= 20:
            raise InputError(f"A spacing of {spacing} mm is not usable: give one between 0.1 and 20 mm.")
        grid = self.volumes
        old = grid.spacing or (1.0, 1.0, 1.0)
        if old == (spacing,) * 3:
            return self.changed(spacing=old)
        sides = zip(grid.dimensions, grid.patch_size, old, strict=True)
        dimensions, patch = zip(
            *((round(d * s / spacing), DIVISOR * math.ceil(round(p * s / spacing, 6) / DIVISOR)) for d, p, s in sides),
            strict=True,
        )
        return self.changed(dimensions=dimensions, patch_size=patch, spacing=(spacing, spacing, spacing))

    def to_dict(self) -> dict[str, Any]:
        """Plain flat values, as JSON and TOML hold them; `spec_from_dict` reads them back."""

        def plain(v: Any) -> Any:
            return [plain(i) for i in v] if isinstance(v, tuple) else v

        own = dataclasses.asdict(self)
        grid = own.pop("grid")
        flat = {"kind": self.kind} | own | grid
        # The order, and what is left out where it is usual, are those of all files there are.
        usual = {f.name: f.default for of in (self, self.grid) for f in dataclasses.fields(of)}
        usual["exclusive"] = self.grid.exclusive
        names = dict.fromkeys((*self.grid.first, *grid, *own))
        return {k: plain(flat[k]) for k in names if k not in self.grid.later or flat[k] != usual[k]}
