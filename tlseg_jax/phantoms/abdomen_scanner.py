"""Where and how a procedural abdomen is scanned: the voxel grid, its axes, the signal and its noise."""

import dataclasses
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tlseg_jax.datasets.spec import Modality
from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.phantoms.abdomen_anatomy import Abdomen
from tlseg_jax.phantoms.abdomen_organs import liver
from tlseg_jax.phantoms.abdomen_person import AbdomenPerson, body_points
from tlseg_jax.phantoms.abdomen_signal import Organ, Signal, ct_signal, mr_signal
from tlseg_jax.phantoms.phantom_scanner import bias_field
from tlseg_jax.phantoms.phantom_shapes import Floats, blend

CT_SLICE_MM = 5.0
CT_DEPTH = (24, 60)
"""Fewest and most slices of a CT."""

MR_DEPTH = 18
"""The report's 72 slices, a quarter of them."""

MR_SLICE_MM = (9.5, 11.0)


@dataclasses.dataclass(frozen=True, eq=False)
class ScanSampling:
    """A scan's voxels.

    Attributes:
      grid: axes to the right, front and top; mm about the middle of the body.
      axes: the order and sense in which the file keeps them, such as "LPS" (nibabel's letters).
      thin: each slice is drawn as so many thinner ones and averaged.
      origin: added to the affine of the file, mm: the scanner's zero is not the body's middle.
    """

    grid: Grid
    axes: str
    thin: int
    origin: tuple[float, float, float]


def draw_sampling(
    person: AbdomenPerson, modality: Modality, pixels: tuple[int, int], rng: np.random.Generator
) -> ScanSampling:
    """The voxels of one scan: a field of view that holds the body, and a stretch of it with some of the liver.

    A CT's stretch always has 60 mm of liver and 40 mm without, wherever it starts; an MRI's is centred on the liver.

    Args:
      pixels: of a slice, x and y.
    """
    low, high = _liver_extent(person)
    width = 2 * person.size[0] * (136 + person.wall + 1.3 * person.fat)
    pixel = width * rng.uniform(1.04, 1.14) / pixels[0]
    if modality == "MR":
        depth, thick, thin, axes = MR_DEPTH, float(rng.uniform(*MR_SLICE_MM)), 3, "LPS"
        bottom = (low + high - depth * thick) / 2 + rng.uniform(-10, 10)
    else:
        depth, thick, thin, axes = int(rng.integers(CT_DEPTH[0], CT_DEPTH[1] + 1)), CT_SLICE_MM, 1, ""
        axes = str(rng.choice(["RAS", "LAS"]))
        length = depth * thick
        bottoms = np.arange(-225.0, 60.0)
        overlap = np.minimum(bottoms + length, high) - np.maximum(bottoms, low)
        fits = (overlap >= 68) & (length - overlap >= 48) & (bottoms + length <= 160)
        bottom = float(rng.choice(bottoms[fits]))
    spacing = np.array([pixel, pixel, thick])
    affine = np.diag([*spacing, 1.0])
    affine[:2, 3] = -(np.array(pixels) - 1) / 2 * pixel + rng.uniform(-4, 4, 2)
    affine[2, 3] = bottom + thick / 2
    a, b, c = np.round(rng.uniform((-20, -180, -900), (20, -120, 300)), 1)
    return ScanSampling(Grid((*pixels, depth), affine), axes, thin, (float(a), float(b), float(c)))


def thin_grid(sampling: ScanSampling) -> Grid:
    """The grid of thinner slices that the scan is drawn on."""
    grid, n = sampling.grid, sampling.thin
    affine = grid.affine @ np.diag([1.0, 1.0, 1.0 / n, 1.0])
    affine[:3, 3] -= grid.affine[:3, 2] * (n - 1) / (2 * n)
    return Grid((grid.shape[0], grid.shape[1], grid.shape[2] * n), affine)


def thick_slices(volume: Floats, sampling: ScanSampling) -> Floats:
    """The mean of the thinner slices within each slice."""
    x, y, z = volume.shape
    return volume.reshape(x, y, z // sampling.thin, sampling.thin).mean(3, dtype=np.float32)


def acquire_abdomen(abdomen: Abdomen, sampling: ScanSampling, modality: Modality, rng: np.random.Generator) -> Floats:
    """The scan, (x, y, z) float32: HU, or arbitrary units of 0 or more.

    Args:
      abdomen: drawn on `thin_grid(sampling)`.
    """
    if modality == "CT":
        image = thick_slices(_signal_of(abdomen, ct_signal(rng)), sampling)
        return _ct_noise(_point_spread(image, rng), rng)
    image = thick_slices(_signal_of(abdomen, mr_signal(rng)), sampling)
    image = _point_spread(np.maximum(image, 0), rng) * bias_field(sampling.grid.shape, rng.uniform(0.12, 0.35), rng)
    noise = np.float32(rng.uniform(3.5, 7.0))
    real = image + noise * rng.standard_normal(image.shape, np.float32)
    gain = np.float32(np.exp(rng.uniform(*np.log((1.5, 12.0)))))
    return gain * np.hypot(real, noise * rng.standard_normal(image.shape, np.float32))


def in_file_axes(volume: NDArray[Any], sampling: ScanSampling) -> tuple[NDArray[Any], Affine]:
    """A volume in the order and sense of axes of its file, and the file's affine."""
    affine = sampling.grid.affine.copy()
    affine[:3, 3] += sampling.origin
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(sampling.axes)
    )
    turned = nib.orientations.apply_orientation(volume, turn)
    return turned, affine @ nib.orientations.inv_ornt_aff(turn, volume.shape)


def _liver_extent(person: AbdomenPerson) -> tuple[float, float]:
    """Lowest and highest mm of the liver, to about 3 mm."""
    axes = (np.arange(-60.0, 150, 10), np.arange(-90.0, 100, 10), np.arange(-130.0, 115, 2.5))
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    inside = (liver(person, body_points(person, points)) < 0).any((0, 1))
    z = axes[2][inside]
    return float(z[0]), float(z[-1])


def _signal_of(abdomen: Abdomen, signal: Signal) -> Floats:
    """The noiseless signal: tissues over one another from the outside in, then the lesions."""
    image = np.full(abdomen.liver.shape, signal.tissue[Organ.AIR], np.float32)
    blend(image, abdomen.layers, signal.tissue)
    background = signal.tissue[Organ.LIVER]
    for one in abdomen.lesions:
        contrast = one.lesion.ct if signal.modality == "CT" else one.lesion.mr
        part = image[one.where]
        for share, value in ((one.share, contrast.rim), (one.core, contrast.core)):
            inside = background + signal.lesion_unit * (value + contrast.mottle * one.mottle)
            part += share * (inside.astype(np.float32, copy=False) - part)
    return image


def _point_spread(image: Floats, rng: np.random.Generator) -> Floats:
    sigma = rng.uniform(0.3, 0.55)
    return gaussian_filter(image, (sigma, sigma, 0.2), truncate=3.0)  # type: ignore[no-any-return]


def _ct_noise(image: Floats, rng: np.random.Generator) -> Floats:
    """HU with noise as reconstruction leaves it: correlated between neighbouring pixels, and in blotches."""
    total = rng.uniform(7.0, 15.0)
    for sigma, share in ((0.55, 0.95), (1.8, 0.31)):
        noise = gaussian_filter(rng.standard_normal(image.shape, np.float32), (sigma, sigma, 0.0))
        image = image + noise * np.float32(total * share / noise.std())
    return np.clip(image, -1024, 3071)  # type: ignore[no-any-return]
