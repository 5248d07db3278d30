"""Where a sweep's models are worst: single scans, persons that are hard for all, structures that were missed."""

import dataclasses
import math

from tlseg_jax.report.stats.sweep_stats import ScoredSet, cells_in_order, grouped, scored_sets
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.studies.results_table import ResultRow, Results, by_person

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
