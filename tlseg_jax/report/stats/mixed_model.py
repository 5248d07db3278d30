"""Linear mixed model of scores over designed pre-training data sets: what a factor changes, with its 95% interval.

    score = mean + factors + chosen two-way interactions + log2 n
            + pre-trained model + fine-tuned model + person + residual

with random intercepts, crossed (Baayen, Davidson & Bates, J. Mem. Lang. 59, 2008), fitted by REML (statsmodels'
MixedLM, all rows in one group). Many fine-tuned models start from one pre-trained model, and it is the pre-trained
models that differ in the factors: they are the units of a factor's effect. Without an intercept of their own, runs
from one start would count as independent, and the intervals would be too narrow.

Intervals are t intervals with the containment degrees of freedom: for a factor, pre-trained models less the
coefficients that tell them apart. In a balanced design both are the analysis of variance's.
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec
from threadpoolctl import threadpool_limits

from tlseg_jax.report.stats.effect_coding import Doubles, Interaction, code_effects
from tlseg_jax.runtime.errors import InputError

LEVEL = 0.95
"""Of the intervals."""

SMALL = 0.01
"""Share of the variance below which a random part is said to be near 0."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """One score.

    Attributes:
      score: in the unit that the effects are wanted in.
      model: the pre-trained model that the run started from.
      cell: the run, that is the fine-tuned model.
      n: labelled scans of the run.
      levels: factor -> level of the pre-trained model's data set.
      person: whose scan; "" where a score belongs to the whole run.
    """

    score: float
    model: str
    cell: str
    n: int
    levels: Mapping[str, str]
    person: str = ""


@dataclasses.dataclass(frozen=True)
class Effect:
    """A difference between means of the model, all else equal.

    Attributes:
      kind: "main", "interaction", or "n" for a doubling of the labelled scans.
      name: such as "disease" or "disease x space".
      contrast: such as "AD - HD"; of an interaction, which levels' differences are compared.
      difference: second-named level taken from the first; of an interaction, a difference of differences.
      low, high: of the 95% interval, which has `df` degrees of freedom.
    """

    kind: str
    name: str
    contrast: str
    difference: float
    low: float
    high: float
    df: int


@dataclasses.dataclass(frozen=True)
class MixedFit:
    """What was fitted.

    Attributes:
      effects: main effects, then interactions, then that of n.
      deviations: random part -> standard deviation; "residual" last.
      models, cells: pre-trained and fine-tuned models.
      persons: 0 where the scores belong to whole runs.
      df: degrees of freedom of the factors' intervals.
      notes: what a reader must know: parts that could not be fitted, warnings of the optimiser; may be empty.
    """

    effects: tuple[Effect, ...]
    deviations: Mapping[str, float]
    models: int
    cells: int
    persons: int
    df: int
    notes: tuple[str, ...]


def fit_effects(observations: Sequence[Observation], interactions: Sequence[Interaction] = ()) -> MixedFit:
    """Fit the model; a factor with one level only takes no part.

    Args:
      observations: at most one a run and person, each finite.
      interactions: pairs of factors.

    Raises:
      InputError: runs of one model with other levels, effects that these data sets cannot tell apart, or too few runs
        for any interval.
    """
    coding = code_effects(_levels_by_model(observations), interactions)
    models = [o.model for o in observations]
    index = {m: i for i, m in enumerate(coding.models)}
    counts = np.log2([o.n for o in observations])
    x = coding.columns[[index[m] for m in models]]
    with_n = bool(np.ptp(counts) > 0)
    if with_n:
        x = np.column_stack([x, counts - counts.mean()])
    y = np.array([o.score for o in observations], np.float64)
    cells = sorted({o.cell for o in observations})

    df, notes = len(coding.models) - coding.columns.shape[1], []
    parts = {"pre-trained model": models, "fine-tuned model": [o.cell for o in observations]}
    if df < 1:
        parts.pop("pre-trained model")
        df = len(cells) - x.shape[1]
        notes.append(
            f"{len(coding.models)} pre-trained models leave nothing to tell the chance between them from these "
            "effects: the intervals are of the runs from these very models, and too narrow for others"
        )
    if df < 1:
        raise InputError(
            f"{len(cells)} runs are too few to estimate {x.shape[1]} coefficients with an interval: "
            "add seeds or data sets, or leave out interactions."
        )
    persons = sorted({o.person for o in observations})
    if len(persons) > 1:
        parts["person"] = [o.person for o in observations]
    z = _indicators(parts, len(y))
    beta, theta, scale, found = _fit(y, x, z)
    notes += found
    covariance = _covariance(x, z, theta, scale)

    effects = [
        _effect(c.kind, c.name, c.contrast, np.append(c.weights, [0.0] * with_n), beta, covariance, df)
        for c in coding.contrasts
    ]
    if with_n:
        weights = np.eye(len(beta))[-1]
        df_n = max(1, len(cells) - (len(coding.models) if "pre-trained model" in z else coding.columns.shape[1]) - 1)
        effects.append(_effect("n", "labelled scans", "twice as many", weights, beta, covariance, df_n))
    deviations = {name: math.sqrt(t * scale) for name, t in zip(z, theta, strict=True)}
    return MixedFit(
        tuple(effects),
        deviations | {"residual": math.sqrt(scale)},
        len(coding.models),
        len(cells),
        len(persons) if persons != [""] else 0,
        df,
        tuple(notes),
    )


def _levels_by_model(observations: Sequence[Observation]) -> dict[str, Mapping[str, str]]:
    levels: dict[str, Mapping[str, str]] = {}
    for o in observations:
        if levels.setdefault(o.model, o.levels) != o.levels:
            raise InputError(f"Runs from the pre-trained model {o.model} have different levels: give each its own.")
    return levels


def _indicators(parts: Mapping[str, Sequence[str]], rows: int) -> dict[str, Doubles]:
    """(rows, levels) of each random part; without those that only rename the rows or an earlier part."""
    out: dict[str, Doubles] = {}
    earlier: list[NDArray[np.int64]] = []
    for name, values in parts.items():
        _, first, place = np.unique(np.array(values), return_index=True, return_inverse=True)
        which = first[place]  # the first row of the same level: equal arrays mean equal groups
        if len(first) == rows or any(np.array_equal(which, e) for e in earlier):
            continue
        earlier.append(which)
        out[name] = np.eye(len(first))[place]
    return out


def _fit(y: Doubles, x: Doubles, z: Mapping[str, Doubles]) -> tuple[Doubles, Doubles, float, list[str]]:
    """Coefficients, variances of the random parts over the residual's, the residual's variance, and warnings."""
    spread = float(y.std())
    if spread == 0:
        raise InputError("All scores are equal: there is nothing to explain.")
    if not z:
        beta, *_ = np.linalg.lstsq(x, y, rcond=None)
        return np.asarray(beta, np.float64), np.zeros(0), float(((y - x @ beta) ** 2).sum() / (len(y) - x.shape[1])), []
    spec = VCSpec(list(z), [[[f"{i}" for i in range(m.shape[1])]] for m in z.values()], [[m] for m in z.values()])
    # One thread: the matrices are small, threads wait for each other most of the time, and add up in no fixed order.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            # The optimisers' tolerances are for numbers near 1. Those that follow statsmodels' gradient of the
            # restricted likelihood stop short of its maximum (statsmodels 0.15); these two follow the value.
            model = MixedLM(y / spread, x, np.zeros(len(y)), exog_vc=spec)
            fit = model.fit(reml=True, method=["powell", "nm"], ftol=1e-8)
        except np.linalg.LinAlgError as e:
            raise InputError(f"The mixed model cannot be fitted ({e}): add seeds, persons or data sets.") from None
    scale = float(fit.scale) * spread**2
    theta = np.maximum(np.asarray(fit.vcomp, np.float64) / float(fit.scale), 0)
    notes = [] if fit.converged else ["the fit did not converge: take the intervals as rough"]
    for name, share in zip(z, fit.vcomp, strict=True):
        if share < SMALL:
            notes.append(f"the random part of the {name} is near 0, under {SMALL:.0%} of the scores' variance")
    for message in dict.fromkeys(" ".join(str(w.message).split()) for w in caught):
        if "boundary" not in message:  # of a variance near 0, which has just been said
            notes.append(f"the fit warned: {message}")
    return np.asarray(fit.fe_params, np.float64) * spread, theta, scale, notes


def _covariance(x: Doubles, z: Mapping[str, Doubles], theta: Doubles, scale: float) -> Doubles:
    """Of the coefficients, by generalised least squares: inverse of X' V^-1 X, with V^-1 by Woodbury's identity.

    It exists where a variance is 0 too, where the optimiser's own Hessian does not.
    """
    gram = x.T @ x
    kept = [m * math.sqrt(t) for m, t in zip(z.values(), theta, strict=True) if t > 0]
    if kept:
        w = np.column_stack(kept)
        across = w.T @ x
        gram = gram - across.T @ np.linalg.solve(np.eye(w.shape[1]) + w.T @ w, across)
    return np.asarray(scale * np.linalg.inv(gram))


def _effect(
    kind: str, name: str, contrast: str, weights: Doubles, beta: Doubles, covariance: Doubles, df: int
) -> Effect:
    difference = float(weights @ beta)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, df)) * math.sqrt(float(weights @ covariance @ weights))
    return Effect(kind, name, contrast, difference, difference - half, difference + half, df)
