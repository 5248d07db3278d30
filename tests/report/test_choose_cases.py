"""Cases chosen from scores that are known."""

from pathlib import Path

import pytest

from tests.report.sweep_results import BRAIN, make_rows, write_rows
from tlseg_jax.report.sweep_cases import best_method, choose_cases, grid_subject
from tlseg_jax.studies.results_table import Results, by_unit, read_results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return read_results(write_rows(tmp_path / "results.csv", make_rows(BRAIN, (2, 8), 3, 7, unseen=("oas_c", "far"))))


def test_the_best_method_is_the_highest_mean_at_the_largest_n(results: Results) -> None:
    found = best_method(results)
    means = {}
    for m in results.methods:
        own = [r.iou for r in results if (r.method, r.n, r.role) == (m, 8, "target")]
        means[m] = sum(own) / len(own)  # as many rows a person: the plain mean is that of the persons
    assert found == (max(means, key=lambda m: means[m]), 8)


def test_worst_median_and_best_are_those_of_the_means_over_seeds(results: Results) -> None:
    cases = choose_cases(results, best_method(results), 9)
    assert [c.row.test_set for c in cases] == ["hdt_c"] * 3 + ["oas_c"] * 3 + ["far"] * 3
    assert [c.title for c in cases] == ["worst", "median", "best"] * 3
    for i, test_set in enumerate(("hdt_c", "oas_c", "far")):
        own = [r for r in results if (r.method, r.n, r.test_set) == (cases[0].row.method, 8, test_set)]
        order = sorted(by_unit(own, lambda r: r.subject).items(), key=lambda e: e[1])
        assert [c.row.subject for c in cases[3 * i : 3 * i + 3]] == [order[k][0] for k in (0, 3, 6)]
        for c in cases[3 * i : 3 * i + 3]:
            scores = [r.iou for r in own if r.subject == c.row.subject]
            assert c.mean == pytest.approx(sum(scores) / 3) and c.runs == 3
            assert abs(c.row.iou - c.mean) == min(abs(s - c.mean) for s in scores)


@pytest.mark.parametrize(
    ("count", "titles"), [(0, []), (1, ["worst"]), (3, ["worst"] * 3), (4, ["worst", "median", "worst", "worst"])]
)
def test_where_there_is_room_for_few_the_worst_come_first(results: Results, count: int, titles: list[str]) -> None:
    assert [c.title for c in choose_cases(results, best_method(results), count)] == titles


def test_the_grid_shows_the_median_of_the_target(results: Results) -> None:
    best = best_method(results)
    row = grid_subject(results, best)
    assert row == choose_cases(results, best)[1].row and row.role == "target"


def test_one_scan_and_none(results: Results) -> None:
    one = Results(tuple(r for r in results if r.subject == "hdt_c-00"))
    assert [c.title for c in choose_cases(one, best_method(one))] == ["only subject"]
    row = grid_subject(one, best_method(one))
    assert row is not None and row.subject == "hdt_c-00"
    none = Results(tuple(r for r in results if r.role == "pretask"))
    assert best_method(none) is None and choose_cases(none, None) == () and grid_subject(none, None) is None


def test_of_no_method_recommended_the_worst_are_of_all(results: Results) -> None:
    unseen = results.where(role="unseen")
    assert best_method(unseen) is None
    first = choose_cases(unseen, best_method(unseen))[0]
    persons = by_unit((r for r in unseen if r.test_set == "oas_c"), lambda r: r.subject)
    assert (first.title, first.row.subject) == ("worst", min(persons, key=lambda p: persons[p]))
    assert first.runs == 2 * 3 * len(BRAIN) and first.mean == pytest.approx(min(persons.values()))
