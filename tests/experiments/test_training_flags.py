"""The flags of training as settings; what is made of them is in tests/studies/test_jobs.py."""

from collections.abc import Iterator

import pytest
from absl import flags
from absl.testing import flagsaver

from tlseg_jax.commands import place_flags, training_flags
from tlseg_jax.studies.settings import Training


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with flagsaver.flagsaver():
        yield


def given(*arguments: str) -> None:
    flags.FLAGS(["command", *arguments])


def test_none_given_is_the_usual_training() -> None:
    given()
    assert training_flags.training() == Training()


def test_flags_are_the_settings_fields() -> None:
    given("--seed=7", "--network=switch32", "--steps=3", "--sampling=balanced", "--precision=bfloat16")
    made = Training(2, 7, "switch32", precision="bfloat16", steps=3, sampling="balanced")
    assert training_flags.training(n=2) == made


def test_the_recipe_s_values_are_those_that_were_given() -> None:
    given("--l2sp=0.010", "--unfreezing=staged", "--norandomisation", "--epsilon_hat", "--loss=dice", "--accumulate=1")
    values = {"l2sp": 0.01, "unfreezing": "staged", "randomisation": False, "epsilon_hat": True, "loss": "dice"}
    assert training_flags.training().recipe_values == values | {"accumulate": 1}


def test_each_remedy_is_a_flag() -> None:
    given("--ema=0.99", "--layer_decay=0.75", "--unfreezing=warmup_all", "--mix_synthetic=0.3", "--synthetic=maps")
    assert training_flags.training().recipe_values == {
        "ema": 0.99,
        "layer_decay": 0.75,
        "unfreezing": "warmup_all",
        "mix_synthetic": 0.3,
        "synthetic": "maps",
    }


@pytest.mark.parametrize(
    "flag",
    ["--ema=2", "--layer_decay=-1", "--adabn=1.5", "--steps=0", "--l2sp=-1", "--schedule=linear", "--validate_every=0"],
)
def test_values_that_do_not_exist_are_refused(flag: str) -> None:
    with pytest.raises(flags.IllegalFlagValueError, match=flag.split("=")[0].strip("-")):
        given(flag)


def test_the_workplace_is_the_flags() -> None:
    given(
        "--workdir=w",
        "--cohort_train=2",
        "--cohort_test=1",
        "--workers=1",
        "--distances",
        "--tiles=paper",
        "--adabn=0.3",
    )
    place = place_flags.workplace()
    assert (str(place.workdir), place.store, place.cohort_train, place.cohort_test) == ("w", None, 2, 1)
    assert (place.workers, place.distances, place.tiles, place.adabn) == (1, True, "paper", 0.3)
