"""What a sweep's scores say: means with intervals, paired tests, remedies, learning curves, agreement of volumes.

Persons are the units throughout. Where two methods are compared, a person's difference is the mean over the seeds
and scans that both methods were scored on, so that an unfinished sweep compares like with like.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np
from scipy import stats

from tlseg_jax.report.stats.agreement import BlandAltman, IntraclassCorrelation, bland_altman, intraclass_correlation
from tlseg_jax.report.stats.compare_stats import Interval, PairedTest, holm, mean_interval, paired_test
from tlseg_jax.report.stats.learning_fit import LearningCurve, NoCurve, fit_learning_curve
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.studies.results_table import Measure, ResultRow, Results, Role, by_person

K = TypeVar("K")


@dataclasses.dataclass(frozen=True)
class ScoredSet:
    """A test set and what it is to the study's models."""

    role: Role
    name: str


def scored_sets(results: Results) -> tuple[ScoredSet, ...]:
    """The target's test set, then the unseen ones, in order of appearance."""
    found = dict.fromkeys(ScoredSet(r.role, r.test_set) for r in results if r.role != "pretask")
    return tuple(sorted(found, key=lambda t: t.role != "target"))


def method_order(results: Results, study: StudyInfo) -> tuple[str, ...]:
    """Methods that have scores, in the study's order."""
    there = results.methods
    known = [m.name for m in study.methods if m.name in there]
    return (*known, *(m for m in there if m not in known))


def is_remedy(name: str, study: StudyInfo) -> bool:
    """Whether a method is a remedy that is compared with a baseline."""
    method = study.method(name)
    return method is not None and bool(method.baseline)


def grouped(rows: Iterable[ResultRow], key: Callable[[ResultRow], K]) -> dict[K, list[ResultRow]]:
    """The rows by a key of theirs, in order of appearance."""
    out: dict[K, list[ResultRow]] = {}
    for row in rows:
        out.setdefault(key(row), []).append(row)
    return out


@dataclasses.dataclass(frozen=True)
class Score:
    """A method's mean over persons at one n on one test set.

    Attributes:
      test_set: where.
      method: whose.
      n: labelled scans.
      persons: person -> mean over seeds and scans.
      seeds: runs.
      interval: mean over the persons with its 95% interval.
      std: standard deviation between persons; None for one.
    """

    test_set: ScoredSet
    method: str
    n: int
    persons: Mapping[str, float] = dataclasses.field(repr=False, hash=False)
    seeds: int
    interval: Interval
    std: float | None

    @property
    def mean(self) -> float:
        """Over the persons, of whom there is one at least."""
        return statistics.fmean(self.persons.values())


def mean_scores(results: Results, study: StudyInfo, measure: Measure = "iou") -> tuple[Score, ...]:
    """Means by test set, method and n, in that order; nothing where there are no rows."""
    rows = grouped((r for r in results if r.role != "pretask"), lambda r: (r.role, r.test_set, r.method, r.n))
    out = []
    for where in scored_sets(results):
        for method in method_order(results, study):
            for n in results.numbers:
                own = rows.get((where.role, where.name, method, n), [])
                persons = by_person(own, measure)
                if persons:
                    seeds = len({r.seed for r in own})
                    out.append(_score(where, method, n, persons, seeds))
    return tuple(out)


def _score(where: ScoredSet, method: str, n: int, persons: Mapping[str, float], seeds: int) -> Score:
    values = list(persons.values())
    std = statistics.stdev(values) if len(values) > 1 else None
    return Score(where, method, n, persons, seeds, mean_interval(values), std)


def pretask_scores(results: Results) -> tuple[Score, ...]:
    """Each pre-trained model on its own test set (Table 2); `method` is the pre-task, n is what the rows have."""
    rows = grouped((r for r in results if r.role == "pretask"), lambda r: (r.pretask, r.test_set))
    out = []
    for (pretask, name), own in rows.items():
        n = max(r.n for r in own)
        out.append(_score(ScoredSet("pretask", name), pretask, n, by_person(own), len({r.seed for r in own})))
    return tuple(out)


@dataclasses.dataclass(frozen=True)
class MethodTest:
    """The second method minus the first on one test set at one n.

    Attributes:
      test_set: where.
      n: labelled scans.
      first: a method.
      second: a method.
      test: over the persons that both were scored on.
      p: Holm's adjusted p over all comparisons of this kind on this test set; None without a test.
      family: how many those are.
      by_seed: seed -> mean difference over the persons. Seeds share their persons, and persons their seeds: an
        interval over persons holds for these runs, and only this tells how much other runs would differ.
      left_out: persons that only one of the two was scored on.
    """

    test_set: ScoredSet
    n: int
    first: str
    second: str
    test: PairedTest
    p: float | None
    family: int
    by_seed: Mapping[int, float] = dataclasses.field(hash=False)
    left_out: int

    @property
    def seed_interval(self) -> tuple[float, float] | None:
        """95% t-interval of the mean over seeds; None for one seed."""
        each = list(self.by_seed.values())
        if len(each) < 2:
            return None
        half = float(stats.t.ppf(0.975, len(each) - 1)) * statistics.stdev(each) / math.sqrt(len(each))
        return statistics.fmean(each) - half, statistics.fmean(each) + half

    @property
    def seeds_differ(self) -> bool:
        """Whether the seeds' own interval includes 0: other runs could turn the finding round."""
        found = self.seed_interval
        return found is not None and found[0] <= 0 <= found[1]

    @property
    def least_p(self) -> float | None:
        """The least adjusted p that so many persons and comparisons can give."""
        return None if self.test.smallest_p is None else min(1.0, self.family * self.test.smallest_p)


def compare_methods(results: Results, study: StudyInfo) -> tuple[MethodTest, ...]:
    """Every pair of methods at every n, remedies and points of a factorial design left out.

    p-values are adjusted (Holm) over all pairs and n of a test set.
    """
    methods = [m for m in method_order(results, study) if not is_remedy(m, study) and not _factors(m, study)]
    pairs = list(itertools.combinations(methods, 2))
    sets = scored_sets(results)
    return _compare(results, [(w, n, a, b) for w in sets for n in results.numbers for a, b in pairs])


def compare_remedies(results: Results, study: StudyInfo) -> tuple[MethodTest, ...]:
    """Each remedy against its baseline at every n; p-values are adjusted over all of a test set."""
    pairs = [(m.baseline, m.name) for m in study.methods if m.baseline]
    sets = scored_sets(results)
    return _compare(results, [(w, n, a, b) for w in sets for a, b in pairs for n in results.numbers])


def _factors(name: str, study: StudyInfo) -> bool:
    method = study.method(name)
    return method is not None and bool(method.factors)


_Case = tuple[ScoredSet, int, str, str]


def _compare(results: Results, cases: Iterable[_Case]) -> tuple[MethodTest, ...]:
    rows = grouped((r for r in results if r.role != "pretask"), lambda r: (r.role, r.test_set, r.method, r.n))
    found: dict[_Case, tuple[PairedTest, dict[int, float], int]] = {}
    for where, n, first, second in cases:
        a = rows.get((where.role, where.name, first, n), [])
        b = rows.get((where.role, where.name, second, n), [])
        both = {_place(r) for r in a} & {_place(r) for r in b}
        if not both:
            continue
        a, everyone = [r for r in a if _place(r) in both], {r.person for r in (*a, *b)}
        b = [r for r in b if _place(r) in both]
        one, two = by_person(a), by_person(b)
        by_seed = {seed: _mean(b, seed) - _mean(a, seed) for seed in sorted({seed for seed, _ in both})}
        found[where, n, first, second] = paired_test(one, two), by_seed, len(everyone) - len(one)
    out = []
    for where in scored_sets(results):
        own = {k: v for k, v in found.items() if k[0] == where}
        raw = {k: test.wilcoxon_p for k, (test, _, _) in own.items()}
        adjusted, family = _holm(raw), sum(p is not None for p in raw.values())
        out += [MethodTest(*k, test, adjusted[k], family, by_seed, left) for k, (test, by_seed, left) in own.items()]
    return tuple(out)


def _holm(raw: Mapping[_Case, float | None]) -> dict[_Case, float | None]:
    cases = list(raw)
    adjusted = holm({str(i): raw[case] for i, case in enumerate(cases)})
    return {case: adjusted[str(i)] for i, case in enumerate(cases)}


def _mean(rows: Iterable[ResultRow], seed: int) -> float:
    return statistics.fmean(by_person(r for r in rows if r.seed == seed).values())


def _place(row: ResultRow) -> tuple[int, str]:
    return row.seed, row.subject


def learning_curves(results: Results, study: StudyInfo) -> dict[tuple[ScoredSet, str], LearningCurve | NoCurve]:
    """The fitted IoU over n of each test set and method."""
    out: dict[tuple[ScoredSet, str], LearningCurve | NoCurve] = {}
    for where in scored_sets(results):
        own = results.where(role=where.role, test_set=where.name)
        for method in method_order(results, study):
            of_method = grouped(own.where(method=method), lambda r: r.n)
            if of_method:
                out[where, method] = fit_learning_curve({n: by_person(rows) for n, rows in of_method.items()})
    return out


@dataclasses.dataclass(frozen=True)
class VolumeAgreement:
    """Predicted against reference volumes of one method at one n on one test set.

    Attributes:
      test_set: where.
      method: whose.
      n: labelled scans.
      points: person -> (reference, predicted) in ml, means over seeds and scans.
      limits: bias and limits of agreement of single predictions in ml; None for fewer than two persons.
      icc: of the persons' mean volumes; None where it is not defined.
    """

    test_set: ScoredSet
    method: str
    n: int
    points: Mapping[str, tuple[float, float]] = dataclasses.field(repr=False, hash=False)
    limits: BlandAltman | None
    icc: IntraclassCorrelation | None


def volume_agreement(results: Results, study: StudyInfo, n: int | None = None) -> tuple[VolumeAgreement, ...]:
    """Agreement of volumes on the target by method.

    Args:
      results: the sweep's.
      study: gives the order.
      n: labelled scans; each method's largest by default.
    """
    out = []
    for where in scored_sets(results):
        if where.role != "target":
            continue
        for method in method_order(results, study):
            own = results.where(role=where.role, test_set=where.name, method=method)
            number = n if n is not None else max((r.n for r in own), default=0)
            rows = own.where(n=number).rows
            if not rows:
                continue
            reference, predicted = by_person(rows, "reference_ml"), by_person(rows, "predicted_ml")
            points = {p: (reference[p], predicted[p]) for p in reference}
            by_name = grouped(rows, lambda r: r.person)
            each = {p: [r.volume_error_ml for r in of_person] for p, of_person in by_name.items()}
            icc = intraclass_correlation(np.array(list(points.values()), np.float64))
            out.append(VolumeAgreement(where, method, number, points, bland_altman(each), icc))
    return tuple(out)
