"""The least difference between two methods that a study could have seen, for its persons and its comparisons.

The tests are the page's own, Wilcoxon's over persons and the t-interval over seeds, so the power is simulated for
those: of normal differences with the spread that the study's had. Wilcoxon's p takes so few values for few persons that
the t-test's power would say too much: of 6 it comes below 0.05 in one case alone, all differences of one sign.
"""

import functools
import math
import statistics
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tlseg_jax.report.stats.compare_stats import LEVEL
from tlseg_jax.report.stats.method_tests import MethodTest

POWER = 0.8
"""Share of studies like this one that would have found the difference."""

DRAWS = 4000
"""Simulated studies: the least difference repeats within 1% of itself with others."""


def least_difference(t: MethodTest) -> float | None:
    """Mean difference that this comparison shows with power 0.8 at best, over its persons and, of several, its seeds.

    It is shown where both agree, so the larger counts. None where one of them can show none, or has no spread.
    """
    persons, seeds = over_persons(t), over_seeds(t)
    if persons is None or len(t.by_seed) < 2:
        return persons
    return None if seeds is None else max(persons, seeds)


def over_persons(t: MethodTest) -> float | None:
    """The same over persons alone, whose p must come below 0.05 / comparisons, Holm's first step."""
    effect = least_effect(t.test.n, LEVEL / t.family)
    return None if effect is None or not t.test.std else effect * t.test.std


def over_seeds(t: MethodTest) -> float | None:
    """The same over seeds alone, whose 95% t-interval must be without 0; None for one seed."""
    each = list(t.by_seed.values())
    std = statistics.stdev(each) if len(each) > 1 else 0.0
    return std * least_t_effect(len(each)) if std else None


def median_of(values: Iterable[float | None]) -> float | None:
    """The median of those that there are."""
    each = [v for v in values if v is not None]
    return statistics.median(each) if each else None


def persons_needed(comparisons: int) -> int:
    """Persons from which Wilcoxon's least p, 2 / 2**persons, is below 0.05 / comparisons."""
    return math.floor(1 + math.log2(comparisons / LEVEL)) + 1


@functools.lru_cache(maxsize=256)
def least_effect(units: int, level: float) -> float | None:
    """Mean of normal differences, in their standard deviations, that the two-sided test finds with power 0.8.

    The positive rank sum is the count of pairs i <= j whose mean is above 0 (Walsh averages), so a simulated study is
    significant from the shift on that lifts the c-th largest of these above 0, where c is the test's critical value. A
    difference found the wrong way round is not counted.

    None where no outcome has a two-sided p below `level`.
    """
    critical = _critical(units, level)
    if critical is None:
        return None
    i, j = np.triu_indices(units)
    rng = np.random.default_rng(0)
    shifts = np.empty(DRAWS)
    for k in range(DRAWS):
        z = rng.standard_normal(units)
        shifts[k] = -np.partition((z[i] + z[j]) / 2, -critical)[-critical]
    return float(np.quantile(shifts, POWER))


@functools.lru_cache(maxsize=64)
def least_t_effect(units: int) -> float:
    """The same of the two-sided t-test at 0.05, of two units or more."""
    z = np.random.default_rng(0).standard_normal((DRAWS, units))
    needed = float(stats.t.ppf(1 - LEVEL / 2, units - 1)) / math.sqrt(units) * z.std(1, ddof=1) - z.mean(1)
    return float(np.quantile(needed, POWER))


def _critical(units: int, level: float) -> int | None:
    """Least positive rank sum whose exact two-sided p is below `level`; None without one."""
    chance: NDArray[np.float64] = np.ones(1)
    for rank in range(1, units + 1):  # each rank is positive or not
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    p = 2 * np.cumsum(chance[::-1])[::-1]
    below = np.flatnonzero(p < level)
    return int(below[0]) if below.size else None
