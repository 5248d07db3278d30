"""The scores of a sweep over all structures: each scan's mean, in place of a row a structure."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence

from tlseg_jax.report.stats.sweep_stats import grouped
from tlseg_jax.studies.other_results import whole_persons
from tlseg_jax.studies.results_table import Measure, ResultRow, Results

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
