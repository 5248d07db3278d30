"""The prepared data set of slices on disk: a Zarr v3 group a volume, one chunk a plane, and a manifest.

    STORE/lits/manifest.json
    STORE/lits/subjects/0.zarr/image      (planes, x, y) float16
    STORE/lits/subjects/0.zarr/label      (planes, x, y) uint8, codes of the structures (`preprocess.codes`)

A plane is an axial slice: x runs from left to right, y from back to front, planes from the feet up. Only some
planes are samples; the others are stored as their neighbours, for 2.5D input.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float16, Shaped, UInt8
from numpy.typing import NDArray

from tlseg_jax.geometry import canonical_grid
from tlseg_jax.preprocess.store.store import BaseStore, write_arrays
from tlseg_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Sample:
    """One slice that the network learns from or is tested on.

    Attributes:
      position: which of the volume's stored planes.
      bits: the structures that it shows, bit i for structure i of the spec.
    """

    subject: str
    position: int
    bits: int


def write_slices(path: Path, image: Shaped[np.ndarray, "planes x y"], label: Shaped[np.ndarray, "planes x y"]) -> None:
    """Write one volume's Zarr group: see `write_arrays`. The image is stored as float16, the codes as uint8."""
    chunk = (1, *image.shape[1:])
    write_arrays(path, {"image": (image, "float16"), "label": (label, "uint8")}, chunk, ("z", "x", "y"))


class SliceStore(BaseStore):
    """A prepared data set of slices, read only."""

    kind = "slices"
    # In the scans' own voxels; before that was looked to, they were counted in the prepared ones.
    ml: ClassVar[Mapping[str, str]] = {"ml": "scan"}

    def samples(self, subjects: Sequence[str]) -> tuple[Sample, ...]:
        """The samples of these volumes: the volumes as given, in each from the feet upwards."""
        return tuple(
            Sample(s, position, bits)
            for s in subjects
            for position, bits in zip(self.record(s)["samples"], self.record(s)["bits"], strict=True)
        )

    def image(self, subject: str, position: int, channels: int = 1) -> Float16[np.ndarray, "x y {channels}"]:
        """A plane in the middle of its neighbours; the volume's last plane repeats.

        Args:
          channels: odd; 2k + 1 gives k slices on each side.

        Raises:
          InputError: a neighbour was not stored, or the array is damaged.
        """
        rows = self._neighbours(subject, [position], channels)[0]
        return np.stack([self._planes(subject, "image", p) for p in rows.tolist()], -1)

    def label(self, subject: str, position: int) -> UInt8[np.ndarray, "x y"]:
        """Codes of one stored plane."""
        return self._planes(subject, "label", position)

    def volume_image(self, subject: str, channels: int = 1) -> Float16[np.ndarray, "samples x y {channels}"]:
        """The volume's samples; see `image`."""
        rows = self._neighbours(subject, self.record(subject)["samples"], channels)
        return np.moveaxis(self._planes(subject, "image")[rows], 1, -1)

    def arrays(self, subject: str) -> tuple[Float16[np.ndarray, "planes x y"], UInt8[np.ndarray, "planes x y"]]:
        """All stored planes of a volume, samples or not: the scan, and its codes."""
        return self._planes(subject, "image"), self._planes(subject, "label")

    def codes(self, subject: str) -> UInt8[np.ndarray, "samples x y"]:
        """Of the volume's samples."""
        return self._planes(subject, "label")[self.record(subject)["samples"]]

    def spacing(self, subject: str) -> tuple[float, float, float]:
        """Voxel size of the stored planes on x, y and z, in mm."""
        mm = np.linalg.norm(np.array(self.record(subject)["affine"], float)[:3, :3], axis=0)
        return (float(mm[0]), float(mm[1]), float(mm[2]))

    def depth(self, subject: str) -> int:
        """Axial slices of the whole scan."""
        return canonical_grid(self.scan_grid(subject)).shape[2]

    def label_ml(self, subject: str, structure: str) -> float | None:
        """A structure's ml in the slices that are samples, counted in the label file; None where it is not kept."""
        r = self.record(subject)
        if structure in r.get("label_voxels", {}):
            return float(sum(r["label_voxels"][structure]) * self.scan_grid(subject).voxel_ml)
        # Prepared before that was kept: of every slice it is what the whole file holds.
        every = len(r["samples"]) == self.depth(subject)
        return float(r["label_ml"][structure]) if every and structure in r.get("label_ml", {}) else None

    def scattered(self, subjects: Sequence[str]) -> str:
        """Why these volumes have no 3D components, in one sentence; "" where all have."""
        gaps = [s for s in subjects if not self.contiguous(s)]
        if not gaps:
            return ""
        return (
            f"The slices of {len(gaps)} of {len(subjects)} volume(s) of {self.spec.name} ({', '.join(gaps[:5])}) are "
            "not consecutive, so tumours in them have no 3D extent: prepare the data set with every slice of a volume "
            "(with_structure = 0 in its TOML file) to count tumours."
        )

    def contiguous(self, subject: str) -> bool:
        """Whether the samples are consecutive slices, so that 3D components of them make sense."""
        r = self.record(subject)
        z = np.array(r["planes"])[r["samples"]]
        return bool(np.all(np.diff(z) == 1))

    def _neighbours(self, subject: str, positions: Sequence[int], channels: int) -> NDArray[np.intp]:
        """(positions, channels): the stored planes that make each sample's channels."""
        if channels < 1 or channels % 2 == 0:
            raise InputError(f"A slice with {channels} channels has no middle: give an odd number.")
        r = self.record(subject)
        depth = self.depth(subject)
        at = {z: i for i, z in enumerate(r["planes"])}
        reach = channels // 2
        rows = []
        for p in positions:
            wanted = [min(max(r["planes"][p] + k, 0), depth - 1) for k in range(-reach, reach + 1)]
            if not all(z in at for z in wanted):
                raise InputError(
                    f"{self.where} holds {self.spec.planes.neighbours} slice(s) on each side of a sample and "
                    f"{channels} channels need {reach}: prepare it with `neighbours={reach}`."
                )
            rows.append([at[z] for z in wanted])
        return np.array(rows, np.intp).reshape(-1, channels)

    def _planes(self, subject: str, name: str, position: int | None = None) -> NDArray[Any]:
        """All stored planes, or one of them."""
        try:
            array = self._array(subject, name)
            return (array if position is None else array[position]).read().result()  # type: ignore[no-any-return]
        except ValueError as e:
            raise self._damaged(subject, e) from None
