"""The paired statistics against SciPy, NumPy and counting all signs; and what may be said of them."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from tlseg_jax.report.stats import compare_stats
from tlseg_jax.report.stats.compare_stats import (
    LEAST_UNITS,
    conclude,
    holm,
    mean_interval,
    paired_test,
    spread_caption,
    spread_words,
)

RNG = np.random.default_rng(3)


def named(values: "np.ndarray | list[float]") -> dict[str, float]:
    return {f"volume-{i}": float(v) for i, v in enumerate(values)}


def every_sign(d: np.ndarray) -> float:
    """Two-sided p of the signed-rank sum by listing all signs of the ranks."""
    d = d[d != 0]
    ranks = stats.rankdata(np.abs(d))
    middle = ranks.sum() / 2
    seen = abs(ranks[d > 0].sum() - middle)
    sums = [float(np.dot(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(d))]
    return float(np.mean([abs(s - middle) >= seen - 1e-9 for s in sums]))


def test_numbers_equal_scipy_and_numpy() -> None:
    a = np.round(RNG.uniform(0.2, 0.8, 12), 6)
    b = np.round(np.clip(a + RNG.normal(0.05, 0.08, 12), 0, 1), 6)
    t = paired_test(named(a), named(b))
    d = b - a
    assert t.n == 12 and t.mean_difference == pytest.approx(d.mean())
    assert t.wilcoxon_p == pytest.approx(stats.wilcoxon(b, a, method="exact").pvalue)
    assert t.wilcoxon_p == pytest.approx(every_sign(d))
    assert t.t_p == pytest.approx(stats.ttest_rel(b, a).pvalue)
    assert t.effect == pytest.approx(d.mean() / d.std(ddof=1))
    signed = np.sign(d) * stats.rankdata(np.abs(d))
    assert t.rank_biserial == pytest.approx(signed.sum() / np.abs(signed).sum())
    assert t.low is not None and t.high is not None and t.low < d.mean() < t.high
    assert t.note == ""


def test_the_order_of_volumes_does_not_matter_and_the_direction_does() -> None:
    a, b = named([0.1, 0.5, 0.3, 0.9]), named([0.2, 0.55, 0.1, 0.7])
    there = paired_test(a, b)
    assert paired_test(dict(reversed(list(a.items()))), b) == there
    back = paired_test(b, a)
    assert there.mean_difference is not None and back.mean_difference == pytest.approx(-there.mean_difference)
    assert back.wilcoxon_p == there.wilcoxon_p


@pytest.mark.parametrize("d", [[0.1, 0.1, -0.1, 0.2, 0.3], [0.1, 0.0, 0.2, 0.2, -0.05, 0.3], [0.1] * 6])
def test_ties_and_zeros_have_the_exact_p_too(d: list[float]) -> None:
    t = paired_test(named([0.4] * len(d)), named([0.4 + x for x in d]))
    assert t.wilcoxon_p == pytest.approx(every_sign(np.array(d)))
    assert ("zero" in t.note) == (0.0 in d)


def test_rounding_of_a_mean_over_seeds_makes_no_difference() -> None:
    a = {"v": (0.1 + 0.2 + 0.3) / 3, "w": 0.5}
    b = {"v": 0.2, "w": 0.5}
    t = paired_test(a, b)
    assert t.wilcoxon_p == 1 and "all differences are 0" in t.note


def test_many_pairs_use_what_scipy_advises() -> None:
    a, d = RNG.uniform(0, 1, 80), RNG.normal(0.02, 0.1, 80).round(2)
    t = paired_test(named(a), named(a + d))
    assert t.wilcoxon_p == pytest.approx(stats.wilcoxon(d[d != 0]).pvalue)


@pytest.mark.parametrize(("n", "smallest"), [(2, 0.5), (4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_the_least_p_is_told_where_it_cannot_reach_the_level(n: int, smallest: float) -> None:
    t = paired_test(named([0.1] * n), named([0.2 + 0.01 * i for i in range(n)]))
    assert t.smallest_p == t.wilcoxon_p == smallest
    assert ("cannot give less than" in t.note) == (smallest > 0.05)
    assert t.can_decide == (smallest < 0.05)
    assert conclude(t, t.wilcoxon_p) == ("higher" if n == 6 else "leans higher")


def test_degenerate_pairs() -> None:
    none = paired_test({}, {})
    assert none.n == 0 and none.mean_difference is None and none.note == "no pairs"
    assert conclude(none, None) == "cannot tell"
    one = paired_test({"v": 0.2}, {"v": 0.5})
    assert one.n == 1 and one.mean_difference == pytest.approx(0.3)
    assert (one.low, one.wilcoxon_p, one.t_p, one.effect) == (None, None, None, None)
    assert conclude(one, None) == "cannot tell"
    equal = paired_test(named([0.2] * 7), named([0.2] * 7))
    assert equal.all_zero and (equal.wilcoxon_p, equal.rank_biserial) == (1.0, 0)
    assert conclude(equal, 1.0) == "cannot tell"
    constant = paired_test(named([0.25] * 7), named([0.5] * 7))
    assert constant.t_p is None and constant.effect is None and constant.values == (0.25,) * 7
    assert not constant.all_zero and mean_interval([0.25] * 20).low == mean_interval([0.25] * 20).high == 0.25
    nan = paired_test(named([0.2, math.nan, 0.4]), named([0.3, 0.1, 0.2]))
    assert nan.n == 2 and nan.note.startswith("1 without a score left out")
    assert paired_test({"volume-0": 1.0}, named([1.0, 1.0])).n == 1  # what both have


def test_nothing_is_claimed_where_the_interval_holds_zero_or_p_is_large() -> None:
    mixed = paired_test(named([0.5] * 8), named([0.6, 0.4, 0.7, 0.35, 0.55, 0.45, 0.62, 0.38]))
    assert conclude(mixed, mixed.wilcoxon_p) == "cannot tell"
    up = paired_test(named([0.5] * 8), named(0.55 + 0.01 * np.arange(8)))
    assert conclude(up, 0.01) == "higher" and conclude(up, 0.2) == "leans higher"
    down = paired_test(named(0.55 + 0.01 * np.arange(8)), named([0.5] * 8))
    assert conclude(down, 0.01) == "lower"


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(150):
        found = mean_interval(list(rng.normal(0, 1, 25)))
        assert found.low is not None and found.high is not None
        inside += found.low <= 0 <= found.high
    assert 0.87 <= inside / 150 <= 0.99


def test_the_interval_is_the_same_each_time_and_skips_what_is_missing() -> None:
    values = [0.1, 0.4, 0.35, 0.8]
    assert mean_interval(values) == mean_interval([*values, math.nan])
    assert mean_interval([]).mean is None
    assert mean_interval([0.3]) == mean_interval([0.3, math.inf])
    assert mean_interval([0.3]).low is None


@pytest.mark.parametrize("n", [2, 5, LEAST_UNITS - 1])
def test_values_stand_for_an_interval_of_too_few_units(n: int) -> None:
    values = [0.1 + 0.05 * i for i in range(n)]
    few = mean_interval(values[::-1])
    assert (few.low, few.high) == (None, None) and few.values == tuple(values)
    assert spread_words(few, ".2f") == "each " + ", ".join(f"{v:.2f}" for v in values)
    t = paired_test(named([0.5] * n), named([0.5 + v for v in values]))
    assert t.low is None and t.values == pytest.approx(values) and "interval" not in spread_words(t)
    enough = mean_interval([0.1 + 0.02 * i for i in range(LEAST_UNITS)])
    assert enough.low is not None and enough.values == () and spread_words(enough).startswith("95% interval")
    assert spread_caption([LEAST_UNITS]) == "95% interval" and "single values" in spread_caption([n])


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least", "most"), [(2, 0.4, 0.6), (3, 0.63, 0.78), (5, 0.75, 0.88), (12, 0.87, 0.95)])
def test_intervals_cover_the_mean_where_they_are_shown_and_would_not_where_they_are_not(
    n: int, least: float, most: float
) -> None:
    """Normal scores and two kinds of skewed ones: 500 draws of each, so that the standard error is 0.015 or less."""
    assert LEAST_UNITS == 12
    rng = np.random.default_rng(1)
    for draw, truth in ((rng.normal, 0.0), (lambda: rng.beta(8, 3), 8 / 11), (lambda: rng.beta(6, 1), 6 / 7)):
        held = []
        for _ in range(500):
            low, high = compare_stats._bootstrap(np.array([draw() for _ in range(n)]), "BCa")
            held.append(low <= truth <= high)
        assert least <= np.mean(held) <= most


def test_holm_equals_the_definition() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert found == {"a": pytest.approx(0.03), "c": pytest.approx(0.06), "b": pytest.approx(0.06), "d": None}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    p = np.random.default_rng(0).uniform(0, 0.1, 40)
    theirs = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(list(holm(dict(enumerate(map(float, p)))).values()), theirs)
