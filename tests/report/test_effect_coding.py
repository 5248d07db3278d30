"""Contrasts against plain means, and which interactions a design tells apart against the design's algebra."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tlseg_jax.datasets.factors import FACTORS, Levels, design
from tlseg_jax.report.stats.effect_coding import code_effects, separable_interactions
from tlseg_jax.runtime.errors import InputError

PAIRS = set(itertools.combinations(FACTORS, 2))


def changed(data_set: Levels) -> set[str]:
    """The factors at another level than the target's."""
    return {f for f in FACTORS if data_set.to_dict()[f] != Levels().to_dict()[f]}


def levels_of(data_sets: Sequence[Levels]) -> dict[str, Mapping[str, str]]:
    return {x.name: x.to_dict() for x in data_sets}


def test_contrasts_are_differences_of_plain_means() -> None:
    several = itertools.product(("HD", "AD", "healthy"), ("MNI305", "native"))
    data_sets = [Levels(disease=disease, space=space) for disease, space in several]
    coding = code_effects(levels_of(data_sets), [("disease", "space")])
    scores = dict(zip(sorted(x.name for x in data_sets), np.random.default_rng(0).normal(size=6), strict=True))
    beta = np.linalg.solve(coding.columns, [scores[m] for m in coding.models])
    cell = {(x.disease, x.space): scores[x.name] for x in data_sets}

    def mean(disease: str = "", space: str = "") -> float:
        return float(np.mean([v for (d, s), v in cell.items() if disease in ("", d) and space in ("", s)]))

    wanted = {
        "AD - HD": mean("AD") - mean("HD"),
        "healthy - HD": mean("healthy") - mean("HD"),
        "native - MNI305": mean(space="native") - mean(space="MNI305"),
    }
    for d in ("AD", "healthy"):
        wanted[f"({d} - HD) x (native - MNI305)"] = (
            cell[d, "native"] - cell["HD", "native"] - cell[d, "MNI305"] + cell["HD", "MNI305"]
        )
    assert {c.contrast: pytest.approx(c.weights @ beta) for c in coding.contrasts} == wanted
    assert beta[0] == pytest.approx(mean())


@pytest.mark.parametrize("name", ["full", "half"])
def test_from_resolution_five_on_all_interactions_stand_alone(name: str) -> None:
    found = separable_interactions(levels_of(design(name)))
    assert set(found.kept) == PAIRS and not any(found.aliases.values()) and not found.lost


@pytest.mark.parametrize("extra", [(), ("mal_c", "mal_c_mni305")])
def test_at_resolution_four_interactions_come_in_sets(extra: tuple[str, ...]) -> None:
    """A point added to the fraction does not make confounded interactions known."""
    data_sets = design("quarter", extra)
    found = separable_interactions(levels_of(data_sets))
    sets = [{k, *others} for k, others in found.aliases.items()]
    assert sorted(map(len, sets)) == [2, 2, 2, 2, 2, 2, 3] and set.union(*sets) == PAIRS and not found.lost
    # Members of a set have the same sign product up to its sign, over the fraction.
    fraction = design("quarter")
    for members in sets:
        signs = [[(-1) ** len({a, b} & changed(x)) for x in fraction] for a, b in members]
        assert all(abs(np.dot(signs[0], other)) == len(fraction) for other in signs)


def test_interactions_that_cannot_be_known_are_lost() -> None:
    # Only three of four combinations: the interaction is what the main effects say of the fourth.
    three = [Levels(), Levels(disease="AD"), Levels(space="native")]
    assert separable_interactions(levels_of(three)).lost == (("disease", "space"),)


def test_factors_that_move_together_are_refused() -> None:
    with pytest.raises(InputError, match="2 pre-trained models cannot tell apart the effects of disease, space"):
        code_effects(levels_of([Levels(), Levels(disease="AD", space="native")]))
