"""What tells a predicted tumour from a false one: 36 numbers for each connected component.

Chlebus et al. 2018 describe shape, intensity and distance features and publish neither the list nor the
code; this list is ours. Volumes are (planes, x, y), spacings (x, y, z) in mm, as a `SliceStore` has them.

The organ is the predicted liver where the network has that output. Else it is the body: the largest
connected part of the image above the triangle threshold (Zack et al. 1977, for a histogram with one peak
of background and a long tail; Otsu's method parts bright organs from dark ones in an MRI), with the holes
of each plane filled. The volume's border counts as the organ's edge, since nothing is known beyond it.

The shell is the voxels within 5 mm of the component (or one voxel, where voxels are larger) that belong
to no component.
"""

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float64, Int32
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.datasets.spec import Spacing3
from tlseg_jax.evaluate.detection import label_components
from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.evaluate.slice_inference import Planes

PlaneMask = Bool[np.ndarray, "planes x y"]

SHELL_MM = 5.0

FEATURES: Mapping[str, str] = {
    # Shape
    "voxels": "number of voxels",
    "volume_ml": "their volume in ml",
    "extent_x_mm": "side of the bounding box from left to right in mm",
    "extent_y_mm": "side of the bounding box from back to front in mm",
    "extent_z_mm": "side of the bounding box along the body in mm",
    "slices": "number of planes that it spans",
    "largest_slice_mm2": "its largest area in one plane in mm2",
    "box_fill": "share of the bounding box that it fills",
    "surface_per_volume": "area of its voxels' outer faces over its volume in 1/mm",
    "sphericity": "surface of the ball of its volume over that area; 0.81 for a cube",
    "major_axis_mm": "longest axis in mm of the ellipsoid with its second moments",
    "elongation": "middle over longest axis",
    "flatness": "shortest over longest axis",
    "inner_radius_mm": "largest distance of its voxels' centres to the nearest voxel outside in mm",
    # Probability
    "probability_mean": "mean probability inside",
    "probability_max": "largest probability inside",
    "probability_std": "standard deviation of the probability inside",
    "probability_shell": "mean probability in the shell",
    # Intensity, in the units of the prepared image
    "intensity_mean": "mean inside",
    "intensity_std": "standard deviation inside",
    "intensity_min": "smallest value inside",
    "intensity_p10": "10th percentile inside",
    "intensity_median": "median inside",
    "intensity_p90": "90th percentile inside",
    "intensity_max": "largest value inside",
    "shell_mean": "mean in the shell",
    "shell_std": "standard deviation in the shell",
    "contrast": "mean inside less mean in the shell",
    "rim_gradient": "mean length of the gradient at the voxels with a face outside, per mm",
    # Distance
    "organ_share": "share of its voxels in the organ",
    "edge_nearest_mm": "smallest distance to the organ's edge in mm, negative outside the organ",
    "edge_mean_mm": "mean distance to the organ's edge in mm, negative outside the organ",
    "centre_x_mm": "centre from the organ's centre, left to right in mm",
    "centre_y_mm": "centre from the organ's centre, back to front in mm",
    "centre_z_mm": "centre from the organ's centre, along the body in mm",
    "centre_distance_mm": "distance of the two centres in mm",
}
"""Name -> meaning, in the order of the table's columns.

A value that does not exist is NaN, which the forest takes as a value of its own: the shell where it is
empty, and distances to a liver of which nothing was predicted."""

_FACES = ndimage.generate_binary_structure(3, 1)


def component_features(
    probability: Planes, mask: PlaneMask, image: Planes, spacing: Spacing3, liver: PlaneMask | None
) -> tuple[Int32[np.ndarray, "planes x y"], Float64[np.ndarray, "components features"]]:
    """The connected components of a prediction (`label_components`) and the features of each.

    For the arguments see `false_positives.PredictedVolume`.

    Returns:
      labels: 0 outside and 1 to n in the components.
      table: `FEATURES` of each; row i - 1 belongs to component i.
    """
    labels, count = label_components(mask)
    table = np.empty((count, len(FEATURES)))
    if not count:
        return labels, table
    sides = np.array([spacing[2], spacing[0], spacing[1]])
    organ = find_body(image) if liver is None else liver
    edge = _edge_distance(organ, sides)
    centre = np.argwhere(organ).mean(0) * sides if organ.any() else np.full(3, np.nan)
    reach = max(SHELL_MM, float(sides.min()))
    margin = np.ceil(reach / sides).astype(int) + 1
    for i, box in enumerate(ndimage.find_objects(labels)):
        around = tuple(
            slice(max(s.start - m, 0), min(s.stop + m, n)) for s, m, n in zip(box, margin, mask.shape, strict=True)
        )
        inside = labels[around] == i + 1
        near = ndimage.distance_transform_edt(~inside, sampling=sides) <= reach
        shell = near & (labels[around] == 0)
        start = np.array([s.start for s in around])
        row = (
            _shape(inside, sides)
            | _probability(probability[around], inside, shell)
            | _intensity(image[around], inside, shell, sides)
            | _distance(edge[around], organ[around], inside, (np.argwhere(inside) + start) * sides, centre)
        )
        table[i] = [row[name] for name in FEATURES]
    return labels, table


def find_body(image: Planes) -> PlaneMask:
    """The body in a prepared image: see the head of this file; empty in an even image."""
    values = np.ascontiguousarray(image, np.float32)
    if values.min() == values.max():
        return np.zeros(image.shape, np.bool_)
    threshold = sitk.TriangleThresholdImageFilter()
    threshold.SetInsideValue(0)
    threshold.SetOutsideValue(1)
    labels, _ = label_components(sitk.GetArrayFromImage(threshold.Execute(sitk.GetImageFromArray(values))) > 0)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == sizes.argmax()
    return np.stack([ndimage.binary_fill_holes(plane) for plane in body])


def _edge_distance(organ: Mask, sides: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distance in mm to the other side of the organ's edge, negative outside; NaN where there is no organ."""
    if not organ.any():
        return np.full(organ.shape, np.nan, np.float32)
    padded = np.pad(organ, 1)
    inner = ndimage.distance_transform_edt(padded, sampling=sides)[1:-1, 1:-1, 1:-1]
    outer = ndimage.distance_transform_edt(~organ, sampling=sides)
    return np.where(organ, inner, -outer).astype(np.float32)


def _shape(inside: Mask, sides: NDArray[np.float64]) -> dict[str, float]:
    at = np.argwhere(inside)
    extent = (at.max(0) - at.min(0) + 1).astype(float)
    volume = len(at) * float(sides.prod())
    padded = np.pad(inside, 1).astype(np.int8)
    surface = sum(
        int(np.count_nonzero(np.diff(padded, axis=axis))) * float(sides.prod() / sides[axis]) for axis in range(3)
    )
    # A voxel is a small box, not a point: its own second moments count, or one voxel had no axes.
    moments = np.cov((at * sides).T, bias=True) + np.diag(sides**2 / 12)
    minor, middle, major = 2 * np.sqrt(5 * np.linalg.eigvalsh(moments))
    return {
        "voxels": len(at),
        "volume_ml": volume / 1000,
        "extent_x_mm": extent[1] * sides[1],
        "extent_y_mm": extent[2] * sides[2],
        "extent_z_mm": extent[0] * sides[0],
        "slices": extent[0],
        "largest_slice_mm2": float(inside.sum((1, 2)).max() * sides[1] * sides[2]),
        "box_fill": len(at) / extent.prod(),
        "surface_per_volume": surface / volume,
        "sphericity": np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface,
        "major_axis_mm": major,
        "elongation": middle / major,
        "flatness": minor / major,
        "inner_radius_mm": float(ndimage.distance_transform_edt(padded, sampling=sides).max()),
    }


def _probability(probability: NDArray[np.floating], inside: Mask, shell: Mask) -> dict[str, float]:
    values = probability[inside].astype(np.float64)
    return {
        "probability_mean": values.mean(),
        "probability_max": values.max(),
        "probability_std": values.std(),
        "probability_shell": _mean(probability[shell]),
    }


def _intensity(image: NDArray[np.floating], inside: Mask, shell: Mask, sides: NDArray[np.float64]) -> dict[str, float]:
    image = image.astype(np.float64)
    values, around = image[inside], image[shell]
    p10, median, p90 = np.percentile(values, (10, 50, 90))
    rim = inside & ~ndimage.binary_erosion(inside, _FACES, border_value=0)
    slopes = [np.gradient(image, side, axis=axis) for axis, side in enumerate(sides) if image.shape[axis] > 1]
    return {
        "intensity_mean": values.mean(),
        "intensity_std": values.std(),
        "intensity_min": values.min(),
        "intensity_p10": p10,
        "intensity_median": median,
        "intensity_p90": p90,
        "intensity_max": values.max(),
        "shell_mean": _mean(around),
        "shell_std": float(around.std()) if around.size else np.nan,
        "contrast": values.mean() - _mean(around),
        "rim_gradient": float(np.sqrt(np.sum([s[rim] ** 2 for s in slopes], 0)).mean()) if slopes else np.nan,
    }


def _distance(
    edge: NDArray[np.float32], organ: Mask, inside: Mask, at: NDArray[np.float64], centre: NDArray[np.float64]
) -> dict[str, float]:
    offset = at.mean(0) - centre
    return {
        "organ_share": float(organ[inside].mean()),
        "edge_nearest_mm": float(edge[inside].min()),
        "edge_mean_mm": float(edge[inside].mean()),
        "centre_x_mm": offset[1],
        "centre_y_mm": offset[2],
        "centre_z_mm": offset[0],
        "centre_distance_mm": float(np.linalg.norm(offset)),
    }


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
