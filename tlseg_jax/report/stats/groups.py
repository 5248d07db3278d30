"""On whom a method does worse: persons by source, by the size of the structure, and by what is known of them.

A group is compared with all the others of its kind by Wilcoxon's rank-sum test (Mann-Whitney), as they are other
persons. As between methods, a difference is called shown only where the p, adjusted over all groups (Holm), and both
intervals, over persons (of groups with enough for one) and over seeds, agree.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from tlseg_jax.report.participants import People
from tlseg_jax.report.stats.compare_stats import (
    LEAST_UNITS,
    LEVEL,
    RESAMPLES,
    Interval,
    holm,
    mean_interval,
    t_interval,
)
from tlseg_jax.report.stats.sweep_stats import grouped
from tlseg_jax.studies.results_table import ResultRow, Results, by_person

MOST = 8
"""Different values of a column up to which each is a group, if persons are twice as many; else numbers are halved."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Some persons against all others of the same kind.

    Attributes:
      place: test set, or "all" of sources.
      kind: what they share, such as "age".
      name: which of its values, such as "above 62".
      interval: mean IoU over them with its 95% interval.
      others: persons that they are compared with.
      difference: mean IoU minus the others'.
      low, high: of its 95% bootstrap interval; None where either has fewer than `LEAST_UNITS` persons.
      over_seeds: 95% t-interval of the difference over the seeds; None for fewer than two.
      p: of the test, two-sided, adjusted.
      least_p: the least that so many persons and groups can give.
      twin: whether there are two groups, whose test is one.
    """

    place: str
    kind: str
    name: str
    interval: Interval
    others: int
    difference: float
    low: float | None
    high: float | None
    seeds: int
    over_seeds: tuple[float, float] | None
    p: float
    least_p: float
    twin: bool = False

    @property
    def verdict(self) -> Literal["higher", "lower", "cannot tell"]:
        """What may be said of them against the others."""
        spans = [(self.low, self.high)] if self.low is not None and self.high is not None else []
        spans += [self.over_seeds] if self.over_seeds else []
        apart = all(a > 0 or b < 0 for a, b in spans if a is not None and b is not None)
        if self.p >= LEVEL or not apart:
            return "cannot tell"
        return "higher" if self.difference > 0 else "lower"


def compare_groups(results: Results, method: str, n: int, people: People) -> tuple[Group, ...]:
    """Each group of one method at one n: by source, then within each test set; a kind of one group is left out.

    The results are of one structure.
    """
    rows = [r for r in results if r.method == method and r.n == n and r.role != "pretask"]
    sets = grouped(rows, lambda r: r.test_set)
    # A person of two sources is one in each.
    renamed = [dataclasses.replace(r, person=f"{r.test_set} {r.person}") for r in rows]
    found = _of_kind("all", "source", renamed, {r.person: r.test_set for r in renamed})
    for name, own in sets.items():
        found += _of_kind(name, "size of the structure", own, _halves(by_person(own, "reference_ml"), " ml"))
        for column in dict.fromkeys(c for about in people.values() for c in about):
            values = {p: people[p][column] for p in {r.person for r in own} if column in people.get(p, {})}
            found += _of_kind(name, column, own, _groups(values))
    keys = [f"{g.place}/{g.kind}" + ("" if g.twin else f"/{g.name}") for g in found]  # two groups are one test
    p = holm({k: g.p for k, g in zip(keys, found, strict=True)})
    least = [min(1.0, g.least_p * len(p)) for g in found]
    return tuple(dataclasses.replace(g, p=p[k] or 0.0, least_p=x) for g, k, x in zip(found, keys, least, strict=True))


def _of_kind(place: str, kind: str, rows: Sequence[ResultRow], of: Mapping[str, str]) -> list[Group]:
    """Each group against the others; `of` is person -> group."""
    rows = [r for r in rows if r.person in of]
    iou, seeds = by_person(rows), sorted({r.seed for r in rows})
    names = sorted(set(of.values()), key=lambda x: (x.startswith("above"), x))
    if len(names) < 2:
        return []
    out = []
    for name in names:
        own, rest = ([v for p, v in iou.items() if (of[p] == name) == mine] for mine in (True, False))
        low, high = _difference_interval(own, rest)
        each = [d for s in seeds if (d := _at_seed([r for r in rows if r.seed == s], of, name)) is not None]
        out.append(
            Group(
                place,
                kind,
                name,
                interval=mean_interval(own),
                others=len(rest),
                difference=statistics.fmean(own) - statistics.fmean(rest),
                low=low,
                high=high,
                seeds=len(seeds),
                over_seeds=t_interval(each),
                p=float(stats.mannwhitneyu(own, rest).pvalue),
                least_p=min(1.0, 2 / math.comb(len(iou), len(own))),
                twin=len(names) == 2,
            )
        )
    return out


def _at_seed(rows: Sequence[ResultRow], of: Mapping[str, str], name: str) -> float | None:
    iou = by_person(rows)
    own, rest = ([v for p, v in iou.items() if (of[p] == name) == mine] for mine in (True, False))
    return statistics.fmean(own) - statistics.fmean(rest) if own and rest else None


def _difference_interval(own: Sequence[float], rest: Sequence[float]) -> tuple[float | None, float | None]:
    if min(len(own), len(rest)) < LEAST_UNITS:
        return None, None
    rng = np.random.default_rng(0)
    drawn = [rng.choice(np.array(v), (RESAMPLES, len(v))).mean(1) for v in (own, rest)]
    low, high = np.percentile(drawn[0] - drawn[1], (2.5, 97.5))
    return float(low), float(high)


def _groups(values: Mapping[str, str]) -> Mapping[str, str]:
    """Person -> group: the value, or a half of many numbers; nothing where there are too many values."""
    if len(set(values.values())) <= min(MOST, len(values) // 2):  # else it is nearly a name
        return values
    try:
        return _halves({p: float(v) for p, v in values.items()})
    except ValueError:
        return {}


def _halves(values: Mapping[str, float], unit: str = "") -> dict[str, str]:
    """Person -> up to the median, or above it."""
    if not values:
        return {}
    middle = statistics.median(values.values())
    shown = f"{middle:.3g}{unit}"
    return {p: f"above {shown}" if v > middle else f"up to {shown}" for p, v in values.items()}
