"""What a sweep's scores say: means with intervals, also over all structures, learning curves, agreement of volumes.

Persons are the units throughout.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from tlseg_jax.report.stats.agreement import BlandAltman, IntraclassCorrelation, bland_altman, intraclass_correlation
from tlseg_jax.report.stats.compare_stats import Interval, mean_interval
from tlseg_jax.report.stats.learning_fit import LearningCurve, NoCurve, fit_learning_curve
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.studies.other_results import whole_persons
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
      persons: person -> mean over seeds and scans.
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


@functools.lru_cache(maxsize=8)  # several sections ask for the same, and each interval takes a bootstrap
def mean_scores(results: Results, study: StudyInfo, measure: Measure = "iou") -> tuple[Score, ...]:
    """Means by test set, method and n, in that order; nothing where there are no rows."""
    return tuple(
        _score(where, method, n, persons, len({r.seed for r in own}))
        for where, method, n, own in cells_in_order(results, study)
        if (persons := by_person(own, measure))
    )


def cells_in_order(results: Results, study: StudyInfo) -> Iterator[tuple[ScoredSet, str, int, list[ResultRow]]]:
    """The rows of each test set, method and n, in that order, where there are any."""
    rows = grouped((r for r in results if r.role != "pretask"), lambda r: (r.role, r.test_set, r.method, r.n))
    for where in scored_sets(results):
        for method in method_order(results, study):
            for n in results.numbers:
                if own := rows.get((where.role, where.name, method, n)):
                    yield where, method, n, own


@dataclasses.dataclass(frozen=True)
class OtherScore:
    """The mean of another program, or of a model without n, on one test set.

    Attributes:
      place: which of the others it is, from 0.
      score: over the persons that it has all of, with n = 0 and no seeds; None where it has none.
      of: persons of the study there.
    """

    name: str
    place: int
    test_set: ScoredSet
    score: Score | None
    of: int

    @property
    def partly(self) -> str:
        """ "3 of 4 persons" where some lack, else empty."""
        return f"{self.score.interval.n} of {self.of} persons" if self.score and self.score.interval.n < self.of else ""


@functools.lru_cache(maxsize=8)
def other_scores(results: Results, measure: Measure = "iou") -> tuple[OtherScore, ...]:
    """The means of others by test set and other, in that order."""
    out = []
    for where in scored_sets(results):
        persons = {r.person for r in results.where(role=where.role, test_set=where.name)}
        for place, other in enumerate(results.others):
            own = by_person((r for r in other.rows if (r.role, r.test_set) == (where.role, where.name)), measure)
            score = _score(where, other.name, 0, own, 0) if own else None
            out.append(OtherScore(other.name, place, where, score, len(persons)))
    return tuple(out)


def _score(where: ScoredSet, method: str, n: int, persons: Mapping[str, float], seeds: int) -> Score:
    values = list(persons.values())
    std = statistics.stdev(values) if len(values) > 1 else None
    return Score(where, method, n, persons, seeds, mean_interval(values), std)


def pretask_scores(results: Results) -> tuple[Score, ...]:
    """Each pre-trained model on its own test set (Table 2); `method` is the pre-task, n is what the rows have."""
    rows = grouped((r for r in results if not r.method), lambda r: (r.pretask, r.test_set))
    out = []
    for (pretask, name), own in rows.items():
        n = max(r.n for r in own)
        out.append(_score(ScoredSet("pretask", name), pretask, n, by_person(own), len({r.seed for r in own})))
    return tuple(out)


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


def volume_agreement(results: Results, study: StudyInfo) -> tuple[VolumeAgreement, ...]:
    """Agreement of volumes on the target by method, each at its largest n."""
    out = []
    for where in scored_sets(results):
        if where.role != "target":
            continue
        for method in method_order(results, study):
            own = results.where(role=where.role, test_set=where.name, method=method)
            if not own:
                continue
            number = max(r.n for r in own)
            rows = own.where(n=number).rows
            reference, predicted = by_person(rows, "reference_ml"), by_person(rows, "predicted_ml")
            points = {p: (reference[p], predicted[p]) for p in reference}
            by_name = grouped(rows, lambda r: r.person)
            each = {p: [r.volume_error_ml for r in of_person] for p, of_person in by_name.items()}
            icc = intraclass_correlation(np.array(list(points.values()), np.float64))
            out.append(VolumeAgreement(where, method, number, points, bland_altman(each), icc))
    return tuple(out)


DISTANCES: tuple[Measure, ...] = ("hd95_mm", "asd_mm")


def mean_name(data_set: str) -> str:
    """What the test set of these means is called."""
    return f"{data_set}_mean"


def over_structures(results: Results) -> Results:
    """Each scan of each run once, with the mean of its IoU, Dice and distances over its structures; volumes are added.

    A distance is None where that of any structure is: a method that misses the far ones would else be nearer. Of others
    there are the persons of whom they have all structures that the study has.
    """

    def means(rows: Iterable[ResultRow]) -> tuple[ResultRow, ...]:
        return tuple(_mean(r) for r in grouped(rows, lambda r: (r.cell, r.role, r.data_set, r.subject)).values())

    others = tuple(
        dataclasses.replace(o, rows=means(whole_persons(o.rows, results, lambda r: r.data_set))) for o in results.others
    )
    return Results(means(results), others)


def _mean(rows: Sequence[ResultRow]) -> ResultRow:
    distances: dict[str, float | None] = {}
    for measure in DISTANCES:
        values = [v for r in rows if (v := getattr(r, measure)) is not None]
        distances[measure] = statistics.fmean(values) if len(values) == len(rows) else None
    return dataclasses.replace(
        rows[0],
        test_set=mean_name(rows[0].data_set),
        structure="",
        iou=statistics.fmean(r.iou for r in rows),
        dice=statistics.fmean(r.dice for r in rows),
        reference_ml=sum(r.reference_ml for r in rows),
        predicted_ml=sum(r.predicted_ml for r in rows),
        hd95_mm=distances["hd95_mm"],
        asd_mm=distances["asd_mm"],
    )
