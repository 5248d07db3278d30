"""Scores of a factor study, made ready for the mixed model: IoU points of persons, and the loss on unseen data."""

import math
from collections.abc import Iterable

from tlseg_jax.datasets.factors import FACTORS
from tlseg_jax.report.stats.mixed_model import Observation
from tlseg_jax.report.stats.sweep_stats import grouped
from tlseg_jax.studies.results_table import ResultRow, Role, by_person

POINTS = 100.0
"""IoU points in an IoU of 1."""


def runs_of(rows: Iterable[ResultRow], role: Role) -> dict[tuple[str, int], list[ResultRow]]:
    """(pre-training data set, n) -> rows of models fine-tuned in the paper's way, of data sets with all six factors."""
    own = (r for r in rows if r.role == role and not r.remedy and all(f in r.factors for f in FACTORS))
    return grouped(own, lambda r: (r.pretask, r.n))


def target_scores(rows: Iterable[ResultRow]) -> list[Observation]:
    """IoU points on the target's test set, one a pre-trained model, n and person: the mean over seeds and scans."""
    return [
        Observation(POINTS * score, model, _cell(model, n), n, of[0].factors, person)
        for (model, n), of in sorted(runs_of(rows, "target").items())
        for person, score in by_person(of).items()
    ]


def shift_losses(rows: Iterable[ResultRow]) -> tuple[list[Observation], int]:
    """IoU points lost under domain shift: the target's mean less that of the unseen data, means over persons.

    Returns:
      One observation a pre-trained model and n; and how many were left out, because persons were still missing.
    """
    rows = list(rows)
    target, unseen = runs_of(rows, "target"), runs_of(rows, "unseen")
    everyone = [{r.person for of in runs.values() for r in of} for runs in (target, unseen)]
    out, left_out = [], 0
    for key in sorted(target.keys() | unseen.keys()):
        means = []
        for runs, persons in zip((target, unseen), everyone, strict=True):
            scores = by_person(runs.get(key, []))
            if scores.keys() == persons and scores:
                means.append(POINTS * math.fsum(scores.values()) / len(scores))
        if len(means) < 2:
            left_out += 1
            continue
        model, n = key
        out.append(Observation(means[0] - means[1], model, _cell(model, n), n, target[key][0].factors))
    return out, left_out


def _cell(model: str, n: int) -> str:
    return f"{model} n={n}"
