"""The learning curve IoU(n) = a - b n^-c of a method, and the labelled scans that a wanted IoU needs.

A power law towards a plateau `a` is how a network's error usually falls with its training data (Hestness et al.,
"Deep Learning Scaling is Predictable, Empirically", arXiv:1712.00409).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.report.stats.agreement import Estimate
from tlseg_jax.report.stats.compare_stats import LEAST_UNITS

LEAST_C, MOST_C = 0.05, 4.0
"""Bounds of c: below, a curve is a straight line in log n; above, it has risen after the first n."""

RESAMPLES = 1999
LEAST_NUMBERS = 3
"""Values of n that three parameters need at least."""

_Doubles = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """A fitted curve and its resamples over persons.

    Attributes:
      a: IoU of endless data by the fit, 0 to 1.
      b: what one scan lacks of it, 0 or more.
      c: how fast it is made up, 0.05 to 4.
      persons: who has a score at every n.
      n: numbers of scans tried, rising.
      mean: mean over the persons at each n.
      resampled: (resamples, 3): a, b and c of the persons drawn with replacement; empty for one person.
    """

    a: float
    b: float
    c: float
    persons: int
    n: tuple[int, ...]
    mean: tuple[float, ...]
    resampled: _Doubles = dataclasses.field(repr=False, compare=False)

    def at(self, n: _Doubles) -> _Doubles:
        """IoU of the fitted curve at `n` scans."""
        return np.asarray(self.a - self.b * np.asarray(n, np.float64) ** -self.c)

    def band(self, n: _Doubles) -> tuple[_Doubles, _Doubles] | None:
        """Pointwise 95% percentile interval of the curve at `n` scans; None for fewer than `LEAST_UNITS` persons."""
        if not len(self.resampled):
            return None
        a, b, c = (self.resampled[:, i, None] for i in range(3))
        curves = a - b * np.asarray(n, np.float64)[None] ** -c
        low, high = np.percentile(curves, [2.5, 97.5], axis=0)
        return low, high

    @property
    def plateau(self) -> Estimate:
        """`a` with its 95% percentile interval over persons, where they are enough for one."""
        if not len(self.resampled):
            return Estimate(self.a)
        low, high = np.percentile(self.resampled[:, 0], [2.5, 97.5])
        return Estimate(self.a, float(low), float(high))


@dataclasses.dataclass(frozen=True)
class NoCurve:
    """Why there is no curve, in words that can follow "there is no fit, as "."""

    reason: str


def fit_learning_curve(scores: Mapping[int, Mapping[str, float]]) -> LearningCurve | NoCurve:
    """Fit the curve to the means over persons, and again to means over persons drawn with replacement.

    Least squares with 0 <= a <= 1, b >= 0 and 0.05 <= c <= 4. For a given c the curve is a straight line in n^-c,
    which is solved exactly; c is searched on a grid and then on a finer one around its best. The persons are the
    same at every n, so a person is drawn with all of its scores.

    Args:
      scores: n -> person -> IoU, averaged over seeds and scans.
    """
    numbers = sorted(n for n, of_n in scores.items() if of_n)
    if len({int(n) for n in numbers}) < LEAST_NUMBERS:
        there = ", ".join(map(str, numbers)) or "none"
        return NoCurve(f"three parameters need scores at {LEAST_NUMBERS} or more values of n (there: {there})")
    persons = sorted(set.intersection(*(set(scores[n]) for n in numbers)))
    if not persons:
        return NoCurve("no person has a score at every n")
    y = np.array([[scores[n][p] for n in numbers] for p in persons], np.float64)
    n = np.array(numbers, np.float64)
    mean = y.mean(0)
    (a, b, c), *_ = _fit(n, mean[None])
    resampled = np.empty((0, 3))
    if len(persons) >= LEAST_UNITS:
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(persons), size=(RESAMPLES, len(persons)))
        resampled = _fit(n, y[drawn].mean(1))
    return LearningCurve(float(a), float(b), float(c), len(persons), tuple(numbers), tuple(map(float, mean)), resampled)


def _fit(n: _Doubles, y: _Doubles) -> _Doubles:
    """(curves, 3) parameters of least squares for y (curves, values of n)."""
    grid = np.geomspace(LEAST_C, MOST_C, 160)
    best = grid[np.argmin(np.stack([_line(n, y, c)[1] for c in grid]), axis=0)]
    ratio = grid[1] / grid[0]
    fine = best * np.geomspace(1 / ratio, ratio, 41)[:, None]
    fine = np.clip(fine, LEAST_C, MOST_C)
    found = np.stack([_line(n, y, c)[1] for c in fine])
    c = fine[np.argmin(found, axis=0), np.arange(len(y))]
    (a, b), _ = _line(n, y, c)
    return np.stack([a, b, c], 1)


def _line(n: _Doubles, y: _Doubles, c: _Doubles | float) -> tuple[tuple[_Doubles, _Doubles], _Doubles]:
    """a and b within their bounds for given c, and the sums of squares; each (curves,)."""
    x = n[None] ** -np.broadcast_to(np.asarray(c), (len(y),))[:, None]
    dx, dy = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    b = -(dx * dy).sum(1) / (dx**2).sum(1)
    b = np.maximum(b, 0.0)
    a = y.mean(1) + b * x.mean(1)
    # Beyond the bound a = 1 the best is on it: the sum of squares is convex.
    above = a > 1
    on_bound = np.maximum((x * (1 - y)).sum(1) / (x**2).sum(1), 0.0)
    a, b = np.where(above, 1.0, a), np.where(above, on_bound, b)
    return (a, b), ((y - a[:, None] + b[:, None] * x) ** 2).sum(1)


Reach = Literal["within", "at the fewest", "beyond the range", "not reached"]


@dataclasses.dataclass(frozen=True)
class LabelsNeeded:
    """Labelled scans at which a fitted curve reaches an IoU.

    Attributes:
      level: the IoU.
      reach: "within" the numbers tried; "at the fewest": the least number tried has it already; "beyond the range":
        only with more than the largest number tried, if the curve goes on as fitted; "not reached": the curve's
        plateau is not above it.
      n: scans; the least or largest number tried where `reach` says so; None where it is not reached.
      low, high: of the 95% interval over persons, None for fewer than `LEAST_UNITS` persons; `high` is infinite where
        more than 2.5% of the resamples never reach the level.
      least, most: scans tried.
    """

    level: float
    reach: Reach
    n: float | None
    low: float | None
    high: float | None
    least: int
    most: int

    @property
    def words(self) -> str:
        """The number in words, never beyond the numbers tried."""
        if self.n is None:
            return "not reached"
        return self._limit(self.n) if self.reach == "within" else self._outside()

    @property
    def interval(self) -> str:
        """The interval in words, never beyond the numbers tried; "" where there is none."""
        if self.low is None or self.high is None:
            return ""
        low, high = self._limit(self.low), self._limit(self.high)
        return low if low == high else f"{low} to {high}"

    def _outside(self) -> str:
        return f"{self.least} or fewer" if self.reach == "at the fewest" else f"more than {self.most}"

    def _limit(self, n: float) -> str:
        if math.isinf(n):
            return "not reached"
        if n > self.most:
            return f"more than {self.most}"
        return f"{self.least} or fewer" if n <= self.least else f"{n:.1f}"


def labels_needed(curve: LearningCurve, level: float) -> LabelsNeeded:
    """How many labelled scans the fitted curve needs for an IoU of `level`, with a 95% percentile interval."""
    least, most = int(curve.n[0]), int(curve.n[-1])
    (n,) = _reached(np.array([[curve.a, curve.b, curve.c]]), level)
    low = high = None
    if len(curve.resampled):
        each = _reached(curve.resampled, level)
        # Order statistics, as an infinite number has no mean with its neighbour.
        low, high = float(np.percentile(each, 2.5, method="lower")), float(np.percentile(each, 97.5, method="higher"))
    reach: Reach = "within"
    if math.isinf(n):
        reach = "not reached"
    elif not least < n <= most:
        reach = "at the fewest" if n <= least else "beyond the range"
    number = None if reach == "not reached" else float(np.clip(n, least, most))
    return LabelsNeeded(level, reach, number, low, high, least, most)


def _reached(parameters: _Doubles, level: float) -> _Doubles:
    """n at which each curve (a, b, c) is at `level`; 0 where it always is, infinite where it never is."""
    a, b, c = parameters.T
    out = np.full(len(a), np.inf)
    rises = (a > level) & (b > 0)
    with np.errstate(over="ignore"):
        out[rises] = (b[rises] / (a[rises] - level)) ** (1 / c[rises])
    out[(a > level) & (b == 0)] = 0.0
    return out
