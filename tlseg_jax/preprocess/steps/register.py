"""Affine registration of a T1 scan to MNI305, with or without its skull."""

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float32
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.reading.scan import ExclusionError
from tlseg_jax.preprocess.steps.resample import to_grid
from tlseg_jax.preprocess.steps.strip import foreground
from tlseg_jax.preprocess.steps.template import MNI305_TO_MNI152, template_image, template_mask
from tlseg_jax.runtime.threads import one_itk_thread

SPACING = 2.0
"""mm; both images are taken to this spacing, where an affine is still found to about 0.1 mm."""

BINS = 32
SEED = 1
SAMPLES = 0.25
"""Share of the voxels in the template's mask that the metric samples, drawn with `SEED`."""

START_SCALE = (0.8, 0.9, 1.0)
"""The template's brain is larger than nearly everyone's; from its own size alone, a head's skull or
scalp is taken for the edge of the brain."""

START_UP_MM = (0.0, -20.0, 20.0, 40.0, 60.0)
START_FORWARD_MM = (0.0, -20.0, 20.0)
START_NOD = (0.0, -0.35, 0.35)
"""Placements to begin from, about the head's centre of mass, which lies below the brain where the
neck is in view; turns in radians."""

SCALES = (0.5, 2.0)
"""Stretches of the template outside this range are not those of a human head."""

LEAST_INSIDE = 0.6
"""Share of the template's brain that has to lie in the scan's field of view. A small overlap makes
for a high mutual information, by chance."""

LEAST_INFORMATION = 0.15
"""Mutual information (nats) below which the two images do not show the same thing."""

PARAMETERS: dict[str, Any] = {
    "version": 3,
    "target": "ICBM152 2009a T1",
    "spacing": SPACING,
    "bins": BINS,
    "seed": SEED,
    "samples": SAMPLES,
}
"""All that the result depends on besides the scan: a cache of registrations is keyed by it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Registration:
    """A registration's result.

    Attributes:
      mni_to_world: (4, 4) MNI305 mm -> the scan's world RAS mm.
      information: mutual information in nats, within the template's mask.
      scales: stretches along the three principal axes, largest first.
    """

    mni_to_world: Affine
    information: float
    scales: tuple[float, float, float]


@functools.cache
def _target() -> tuple[sitk.Image, sitk.Image, NDArray[np.float64]]:
    """The template and its brain mask at `SPACING`, and the brain's centre, in MNI152 mm."""
    volume, affine = template_image()
    mask, _ = template_mask()
    grid = _covering(volume.shape, affine)
    small = to_grid(volume, affine, grid, np.eye(4), order=1)
    brain = to_grid(mask.astype(np.float32), affine, grid, np.eye(4), order=1) >= 0.5
    centre = affine[:3] @ [*ndimage.center_of_mass(mask), 1.0]
    return _itk(small, grid), _itk(brain.astype(np.uint8), grid), centre


def _covering(shape: tuple[int, ...], affine: Affine) -> Grid:
    """The grid along the world's axes, `SPACING` apart, that covers a volume."""
    corners = np.array([[*c, 1.0] for c in itertools.product(*[(-0.5, n - 0.5) for n in shape])])
    at = corners @ affine[:3].T
    low, high = at.min(0), at.max(0)
    size = np.maximum(np.ceil((high - low) / SPACING), 1).astype(int)
    to_world = np.diag([SPACING, SPACING, SPACING, 1.0])
    to_world[:3, 3] = (low + high) / 2 - SPACING * (size - 1) / 2
    return Grid((int(size[0]), int(size[1]), int(size[2])), to_world)


def _itk(volume: NDArray[Any], grid: Grid) -> sitk.Image:
    """An ITK image whose physical coordinates are RAS mm.

    ITK reads its coordinates as LPS, but nothing here depends on the names of the axes, and both
    images are given in the same ones; so there is nothing to flip.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0)))
    image.SetSpacing(grid.spacing)
    image.SetOrigin([float(v) for v in grid.affine[:3, 3]])
    return image


def _method(mask: sitk.Image, start: sitk.Transform, samples: float) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(mask)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(samples, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(start, inPlace=False)
    return method


def _optimise(
    fixed: sitk.Image,
    moving: sitk.Image,
    mask: sitk.Image,
    start: sitk.Transform,
    shrink: list[int],
    sigmas: list[float],
    iterations: int,
) -> tuple[sitk.Transform, float]:
    method = _method(mask, start, SAMPLES)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0,
        minStep=1e-3,
        numberOfIterations=iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel(sigmas)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    end = method.Execute(fixed, moving)
    if isinstance(end, sitk.CompositeTransform):
        end = end.GetBackTransform()
    return end, float(method.GetMetricValue())


def _starts(centre: NDArray[np.float64], head: NDArray[np.float64]) -> list[sitk.Similarity3DTransform]:
    """Placements of the template to begin from, with the same vertical axis for brain and head."""
    starts = []
    placements = itertools.product(START_SCALE, START_UP_MM, START_FORWARD_MM, START_NOD)
    for scale, up, forward, nod in placements:
        t = sitk.Similarity3DTransform()
        t.SetCenter(centre.tolist())
        t.SetRotation((1.0, 0.0, 0.0), nod)
        t.SetScale(scale)
        t.SetTranslation((head + np.array([0.0, forward, up]) - centre).tolist())
        starts.append(t)
    return starts


def register(image: Float32[np.ndarray, "x y z"], affine: Affine, name: str = "The scan") -> Registration:
    """Register a T1-weighted scan to MNI305 (Weatheritt et al., section 3.2: registration comes first).

    Mattes mutual information within the template's brain, so that skull and scalp count for nothing.
    Placements and sizes about the head's centre of mass are compared, the best are refined as
    similarities, the best of those becomes an affine, from coarse to fine. The same scan gives the
    same matrix.

    Args:
      image: (x, y, z), with or without skull.
      affine: (4, 4) voxel -> world RAS mm.

    Raises:
      ExclusionError: the result is not one of a human head on the template.
    """
    fixed, mask, centre = _target()
    grid = _covering(image.shape, affine)
    small = to_grid(image, affine, grid, np.eye(4), order=1)
    small = np.minimum(small, np.percentile(small, 99.8))  # bright fat would empty the histogram's bins
    moving = _itk(small, grid)
    head = grid.affine[:3] @ [*ndimage.center_of_mass(foreground(small, grid.affine)), 1.0]
    try:
        with one_itk_thread():
            before, last, after = _search(fixed, moving, mask, centre, head)
    except RuntimeError as e:
        reason = str(e).strip().splitlines()[-1].strip()
        raise _failure(name, f"the optimiser stopped ({reason})") from None
    matrix = _matrix(last)
    mni_to_world = matrix @ MNI305_TO_MNI152
    scales = np.linalg.svd(mni_to_world[:3, :3], compute_uv=False)
    if not (SCALES[0] <= scales.min() and scales.max() <= SCALES[1]):
        raise _failure(name, f"it stretches the template by {scales.max():.2f} and {scales.min():.2f}")
    if _inside(matrix, moving) < LEAST_INSIDE:
        raise _failure(name, "it puts the brain outside the scan's field of view")
    if after > before:
        raise _failure(name, "the images agree less after it than before")
    if -after < LEAST_INFORMATION:
        raise _failure(name, f"the images share only {-after:.2f} nats of information")
    return Registration(mni_to_world, -after, (float(scales[0]), float(scales[1]), float(scales[2])))


def _matrix(transform: Any) -> Affine:
    """(4, 4), MNI152 mm -> world mm, of a transform that turns about a centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - matrix[:3, :3] @ centre
    return matrix


@functools.cache
def _brain_points() -> NDArray[np.float64]:
    """(n, 4): some points of the template's brain, MNI152 mm."""
    mask, _ = template_mask()
    points = np.argwhere(mask[::8, ::8, ::8]) * 8
    return np.asarray(np.column_stack([points, np.ones(len(points))]) @ template_image()[1].T, np.float64)


def _inside(matrix: Affine, moving: sitk.Image) -> float:
    """Share of the template's brain that `matrix` puts within the field of view of `moving`."""
    at = (_brain_points() @ matrix.T)[:, :3] - np.array(moving.GetOrigin())
    end = (np.array(moving.GetSize()) - 1) * np.array(moving.GetSpacing())
    return float(((at >= 0) & (at <= end)).all(1).mean())


def _search(
    fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, centre: NDArray[np.float64], head: NDArray[np.float64]
) -> tuple[float, sitk.AffineTransform, float]:
    """The best start's metric (lower is better), the affine found from it, and that one's metric."""
    coarse, rough = (sitk.Shrink(sitk.SmoothingRecursiveGaussian(i, 4.0), [4] * 3) for i in (fixed, moving))
    scored: list[tuple[float, int, sitk.Transform]] = []
    for start in _starts(centre, head):
        if _inside(_matrix(start), moving) < LEAST_INSIDE:
            continue
        try:
            scored.append((_method(mask, start, 1.0).MetricEvaluate(coarse, rough), len(scored), start))
        except RuntimeError:  # this start leaves no overlap
            continue
    if not scored:
        raise RuntimeError("the scan and the template do not overlap")
    best = sorted(scored)[:3]
    refined = [_optimise(coarse, rough, mask, start, [1], [0.0], 60) for _, _, start in best]
    found, _ = min(refined, key=lambda r: r[1])
    found, _ = _optimise(fixed, moving, mask, found, [4, 2], [4.0, 2.0], 60)
    alike = sitk.Similarity3DTransform(found)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(alike.GetCenter())
    affine.SetMatrix(alike.GetMatrix())
    affine.SetTranslation(alike.GetTranslation())
    end, _ = _optimise(fixed, moving, mask, affine, [3, 2, 1], [4.0, 2.0, 0.0], 100)
    before = _method(mask, best[0][2], 1.0).MetricEvaluate(fixed, moving)
    after = _method(mask, end, 1.0).MetricEvaluate(fixed, moving)
    return before, sitk.AffineTransform(end), after


def _failure(name: str, why: str) -> ExclusionError:
    return ExclusionError(
        f"{name} could not be registered to MNI305: {why}; check that it is a T1 scan of a whole head with "
        "the right orientation in its header, or register it yourself and use `registration=skip`."
    )
