"""A slice from the scanner's pixels to the network's, its label with it, and predictions back.

Every way of resizing maps pixel i of the result to pixel `scale * i + offset` of the slice, on each axis by
itself, so each is a matrix from the left and one from the right.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy.typing import NDArray
from scipy import sparse

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.geometry import Affine, Grid, canonical_grid
from tlseg_jax.preprocess.codes import UNMARKED, encode, mask_of

_HALF = 0.5 - 1e-5  # a share of exactly one half counts in spite of rounding


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a resized slice.

    Attributes:
      source: pixels of the scanner's slice.
      target: pixels of the result.
      scale: source pixels a target pixel.
      offset: source coordinate of target pixel 0; a pixel's coordinate is its middle's.
    """

    source: int
    target: int
    scale: float
    offset: float

    @property
    def inverse(self) -> "Axis":
        """From the result back to the slice."""
        return Axis(self.target, self.source, 1 / self.scale, -self.offset / self.scale)

    def area(self) -> sparse.csr_array:
        """(target, source): the share of each target pixel's width that each source pixel covers."""
        edges = np.arange(self.target + 1) * self.scale + self.offset - self.scale / 2
        j = np.arange(self.source)
        low = np.maximum(edges[:-1, None], j - 0.5)
        high = np.minimum(edges[1:, None], j + 0.5)
        return sparse.csr_array(np.clip(high - low, 0, None) / self.scale)

    def linear(self) -> sparse.csr_array:
        """(target, source): linear interpolation at the target pixels' middles; none outside the slice.

        Within half a pixel of the slice's border, its outermost pixel repeats.
        """
        at = np.arange(self.target) * self.scale + self.offset
        inside = (at >= -0.5 - 1e-6) & (at <= self.source - 0.5 + 1e-6)
        at = np.clip(at, 0, self.source - 1)
        below = np.minimum(np.floor(at).astype(int), max(self.source - 2, 0))
        share = at - below
        out = np.zeros((self.target, self.source))
        rows = np.arange(self.target)
        out[rows, below] += 1 - share
        out[rows, np.minimum(below + 1, self.source - 1)] += share
        return sparse.csr_array(out * inside[:, None])


def plan_axes(shape: tuple[int, int], spacing: tuple[float, float], spec: DatasetSpec) -> tuple[Axis, Axis]:
    """How slices of this shape come to `spec.planes.pixels`, by `spec.planes.resize`; the middle stays in the middle.

    Args:
      shape: pixels of a slice, (x, y).
      spacing: of its pixels, in mm.
    """
    axes = []
    for source, mm, target in zip(shape, spacing, spec.planes.pixels, strict=True):
        if spec.planes.resize == "pad":  # whole pixels, so that no value changes
            axes.append(Axis(source, target, 1.0, float((source - target) // 2)))
            continue
        if spec.planes.resize == "fit":
            scale = source / target
        else:
            assert spec.planes.pixel_mm is not None
            scale = spec.planes.pixel_mm / mm
        axes.append(Axis(source, target, scale, (source - 1) / 2 - scale * (target - 1) / 2))
    return axes[0], axes[1]


class Resizer:
    """Resizes slices of one shape: where pixels grow, by area, so that nothing aliases; else linearly."""

    def __init__(self, axes: tuple[Axis, Axis]) -> None:
        self._area = [a.area() for a in axes]
        self._image = [m if a.scale > 1 else a.linear() for a, m in zip(axes, self._area, strict=True)]
        covered = [np.asarray(m.sum(1)).ravel() for m in self._image]
        self._outside = np.clip(1 - np.outer(*covered), 0, 1).astype(np.float32)
        self._outside[self._outside < 1e-6] = 0

    def image(self, plane: Float32[np.ndarray, "x y"], lowest: float) -> Float32[np.ndarray, "target_x target_y"]:
        """A slice of an image; `lowest` outside the slice."""
        left, right = self._image
        out = (left @ plane) @ right.T + lowest * self._outside
        return np.asarray(out, np.float32)

    def label(
        self, plane: UInt8[np.ndarray, "x y"], structures: int, exclusive: bool = False, unmarked: bool = False
    ) -> UInt8[np.ndarray, "target_x target_y"]:
        """A slice of codes: a structure is where it covers half of the pixel or more.

        Args:
          exclusive: whether a pixel shows one at most; of two that cover half of it the last counts.
          unmarked: whether the codes say where nobody looked.
        """
        nowhere = (plane == UNMARKED) & unmarked
        masks = [mask_of(plane, i, exclusive) & ~nowhere for i in range(structures)]
        out = encode([self._covered(m) for m in masks], exclusive)
        if unmarked:
            out[self._covered(nowhere)] = UNMARKED
        return out

    def _covered(self, mask: Bool[np.ndarray, "x y"]) -> NDArray[np.bool_]:
        left, right = self._area
        return np.asarray((left @ mask.astype(np.float32)) @ right.T >= _HALF)


def resized_affine(affine: Affine, axes: tuple[Axis, Axis]) -> Affine:
    """The affine of the resized planes: (x, y, z of the volume) -> mm, as (x, y, z) -> mm is `affine`."""
    step = np.eye(4)
    for i, axis in enumerate(axes):
        step[i, i], step[i, 3] = axis.scale, axis.offset
    return np.asarray(affine @ step)


def axes_of(affine: Affine, canonical: Affine, source: tuple[int, int], target: tuple[int, int]) -> tuple[Axis, Axis]:
    """The axes that `resized_affine` made `affine` of `canonical` with."""
    step = np.linalg.inv(canonical) @ affine
    x, y = (Axis(source[i], target[i], float(step[i, i]), float(step[i, 3])) for i in (0, 1))
    return x, y


def planes_on_scan(
    planes: Float32[np.ndarray, "planes x y"], affine: Affine, scan: Grid
) -> Iterator[Float32[np.ndarray, "width height"]]:
    """Predictions of planes, linearly interpolated onto the scan's own pixels, one after the other.

    Args:
      planes: such as probabilities of one structure.
      affine: (x, y of a plane, slice of the canonical volume) -> RAS mm.
      scan: the voxels of the file.

    Yields:
      Those of the canonical volume's slices (left to right, back to front).
    """
    whole = canonical_grid(scan)
    axes = axes_of(affine, whole.affine, whole.shape[:2], (planes.shape[1], planes.shape[2]))
    left, right = (a.inverse.linear() for a in axes)
    for plane in planes:
        yield (left @ plane) @ right.T
