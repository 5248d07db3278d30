"""How well predicted volumes agree with the reference: limits of agreement and intraclass correlation.

A correlation would not show it: predictions of twice the true volume correlate perfectly.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Z = 1.96
"""Limits of agreement hold 95% of normally distributed differences."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; the limits are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class BlandAltman:
    """Bias and 95% limits of agreement, in the unit of the differences.

    Attributes:
      n: persons.
      measurements: differences; more than n where persons were measured several times.
      bias: mean difference.
      lower, upper: beyond each of which 2.5% of the differences of single measurements are expected.
      std: standard deviation of the difference of a single measurement.
    """

    n: int
    measurements: int
    bias: Estimate
    lower: Estimate
    upper: Estimate
    std: float


def bland_altman(differences: Mapping[str, Sequence[float]]) -> BlandAltman | None:
    """Limits of agreement of single measurements (Bland & Altman, Stat. Methods Med. Res. 8, 1999).

    With one measurement a person these are the mean difference and the mean -/+ 1.96 standard deviations, with
    their intervals by section 3. With several, the variance of a single measurement's difference is that of the
    persons' means plus (1 - 1/m) of that within persons (sections 5 and 6; m is the harmonic mean of the numbers of
    measurements): limits from the means alone would be too narrow for a single prediction. The variances'
    uncertainty is then put together by the delta method, and the intervals have n - 1 degrees of freedom.

    Args:
      differences: person -> predicted minus reference, one number a run and scan.

    Returns:
      None for fewer than two persons.
    """
    own = [np.asarray(d, np.float64) for d in differences.values() if len(d)]
    n = len(own)
    if n < 2:
        return None
    means = np.array([d.mean() for d in own])
    count = np.array([d.size for d in own])
    bias, between = float(means.mean()), float(means.var(ddof=1))
    free = int(count.sum()) - n
    within = sum(float(((d - d.mean()) ** 2).sum()) for d in own) / free if free else 0.0
    share = 1 - float((1 / count).mean())
    variance = between + share * within
    std = math.sqrt(variance)
    # The variance of a variance s^2 with f degrees of freedom is 2 s^4 / f; that of s is a (2 s)^-2 of it.
    of_variance = 2 * between**2 / (n - 1) + (2 * (share * within) ** 2 / free if free else 0.0)
    of_std = of_variance / (4 * variance) if variance else 0.0
    t = float(stats.t.ppf(0.975, n - 1))
    of_bias, of_limit = t * math.sqrt(between / n), t * math.sqrt(between / n + Z**2 * of_std)

    def around(value: float, half: float) -> Estimate:
        return Estimate(value, value - half, value + half)

    return BlandAltman(
        n,
        int(count.sum()),
        around(bias, of_bias),
        around(bias - Z * std, of_limit),
        around(bias + Z * std, of_limit),
        std,
    )


@dataclasses.dataclass(frozen=True)
class IntraclassCorrelation:
    """Two intraclass correlations of single ratings in a two-way layout (McGraw & Wong, Psychol. Methods 1, 1996).

    Attributes:
      agreement: ICC(A,1): a rater's constant offset counts against it.
      consistency: ICC(C,1): it does not.
    """

    agreement: Estimate
    consistency: Estimate


def intraclass_correlation(ratings: NDArray[np.float64]) -> IntraclassCorrelation | None:
    """ICC(A,1) and ICC(C,1) with their 95% intervals from F distributions (McGraw & Wong 1996, Tables 4 and 7).

    Args:
      ratings: (subjects, raters), finite.

    Returns:
      None where it is not defined: fewer than two subjects or raters, or no variance at all.
    """
    x = np.asarray(ratings, np.float64)
    n, k = x.shape
    if n < 2 or k < 2 or np.ptp(x) == 0:
        return None
    grand, by_row, by_column = x.mean(), x.mean(1), x.mean(0)
    rows = k * float(((by_row - grand) ** 2).sum()) / (n - 1)
    columns = n * float(((by_column - grand) ** 2).sum()) / (k - 1)
    left = x - by_row[:, None] - by_column + grand
    error = float((left**2).sum()) / ((n - 1) * (k - 1))
    if error <= 1e-12 * (rows + columns):  # rounding only: the raters differ by a constant, if at all
        error = 0.0
    consistency = _consistency(rows, error, n, k)
    agreement = _agreement(rows, columns, error, n, k)
    if consistency is None or agreement is None:
        return None
    return IntraclassCorrelation(agreement, consistency)


def _consistency(rows: float, error: float, n: int, k: int) -> Estimate | None:
    below = rows + (k - 1) * error
    if below == 0:
        return None
    value = (rows - error) / below
    if error == 0:
        return Estimate(value, value, value)
    f, first, second = rows / error, n - 1, (n - 1) * (k - 1)
    low = f / float(stats.f.ppf(0.975, first, second))
    high = f * float(stats.f.ppf(0.975, second, first))
    return Estimate(value, (low - 1) / (low + k - 1), (high - 1) / (high + k - 1))


def _agreement(rows: float, columns: float, error: float, n: int, k: int) -> Estimate | None:
    below = rows + (k - 1) * error + k / n * (columns - error)
    if below <= 0:
        return None
    value = (rows - error) / below
    if value >= 1:
        return Estimate(1.0, 1.0, 1.0)
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    spread = (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    if spread == 0:
        return Estimate(value)
    v = (a * columns + b * error) ** 2 / spread
    if not (math.isfinite(v) and v > 0):
        return Estimate(value)
    mixed = k * columns + (k * n - k - n) * error
    f_low, f_high = float(stats.f.ppf(0.975, n - 1, v)), float(stats.f.ppf(0.975, v, n - 1))
    low = n * (rows - f_low * error) / (f_low * mixed + n * rows)
    high = n * (f_high * rows - error) / (mixed + n * f_high * rows)
    return Estimate(value, low, high)
