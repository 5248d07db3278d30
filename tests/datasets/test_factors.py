"""Pre-training data sets by factor: names, specs and phantoms agree, and the designs are what they say."""

import itertools

import numpy as np
import pytest

from tlseg_jax.datasets.factors import (
    EXTRA_POINTS,
    FACTORS,
    HIGH,
    LOW,
    MAL_C,
    POPULATION,
    TWO_LEVEL,
    Levels,
    design,
    factor_spec,
    parse_name,
    signs,
)
from tlseg_jax.datasets.fields import check_folder_name
from tlseg_jax.datasets.lookup import get_spec, spec_from_dict
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.phantoms.phantom import PhantomSettings, settings_for
from tlseg_jax.runtime.errors import InputError

EVERY = design("every")


def test_a_name_says_all_levels_and_is_a_folder_s() -> None:
    assert len(EVERY) == len({x.name.lower() for x in EVERY}) == 3 * 3 * 2 * 2 * 3 * 2
    for levels in EVERY:
        check_folder_name(levels.name, "here")
        assert parse_name(levels.name) == levels
        spec = get_spec(levels.name)
        assert spec == factor_spec(levels)
        assert spec_from_dict(spec.to_dict(), "here") == spec  # as a store's manifest keeps it
    assert MAL_C.name == "f_caudate_AD_native_kept_registry_automatic"


def test_the_phantom_has_the_levels_of_the_name() -> None:
    for levels in EVERY:
        settings = settings_for(factor_spec(levels))
        assert settings == PhantomSettings(
            POPULATION,
            levels.structure,
            levels.disease,
            levels.space,
            levels.skull,
            levels.scanner,
            levels.labels,  # type: ignore[arg-type]
        )
    others = {settings_for(spec).population for spec in PAPERS.values() if spec.kind == "volumes"}
    assert POPULATION not in others  # so that no person of a test set is in a pre-training data set


@pytest.mark.parametrize(
    ("levels", "paper"),
    [
        (Levels(), "hdt_c"),
        (MAL_C, "mal_c"),
        (Levels("lateral ventricle"), "hdt_v"),
        (Levels("whole brain", space="native"), "hdt_wb"),
    ],
)
def test_volume_and_patch_are_the_paper_s(levels: Levels, paper: str) -> None:
    ours, theirs = factor_spec(levels).to_dict(), PAPERS[paper].to_dict()
    own = {"name", "train_count", "test_count", "split_group"}
    assert {k: v for k, v in ours.items() if k not in own} == {k: v for k, v in theirs.items() if k not in own}


def test_specs_follow_space_and_skull() -> None:
    for levels in EVERY:
        spec = factor_spec(levels)
        assert spec.volumes.space == levels.space and spec.volumes.skull_strip == (levels.skull == "stripped")
        assert (spec.volumes.dimensions == PAPERS["hdt_c"].volumes.dimensions) == (levels.space == "MNI305")
        assert spec.volumes.random_patch == spec.volumes.random_rotations == (levels.structure == "whole brain")
        assert all(p <= d and p % 8 == 0 for p, d in zip(spec.volumes.patch_size, spec.volumes.dimensions, strict=True))


def columns(name: str) -> dict[tuple[str, ...], np.ndarray]:
    """Every product of distinct factors' columns, over the runs."""
    rows = signs(name)
    return {
        word: np.prod([[row[f] for f in word] for row in rows], axis=1)
        for size in range(1, len(FACTORS) + 1)
        for word in itertools.combinations(FACTORS, size)
    }


@pytest.mark.parametrize(("name", "runs", "resolution"), [("full", 64, 0), ("half", 32, 6), ("quarter", 16, 4)])
def test_designs_are_balanced_orthogonal_and_of_the_resolution_stated(name: str, runs: int, resolution: int) -> None:
    of = columns(name)
    assert len(set(design(name))) == len(signs(name)) == runs
    for factor in FACTORS:
        levels = [x.to_dict()[factor] for x in design(name)]
        assert levels.count(LOW[factor]) == levels.count(HIGH[factor]) == runs // 2
    # The resolution is the length of the shortest product of columns that never changes sign.
    constant = [len(word) for word, column in of.items() if abs(column.sum()) == runs]
    assert min(constant, default=0) == resolution
    mains, pairs = ([w for w in of if len(w) == size] for size in (1, 2))
    for a, b in itertools.combinations([*mains, *(pairs if resolution != 4 else [])], 2):
        assert of[a] @ of[b] == 0
    for a, b in itertools.product(mains, pairs):
        assert of[a] @ of[b] == 0


def test_the_quarter_confounds_pairs_of_interactions_only_with_one_another() -> None:
    of = columns("quarter")
    sums = [abs(of[a] @ of[b]) for a, b in itertools.combinations([w for w in of if len(w) == 2], 2)]
    assert set(sums) == {0, 16}


@pytest.mark.parametrize("name", list(TWO_LEVEL))
def test_designs_hold_the_target_s_levels_and_mal_c_s(name: str) -> None:
    assert Levels() in design(name) and MAL_C in design(name)
    twin = EXTRA_POINTS["mal_c_mni305"]
    assert {f for f in FACTORS if twin.to_dict()[f] != MAL_C.to_dict()[f]} == {"space"}
    both = design(name, ("mal_c", "mal_c_mni305"))
    runs = len(design(name))
    assert len(both) == runs + (name != "full") and both[:runs] == design(name)
    assert design("points") == tuple(EXTRA_POINTS.values())


def test_faults_are_named() -> None:
    with pytest.raises(InputError, match="'space' has no level 'natve': choose from MNI305, native"):
        get_spec("f_caudate_AD_natve_kept_registry_automatic")
    with pytest.raises(InputError, match="no data set named 'f_x'"):
        get_spec("f_x")
    with pytest.raises(InputError, match="as in f_caudate_AD_native"):
        parse_name("hdt_c")
    with pytest.raises(InputError, match="no design named 'third': choose from full, half, quarter"):
        design("third")
    with pytest.raises(InputError, match="no point of the factors named 'x'"):
        design("half", ("x",))
    with pytest.raises(InputError, match="no two-level design named 'every'"):
        signs("every")
