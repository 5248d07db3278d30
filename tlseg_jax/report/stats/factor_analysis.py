"""The scores of a factor study, which effects it can tell, and their estimates.

There are main effects, and interactions with their aliases, on IoU points of persons and on the loss on unseen data.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from tlseg_jax.datasets.factors import FACTORS
from tlseg_jax.report.stats.effect_coding import Separable, name_of, separable_interactions
from tlseg_jax.report.stats.mixed_model import Effect, MixedFit, Observation, fit_effects
from tlseg_jax.report.stats.sweep_stats import grouped
from tlseg_jax.studies.results_table import ResultRow, Role, by_person

LEAST_DF = 5
"""Main effects are taken from the model with interactions if it leaves this many degrees of freedom to its
intervals; with fewer, t is so wide (3.2 standard errors at 3, against 2.6 at 5) that a model without them serves
better: in a balanced design the estimates are the same, and what the interactions do counts as noise."""


@dataclasses.dataclass(frozen=True)
class FactorAnalysis:
    """The effects on one measure.

    Attributes:
      measure: what the scores are, in words.
      main: the fit that main effects and the effect of n are taken from.
      full: the fit with all interactions that can be told apart; None where it leaves no degrees of freedom.
      separable: which those are, and what they are confounded with.
    """

    measure: str
    main: MixedFit
    full: MixedFit | None
    separable: Separable

    @property
    def main_effects(self) -> tuple[Effect, ...]:
        """One for each level but a factor's first."""
        return tuple(e for e in self.main.effects if e.kind == "main")

    @property
    def interactions(self) -> tuple[Effect, ...]:
        """Named with all that they are confounded with; none where they cannot be estimated."""
        names = {name_of(k): " or ".join(map(name_of, (k, *others))) for k, others in self.separable.aliases.items()}
        found = self.full.effects if self.full else ()
        return tuple(dataclasses.replace(e, name=names[e.name]) for e in found if e.kind == "interaction")

    @property
    def of_n(self) -> Effect | None:
        """What twice as many labelled scans do, if the study has several n."""
        return next((e for e in self.main.effects if e.kind == "n"), None)


def analyse(measure: str, observations: Sequence[Observation]) -> FactorAnalysis:
    """Fit main effects, and all two-way interactions that these data sets tell apart.

    Raises:
      InputError: see `fit_effects`.
    """
    levels = {o.model: o.levels for o in observations}
    separable = separable_interactions(levels)
    full = None
    if separable.kept:
        columns = 1 + sum(len({of[f] for of in levels.values()}) - 1 for f in next(iter(levels.values())))
        for a, b in separable.kept:
            columns += (len({of[a] for of in levels.values()}) - 1) * (len({of[b] for of in levels.values()}) - 1)
        if columns < len(levels):
            full = fit_effects(observations, separable.kept)
    main = full if full and full.df >= LEAST_DF else fit_effects(observations)
    return FactorAnalysis(measure, main, full, separable)


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
