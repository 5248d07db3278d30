"""Factors as columns of a regression: sum coding, contrasts between levels, and which effects a design tells apart."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.factors import FACTORS
from tlseg_jax.runtime.errors import InputError

Doubles = NDArray[np.float64]
Interaction = tuple[str, str]
FactorLevels = Mapping[str, Mapping[str, str]]
"""Model -> factor -> level."""

APART = 0.5
"""Least share of a term's columns, in length, that no other term explains, for it to count as told apart. It is 0
where a regular fraction confounds two terms, and little more where a single point was added to such a fraction."""


@dataclasses.dataclass(frozen=True, eq=False)
class FactorContrast:
    """A difference between levels as weights (columns,) on the columns; for the others see `mixed_model.Effect`."""

    kind: str
    name: str
    contrast: str
    weights: Doubles


@dataclasses.dataclass(frozen=True, eq=False)
class Coding:
    """A design as a regression's columns.

    Attributes:
      models: of the rows.
      columns: (models, columns) an intercept, then each factor, then each interaction.
      contrasts: every level against its factor's first, main effects before interactions.
    """

    models: tuple[str, ...]
    columns: Doubles
    contrasts: tuple[FactorContrast, ...]


@dataclasses.dataclass(frozen=True)
class Separable:
    """Which two-way interactions a set of models tells apart.

    Attributes:
      kept: one of each set that cannot be told apart, or alone.
      aliases: each of `kept` -> the others that its effect may as well be.
      lost: interactions that are confounded with main effects, or for which combinations are missing.
    """

    kept: tuple[Interaction, ...]
    aliases: Mapping[Interaction, tuple[Interaction, ...]]
    lost: tuple[Interaction, ...]


def name_of(interaction: Interaction) -> str:
    """As it is written in tables."""
    return " x ".join(interaction)


def varied(levels: FactorLevels) -> dict[str, tuple[str, ...]]:
    """Factor -> its levels among the models, in the order of `FACTORS`; factors with one level are left out."""
    out = {}
    for factor, all_levels in FACTORS.items():
        there = {of[factor] for of in levels.values()}
        if len(there) > 1:
            out[factor] = tuple(level for level in all_levels if level in there)
    return out


def code_effects(levels: FactorLevels, interactions: Sequence[Interaction] = ()) -> Coding:
    """Columns and contrasts of all factors that vary, and of the interactions of such that are asked for.

    A factor's columns add up to 0 over its levels, so that a main effect is an average over the others.

    Raises:
      InputError: no factor varies, or there are effects that the models cannot tell apart.
    """
    factors = varied(levels)
    if not factors:
        raise InputError("No factor takes two levels: there is no effect to estimate.")
    models = tuple(sorted(levels))
    blocks = {f: _sum_coded([levels[m][f] for m in models], of) for f, of in factors.items()}
    terms: list[tuple[str, ...]] = [*((f,) for f in factors), *interactions]
    columns, starts = [np.ones((len(models), 1))], []
    for term in terms:
        starts.append(sum(c.shape[1] for c in columns))
        columns.append(_product([blocks[f] for f in term]))
    x = np.concatenate(columns, 1)
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise InputError(
            f"{len(models)} pre-trained models cannot tell apart the effects of {', '.join(factors)}"
            f"{' and ' + str(len(interactions)) + ' interactions' if interactions else ''}: "
            "add data sets, or leave out interactions."
        )
    contrasts = []
    for term, start in zip(terms, starts, strict=True):
        for chosen in itertools.product(*(range(1, len(factors[f])) for f in term)):
            weights = np.zeros(x.shape[1])
            part = np.ones(1)
            for f, level in zip(term, chosen, strict=True):
                rows = _sum_coded([factors[f][level], factors[f][0]], factors[f])
                part = np.multiply.outer(part, rows[0] - rows[1]).ravel()
            weights[start : start + part.size] = part
            said = [f"{factors[f][level]} - {factors[f][0]}" for f, level in zip(term, chosen, strict=True)]
            kind = "main" if len(term) == 1 else "interaction"
            contrasts.append(
                FactorContrast(
                    kind, " x ".join(term), said[0] if len(said) == 1 else f"({said[0]}) x ({said[1]})", weights
                )
            )
    return Coding(models, x, tuple(contrasts))


def separable_interactions(levels: FactorLevels) -> Separable:
    """The two-way interactions that can be estimated beside all main effects, and what they are confounded with."""
    factors = varied(levels)
    models = sorted(levels)
    blocks = {f: _sum_coded([levels[m][f] for m in models], of) for f, of in factors.items()}
    base = np.concatenate([np.ones((len(models), 1)), *blocks.values()], 1)
    kept: list[Interaction] = []
    aliases: dict[Interaction, tuple[Interaction, ...]] = {}
    lost: list[Interaction] = []
    for pair in itertools.combinations(factors, 2):
        block = _product([blocks[f] for f in pair])
        if _share_left(block, base) < APART:
            lost.append(pair)
            continue
        same = [k for k in kept if _share_left(block, _product([blocks[f] for f in k])) < APART]
        if same:
            aliases[same[0]] = (*aliases[same[0]], pair)
            continue
        all_others = [base, *(_product([blocks[f] for f in k]) for k in kept)]
        if _share_left(block, np.concatenate(all_others, 1)) < APART:
            lost.append(pair)
            continue
        kept.append(pair)
        aliases[pair] = ()
    return Separable(tuple(kept), aliases, tuple(lost))


def _sum_coded(values: Sequence[str], levels: Sequence[str]) -> Doubles:
    """(values, levels - 1): 1 for a level of its own, -1 throughout for the first."""
    place = np.array([levels.index(v) for v in values])
    return np.concatenate([-np.ones((1, len(levels) - 1)), np.eye(len(levels) - 1)])[place]


def _product(blocks: Sequence[Doubles]) -> Doubles:
    """(rows, product of columns): every column of one times every column of the other."""
    out = np.ones((len(blocks[0]), 1))
    for block in blocks:
        out = (out[:, :, None] * block[:, None, :]).reshape(len(block), -1)
    return out


def _share_left(block: Doubles, others: Doubles) -> float:
    """How much of the block's weakest direction is left once `others` have explained what they can, 0 to 1."""
    middle = np.concatenate([np.ones((len(block), 1)), others], 1)
    own = np.linalg.svd(block - block.mean(0), compute_uv=False)
    left = block - middle @ np.linalg.lstsq(middle, block, rcond=None)[0]
    if len(block) < block.shape[1] or own[-1] < 1e-9:
        return 0.0
    return float(np.linalg.svd(left, compute_uv=False)[-1] / own[-1])
