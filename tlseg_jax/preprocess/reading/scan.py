"""One subject's files and, once read and checked, its voxels."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from tlseg_jax.datasets.structures import LabelValues
from tlseg_jax.geometry import Affine


@dataclasses.dataclass(frozen=True)
class ScanFiles:
    """Where one subject's files are, as a layout found them.

    Attributes:
      subject: unique name of this scan, such as "sub-1000".
      label: its label map; None where only a prediction is wanted.
      mask: a brain mask on the same grid, where the source has one.
      split: "train" or "test" where the source says so, else "".
      person: who was scanned; repeat scans share it.
      marked: the structures that were looked for in the label map; empty: all of the data set's.
    """

    subject: str
    image: Path
    label: Path | None = None
    mask: Path | None = None
    split: str = ""
    person: str = ""
    marked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.person:
            object.__setattr__(self, "person", self.subject)

    @property
    def paths(self) -> dict[str, Path]:
        """Those that there are, by "image", "label" and "mask"."""
        every = {"image": self.image, "label": self.label, "mask": self.mask}
        return {k: p for k, p in every.items() if p is not None}


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """A scan's voxels, read and checked, in the file's own axes.

    Attributes:
      image: in the scan's units.
      affine: voxel -> RAS mm.
      label: codes of the structures (`preprocess.codes`); None where there is no label.
      mask: the brain; None where the source has none.
      label_values: for each structure the values of the label map that made it, where they were named or are one.
      warnings: a sentence each.
    """

    image: Float32[np.ndarray, "x y z"]
    affine: Affine
    label: UInt8[np.ndarray, "x y z"] | None = None
    mask: Bool[np.ndarray, "x y z"] | None = None
    label_values: tuple[LabelValues, ...] = ()
    warnings: tuple[str, ...] = ()


class ExclusionError(Exception):
    """This subject cannot be used, and the others can: one sentence with the file, fault and remedy."""


class UnnamedValuesError(ExclusionError):
    """A label map holds several values and none is named: which one is the structure cannot be told."""
