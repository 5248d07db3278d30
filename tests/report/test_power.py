"""The least difference that a study could have seen, against SciPy's own tests of drawn studies and statsmodels."""

import dataclasses
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from tests.report.sweep_results import BRAIN, write_results, write_study
from tlseg_jax.report.stats.compare_stats import LEVEL, holm
from tlseg_jax.report.stats.method_tests import MethodTest, compare_methods
from tlseg_jax.report.stats.power import (
    least_difference,
    least_effect,
    least_t_effect,
    over_persons,
    over_seeds,
    persons_needed,
)
from tlseg_jax.report.study_info import read_study
from tlseg_jax.report.study_tables import power_table
from tlseg_jax.report.words.difference import seen_words
from tlseg_jax.studies.results_table import read_results


@pytest.mark.parametrize(("persons", "comparisons"), [(6, 1), (9, 6), (12, 1), (12, 24), (20, 6)])
def test_scipys_wilcoxon_finds_the_least_effect_in_four_of_five_studies(persons: int, comparisons: int) -> None:
    effect = least_effect(persons, LEVEL / comparisons)
    assert effect is not None
    drawn = np.random.default_rng(5).normal(effect, 1, (2000, persons))
    p = stats.wilcoxon(drawn, axis=1, method="exact").pvalue
    assert np.mean(comparisons * p < LEVEL) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("comparisons", [1, 2, 3, 24, 40])
def test_too_few_persons_see_nothing_however_large(comparisons: int) -> None:
    """The least p that SciPy gives of so many persons, all of one sign, adjusted as the page does."""
    needed = persons_needed(comparisons)
    for persons in (needed - 1, needed):
        p = float(stats.wilcoxon(np.arange(1, persons + 1), method="exact").pvalue)
        assert p == 2.0 ** (1 - persons)
        others = {str(i): 1.0 for i in range(comparisons - 1)}
        adjusted = holm({"own": p, **others})["own"]
        assert adjusted is not None and (adjusted < LEVEL) == (persons == needed)
        assert (least_effect(persons, LEVEL / comparisons) is not None) == (persons == needed)
    assert persons_needed(1) == 6


@pytest.mark.parametrize("units", [2, 3, 5, 10, 30])
def test_the_t_tests_least_effect_is_that_of_statsmodels(units: int) -> None:
    # One way alone: with two units a difference that is found the wrong way round would count there too.
    found = TTestPower().power(least_t_effect(units), units, LEVEL / 2, alternative="larger")
    assert found == pytest.approx(0.8, abs=0.02)


def test_of_many_persons_it_is_that_of_the_t_test_of_fewer() -> None:
    """3 / pi as many: the asymptotic relative efficiency of Wilcoxon's test of normal differences."""
    found = TTestPower().solve_power(None, 100 * 3 / np.pi, LEVEL, 0.8)
    assert least_effect(100, LEVEL) == pytest.approx(found, rel=0.03)


def compared(folder: Path, **settings: object) -> tuple[MethodTest, ...]:
    results = read_results(write_results(folder / "r.csv", BRAIN[:2], n=(2, 8), **settings))
    return compare_methods(results, read_study(write_study(folder / "s.json", BRAIN[:2])))


def test_persons_and_seeds_must_both_see_it(tmp_path: Path) -> None:
    t = compared(tmp_path, persons=12, seeds=4)[0]
    each = t.test.mean_difference, t.test.effect
    assert each[0] is not None and each[1] is not None and t.family == 2
    over = over_persons(t)
    assert over == pytest.approx((least_effect(12, 0.025) or 0) * each[0] / each[1])
    seeds = statistics.stdev(t.by_seed.values()) * least_t_effect(4)
    assert over_seeds(t) == pytest.approx(seeds) and least_difference(t) == pytest.approx(max(over or 0, seeds))
    one = dataclasses.replace(t, by_seed={0: 0.1})
    assert over_seeds(one) is None and least_difference(one) == over


def test_a_study_of_two_heads_says_that_they_cannot_show_a_difference(tmp_path: Path) -> None:
    few = [t for t in compared(tmp_path, persons=2) if t.test_set.role == "unseen"]
    assert seen_words(few) == (
        "On oas_c 2 persons and 2 comparisons cannot show a difference, however large: it takes 7 persons for "
        "Wilcoxon's test."
    )
    table = power_table("power", few)
    assert [(r[1], r[4], r[5], r[-1]) for r in table.rows] == [(2, 1.0, 7, None), (8, 1.0, 7, None)]
    enough = [t for t in compared(tmp_path, persons=9) if t.test_set.role == "unseen"]
    each = [row[-1] for row in power_table("power", enough).rows]
    assert all(isinstance(v, float) for v in each)
    span = f"{min(each):.3f} to {max(each):.3f}"  # type: ignore[type-var]
    assert f"(9 persons, 2 comparisons) a difference in IoU of {span}, by n, or more" in seen_words(enough)
