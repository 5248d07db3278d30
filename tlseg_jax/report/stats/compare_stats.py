"""Means with their intervals, paired tests over units, and what may be concluded from one.

Persons are the units of scores: a person's score is first averaged over the seeds. Runs with other seeds are tested
on the same persons, so counting each (person, seed) as a sample would make the interval too narrow.
"""

import dataclasses
import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
"""Significance level of the sentences."""

RESAMPLES = 9999
LEAST_UNITS = 12
"""Units from which a bootstrap interval is shown.

With so many, 95% intervals (BCa) of the mean covered it in 90% of 1,000 draws from each of a normal, a beta(8, 3) and a
skewed beta(6, 1) distribution; with 2, 3, 5, 8, 10, 15 and 20 in 50, 71, 83, 89, 89, 92 and 93%
(`tests/report/test_compare_stats.py`). Of fewer the values themselves are shown.
"""

FEWER = (
    f"They are shown from {LEAST_UNITS} units on, where they cover the true mean in 90 to 93% of draws; of fewer, of "
    "which they would cover it in 50% (2 units) to 89% (10), the values themselves are shown."
)
"""For the reports: where there are intervals, and what is in their place."""

ROUND = 9
"""Decimals kept of a difference: a mean over seeds must not make ties and zeros differ by rounding."""

EXACT_WITH_TIES = 13
"""Pairs up to which Wilcoxon's test with ties is exact, over all signs."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95% bootstrap interval; `low` and `high` are None for fewer than `LEAST_UNITS` values.

    Attributes:
      n: values.
      mean: None for no values.
      values: they themselves, rising, where there is no interval; else empty.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """Second minus first over the units that both have.

    Attributes:
      n: units with a score in both.
      mean_difference: None where n is 0.
      low, high: of the 95% bootstrap interval; None where n < `LEAST_UNITS`.
      wilcoxon_p: two-sided Wilcoxon signed-rank test; None where n < 2.
      smallest_p: the least that this test can give with n units, 2 / 2**n; None where n is 0.
      t_p: two-sided paired t-test; None where it is not defined.
      effect: Cohen's d_z, mean difference over its standard deviation; None where that is 0 or n < 2.
      rank_biserial: matched-pairs rank-biserial correlation, -1 to 1; None where n is 0.
      same_sign: every difference is above 0, or every one below 0.
      note: what a reader must know of these numbers; may be empty.
      values: the differences, rising, where there is no interval; else empty.
      std: standard deviation of the differences; None where n < 2.
    """

    n: int
    mean_difference: float | None
    low: float | None
    high: float | None
    wilcoxon_p: float | None
    smallest_p: float | None
    t_p: float | None
    effect: float | None
    rank_biserial: float | None
    same_sign: bool
    note: str
    values: tuple[float, ...] = ()
    std: float | None = None

    @property
    def all_zero(self) -> bool:
        """Whether no unit differs."""
        return self.n > 1 and self.mean_difference == 0 and self.effect is None

    @property
    def can_decide(self) -> bool:
        """Whether Wilcoxon's test could reach p < 0.05 with these many units."""
        return self.smallest_p is not None and self.smallest_p < LEVEL


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of the finite values with its 95% bootstrap interval, or the values where they are fewer than `LEAST_UNITS`.

    The interval is bias-corrected and accelerated (BCa; Efron, JASA 82(397), 1987), by percentiles where
    that does not exist, from 9,999 resamples of a fixed seed.
    """
    v = np.array([x for x in values if math.isfinite(x)], np.float64)
    if v.size == 0:
        return Interval(0, None, None, None)
    mean = float(v.mean())
    if v.size < LEAST_UNITS:
        return Interval(v.size, mean, None, None, tuple(map(float, np.sort(v))))
    if np.ptp(v) == 0:
        return Interval(v.size, mean, mean, mean)
    low, high = _bootstrap(v, "BCa")
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = _bootstrap(v, "percentile")
    return Interval(v.size, mean, low, high)


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95% t-interval of the mean, as over seeds; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def spread_words(found: Interval | PairedTest, form: str = ".3f") -> str:
    """ "95% interval 0.700 to 0.800", "each 0.700, 0.750, 0.800" of too few units, "" of one or none."""
    if found.low is not None and found.high is not None:
        return f"95% interval {found.low:{form}} to {found.high:{form}}"
    return f"each {values_text(found, form)}" if len(found.values) > 1 else ""


def values_text(found: Interval | PairedTest, form: str = ".4f") -> str:
    """The values that stand for an interval, for a table; "" where there is one."""
    return ", ".join(f"{v:{form}}" for v in found.values)


def spread_caption(units: Iterable[int]) -> str:
    """What a caption calls the spread of means over so many units each."""
    few = {n < LEAST_UNITS for n in units}
    values = f"single values (fewer than {LEAST_UNITS} give no interval)"
    if few == {True}:
        return values
    return f"95% interval or, of fewer than {LEAST_UNITS}, single values" if True in few else "95% interval"


def _bootstrap(values: NDArray[np.float64], method: str) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a degenerate distribution gives NaN, which the caller handles
        found = stats.bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, method=method, random_state=np.random.default_rng(0)
        ).confidence_interval
    return float(found.low), float(found.high)


def paired_test(a: Mapping[str, float], b: Mapping[str, float]) -> PairedTest:
    """Test whether the second score differs from the first over the units that both have; differences are b - a.

    Args:
      a, b: unit -> score, as person -> IoU averaged over seeds; not finite where there is none.
    """
    every = np.array([b[k] - a[k] for k in sorted(a.keys() & b.keys())], np.float64)
    d = np.round(every[np.isfinite(every)], ROUND) + 0.0
    left_out = every.size - d.size
    notes = [f"{left_out} without a score left out"] if left_out else []
    n = d.size
    if n == 0:
        note = "; ".join([*notes, "no pairs"])
        return PairedTest(0, None, None, None, None, None, None, None, None, False, note)
    interval = mean_interval(list(d))
    smallest = min(1.0, 2.0 ** (1 - n))
    same_sign = bool((d > 0).all() or (d < 0).all())
    if n == 1:
        notes.append("one pair: no interval and no test")
        p = t_p = effect = None
    elif not d.any():
        notes.append("all differences are 0")
        p, t_p, effect = 1.0, None, None
    else:
        p = _wilcoxon(d)
        zeros = int((d == 0).sum())
        if zeros:
            notes.append(f"{zeros} zero difference(s) left out of Wilcoxon's test")
        if np.ptp(d) == 0:
            notes.append("all differences are equal: no t-test")
            t_p = effect = None
        else:
            t_p = float(stats.ttest_1samp(d, 0.0).pvalue)
            effect = float(d.mean() / d.std(ddof=1))
    if n > 1 and smallest >= LEVEL:
        notes.append(f"{n} pairs cannot give less than p = {smallest:g} in Wilcoxon's exact test")
    return PairedTest(
        n,
        interval.mean,
        interval.low,
        interval.high,
        p,
        smallest,
        t_p,
        effect,
        _rank_biserial(d),
        same_sign,
        "; ".join(notes),
        interval.values,
        float(d.std(ddof=1)) if n > 1 else None,
    )


def _wilcoxon(d: NDArray[np.float64]) -> float:
    """Two-sided p, zero differences left out; exact up to 50 pairs, or 13 where some have the same size."""
    d = d[d != 0]
    tied = len(np.unique(np.abs(d))) < d.size
    if not tied and d.size <= 50:
        return float(stats.wilcoxon(d, method="exact").pvalue)
    if tied and d.size <= EXACT_WITH_TIES:
        exact = stats.PermutationMethod(n_resamples=2**EXACT_WITH_TIES)
        return float(stats.wilcoxon(d, method=exact).pvalue)
    return float(stats.wilcoxon(d, method="auto").pvalue)


def _rank_biserial(d: NDArray[np.float64]) -> float:
    """(favourable - unfavourable rank sum) / their sum (Kerby, Comprehensive Psychology 3, 2014); 0 for no ranks."""
    d = d[d != 0]
    if d.size == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(d))
    return float((ranks[d > 0].sum() - ranks[d < 0].sum()) / ranks.sum())


def holm(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """p-values adjusted for several tests (Holm, Scand. J. Statist. 6, 1979); None stays and does not count."""
    # statsmodels' `multipletests` gives the same; the simulations of power ask too often to wait for it.
    known = sorted((v, k) for k, v in p.items() if v is not None)
    out: dict[str, float | None] = dict.fromkeys(p)
    largest = 0.0
    for i, (v, k) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - i) * v))
        out[k] = largest
    return out


Conclusion = Literal["higher", "lower", "leans higher", "leans lower", "cannot tell"]


def conclude(test: PairedTest, p: float | None) -> Conclusion:
    """What may be said of the second score against the first, by the adjusted p-value or the test's own.

    "higher" and "lower" need all of: units enough for Wilcoxon's test to reach 0.05, p below 0.05, and, where there is
    one, an interval without 0. "leans" needs two units or more whose differences all have one sign.
    """
    if test.mean_difference is None or test.n < 2:
        return "cannot tell"
    up = test.mean_difference > 0
    apart = test.low is None or test.high is None or test.low > 0 or test.high < 0
    if test.can_decide and p is not None and p < LEVEL and apart:
        return "higher" if up else "lower"
    if test.same_sign:
        return "leans higher" if up else "leans lower"
    return "cannot tell"
