"""Where a sweep's models are worst (scans, persons, missed structures), and which scans a reader should see."""

import dataclasses
import math
from collections.abc import Sequence

from tlseg_jax.figures.contours import pick_cases
from tlseg_jax.report.stats.sweep_stats import ScoredSet, cells_in_order, grouped, over_structures, scored_sets
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.studies.results_table import ResultRow, Results, Role, by_person, by_unit

FAILURE = 0.1
"""An IoU below this has missed the structure."""


def worst_cases(results: Results, count: int = 10) -> tuple[ResultRow, ...]:
    """The single scans and runs with the lowest IoU on each test set, `count` of each, the lowest first."""
    out: list[ResultRow] = []
    for where in scored_sets(results):
        own = results.where(role=where.role, test_set=where.name)
        out += sorted(own, key=lambda r: (r.iou, r.method, r.n, r.seed, r.subject))[:count]
    return tuple(out)


@dataclasses.dataclass(frozen=True)
class FailureCount:
    """How often a method missed the structure at one n on one test set.

    Attributes:
      failures: scans of runs with an IoU below 0.1; `empty` of them where nothing was predicted.
      predictions: scans of runs in all.
      persons: who was missed at least once.
    """

    test_set: ScoredSet
    method: str
    n: int
    failures: int
    empty: int
    predictions: int
    persons: tuple[str, ...]


def count_failures(results: Results, study: StudyInfo) -> tuple[FailureCount, ...]:
    """Failures by test set, method and n; those without any are there with 0."""
    out = []
    for where, method, n, own in cells_in_order(results, study):
        failed = [r for r in own if r.iou < FAILURE]
        empty = sum(r.predicted_ml == 0 for r in failed)
        persons = tuple(sorted({r.person for r in failed}))
        out.append(FailureCount(where, method, n, len(failed), empty, len(own), persons))
    return tuple(out)


@dataclasses.dataclass(frozen=True)
class HardPerson:
    """Someone that the methods do badly on together, of so many persons.

    Attributes:
      iou: mean over methods and n.
      others: the same of the other persons.
    """

    test_set: ScoredSet
    person: str
    iou: float
    others: float
    persons: int


def hardest_persons(results: Results, count: int = 5) -> tuple[HardPerson, ...]:
    """The persons with the lowest mean over methods and n, `count` a test set, the lowest first.

    Each method and n counts alike, whatever its runs; only persons that all of them were scored on are compared.
    """
    out = []
    for where in scored_sets(results):
        rows = results.where(role=where.role, test_set=where.name)
        cells = grouped(rows, lambda r: (r.method, r.n))
        each = [by_person(own) for own in cells.values()]
        people = sorted(set.intersection(*(set(e) for e in each))) if each else []
        mean = {p: math.fsum(e[p] for e in each) / len(each) for p in people}
        for p in sorted(mean, key=lambda p: (mean[p], p))[:count]:
            rest = [v for q, v in mean.items() if q != p]
            if rest:
                out.append(HardPerson(where, p, mean[p], math.fsum(rest) / len(rest), len(mean)))
    return tuple(out)


TITLES = ("worst", "median", "best", "only subject")
"""Of `pick_cases`, those first that are shown where there is room for few."""


@dataclasses.dataclass(frozen=True)
class ChosenCase:
    """A scan, such as the "worst", by one run; `mean` is its IoU over all `runs` of the method and n."""

    title: str
    row: ResultRow
    mean: float
    runs: int


def best_method(results: Results) -> tuple[str, int] | None:
    """The method and n that the answer names: the highest mean IoU over persons on the target at the largest n.

    Of several structures it is the highest mean over them. None without any score on the target.
    """
    target = over_structures(results.where(role="target"))
    if not target.rows:
        return None
    n = max(r.n for r in target)
    of_n = target.where(n=n)
    means = {m: by_person(of_n.where(method=m)) for m in of_n.methods}
    return max(means, key=lambda m: math.fsum(means[m].values()) / len(means[m])), n


def choose_cases(results: Results, best: tuple[str, int] | None, count: int = 6) -> tuple[ChosenCase, ...]:
    """Scans of the recommended method and n (None: of all), on the target's test set and on each unseen one.

    A scan's place is that of its mean over the runs; shown is the run whose score is nearest to it, so that
    neither a lucky nor an unlucky seed is on display. Where there is room for few, the worst come first.

    Returns:
      By data set, the target first; of each the worst, the median and the best, of all its structures; at most `count`.
    """
    own = of_best(results, best)
    order: tuple[Role, ...] = ("target", "unseen")
    sets = grouped((r for role in order for r in own.where(role=role)), lambda r: (r.role, r.data_set))
    cases = [case for rows in sets.values() for case in _of_set(rows)]
    shown = sorted(cases, key=lambda c: TITLES.index(c.title))[:count]  # stable: sets take turns
    return tuple(c for c in cases if c in shown)


def _of_set(rows: Sequence[ResultRow]) -> list[ChosenCase]:
    scans = grouped(rows, lambda r: f"{r.subject} {r.structure}")
    means = by_unit(rows, lambda r: f"{r.subject} {r.structure}")
    cases = []
    for title, scan in pick_cases(means).items():
        row = min(scans[scan], key=lambda r: (abs(r.iou - means[scan]), r.seed))
        cases.append(ChosenCase(title, row, means[scan], len(scans[scan])))
    return sorted(cases, key=lambda c: TITLES.index(c.title))


def of_best(results: Results, best: tuple[str, int] | None) -> Results:
    """The rows of the method and n that the page recommends, or all of them where it recommends none."""
    return results if best is None else results.where(method=best[0], n=best[1])


def grid_subject(results: Results, best: tuple[str, int] | None) -> ResultRow | None:
    """The scan for the grid of methods and n: the median one of the recommended method and n on the target.

    None without any score on the target.
    """
    cases = [c for c in choose_cases(results, best, len(results)) if c.row.role == "target"]
    return next((c.row for title in ("median", "worst", "only subject") for c in cases if c.title == title), None)
