"""Whether a scan looks like those that a network is known on: grey values, registration and volumes as z-scores.

The reference is a mean and a standard deviation a statistic, so that it names nobody. A z-score counts the spread of
the mean itself (a factor of sqrt(1 + 1/n)), as there may be few scans.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import ndimage

FAR = 4.0
"""Standard deviations from which on a statistic is unlike: there are some thirty a scan, and few scans to know."""

LEAST = 5
"""Scans that a reference is made of at least."""

PERCENTILES = (5, 25, 50, 75, 95)


def image_statistics(image: Float[np.ndarray, "x y z"]) -> dict[str, float]:
    """Statistics of a prepared image, of the part that the network sees.

    Grey levels as percentiles; noise by the median of the absolute second differences along each axis, which edges
    hardly touch; sharpness as the mean gradient; and noise and sharpness in units of the image's own spread.
    """
    values = np.asarray(image, np.float32)
    found = {f"grey {p}%": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
    spread = float(values.std()) or 1.0
    rough = [np.abs(np.diff(values, 2, axis)) for axis in range(values.ndim) if values.shape[axis] > 2]
    fine = values - ndimage.uniform_filter(values, 3)
    found["noise"] = math.log(max(float(np.median(np.concatenate([r.ravel() for r in rough]))) / spread, 1e-6))
    gradient = sum(np.abs(np.diff(values, 1, axis)).mean() for axis in range(values.ndim))
    found["sharpness"] = math.log(max(float(gradient) / spread, 1e-6))
    found["fine detail"] = math.log(max(float(fine.std()) / spread, 1e-6))
    wide = ndimage.gaussian_filter(values, [s / 4 for s in values.shape])
    found["shading"] = math.log(max(float(wide.std()) / spread, 1e-6))
    return found


def registration_statistics(details: Mapping[str, Any]) -> dict[str, float]:
    """What registration says of itself: mutual information, and the logarithm of each scale; empty where none was."""
    r = details.get("registration")
    if not r:
        return {}
    found = {} if r.get("information") is None else {"registration information": float(r["information"])}
    return found | {f"registration scale {a}": math.log(s) for a, s in zip("xyz", r.get("scales", ()), strict=False)}


def volume_statistics(volumes_ml: Mapping[str, float]) -> dict[str, float]:
    """The logarithm of each volume; what is empty has none."""
    return {f"volume of {s}": math.log(ml) for s, ml in volumes_ml.items() if ml > 0}


@dataclasses.dataclass(frozen=True)
class Usual:
    """A statistic over n reference scans, with the sample's standard deviation."""

    mean: float
    deviation: float
    n: int

    def z(self, value: float) -> float:
        """Standard deviations of a value from the mean."""
        return (value - self.mean) / (self.deviation * math.sqrt(1 + 1 / self.n))


def usual_of(rows: Sequence[Mapping[str, float]]) -> dict[str, Usual]:
    """The reference of some scans' statistics; of those that fewer than `LEAST` scans have there is none."""
    found = {}
    for name in dict.fromkeys(k for r in rows for k in r):
        values = np.array([r[name] for r in rows if name in r])
        if len(values) >= LEAST:
            # A statistic that hardly varies, such as a clipped grey value, would make every other scan unlike.
            deviation = max(float(values.std(ddof=1)), 0.01 * abs(float(values.mean())), 1e-3)
            found[name] = Usual(float(values.mean()), deviation, len(values))
    return found


def unlike(statistics: Mapping[str, float], usual: Mapping[str, Usual]) -> dict[str, float]:
    """Statistic -> z-score, of those that are far from the reference, the farthest first."""
    z = {k: usual[k].z(v) for k, v in statistics.items() if k in usual}
    return {k: v for k, v in sorted(z.items(), key=lambda kv: -abs(kv[1])) if abs(v) >= FAR}
