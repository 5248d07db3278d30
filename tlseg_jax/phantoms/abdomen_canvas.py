"""What a procedural abdomen is painted on: a grid, its tissues, and the layers painted so far."""

import enum

import numpy as np

from tlseg_jax.phantoms.phantom_shapes import Floats, Layer, Region, cover

BoxMm = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


class Organ(enum.IntEnum):
    """What a voxel is mostly made of."""

    AIR = 0
    COUCH = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    DISC = 6
    CANAL = 7
    LUNG = 8
    HEART = 9
    BOWEL = 10
    FLUID = 11
    GAS = 12
    STOMACH = 13
    PANCREAS = 14
    SPLEEN = 15
    SPLEEN_DARK = 16
    CORTEX = 17
    MEDULLA = 18
    AORTA = 19
    CAVA = 20
    LIVER = 21
    HEPATIC_VEIN = 22
    PORTAL_VEIN = 23
    BILE = 24


class Canvas:
    """A grid of points, and the layers of tissue painted on it.

    Attributes:
      points: (3, x, y, z) schematic mm of the grid's voxels.
      width: side of a voxel in schematic mm, for partial volume.
    """

    def __init__(self, points: Floats, width: float) -> None:
        self.points = points
        self.width = width
        self.layers: list[Layer] = []

    @property
    def everywhere(self) -> Region:
        """All voxels."""
        a, b, c = (slice(0, n) for n in self.points.shape[1:])
        return (a, b, c)

    def box(self, mm: BoxMm) -> Region:
        """The smallest box of voxels that holds every point within `mm`; empty where there is none."""
        inside = np.ones(self.points.shape[1:], bool)
        for axis, (low, high) in zip(self.points, mm, strict=True):
            inside &= (axis >= low) & (axis <= high)
        out = []
        for axis in range(3):
            hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
            out.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0))
        return (out[0], out[1], out[2])

    def at(self, where: Region) -> Floats:
        """The points (3, ...) of a box of voxels."""
        return self.points[(slice(None), *where)]

    def paint(self, tissue: Organ, distance: Floats, where: Region) -> None:
        """Cover what lies inside a shape, given as its signed distance in `where`."""
        self.layers.append(Layer(tissue, where, cover(distance, self.width)))
