"""Which scans a reader should see: the worst, a median and the best one of the recommended method, seen and unseen."""

import dataclasses
import math
from collections.abc import Sequence

from tlseg_jax.figures.contours import pick_cases
from tlseg_jax.report.stats.over_structures import over_structures
from tlseg_jax.report.stats.sweep_stats import grouped
from tlseg_jax.studies.results_table import ResultRow, Results, Role, by_person, by_unit

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
