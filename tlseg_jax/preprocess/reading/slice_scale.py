"""From a volume's grey values (HU of a CT) to the network's."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import ABDOMEN_WINDOW, DatasetSpec
from tlseg_jax.preprocess.reading.scan_file import fault

PERCENTILES = (0.5, 99.5)
"""What "zscore" clips to: a few bright vessels or a metal clip must not set the scale of the rest."""

SAMPLE = 1 << 22
"""Voxels that the statistics of a volume are taken from. A volume of no more is taken whole. Of a larger one
every k-th voxel is, in the file's order, k sharing no factor with the length of a row or the size of a plane, so that
the sample walks over all rows, columns and planes alike. A percentile of n random voxels is off by
sqrt(0.005 * 0.995 / n) in rank, 0.004 % of the voxels here, and an evenly spaced sample by less."""

SATURATED = 0.25
"""Largest share of a body in HU that saturates in the abdomen's window. Real CTs have 0.01 to 0.07 (bone, contrast),
images of 256 grey levels 0.5 to 0.7."""

AIR = -500.0
"""HU: every CT of a person has air below it, about the body or in the bowel and lungs."""


@dataclasses.dataclass(frozen=True)
class SliceScale:
    """Clips to `low` and `high`, then takes `centre` off and divides by `width`.

    Attributes:
      low: in the scan's units.
    """

    low: float
    high: float
    centre: float
    width: float

    @property
    def lowest(self) -> float:
        """The smallest value that `apply` gives."""
        return (self.low - self.centre) / self.width

    def apply(self, plane: Shaped[np.ndarray, "x y"]) -> Float32[np.ndarray, "x y"]:
        """From the scan's units to the network's."""
        clipped = np.clip(plane.astype(np.float32), self.low, self.high)
        return ((clipped - np.float32(self.centre)) / np.float32(self.width)).astype(np.float32)


class Statistics:
    """What scaling needs to know of a whole volume, gathered while its planes stream by."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._plane = shape[0] * shape[1]
        step = math.ceil(self._plane * shape[2] / SAMPLE)
        while step > 1 and math.gcd(step, self._plane) > 1:
            step += 1
        self._step, self._seen = step, 0
        self._parts: list[NDArray[Any]] = []
        self.minimum, self.maximum = math.inf, -math.inf

    def add(self, plane: NDArray[Any]) -> None:
        """Take the next plane, in the scan's units."""
        self.minimum = min(self.minimum, float(plane.min()))
        self.maximum = max(self.maximum, float(plane.max()))
        first = -self._seen % self._step
        self._parts.append(plane.ravel(order="F")[first :: self._step].copy())
        self._seen += self._plane

    def sampled(self, volume: NDArray[Any]) -> NDArray[Any]:
        """The voxels of another volume, whole, where this one's are sampled."""
        return volume.ravel(order="F")[:: self._step].copy()

    @property
    def sample(self) -> Float64[np.ndarray, " voxels"]:
        """The sampled voxels."""
        return np.concatenate(self._parts).astype(np.float64)


def scaling_of(path: Path, statistics: Statistics, spec: DatasetSpec) -> SliceScale:
    """How this volume's values are scaled.

    "window": clipped to `spec.planes.window`, which becomes -1 to 1. "zscore": clipped to the volume's 0.5 and 99.5
    percentiles, then standardised by the mean and the standard deviation of the clipped values.

    Raises:
      ExclusionError: the volume is constant, or nearly, so that there is nothing to standardise.
    """
    if statistics.minimum == statistics.maximum:
        raise fault(path, f"is constant (every voxel is {statistics.minimum:g})", "export the scan again")
    if spec.planes.scaling == "window":
        assert spec.planes.window is not None
        low, high = spec.planes.window
        return SliceScale(low, high, (low + high) / 2, (high - low) / 2)
    sample = statistics.sample
    low, high = (float(v) for v in np.percentile(sample, PERCENTILES))
    clipped = np.clip(sample, low, high)
    mean, deviation = float(clipped.mean()), float(clipped.std())
    if not deviation > 0:
        raise fault(
            path, f"has the value {low:g} in 99 % of its voxels or more, so it cannot be standardised", "check the scan"
        )
    return SliceScale(low, high, mean, deviation)


def not_hounsfield(
    path: Path, statistics: Statistics, spec: DatasetSpec, labelled: Bool[np.ndarray, " voxels"] | None = None
) -> str:
    """A warning where a CT's values are not those that its window is for, such as HU; else empty.

    The body is what lies above the window: air and padding, whatever their value, say nothing. Of HU little of it is
    brighter than the window or piles up at one end of its values, as in an image of 256 grey levels.

    Args:
      labelled: for each voxel of `statistics.sample` whether it is of a structure, where that is known.
    """
    if spec.planes.modality != "CT" or spec.planes.scaling != "window":
        return ""
    assert spec.planes.window is not None
    low, high = spec.planes.window
    sample = statistics.sample
    body = sample[sample > low]
    flat = body >= high
    if spec.planes.window == ABDOMEN_WINDOW and body.size:
        flat |= (body == body.min()) | (body == body.max())
    lost = float(flat.mean()) if body.size else 1.0
    of_label = sample[labelled] if labelled is not None and labelled.any() else np.empty(0)
    label_lost = float(np.mean((of_label <= low) | (of_label >= high))) if of_label.size else 0.0
    # A window of the user's own may be as narrow as the user likes, if the values reach down to it.
    own = spec.planes.window != ABDOMEN_WINDOW
    unreached = own and statistics.minimum > max(low, AIR)
    if lost <= (1 + own) * SATURATED and label_lost <= 2 * SATURATED and not unreached:
        return ""
    label = f" and {label_lost:.0%} of the label" if of_label.size else ""
    return (
        f"{path} does not seem to be in Hounsfield units: its values are {statistics.minimum:g} to "
        f"{statistics.maximum:g}, and {lost:.0%} of what is above {low:g}{label} has no contrast in the window {low:g} "
        f"to {high:g}: convert it to HU, or prepare with the window of its own values, `window=LOW,HIGH`."
    )
