"""Label maps that part of the samples of a data set of scans are drawn from, on the scans' own grid and patch."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.structures import SIDES, Labels, LabelValues
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError

if TYPE_CHECKING:  # a machine that only measures steps may lack what reads files
    from tlseg_jax.input.synthesis.maps import Maps


@dataclasses.dataclass(frozen=True, eq=False)
class Mixed:
    """What takes the place of some samples.

    Attributes:
      maps: the label maps, with the codes of the data set of scans.
      subjects: of the maps, that are drawn from.
      box: of every sample.
      share: of the samples, each drawn by itself.
    """

    maps: "Maps"
    subjects: tuple[str, ...]
    box: Box
    share: float

    def sample(self, number: int, drawn: bool) -> dict[str, Any]:
        """What a sample is drawn from; the same shapes, of nothing, where it is read."""
        if drawn:
            return self.maps.sample(self.subjects[number], self.box)
        classes = len(self.maps.synthesis.table.values)
        sides = self.maps.synthesis.map_sides
        return {"classes": np.zeros(sides, np.uint8), "shares": np.full(classes, 1 / classes, np.float32)}

    @property
    def nbytes(self) -> int:
        """Of all maps of the box."""
        return len(self.subjects) * int(np.prod(self.maps.synthesis.map_sides))


def labels_of(scans: DatasetSpec, maps: DatasetSpec, where: str) -> Labels:
    """The values of label maps that make each structure of a data set of scans, by the structures' names.

    A structure without a side is that of both sides in the maps.

    Raises:
      InputError: the maps lack one.
    """
    of = dict(zip(maps.structures, maps.label_values, strict=True))

    def values(structure: str) -> LabelValues:
        sides = [structure + side for side in SIDES]
        if structure in of:
            return of[structure]
        return tuple(v for s in sides for v in of[s]) if all(s in of for s in sides) else ()

    found = {s: values(s) for s in scans.structures}
    lacking = [s for s, v in found.items() if not v]
    if lacking:
        raise InputError(
            f"The label maps of {where} show {maps.shown} and the scans {scans.shown}: what the maps have no name "
            f"for, {', '.join(lacking)}, cannot be drawn; prepare the maps with these structures (`from_labels`), or "
            "leave `mix_synthetic` out."
        )
    return Labels(scans.structures, tuple(found.values()), scans.exclusive)


def check_same_grid(scans: Store, maps: Store) -> None:
    """Make sure that a box is the same place in both.

    Raises:
      InputError: it is not.
    """
    one = scans.grid(scans.subjects()[0])
    for store in (scans, maps):
        for subject in store.subjects():
            grid = store.grid(subject)
            if grid.shape != one.shape or not np.allclose(grid.affine, one.affine, atol=1e-3):
                raise InputError(
                    f"{maps.where} and {scans.where} are not on one grid ({subject} of {store.where} has "
                    f"{'x'.join(map(str, grid.shape))} voxels): prepare the label maps with the same `space`, "
                    "`spacing` and dimensions as the scans, or leave `mix_synthetic` out."
                )
