"""The flags of speed and memory as settings, in every training command, and dry runs that leave nothing behind."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from tests.processes import python
from tlseg_jax.commands import execution_flags
from tlseg_jax.runtime.errors import InputError
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


def test_none_given_is_the_plain_execution() -> None:
    given()
    assert execution_flags.execution() == Execution(parallel=None)  # which a command chooses by what there is


def test_all_given() -> None:
    given(
        "--remat=block",
        "--memory_budget=11GB",
        "--cache=device",
        "--steps_per_call=8",
        "--profile=traces",
        "--lowering=planes",
    )
    asked = Execution("block", 11 * 10**9, "device", 8, Path("traces"), parallel=None, lowering="planes")
    assert execution_flags.execution() == asked


def test_a_dry_run_is_asked_for() -> None:
    given("--dry_run")
    assert execution_flags.execution() == Execution(dry_run=True, parallel=None)


def test_a_policy_that_was_asked_for_is_told_from_the_usual_one() -> None:
    given("--memory_budget=8GiB", "--remat=none")
    assert execution_flags.execution() == Execution("none", 8 * 2**30, parallel=None)


def test_devices_are_asked_for() -> None:
    given("--parallel=mesh", "--mesh=data:2,space:4")
    assert execution_flags.execution() == Execution(parallel="mesh", mesh="data:2,space:4")


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
        execution_flags.execution()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flag", ["--steps_per_call=0", "--remat=some", "--cache=disk", "--keep=0"])
def test_values_that_do_not_exist_are_refused(flag: str) -> None:
    with pytest.raises(flags.IllegalFlagValueError, match=flag.split("=")[0].strip("-")):
        given(flag)


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
