"""Which method's training loss falls faster at each n; the units are seeds, which share their data."""

import dataclasses
import itertools
import math
from collections.abc import Mapping

from tlseg_jax.evaluate.convergence import Convergence, ConvergenceLevels, common_levels, measure_convergence
from tlseg_jax.evaluate.run_curves import RunCurves
from tlseg_jax.report.stats.compare_stats import paired_test
from tlseg_jax.report.stats.method_tests import MethodTest, adjusted
from tlseg_jax.report.stats.sweep_stats import ScoredSet

Curves = Mapping[int, Mapping[str, Mapping[int, RunCurves]]]
"""n -> method -> seed -> what the run's training wrote down."""

STEPS, AREA = "steps to the common loss", "area under the training loss"
"""The two measures; lower is faster."""


@dataclasses.dataclass(frozen=True, eq=False)
class Speed:
    """Every run's training loss against the levels of its n.

    Attributes:
      levels: n -> common levels.
      runs: n -> method -> seed -> the run against them.
      tests: every pair of methods at every n by both measures, over the seeds that both have.
    """

    levels: Mapping[int, ConvergenceLevels]
    runs: Mapping[int, Mapping[str, Mapping[int, Convergence]]]
    tests: tuple[MethodTest, ...]


def compare_speed(curves: Curves, task: str) -> Speed:
    """Measure the runs, of which each n and method has one at least, and compare the methods."""
    levels = {n: common_levels([c.losses for own in at.values() for c in own.values()]) for n, at in curves.items()}
    runs = {
        n: {m: {s: measure_convergence(c.losses, levels[n]) for s, c in own.items()} for m, own in at.items()}
        for n, at in curves.items()
    }
    tests = []
    for measure in (STEPS, AREA):
        for n, at in runs.items():
            for first, second in itertools.combinations(at, 2):
                a, b = ({str(s): _value(run, measure) for s, run in at[m].items()} for m in (first, second))
                test, where = paired_test(a, b), ScoredSet("target", task)
                tests.append(MethodTest(where, n, first, second, test, None, 1, {}, 0, measure, "seed"))
    return Speed(levels, runs, adjusted(tests))


def _value(run: Convergence, measure: str) -> float:
    if measure == AREA:
        return run.area
    return math.nan if run.steps_to_end is None else float(run.steps_to_end)
