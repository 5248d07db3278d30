"""What fine-tuned models kept of their pre-task: Dice on its test set before and after, from results.csv alone."""

import dataclasses
from collections.abc import Mapping

from tlseg_jax.report.stats.compare_stats import Interval, PairedTest, mean_interval, paired_test
from tlseg_jax.report.stats.method_tests import main_methods
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.studies.results_table import Results, by_person


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """One method at one n on the pre-task's own test set.

    Attributes:
      persons: person -> Dice before and after the transfer, means over seeds and scans.
      before, after: means over persons.
      change: after - before, paired by person.
    """

    test_set: str
    method: str
    n: int
    seeds: int
    persons: Mapping[str, tuple[float, float]] = dataclasses.field(repr=False, hash=False)
    before: Interval
    after: Interval
    change: PairedTest

    @property
    def kept(self) -> float | None:
        """After / before; None where the pre-trained model scored 0."""
        return self.after.mean / self.before.mean if self.before.mean and self.after.mean is not None else None


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
                means = mean_interval(list(x.values())), mean_interval(list(y.values()))
                seeds = len({r.seed for r in after})
                out.append(Forgotten(name, method, n, seeds, both, *means, paired_test(x, y)))
    return tuple(out)
