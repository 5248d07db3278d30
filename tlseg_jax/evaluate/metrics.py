"""How well a predicted mask agrees with the reference, one subject at a time and over a test set.

IoU is the paper's score (Weatheritt et al. 2020, section 4: "intersection over union, also called the
Jaccard index"). Dice, volumes and the two surface distances are given beside it.

Surface distances, exactly: the surface of a mask is those of its voxels with at least one of their six
face neighbours outside the mask (the volume's border counts as outside). Every surface voxel's distance
is from its centre to the nearest centre of a surface voxel of the other mask, in mm of the person, so that
unequal sides, and the stretch and shear of a registration, count as they are. Then

    HD95 = the larger of the two 95th percentiles, one for each direction (percentiles by linear
           interpolation), the robust Hausdorff distance of Huttenlocher et al., IEEE PAMI 15(9), 1993;
    ASD  = the mean over the surface voxels of both masks together, the average symmetric surface
           distance of Heimann et al., IEEE TMI 28(8), 2009.

Empty masks: if both are empty they agree, so IoU = Dice = 1 and both distances are 0. If one is empty,
IoU = Dice = 0 and a distance does not exist: it is None, and the summary counts it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from tlseg_jax.datasets.spec import Spacing3

Mask = Bool[np.ndarray, "*sides"]

TOLERANCE_MM = 1.0
"""Of the normalised surface Dice."""

Voxel = Spacing3 | NDArray[np.float64]
"""From one voxel to the next: the sides in mm, or (3, 3), a column of mm for each axis of the array, which may lie
askew as those of a registered scan do in its person."""


@dataclasses.dataclass(frozen=True)
class SubjectScore:
    """Agreement of one prediction with its reference.

    Attributes:
      iou: intersection over union, 0 to 1.
      dice: twice the intersection over the sum of both, 0 to 1.
      reference_ml: volume of the reference in ml.
      predicted_ml: volume of the prediction in ml.
      hd95_mm: 95th percentile Hausdorff distance in mm; None if not asked for or not defined.
      asd_mm: average symmetric surface distance in mm; None if not asked for or not defined.
      nsd: share of both surfaces within `TOLERANCE_MM` of the other one, 0 to 1 (normalised surface Dice; Nikolov et
        al. 2018, equation 3); 0 where one mask is empty; None if not asked for.
      distances: whether the distances were asked for.
    """

    iou: float
    dice: float
    reference_ml: float
    predicted_ml: float
    hd95_mm: float | None = None
    asd_mm: float | None = None
    distances: bool = False
    nsd: float | None = None


def score(predicted: Mask, reference: Mask, voxel: Voxel, *, distances: bool = False) -> SubjectScore:
    """Score one subject.

    Args:
      predicted: (x, y, z) bool.
      reference: (x, y, z) bool, the whole label: what a patch did not cover counts as missed.
      voxel: the voxels in mm of the person, for volumes and distances.
      distances: also compute HD95, ASD and NSD.

    Raises:
      ValueError: the masks differ in shape or are not bool.
    """
    if predicted.shape != reference.shape or predicted.dtype != np.bool_ or reference.dtype != np.bool_:
        raise ValueError(
            f"expected two bool masks of one shape, not {predicted.dtype} {predicted.shape} "
            f"and {reference.dtype} {reference.shape}"
        )
    both = int(np.count_nonzero(predicted & reference))
    p, r = int(np.count_nonzero(predicted)), int(np.count_nonzero(reference))
    voxel_ml = float(abs(np.linalg.det(_matrix(voxel)))) / 1000
    hd95 = asd = nsd = None
    if distances and p and r:
        there, back = surface_distances(predicted, reference, voxel)
        hd95 = hausdorff(there, back, 95)
        asd = float((there.sum() + back.sum()) / (there.size + back.size))
        near = np.count_nonzero(there <= TOLERANCE_MM) + np.count_nonzero(back <= TOLERANCE_MM)
        nsd = float(near / (there.size + back.size))
    elif distances and not p and not r:
        hd95, asd, nsd = 0.0, 0.0, 1.0
    elif distances:
        nsd = 0.0
    return SubjectScore(
        iou=both / (p + r - both) if p + r else 1.0,
        dice=2 * both / (p + r) if p + r else 1.0,
        reference_ml=r * voxel_ml,
        predicted_ml=p * voxel_ml,
        hd95_mm=hd95,
        asd_mm=asd,
        distances=distances,
        nsd=nsd,
    )


def surface_distances(
    a: Mask, b: Mask, voxel: Voxel
) -> tuple[Float64[np.ndarray, " there"], Float64[np.ndarray, " back"]]:
    """Distances in mm from each surface voxel of `a` to the surface of `b`, and the other way round.

    Args:
      a: (x, y, z) bool, not empty.
      b: (x, y, z) bool, not empty.
      voxel: the voxels in mm.

    Returns:
      Two 1-D arrays, as long as `a` and `b` have surface voxels.

    Raises:
      ValueError: a mask is empty.
    """
    if not (a.any() and b.any()):
        raise ValueError("a surface distance needs two masks that are not empty")
    # Only the box that holds both matters; a distance map would need axes at right angles.
    (region,) = ndimage.find_objects((a | b).astype(np.uint8))
    at_a, at_b = (np.argwhere(_surface(m[region])) @ _matrix(voxel).T for m in (a, b))
    return KDTree(at_b).query(at_a)[0], KDTree(at_a).query(at_b)[0]


def _matrix(voxel: Voxel) -> NDArray[np.float64]:
    given = np.asarray(voxel, np.float64)
    return np.diag(given) if given.ndim == 1 else given


def _surface(mask: Mask) -> Mask:
    inside = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1), border_value=0)
    return mask & ~inside  # type: ignore[no-any-return]


def hausdorff(there: Float64[np.ndarray, " there"], back: Float64[np.ndarray, " back"], percentile: float) -> float:
    """The larger of the two directed percentiles in mm; percentile 100 is the Hausdorff distance."""
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))


def summarise(scores: Sequence[SubjectScore]) -> dict[str, Any]:
    """Mean and spread over a test set, as plain JSON values.

    Standard deviations are the sample's (n - 1 in the denominator), None for a single subject.
    The distances' means are over the `distances_n` subjects where they exist; `distances_undefined`
    counts those where exactly one mask was empty, which a mean must not hide.

    Raises:
      ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("there are no scores to summarise")
    iou = np.array([s.iou for s in scores])
    dice = np.array([s.dice for s in scores])
    excess = np.array([s.predicted_ml - s.reference_ml for s in scores])
    summary: dict[str, Any] = {
        "n": len(scores),
        **_spread("iou", iou),
        "iou_median": float(np.median(iou)),
        "iou_min": float(iou.min()),
        "iou_max": float(iou.max()),
        **_spread("dice", dice),
        "reference_ml_mean": float(np.mean([s.reference_ml for s in scores])),
        "predicted_ml_mean": float(np.mean([s.predicted_ml for s in scores])),
        **_spread("volume_error_ml", excess),
        "empty_predictions": sum(s.predicted_ml == 0 for s in scores),
    }
    asked = [s for s in scores if s.distances]
    if asked:
        hd95 = np.array([s.hd95_mm for s in asked if s.hd95_mm is not None])
        asd = np.array([s.asd_mm for s in asked if s.asd_mm is not None])
        nsd = np.array([s.nsd for s in asked if s.nsd is not None])
        summary |= {
            "distances_n": int(hd95.size),
            "distances_undefined": len(asked) - int(hd95.size),
            **_spread("hd95_mm", hd95),
            **_spread("asd_mm", asd),
            "nsd_mean": float(nsd.mean()) if nsd.size else None,
        }
    return summary


def _spread(name: str, values: NDArray[np.number[Any]]) -> dict[str, float | None]:
    mean = float(values.mean()) if values.size else None
    return {f"{name}_mean": mean, f"{name}_std": float(values.std(ddof=1)) if values.size > 1 else None}
