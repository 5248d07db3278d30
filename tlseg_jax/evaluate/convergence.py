"""How fast a training loss falls: steps to common levels, and the area under the curve.

The loss of one small batch jumps about, so every number is of a running median over a twentieth of the
steps, and at both ends over the half of that which is there.

ConvergenceLevels are common to all runs that are compared: a fraction of a run's own first loss would favour the run
that starts highest, and pre-trained models start lower.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.evaluate.run_curves import Curve

FRACTIONS = (0.5, 0.25, 0.1)
"""Of the highest first loss among the runs."""


@dataclasses.dataclass(frozen=True)
class ConvergenceLevels:
    """What the runs are measured against.

    Attributes:
      start: the highest first smoothed loss among the runs; the unit of the area.
      end: the highest last smoothed loss among the runs, which every run reaches.
      last_step: the shortest run's last step; the area is taken up to there.
    """

    start: float
    end: float
    last_step: int


@dataclasses.dataclass(frozen=True)
class Convergence:
    """One run against the common levels.

    Attributes:
      first_loss: smoothed, of the first step.
      last_loss: smoothed, of the last step.
      steps_to: fraction of the levels' `start` -> first step at which the smoothed loss is that low; None if never.
      steps_to_end: first step at which it is at `ConvergenceLevels.end`; None if never.
      area: mean smoothed loss up to `ConvergenceLevels.last_step` over `ConvergenceLevels.start`: lower is faster.
    """

    first_loss: float
    last_loss: float
    steps_to: Mapping[float, int | None]
    steps_to_end: int | None
    area: float


Line = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(steps, values), steps upwards."""


def finite(curve: Curve) -> Line:
    """A curve in order of steps, without what is not finite."""
    table = np.array(sorted(curve), np.float64).reshape(-1, 2)
    table = table[np.isfinite(table[:, 1])]
    return table[:, 0], table[:, 1]


def smoothed(curve: Curve) -> Line:
    """The running median of what is finite, which some value of a run's curve is (`read_curves`)."""
    steps, values = finite(curve)
    width = max(3, len(values) // 20) | 1  # odd, so that it is centred
    # "reflect" repeats what lies inside: at an end this is the median of half a window, not of one batch.
    return steps, ndimage.median_filter(values, size=width, mode="reflect")


def common_levels(curves: Sequence[Curve]) -> ConvergenceLevels:
    """Levels for curves that are to be compared."""
    lines = [smoothed(c) for c in curves]
    return ConvergenceLevels(
        max(float(v[0]) for _, v in lines), max(float(v[-1]) for _, v in lines), min(int(s[-1]) for s, _ in lines)
    )


def measure_convergence(curve: Curve, levels: ConvergenceLevels) -> Convergence:
    """Measure one run's training loss against the levels of all runs that it is compared with."""
    steps, values = smoothed(curve)

    def first(level: float) -> int | None:
        at = np.flatnonzero(values <= level)
        return int(steps[at[0]]) if at.size else None

    within = steps <= levels.last_step
    s, v = steps[within], values[within]
    mean = float(np.trapezoid(v, s) / (s[-1] - s[0])) if len(s) > 1 else float(values[0])
    return Convergence(
        float(values[0]),
        float(values[-1]),
        {f: first(f * levels.start) for f in FRACTIONS},
        first(levels.end),
        mean / levels.start if levels.start > 0 else float("nan"),
    )
