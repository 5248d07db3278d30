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
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]
Region = tuple[slice, slice, slice]
Vec = tuple[float, float, float]

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
    """

    values: Floats
    step: float

    def at(self, points: Floats) -> Floats:
        """Values at `points` (3, ...); constant outside the lattice."""
        low = np.array(LATTICE_LOW, np.float32).reshape(3, *[1] * (points.ndim - 1))
        where = (points - low) / np.float32(self.step)
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


def topmost(layers: Sequence[Layer], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """(x, y, z): the last tissue that fills at least half of each voxel."""
    out = np.zeros(shape, np.uint8)
    for layer in layers:
        out[layer.where][layer.share >= 0.5] = layer.tissue
    return out


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
        """Signed distance and position along the curve (0 to 1) at `points` (3, n).

        Farther than `reach` mm from the curve the distance is just `reach` and the position 0.
        """
        d, i = cKDTree(self.curve).query(points.T, distance_upper_bound=reach + float(self.radius.max()), workers=1)
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
