"""Where and how a phantom is scanned: the voxel grid, the pose of the head, and the signal."""

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from tlseg_jax.datasets.spec import DatasetSpec, Space
from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.phantoms.phantom_anatomy import Anatomy, Tissue
from tlseg_jax.phantoms.phantom_shapes import Floats, blend

MNI305_ORIGIN = (-86.095, -126.51, -68.25)
"""Centre in mm of the first voxel of the 172x220x156 MNI305 grid at 1 mm."""

HEAD_CENTRE = (0.0, -16.0, 8.0)
"""The point of the MNI305 frame that native scans are centred on, in mm."""

Scanner = Literal["trial", "registry", "survey"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a family of scanners does to the signal.

    Attributes:
      signal: T1 signal of each tissue, white matter near 100.
      contrast: standard deviation of each tissue's signal from site to site, in the same unit.
      gain: range of the overall scale of the intensities.
      bias: range of the bias field's amplitude, relative.
      noise: range of the noise's standard deviation, in the unit of `signal`, at 2 mm voxels.
      blur: range of the point spread's full width in mm, in plane.
      slice_blur: the same along the slices.
      slice_axis: 0, 1 or 2.
    """

    signal: tuple[float, ...]
    contrast: float
    gain: tuple[float, float]
    bias: tuple[float, float]
    noise: tuple[float, float]
    blur: tuple[float, float]
    slice_blur: tuple[float, float]
    slice_axis: int


#         air skin fat  musc bone marr csf  grey whit cbll stem thal puta pall hipp vent caud
_TRIAL = (0.0, 55.0, 125.0, 52.0, 10.0, 62.0, 27.0, 66.0, 100.0, 70.0, 92.0, 84.0, 79.0, 93.0, 68.0, 24.0, 73.0)
_REGIS = (0.0, 60.0, 105.0, 58.0, 14.0, 70.0, 22.0, 60.0, 100.0, 66.0, 94.0, 85.0, 74.0, 94.0, 62.0, 19.0, 68.0)
_SURVE = (0.0, 50.0, 140.0, 48.0, 8.0, 55.0, 32.0, 63.0, 100.0, 67.0, 91.0, 85.0, 80.0, 95.0, 66.0, 30.0, 71.0)

PROTOCOLS: dict[Scanner, Protocol] = {
    "trial": Protocol(_TRIAL, 2.5, (2.0, 8.0), (0.06, 0.2), (3.0, 5.5), (1.2, 2.2), (1.2, 2.6), 0),
    "registry": Protocol(_REGIS, 4.0, (3.0, 30.0), (0.1, 0.3), (3.5, 7.0), (1.2, 2.6), (1.6, 3.6), 2),
    "survey": Protocol(_SURVE, 2.5, (10.0, 14.0), (0.05, 0.15), (3.0, 5.0), (1.2, 2.0), (1.2, 2.2), 0),
}
"""Three families: a multi-centre trial, a large registry of mixed scanners, one site's survey."""

TISSUE_TEXTURE = 2.2
"""Standard deviation of slow signal variation within tissue, in the unit of `Protocol.signal`."""


def grid_for(spec: DatasetSpec) -> Grid:
    """The grid that a data set's phantoms are drawn on: axes to the right, front and top.

    MNI305 data sets get the field of view of the 172x220x156 grid at 1 mm; native ones a grid whose
    middle is the origin. A spacing of None is taken as 1 mm.
    """
    spacing = np.array(spec.volumes.spacing or (1.0, 1.0, 1.0))
    affine = np.diag([*spacing, 1.0])
    if spec.volumes.space == "MNI305":
        affine[:3, 3] = np.array(MNI305_ORIGIN) + (spacing - 1) / 2
    else:
        affine[:3, 3] = -(np.array(spec.volumes.dimensions) - 1) / 2 * spacing
    return Grid(spec.volumes.dimensions, affine)


def draw_pose(space: Space, rng: np.random.Generator) -> Affine:
    """The transform (4, 4) from scanner mm to MNI305 mm of one scan.

    A registered scan keeps a small error; in native space the head is turned, shifted, and of its
    own size, which is smaller than MNI305 (that template is larger than most brains).
    """
    turn = draw_turn(space, rng)
    move = np.clip(rng.standard_normal(3), -2, 2) * (3.0 if space == "native" else 0.7)
    size = rng.uniform(0.87, 0.95) * (1 + 0.015 * rng.standard_normal(3))
    if space == "MNI305":
        size = 1 + 0.008 * rng.standard_normal(3)
    centre = np.array(HEAD_CENTRE)
    to_mni = np.eye(4)
    to_mni[:3, :3] = np.diag(1 / size) @ turn.T
    origin = centre if space == "MNI305" else np.zeros(3)
    to_mni[:3, 3] = centre - to_mni[:3, :3] @ (origin + move)
    return to_mni


def draw_turn(space: Space, rng: np.random.Generator) -> NDArray[np.float64]:
    """The rotation (3, 3) of a head that lies in a scanner, or of what a registration has left of it."""
    sd = np.array([3.5, 2.0, 3.5]) if space == "native" else np.array([0.8, 0.6, 0.6])
    angles = np.clip(rng.standard_normal(3), -2, 2) * sd
    return Rotation.from_euler("xyz", angles, degrees=True).as_matrix()  # type: ignore[no-any-return]


def world_points(grid: Grid, to_mni: Affine) -> Floats:
    """(3, x, y, z) float32: MNI305 mm of every voxel centre of `grid`."""
    m = (to_mni @ grid.affine).astype(np.float32)
    i, j, k = (np.arange(n, dtype=np.float32) for n in grid.shape)
    out = np.empty((3, *grid.shape), np.float32)
    for a in range(3):
        out[a] = (m[a, 0] * i + m[a, 3])[:, None, None] + (m[a, 1] * j)[:, None] + m[a, 2] * k
    return out


def acquire(anatomy: Anatomy, scanner: Scanner, grid: Grid, rng: np.random.Generator) -> Floats:
    """The scan, (x, y, z) float32, 0 or more, in arbitrary units.

    Tissue signals with partial volume, slow variation within tissue, the point spread, a smooth
    multiplicative bias field, and Rician noise.
    """
    protocol = PROTOCOLS[scanner]
    drift = protocol.contrast * np.clip(rng.standard_normal(len(Tissue)), -2, 2)
    drift[[Tissue.AIR, Tissue.BONE, Tissue.WHITE]] = 0
    signal = np.maximum(np.array(protocol.signal) + drift, 0)
    gain = float(np.exp(rng.uniform(*np.log(protocol.gain))))
    blur = np.full(3, rng.uniform(*protocol.blur))
    blur[protocol.slice_axis] = rng.uniform(*protocol.slice_blur)
    bias = rng.uniform(*protocol.bias)
    # Smaller voxels hold less signal: noise grows as the inverse root of the volume, softened.
    noise = rng.uniform(*protocol.noise) * (grid.voxel_ml / 0.008) ** -0.25

    image = np.zeros(grid.shape, np.float32)
    blend(image, anatomy.layers, signal)
    image *= 1 + np.float32(TISSUE_TEXTURE / 100) * anatomy.texture
    # The voxel itself already averages; what is left of the point spread is added in quadrature.
    sigma = np.sqrt(np.maximum(blur**2 - 1.0, 0)) / 2.355 / np.array(grid.spacing)
    gaussian_filter(image, sigma, output=image, truncate=3.0)
    image *= bias_field(grid.shape, bias, rng)
    quadrature = np.float32(noise) * rng.standard_normal(grid.shape, np.float32)
    image += np.float32(noise) * rng.standard_normal(grid.shape, np.float32)
    return np.float32(gain) * np.hypot(image, quadrature)


def bias_field(shape: tuple[int, int, int], amplitude: float, rng: np.random.Generator) -> Floats:
    """A smooth positive field, (x, y, z), of mean near 1: products of half-period cosines along the axes."""
    log = np.zeros(shape, np.float32)
    axes = [np.linspace(0, np.pi, n, dtype=np.float32) for n in shape]
    for order in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (0, 1, 1)):
        a, b, c = (np.cos(k * t) for k, t in zip(order, axes, strict=True))
        log += np.float32(0.5 * rng.standard_normal()) * a[:, None, None] * b[:, None] * c
    return np.exp(np.float32(amplitude) * log / max(float(np.abs(log).max()), 1e-6))  # type: ignore[no-any-return]
