"""Which effects a factor study can tell, and their estimates: main effects, and interactions with their aliases."""

import dataclasses
from collections.abc import Sequence

from tlseg_jax.report.stats.effect_coding import Separable, name_of, separable_interactions
from tlseg_jax.report.stats.mixed_model import Effect, MixedFit, Observation, fit_effects

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
