"""The flags of training, of speed and of memory as settings; what is made of them is in tests/studies/test_jobs.py."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from tests.processes import python
from tlseg_jax.commands import place_flags, training_flags
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.settings import Training
from tlseg_jax.train.execution import Execution

NAMES = (
    "precision",
    "remat",
    "memory_budget",
    "cache",
    "steps_per_call",
    "profile",
    "dry_run",
    "compilation_cache",
    "parallel",
    "mesh",
)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with flagsaver.flagsaver():
        yield


def given(*arguments: str) -> None:
    flags.FLAGS(["command", *arguments])


ALL = ("--remat=block", "--memory_budget=11GB", "--cache=device", "--steps_per_call=8", "--profile=traces")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ((), Execution(parallel=None)),  # which a command chooses by what there is
        (ALL, Execution("block", 11 * 10**9, "device", 8, Path("traces"), parallel=None)),
        (("--lowering=planes",), Execution(parallel=None, lowering="planes")),
        (("--dry_run",), Execution(dry_run=True, parallel=None)),
        (("--memory_budget=8GiB", "--remat=none"), Execution("none", 8 * 2**30, parallel=None)),
        (("--parallel=mesh", "--mesh=data:2,space:4"), Execution(parallel="mesh", mesh="data:2,space:4")),
    ],
)
def test_what_is_given_is_the_execution(arguments: tuple[str, ...], asked: Execution) -> None:
    given(*arguments)
    assert training_flags.EXECUTION.settings() == asked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--memory_budget=much",), "memory_budget|much"),
        (("--profile=",), "--profile=: it names no folder"),
        (("--dry_run", "--profile=d"), "`dry_run` stops before the steps that `profile` would trace"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(arguments: tuple[str, ...], says: str) -> None:
    given(*arguments)
    with pytest.raises(InputError, match=says) as caught:
        training_flags.EXECUTION.settings()
    assert "\n" not in str(caught.value)


NONE = ("--steps_per_call=0", "--remat=some", "--cache=disk", "--keep=0", "--ema=2", "--layer_decay=-1", "--adabn=1.5")


@pytest.mark.parametrize("flag", [*NONE, "--steps=0", "--l2sp=-1", "--schedule=linear", "--validate_every=0"])
def test_values_that_do_not_exist_are_refused(flag: str) -> None:
    with pytest.raises(flags.IllegalFlagValueError, match=flag.split("=")[0].strip("-")):
        given(flag)


def test_none_given_is_the_usual_training() -> None:
    given()
    assert training_flags.training() == Training()


def test_flags_are_the_settings_fields() -> None:
    given("--seed=7", "--network=switch32", "--steps=3", "--sampling=balanced", "--precision=bfloat16")
    made = Training(2, 7, "switch32", precision="bfloat16", steps=3, sampling="balanced")
    assert training_flags.training(n=2) == made


RECIPE = {
    **{"l2sp": 0.01, "unfreezing": "staged", "randomisation": False, "epsilon_hat": True, "loss": "dice"},
    **{"accumulate": 1, "ema": 0.99, "layer_decay": 0.75, "mix_synthetic": 0.3, "synthetic": "maps"},
}


def test_the_recipe_s_values_are_those_that_were_given() -> None:
    given(*(f"--{name}={value}" for name, value in RECIPE.items()))
    assert training_flags.training().recipe_values == RECIPE


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


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = python("-m", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_every_training_command_lists_them(name: str) -> None:
    said = command(f"experiments.{name}", "--help").stdout
    for flag in NAMES:
        assert f"--{flag}:" in said or f"--[no]{flag}:" in said


@pytest.mark.parametrize("name", ["evaluate", "predict", "postprocess"])
def test_every_command_that_compiles_keeps_its_programs(name: str) -> None:
    said = command(f"experiments.{name}", "--help").stdout
    assert "--compilation_cache:" in said
    assert "--remat:" not in said


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.mark.slow
def test_a_dry_run_trains_nothing_and_leaves_no_run(tmp_path: Path) -> None:
    small = ("--network=switch8x2", "--cohort_train=2", "--cohort_test=1", "--steps=50", f"--workdir={tmp_path}")
    done = command("experiments.finetune", "--pretask=hdt_v", "--n=2", "--dry_run", *small)
    assert done.returncode == 0, done.stderr
    assert "hdt_v: no finished pre-trained model" in done.stdout
    assert "one would be trained first, for 200 steps" in done.stdout
    assert "nothing was written" in done.stdout
    assert "FLOPs" in done.stdout
    assert not (tmp_path / "finetune").exists() and not (tmp_path / "pretrain").exists()
    assert "hdt_v" not in "".join(tree(tmp_path))  # nor are the pre-task's data made
