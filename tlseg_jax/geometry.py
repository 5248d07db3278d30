"""Boxes and voxel grids in millimetres."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped
from numpy.typing import NDArray

Affine = Float64[np.ndarray, "4 4"]
"""A 4x4 matrix in homogeneous coordinates, RAS+ millimetres as nibabel has them."""


@dataclasses.dataclass(frozen=True)
class Box:
    """An axis-aligned box of voxels; it may reach outside the volume.

    Attributes:
      start: first voxel on x, y, z.
      size: voxels on x, y, z.
    """

    start: tuple[int, int, int]
    size: tuple[int, int, int]

    @property
    def stop(self) -> tuple[int, int, int]:
        """One past the last voxel."""
        (a, b, c), (d, e, f) = self.start, self.size
        return (a + d, b + e, c + f)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"start": list(self.start), "size": list(self.size)}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> "Box":
        """The inverse of `to_dict`."""
        return cls(tuple(d["start"]), tuple(d["size"]))

    @classmethod
    def centred(cls, centre: tuple[float, float, float], size: tuple[int, int, int]) -> "Box":
        """The box of `size` voxels whose middle is nearest to `centre` (voxel coordinates)."""
        start = tuple(round(c - (s - 1) / 2) for c, s in zip(centre, size, strict=True))
        return cls((start[0], start[1], start[2]), size)


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid in some space.

    Attributes:
      shape: voxels on x, y, z.
      affine: (4, 4), voxel index -> mm in the grid's space.
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        s = np.sqrt((self.affine[:3, :3] ** 2).sum(0))
        return (float(s[0]), float(s[1]), float(s[2]))

    @property
    def voxel(self) -> NDArray[np.float64]:
        """(3, 3): from one voxel to the next in mm, a column an axis."""
        return self.affine[:3, :3]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)


def turned_grid(grid: Grid, turn: NDArray[np.float64]) -> Grid:
    """The same voxels with their axes reordered and reversed.

    Args:
      turn: (3, 2), for each axis the one that it becomes, and -1 where it is reversed (nibabel's orientations).
    """
    from nibabel.orientations import inv_ornt_aff  # here and not above: a machine that only trains may not have it

    sides = [0, 0, 0]
    for (axis, _), n in zip(turn, grid.shape, strict=True):
        sides[int(axis)] = int(n)
    affine = np.asarray(grid.affine @ inv_ornt_aff(turn, grid.shape), np.float64)
    return Grid((sides[0], sides[1], sides[2]), affine)


def canonical_grid(grid: Grid) -> Grid:
    """The same voxels on the RAS axes nearest to their own."""
    from nibabel.orientations import io_orientation

    return turned_grid(grid, io_orientation(grid.affine))


def crop_or_pad(volume: Shaped[np.ndarray, "x y z"], box: Box, mode: str = "edge") -> Shaped[np.ndarray, "i j k"]:
    """The part of `volume` inside `box`, continued outside it.

    Args:
      volume: any values.
      box: which voxels; may reach outside.
      mode: "edge" repeats the border, "constant" gives zeros.
    """
    inner = tuple(
        slice(min(max(a, 0), n), max(min(b, n), 0)) for a, b, n in zip(box.start, box.stop, volume.shape, strict=True)
    )
    part = volume[inner]
    pad = [
        (min(max(-a, 0), s), min(max(b - n, 0), s))
        for a, b, n, s in zip(box.start, box.stop, volume.shape, box.size, strict=True)
    ]
    if 0 in part.shape:  # the box lies wholly outside
        return np.zeros(box.size, volume.dtype)
    return np.pad(part, pad, mode=mode) if any(map(any, pad)) else part  # type: ignore[call-overload,no-any-return]


def paste(patch: Shaped[np.ndarray, "i j k *rest"], box: Box, out: Shaped[np.ndarray, "x y z *rest"]) -> None:
    """Write `patch` (*box.size, ...) into `out` where the two overlap: the inverse of cropping."""
    to, frm = [], []
    for a, b, n in zip(box.start, box.stop, out.shape[:3], strict=True):
        lo, hi = max(a, 0), max(min(b, n), 0)
        if lo >= hi:
            return
        to.append(slice(lo, hi))
        frm.append(slice(lo - a, hi - a))
    out[tuple(to)] = patch[tuple(frm)]
