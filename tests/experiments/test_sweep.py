"""The sweep as a command: its faults in a sentence, two devices at once, a failed cell in the exit code, its report."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import write_store
from tests.processes import python
from tlseg_jax.studies.results_table import read_results

STUDY = """
name = "small"
task = "target"
n = [2]
seeds = 2
network = "switch8x2"
steps = 2
pretrain_steps = 2

[recipe_values]
intensity_augmentation = false
affine_augmentation = false
elastic_augmentation = 0.0

[[methods]]
name = "FT"
pretask = "source"

[[methods]]
name = "E2E"
"""


def run(*arguments: str, devices: int = 1) -> subprocess.CompletedProcess[str]:
    several = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"} if devices > 1 else {}
    return python("-m", *arguments, **several)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--study=bran"], "no study named 'bran': choose from brain, chaos, day_one, factors, factors_maps, liver"),
        (["--study=brain", "--dry_run"], "give --plan"),
        (["--study=brain", "--parallel=pmap"], "a sweep trains a run on each device (--devices=N)"),
    ],
)
def test_faults_end_in_a_sentence(tmp_path: Path, given: list[str], says: str) -> None:
    done = run("experiments.sweep", f"--workdir={tmp_path / 'w'}", *given)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_two_devices_a_failed_cell_and_the_report(tmp_path: Path) -> None:
    for name in ("source", "target"):
        write_store(tmp_path / "store" / name, spec={"name": name, "flip_left_right": True})
    study = tmp_path / "small.toml"
    study.write_text(STUDY)
    taken = tmp_path / "w" / "sweep" / "small" / "cells" / "E2E-n2-seed1"
    taken.mkdir(parents=True)
    (taken / "settings.json").write_text(json.dumps({"job": {}}))
    common = ["experiments.sweep", f"--study={study}", f"--store={tmp_path / 'store'}", f"--workdir={tmp_path / 'w'}"]
    done = run(*common, "--devices=all", "--together=1", devices=2)
    assert done.returncode == 3 and "1 run(s) failed and the rest went on: E2E-n2-seed1" in done.stderr, done.stderr
    results = read_results(tmp_path / "w" / "sweep" / "small" / "results.csv")
    assert {r.cell for r in results} == {"source-seed0", "source-seed1", "FT-n2-seed0", "FT-n2-seed1", "E2E-n2-seed0"}
    (taken / "settings.json").unlink()
    plan = run(*common, "--plan")
    assert plan.returncode == 0 and "5 done, 1 to do" in plan.stdout
    again = run(*common)
    assert again.returncode == 0 and "6 of 6 runs done" in again.stdout, again.stderr
    report = run("experiments.report", f"--workdir={tmp_path / 'w'}", "--viewers=1")
    assert report.returncode == 0 and (tmp_path / "w" / "report" / "small" / "report.html").exists(), report.stderr
