"""Means, paired tests and worst cases of a sweep against NumPy, SciPy and what the rows were made from."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.report.sweep_results import BRAIN, REMEDIES, Truth, make_rows, write_results, write_rows, write_study
from tlseg_jax.report.stats.learning_fit import LearningCurve, NoCurve
from tlseg_jax.report.stats.method_tests import compare_methods, compare_remedies
from tlseg_jax.report.stats.sweep_stats import (
    ScoredSet,
    learning_curves,
    mean_scores,
    method_order,
    pretask_scores,
    scored_sets,
    volume_agreement,
)
from tlseg_jax.report.study_info import StudyInfo, read_study
from tlseg_jax.report.sweep_cases import count_failures, hardest_persons, worst_cases
from tlseg_jax.studies.results_table import Results, by_person, read_results

TARGET, UNSEEN = ScoredSet("target", "hdt_c"), ScoredSet("unseen", "oas_c")


def sweep(folder: Path, methods: tuple[Truth, ...] = BRAIN, **settings: object) -> tuple[Results, StudyInfo]:
    results = read_results(write_results(folder / "results.csv", methods, **settings))
    return results, read_study(write_study(folder / "study.json", methods))


def test_means_are_over_persons_and_not_over_runs(tmp_path: Path) -> None:
    """A person with more scans than others counts once."""
    rows = make_rows(BRAIN[:1], (2,), 2, 4, scans=3)
    rows = [r for r in rows if r["person"] == "hdt_c-00" or not r["subject"].endswith(("scan1", "scan2"))]
    results = read_results(write_rows(tmp_path / "r.csv", rows))
    (score,) = (s for s in mean_scores(results, read_study(write_study(tmp_path / "s.json"))) if s.test_set == TARGET)
    own = results.where(role="target")
    each = [np.mean([r.iou for r in own if r.person == p]) for p in by_person(own)]
    assert score.interval.n == 4 and score.seeds == 2 and len(own) == 12
    assert score.mean == pytest.approx(np.mean(each)) and score.std == pytest.approx(np.std(each, ddof=1))
    assert score.interval.low is None and score.interval.values == pytest.approx(sorted(each))


def test_the_order_is_the_studys_and_pretasks_are_apart(tmp_path: Path) -> None:
    results, study = sweep(tmp_path, (*BRAIN, *REMEDIES))
    assert method_order(results, study) == tuple(t.name for t in (*BRAIN, *REMEDIES))
    assert scored_sets(results) == (TARGET, UNSEEN)
    own = pretask_scores(results)
    assert [s.method for s in own] == ["mal_c", "hdt_v", "hdt_wb"]
    rows = results.where(role="pretask", test_set="hdt_v")
    assert own[1].mean == pytest.approx(np.mean([r.iou for r in rows]))
    assert {s.method for s in mean_scores(results, study)} == set(results.methods)


def test_paired_tests_equal_scipy_on_the_persons_means(tmp_path: Path) -> None:
    results, study = sweep(tmp_path, persons=9)
    tests = compare_methods(results, study)
    assert len(tests) == 2 * 4 * 6
    one = next(t for t in tests if (t.test_set, t.n, t.first, t.second) == (UNSEEN, 4, "MAL-C-FT", "HDT-WB-FT"))
    means = []
    for method in (one.first, one.second):
        own = results.where(role="unseen", method=method, n=4)
        means.append(np.array([np.mean([r.iou for r in own if r.person == p]) for p in by_person(own)]))
    d = means[1] - means[0]
    assert one.test.n == 9 and one.test.mean_difference == pytest.approx(d.mean())
    assert one.test.wilcoxon_p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)
    assert one.family == 24 and one.p is not None and one.p >= one.test.wilcoxon_p
    assert one.least_p == pytest.approx(24 * 2 / 2**9)
    by_seed = [
        np.mean([r.iou for r in results.where(role="unseen", method=one.second, n=4, seed=s)])
        - np.mean([r.iou for r in results.where(role="unseen", method=one.first, n=4, seed=s)])
        for s in range(3)
    ]
    assert list(one.by_seed.values()) == pytest.approx(by_seed)
    low, high = stats.t.interval(0.95, 2, np.mean(by_seed), stats.sem(by_seed))
    assert one.seed_interval == (pytest.approx(low), pytest.approx(high))


def test_unfinished_cells_compare_like_with_like(tmp_path: Path) -> None:
    """Only the seeds that both methods have are compared, and left-out persons are counted."""
    rows = make_rows(BRAIN[:2], (2,), 3, 6, folds=3)
    late = [r for r in rows if not (r["method"] == "HDT-V-FT" and r["seed"] == "2")]
    results = read_results(write_rows(tmp_path / "r.csv", late))
    study = read_study(write_study(tmp_path / "s.json", BRAIN[:2]))
    target, unseen = compare_methods(results, study)
    assert target.test.n == 4 and target.left_out == 2 and sorted(target.by_seed) == [0, 1]
    assert unseen.test.n == 6 and unseen.left_out == 0 and sorted(unseen.by_seed) == [0, 1]
    own = results.where(role="unseen", n=2)
    expected = np.mean([r.iou for r in own.where(method="HDT-V-FT")]) - np.mean(
        [r.iou for r in own.where(method="MAL-C-FT") if r.seed < 2]
    )
    assert unseen.test.mean_difference == pytest.approx(expected)


def test_remedies_meet_their_baseline_only(tmp_path: Path) -> None:
    results, study = sweep(tmp_path, (*BRAIN, *REMEDIES), persons=10)
    pairs = {(t.first, t.second) for t in compare_remedies(results, study)}
    assert pairs == {("MAL-C-FT", r.name) for r in REMEDIES}
    assert not any(r.name in (t.first, t.second) for r in REMEDIES for t in compare_methods(results, study))
    gains = [t.test.mean_difference for t in compare_remedies(results, study) if t.second.endswith("randomised")]
    assert np.mean([g for g in gains[4:] if g is not None]) == pytest.approx(0.05, abs=0.02)


def test_curves_are_fitted_to_every_method_and_test_set(tmp_path: Path) -> None:
    results, study = sweep(tmp_path, n=(2, 4, 8, 16, 32, 64), noise=0.0, person_std=0.01)
    found = learning_curves(results, study)
    fit = found[TARGET, "HDT-V-FT"]
    assert isinstance(fit, LearningCurve) and fit.a == pytest.approx(0.85, abs=0.02)
    assert len(found) == 8
    few, study = sweep(tmp_path, n=(2, 4))
    assert all(isinstance(f, NoCurve) for f in learning_curves(few, study).values())


def test_agreement_of_volumes_finds_the_bias(tmp_path: Path) -> None:
    results, study = sweep(tmp_path, persons=30, bias_ml=0.5)
    found = volume_agreement(results, study)
    assert [v.method for v in found] == [t.name for t in BRAIN] and {v.n for v in found} == {16}
    for v in found:
        assert v.limits is not None and v.icc is not None and len(v.points) == 30
        assert v.limits.bias.value == pytest.approx(0.5, abs=0.1) and v.limits.std == pytest.approx(0.3, abs=0.06)
        assert v.icc.agreement.value < v.icc.consistency.value


def test_the_worst_are_named(tmp_path: Path) -> None:
    rows = make_rows(BRAIN, (2, 4), 2, 5)
    at = next(i for i, r in enumerate(rows) if r["role"] == "target" and r["method"] == "HDT-V-FT")
    rows[at] |= {"iou": "0.000000", "dice": "0.000000", "predicted_ml": "0.0000"}
    results = read_results(write_rows(tmp_path / "r.csv", rows))
    study = read_study(write_study(tmp_path / "s.json"))
    worst = worst_cases(results, 3)
    assert len(worst) == 6 and worst[0].cell == rows[at]["cell"] and worst[0].iou == 0
    assert [r.iou for r in worst[:3]] == sorted(r.iou for r in results.where(role="target"))[:3]
    failed = [f for f in count_failures(results, study) if f.failures and f.test_set == TARGET]
    assert [(f.method, f.n, f.failures, f.empty, f.predictions) for f in failed] == [("HDT-V-FT", 2, 1, 1, 10)]
    assert failed[0].persons == (rows[at]["person"],)
    hard = [h for h in hardest_persons(results, 2) if h.test_set == TARGET]
    own = results.where(role="target")
    means = {p: np.mean([r.iou for r in own if r.person == p]) for p in by_person(own)}
    lowest = min(means, key=lambda p: means[p])
    assert hard[0].person == lowest and hard[0].iou == pytest.approx(means[lowest]) and hard[0].persons == 5
    assert hard[0].others == pytest.approx(np.mean([m for p, m in means.items() if p != lowest]))
