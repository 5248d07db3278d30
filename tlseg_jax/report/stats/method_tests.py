"""Paired tests between the methods of a study: the second minus the first, over persons or over runs; and forgetting.

Scores are compared over the persons and seeds that both methods were scored on, so that an unfinished sweep compares
like with like.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Mapping
from typing import Literal

from tlseg_jax.report.stats.compare_stats import Conclusion, PairedTest, conclude, holm, paired_test, t_interval
from tlseg_jax.report.stats.sweep_stats import ScoredSet, grouped, method_order, scored_sets
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.studies.results_table import Measure, ResultRow, Results, by_person

NAMES: Mapping[Measure, str] = {"iou": "IoU", "dice": "Dice"}


@dataclasses.dataclass(frozen=True)
class MethodTest:
    """The second method minus the first at one n.

    Attributes:
      test_set: what the models were tested on, or trained on where `unit` is "seed".
      test: over the units that both have.
      p: Holm's adjusted p over all comparisons of this measure on this test set; None without a test.
      family: how many those are.
      by_seed: seed -> mean difference over the persons; empty where seeds are the units. Seeds share their persons,
        and persons their seeds: an interval over persons holds for these runs, and only this tells how much other runs
        would differ.
      left_out: persons that only one of the two was scored on.
      measure: what is compared, in words.
      unit: what it is compared over.
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
    measure: str = "IoU"
    unit: Literal["person", "seed"] = "person"

    @property
    def seed_interval(self) -> tuple[float, float] | None:
        """95% t-interval of the mean over seeds; None for one seed."""
        return t_interval(list(self.by_seed.values()))

    @property
    def least_p(self) -> float | None:
        """The least adjusted p that so many units and comparisons can give."""
        return None if self.test.smallest_p is None else min(1.0, self.family * self.test.smallest_p)

    @property
    def verdict(self) -> Conclusion:
        """What may be said of the second method; "higher" and "lower" also need an interval over seeds without 0."""
        found, over = conclude(self.test, self.p), self.seed_interval
        if found in ("higher", "lower") and over and over[0] <= 0 <= over[1]:
            return "cannot tell"
        return found

    def turned(self) -> "MethodTest":
        """The same comparison the other way round: the first method minus the second."""
        test = self.test

        def minus(x: float | None) -> float | None:
            return None if x is None else -x

        swapped = dataclasses.replace(
            test,
            mean_difference=minus(test.mean_difference),
            low=minus(test.high),
            high=minus(test.low),
            effect=minus(test.effect),
            rank_biserial=minus(test.rank_biserial),
            values=tuple(-v for v in reversed(test.values)),
        )
        by_seed = {seed: -d for seed, d in self.by_seed.items()}
        return dataclasses.replace(self, first=self.second, second=self.first, test=swapped, by_seed=by_seed)


def adjusted(tests: Iterable[MethodTest]) -> tuple[MethodTest, ...]:
    """The tests with p-values adjusted (Holm) over all of one measure on one test set, at any n."""
    every = list(tests)
    out = []
    for family in dict.fromkeys((t.test_set, t.measure) for t in every):
        own = [t for t in every if (t.test_set, t.measure) == family]
        p = holm({str(i): t.test.wilcoxon_p for i, t in enumerate(own)})
        size = max(sum(v is not None for v in p.values()), 1)  # of one person each none has a p
        out += [dataclasses.replace(t, p=p[str(i)], family=size) for i, t in enumerate(own)]
    return tuple(out)


def compare_methods(results: Results, study: StudyInfo) -> tuple[MethodTest, ...]:
    """Every pair of methods at every n, remedies and points of a factorial design left out."""
    designed = {m.name for m in study.methods if m.factors}
    methods = [m for m in main_methods(results, study) if m not in designed]
    pairs = list(itertools.combinations(methods, 2))
    return _compare(results, [(w, n, a, b) for w in scored_sets(results) for n in results.numbers for a, b in pairs])


def compare_remedies(results: Results, study: StudyInfo) -> tuple[MethodTest, ...]:
    """Each remedy against its baseline at every n."""
    pairs = [(m.baseline, m.name) for m in study.methods if m.baseline]
    return _compare(results, [(w, n, a, b) for w in scored_sets(results) for a, b in pairs for n in results.numbers])


def compare_others(results: Results, study: StudyInfo) -> tuple[MethodTest, ...]:
    """Each method that is no remedy at every n against each of the others, over the persons that both have.

    An other's scores are the same beside every seed and n.
    """
    cases = [
        (w, n, o.name, m)
        for w in scored_sets(results)
        for o in results.others
        for m in main_methods(results, study)
        for n in results.numbers
    ]
    beside = [
        dataclasses.replace(r, n=n, seed=seed)
        for o in results.others
        for r in o.rows
        for n in results.numbers
        for seed in results.seeds
    ]
    return _compare(Results((*results.rows, *beside)), cases)


def compare_labels(results: Results, method: str) -> tuple[MethodTest, ...]:
    """One method's fewer labelled scans against the most that it was trained on, named "n = 2" and so on."""
    rows = [r for r in results if r.method == method and r.role == "target"]
    numbers = sorted({r.n for r in rows})
    beside = Results(tuple(dataclasses.replace(r, method=labels_name(r.n), n=numbers[-1]) for r in rows))
    pairs = [(labels_name(n), labels_name(numbers[-1])) for n in numbers[:-1]]
    return _compare(beside, [(w, numbers[-1], a, b) for w in scored_sets(beside) for a, b in pairs])


def labels_name(n: int) -> str:
    """What `compare_labels` calls a number of labelled scans."""
    return f"n = {n}"


def compare_kept(results: Results, study: StudyInfo) -> tuple[MethodTest, ...]:
    """Every pair of methods of one pre-task at every n, in Dice on that pre-task's test set."""
    sets = dict.fromkeys(ScoredSet(r.role, r.test_set) for r in results if r.role == "pretask" and r.method)
    pairs = list(itertools.combinations(main_methods(results, study), 2))
    return _compare(results, [(w, n, a, b) for w in sets for n in results.numbers for a, b in pairs], "dice")


def main_methods(results: Results, study: StudyInfo) -> tuple[str, ...]:
    """Methods that have scores, in the study's order, without remedies."""
    remedies = {m.name for m in study.methods if m.baseline}
    return tuple(m for m in method_order(results, study) if m not in remedies)


def _compare(
    results: Results, cases: Iterable[tuple[ScoredSet, int, str, str]], measure: Measure = "iou"
) -> tuple[MethodTest, ...]:
    rows = grouped((r for r in results if r.method), lambda r: (r.role, r.test_set, r.method, r.n))
    found = []
    for where, n, first, second in cases:
        a = rows.get((where.role, where.name, first, n), [])
        b = rows.get((where.role, where.name, second, n), [])
        both = {_place(r) for r in a} & {_place(r) for r in b}
        if not both:
            continue
        a, everyone = [r for r in a if _place(r) in both], {r.person for r in (*a, *b)}
        b = [r for r in b if _place(r) in both]
        one, two = by_person(a, measure), by_person(b, measure)
        by_seed = {
            seed: _mean(b, seed, measure) - _mean(a, seed, measure) for seed in sorted({seed for seed, _ in both})
        }
        test = paired_test(one, two)
        left = len(everyone) - len(one)
        found.append(MethodTest(where, n, first, second, test, None, 1, by_seed, left, NAMES[measure]))
    return adjusted(found)


def _mean(rows: Iterable[ResultRow], seed: int, measure: Measure) -> float:
    return statistics.fmean(by_person((r for r in rows if r.seed == seed), measure).values())


def _place(row: ResultRow) -> tuple[int, str]:
    return row.seed, row.subject


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """One method at one n on the pre-task's own test set.

    Attributes:
      change: after - before, paired by person; its p is not adjusted.
      persons: person -> Dice before and after the transfer, means over seeds and scans.
    """

    change: MethodTest
    seeds: int
    persons: Mapping[str, tuple[float, float]] = dataclasses.field(repr=False, hash=False)

    @property
    def before(self) -> float:
        """Mean over persons."""
        return statistics.fmean(before for before, _ in self.persons.values())

    @property
    def after(self) -> float:
        """Mean over persons."""
        return statistics.fmean(after for _, after in self.persons.values())

    @property
    def kept(self) -> float | None:
        """After / before; None where the pre-trained model scored 0."""
        return self.after / self.before if self.before else None


def forgotten_by_method(results: Results, study: StudyInfo) -> tuple[Forgotten, ...]:
    """Every method at every n that was scored on its pre-task's test set, as its pre-trained models were.

    Each seed starts from a pre-training of its own: the scores before the transfer are those of the seeds that the
    method has.
    """
    out = []
    rows = [r for r in results if r.role == "pretask"]
    for name in dict.fromkeys(r.test_set for r in rows):
        own = [r for r in rows if r.test_set == name]
        first = {(r.seed, r.subject): r for r in own if not r.method}
        for method in main_methods(results, study):
            for n in results.numbers:
                after = [r for r in own if (r.method, r.n) == (method, n) and (r.seed, r.subject) in first]
                if not after:
                    continue
                x = by_person((first[r.seed, r.subject] for r in after), "dice")
                y = by_person(after, "dice")
                both = {p: (x[p], y[p]) for p in x}
                test, where = paired_test(x, y), ScoredSet("pretask", name)
                change = MethodTest(where, n, "before", method, test, test.wilcoxon_p, 1, {}, 0, NAMES["dice"])
                out.append(Forgotten(change, len({r.seed for r in after}), both))
    return tuple(out)
