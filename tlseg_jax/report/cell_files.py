"""What the cells of a sweep hold beside their scores: losses, epochs and summaries of their runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tlseg_jax.evaluate.run_curves import RunCurves, read_curves
from tlseg_jax.report.stats.sweep_stats import method_order
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.words.study_words import counted
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import ResultRow, Results

T = TypeVar("T")

ByRun = Mapping[int, Mapping[str, Mapping[int, T]]]
"""n, rising -> method, in the study's order -> seed -> of that run."""


def read_cells(
    results: Results, study: StudyInfo, read: Callable[[ResultRow], T], methods: Sequence[str] | None = None
) -> tuple[ByRun[T], tuple[str, ...]]:
    """Something of every run that has scores, of some methods or of all.

    Args:
      read: what to take of the run that a row is of; raises InputError where it is gone or damaged.

    Returns:
      What was read, without empty parts, and a sentence on the runs that cannot be read, if there are any.
    """
    runs = {(r.n, r.method, r.seed): r for r in results if r.role != "pretask"}
    out: dict[int, dict[str, dict[int, T]]] = {}
    faults = []
    for n in results.numbers:
        for method in method_order(results, study) if methods is None else methods:
            for row in (r for key, r in runs.items() if key[:2] == (n, method)):
                try:
                    out.setdefault(n, {}).setdefault(method, {})[row.seed] = read(row)
                except InputError as e:
                    faults.append(str(e))
    out = {n: {m: own for m, own in at.items() if own} for n, at in out.items()}
    note = (f"{counted(len(faults), 'run')} cannot be read and left out; the first: {faults[0]}",) if faults else ()
    return {n: at for n, at in out.items() if at}, note


def read_losses(
    results: Results, study: StudyInfo, methods: Sequence[str] | None = None
) -> tuple[ByRun[RunCurves], tuple[str, ...]]:
    """The losses and epochs of every run; see `read_cells`."""
    return read_cells(results, study, lambda r: read_curves(study.cell(r.cell)), methods)


def in_common(runs: ByRun[T]) -> tuple[ByRun[T], tuple[str, ...]]:
    """The runs of those seeds that every method of an n has, so that a difference is none of seeds.

    With a sentence on those that were left out, if there are any.
    """
    out = {}
    left = 0
    for n, at in runs.items():
        common = set.intersection(*(set(own) for own in at.values()))
        out[n] = {m: {s: own[s] for s in sorted(common)} for m, own in at.items()}
        left += sum(len(own) - len(common) for own in at.values())
    kept = {n: at for n, at in out.items() if all(at.values())}
    return kept, (f"{counted(left, 'run')} left out here, as not every method has the seed yet.",) if left else ()
