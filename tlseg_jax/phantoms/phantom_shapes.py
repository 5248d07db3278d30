"""Implicit shapes in millimetres, and smooth random fields: what a phantom head is made of.

A shape is its signed distance in mm, negative inside, at points given as `(3, ...)` float32. Apart
from spheres and tubes the distances are first-order: right at the surface, where partial volume
needs them, and only roughly so far from it.
"""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]
Region = tuple[slice, slice, slice]
Vec = tuple[float, float, float]
BoxMm = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

LATTICE_LOW = (-110.0, -150.0, -125.0)
LATTICE_HIGH = (110.0, 125.0, 125.0)
"""The box in MNI305 mm that smooth random fields cover: a whole head, with room for its pose."""


def generator_of(seed: int, person: int, *names: str) -> np.random.Generator:
    """Random numbers of their own for each named purpose, so that no factor disturbs another's draw."""
    key = zlib.crc32("/".join(names).encode())
    return np.random.default_rng(np.random.SeedSequence([seed, person, key]))


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """A smooth function of space, kept on a lattice and interpolated linearly.

    Attributes:
      step: lattice spacing in mm.
      scale: lattice mm to one of the points'.
    """

    values: Floats
    step: float
    scale: float = 1.0

    def at(self, points: Floats) -> Floats:
        """Values at `points` (3, ...); constant outside the lattice."""
        low = np.array(LATTICE_LOW, np.float32).reshape(3, *[1] * (points.ndim - 1))
        where = (points * np.float32(self.scale) - low) / np.float32(self.step)
        return map_coordinates(self.values, where, order=1, mode="nearest", output=np.float32)  # type: ignore[no-any-return]


def random_field(rng: np.random.Generator, smoothness: float, step: float) -> Field:
    """Gaussian noise smoothed with a Gaussian of `smoothness` mm, mean 0 and standard deviation 1."""
    shape = [int(np.ceil((b - a) / step)) + 1 for a, b in zip(LATTICE_LOW, LATTICE_HIGH, strict=True)]
    noise = rng.standard_normal(shape, np.float32)
    smooth = gaussian_filter(noise, smoothness / step, mode="wrap")
    return Field((smooth - smooth.mean()) / max(float(smooth.std()), 1e-9), step)


def cover(distance: Floats, width: float) -> Floats:
    """The share of a voxel of `width` mm that lies inside: a box filter over the signed distance."""
    return np.clip(np.float32(0.5) - distance / np.float32(width), 0, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One tissue's share of each voxel.

    Attributes:
      where: the box of voxels that `share` fills.
      share: 0 to 1.
    """

    tissue: int
    where: Region
    share: Floats


class Canvas:
    """A grid of points, and the layers of tissue painted on it.

    Attributes:
      points: (3, x, y, z) mm of the grid's voxels.
      width: side of a voxel in mm, for partial volume.
    """

    def __init__(self, points: Floats, width: float) -> None:
        self.points = points
        self.width = width
        self.layers: list[Layer] = []

    def box(self, mm: BoxMm) -> Region:
        """The smallest box of voxels that holds every point within `mm`; one voxel where there is none."""
        return box_of(self.points, mm)

    def at(self, where: Region) -> Floats:
        """The points (3, ...) of a box of voxels."""
        return self.points[(slice(None), *where)]

    def paint(self, tissue: int, distance: Floats, where: Region | None = None) -> None:
        """Cover what lies inside a shape, given as its signed distance in `where`, or everywhere."""
        a, b, c = (slice(0, n) for n in self.points.shape[1:])
        self.layers.append(Layer(tissue, where or (a, b, c), cover(distance, self.width)))


def within(points: Floats, mm: BoxMm) -> NDArray[np.bool_]:
    """(x, y, z): which of the points (3, x, y, z) lie in a box."""
    inside = np.ones(points.shape[1:], bool)
    for axis, (low, high) in zip(points, mm, strict=True):
        inside &= (axis >= low) & (axis <= high)
    return inside


def box_of(points: Floats, mm: BoxMm) -> Region:
    """The smallest box of voxels that holds every point within `mm`; one voxel where there is none."""
    found = ndimage.find_objects(within(points, mm).astype(np.uint8))
    return found[0] if found else (slice(0, 1),) * 3  # type: ignore[return-value]


def blend(image: Floats, layers: Sequence[Layer], signal: Sequence[float] | NDArray[np.float64]) -> None:
    """Lay tissues of these signals over an image (x, y, z), one after the other."""
    for layer in layers:
        part = image[layer.where]
        part += layer.share * (np.float32(signal[layer.tissue]) - part)


def ellipsoid(points: Floats, centre: Vec, radii: Vec) -> Floats:
    """First-order signed distance to an axis-aligned ellipsoid of semi-axes `radii` mm."""
    squares = np.zeros(points.shape[1:], np.float32)
    slopes = np.zeros(points.shape[1:], np.float32)
    for axis, c, r in zip(points, centre, radii, strict=True):
        q = (axis - np.float32(c)) / np.float32(r)
        squares += q * q
        slopes += (q / np.float32(r)) ** 2
    # Where the slope vanishes, at the centre, the value only has to be well inside.
    k = np.sqrt(squares)
    steep = np.maximum(np.sqrt(slopes), np.float32(0.3 / max(radii)))
    return ((k - 1) * np.maximum(k, np.float32(0.3)) / steep).astype(np.float32, copy=False)


def union(a: Floats, b: Floats, blend: float) -> Floats:
    """The union of two shapes, its crease rounded over about `blend` mm."""
    h = np.maximum(np.float32(blend) - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * np.float32(0.25 / blend)


@dataclasses.dataclass(frozen=True, eq=False)
class Tube:
    """A curve through control points, with a radius that varies along it.

    Attributes:
      curve: (n, 3) mm, samples about half a millimetre apart.
      radius: (n,) mm.
    """

    curve: NDArray[np.float64]
    radius: Floats

    def distance(self, points: Floats, reach: float) -> tuple[Floats, Floats]:
        """Signed distance and position along the curve (0 to 1) at `points` (3, ...).

        Farther than `reach` mm from the curve the distance is just `reach` and the position 0.
        """
        widest = float(self.radius.max())
        d, i = cKDTree(self.curve).query(np.moveaxis(points, 0, -1), distance_upper_bound=reach + widest, workers=1)
        far = ~np.isfinite(d)
        i[far] = 0
        out = d.astype(np.float32) - self.radius[i]
        out[far] = reach
        along = (i / max(len(self.curve) - 1, 1)).astype(np.float32)
        return out, along


def tube(knots: Sequence[tuple[float, float, float, float]] | NDArray[np.float64]) -> Tube:
    """The tube along a cubic spline through `knots`, each x, y, z and radius in mm."""
    table = np.asarray(knots, np.float64)
    steps = np.sqrt((np.diff(table[:, :3], axis=0) ** 2).sum(1))
    t = np.concatenate([[0.0], np.cumsum(steps)])
    fine = np.linspace(0, t[-1], max(int(2 * t[-1]), 2))
    curve = CubicSpline(t, table[:, :3])(fine)
    radius = np.interp(fine, t, table[:, 3]).astype(np.float32)
    return Tube(curve, radius)
