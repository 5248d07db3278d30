"""The commands of the liver study as a user calls them: a tiny built-in cohort end to end."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import csv_rows
from tests.processes import python

REPO = Path(__file__).resolve().parents[2]
RUN = "lits-to-mri_artery-all-paper-seed0"
# Two steps of the usual batch are one epoch of the two training volumes.
SMALL = ("--cohort_train=2", "--cohort_test=1", "--steps=2", "--pretrain_steps=2")
FINETUNE = ("experiments.finetune", "--pretask=lits", "--task=mri_artery", "--recipe=paper", *SMALL)
SWEEP = ("experiments.sweep", "--study=liver", "--seeds=1", "--n=all", *SMALL)


def command(*args: str, fails: bool = False) -> str:
    done = python("-m", *args)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == (2 if fails else 0), done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("liver") / "runs"
    said = command(*FINETUNE, f"--workdir={folder}")
    assert "lits: no finished pre-trained model" in said
    assert "synthetic abdomens of 96x96 pixels (CT); scores on them mean nothing for patients" in said
    assert "head by output name: tumour kept; liver dropped" in said
    frozen = next(line for line in said[said.index("start: /") :].splitlines() if line.startswith("encoder_0"))
    assert frozen.split()[1] == "0"  # model C is usual: the first two levels do not learn
    return folder


@pytest.mark.slow
def test_run_folders_are_whole(workdir: Path) -> None:
    run, before = workdir / "finetune" / RUN, workdir / "pretrain" / "lits-paper-seed0"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["task"], summary["pretask"], summary["n"], summary["seed"]) == ("mri_artery", "lits", 2, 0)
    assert (summary["network"], summary["freeze"], summary["synthetic"]) == ("unet2d", "first_two", True)
    assert set(summary["test_sets"]) == {"mri_artery_tumour"}
    assert summary["test_sets"]["mri_artery_tumour"]["seen_in_training"] == []
    sets = json.loads((before / "summary.json").read_text())["test_sets"]
    assert set(sets) == {"lits_liver", "lits_tumour"}
    assert [r["test_set"] for r in csv_rows(before / "subjects.csv")] == ["lits_liver", "lits_tumour"]
    (epoch,) = csv_rows(run / "epochs.csv")
    assert (epoch["epoch"], epoch["step"]) == ("1", "2")
    assert float(epoch["test_loss"]) > 0 and float(epoch["seconds"]) > 0
    losses = [r["loss"] for r in csv_rows(run / "history.csv") if r["loss"]]
    assert float(epoch["train_loss"]) == pytest.approx(np.mean([float(v) for v in losses]), abs=1e-5)
    settings = [json.loads((f / "settings.json").read_text()) for f in (before, run)]
    recipes = [s["job"]["recipe"] for s in settings]
    assert [(r["learning_rate"], r["batch_size"]) for r in recipes] == [(1e-4, 10), (5e-4, 18)]
    for name in ("examples_mri_artery_tumour", "learning_curve"):
        assert png(run / "figures" / f"{name}.png")


@pytest.mark.slow
def test_second_call_reuses_everything(workdir: Path) -> None:
    run = workdir / "finetune" / RUN
    before = (run / "history.csv").read_text()
    said = command(*FINETUNE, f"--workdir={workdir}")
    assert "lits: reusing the pre-trained model" in said
    assert "mri_artery: reusing the built-in cohort" in said
    assert (run / "history.csv").read_text() == before


@pytest.mark.slow
def test_predict_writes_a_label_map_in_the_scan_s_space(workdir: Path, tmp_path: Path) -> None:
    scan, out = workdir / "cohort" / "mri_artery" / "case-03" / "artery.nii.gz", tmp_path / "seg.nii.gz"
    given = ("experiments.predict", f"--run={workdir / 'finetune' / RUN}", f"--input={scan}", f"--output={out}")
    said = command(*given)
    assert "only seen synthetic scans" in said
    source, made = nib.load(scan), nib.load(out)
    assert made.shape == source.shape
    assert np.array_equal(made.affine, source.affine)
    found = np.asarray(made.dataobj)
    assert set(np.unique(found)) <= {0, 1}
    ml = found.sum() * abs(np.linalg.det(source.affine[:3, :3])) / 1000
    assert f"tumour {ml:.2f} ml" in said
    # It is what the run was scored with: the same mask, less what the prepared slices cannot hold.
    (row,) = csv_rows(workdir / "finetune" / RUN / "subjects.csv")
    assert ml == pytest.approx(float(row["predicted_ml"]), rel=0.02)
    before = out.stat().st_mtime_ns
    assert "there already, of the same scan by the same model" in command(*given)
    assert out.stat().st_mtime_ns == before


@pytest.mark.slow
def test_evaluate_adds_test_sets(workdir: Path) -> None:
    run = workdir / "pretrain" / "lits-paper-seed0"
    evaluate = ("experiments.evaluate", f"--run={run}", "--dataset=mri_artery", f"--store={workdir / 'store'}")
    said = command(*evaluate)
    assert "mri_artery_tumour" in said and "mean nothing for patients" in said
    assert "were trained on" not in said  # CT and MRI show different persons
    sets = json.loads((run / "summary.json").read_text())["test_sets"]
    assert set(sets) == {"lits_liver", "lits_tumour", "mri_artery_tumour"}


@pytest.mark.slow
def test_a_sweep_of_the_study_and_its_page(workdir: Path) -> None:
    said = command(*SWEEP, f"--workdir={workdir}")
    assert "4 of 4 runs done" in said and "mri_artery: reusing the built-in cohort" in said
    sweep = workdir / "sweep" / "liver"
    rows = {(r["method"], r["role"], r["test_set"]) for r in csv_rows(sweep / "results.csv")}
    assert {("B", "pretask", "lits_tumour"), ("C", "pretask", "lits_tumour")} < rows  # they may forget the CT
    assert "4 runs are done already" in command(*SWEEP, f"--workdir={workdir}")
    command("experiments.report", f"--workdir={workdir}")
    folder = workdir / "report" / "liver"
    page = (folder / "report.html").read_text()
    for title in (
        "Did pre-training help on the target?",
        "Does pre-training slow convergence?",
        "Lesions found and missed",
        "Does freezing keep what was learnt?",
        "Examples (Figs. 11 to 13)",
        "Losses of each model (Figs. 7 to 9)",
        "Minutes an epoch (section 3.2.4)",
        "Paired tests between methods",
    ):
        assert f"{title}</h2>" in page
    for figure in ("losses_nall", "losses_1", "losses_2", "losses_3", "examples"):
        assert png(folder / "figures" / f"{figure}.png")
    cells = sorted((sweep / "cells").iterdir())
    jobs = [json.loads((f / "settings.json").read_text())["job"] for f in cells]
    assert len(jobs) == 3
    assert all(j | {"freeze": ""} == jobs[0] | {"freeze": ""} for j in jobs)


def test_a_section_that_does_not_exist_is_named_before_anything_runs(tmp_path: Path) -> None:
    mine = (REPO / "experiments" / "studies" / "liver.toml").read_text().replace('"forgetting"', '"forgeting"')
    (tmp_path / "mine.toml").write_text(mine)
    given = (f"--study={tmp_path / 'mine.toml'}", f"--workdir={tmp_path}")
    error = command("experiments.sweep", *given, fails=True)
    assert "There is no section of a report named 'forgeting'" in error and not (tmp_path / "cohort").exists()


MRI = ("--pretask=lits", "--task=mri_artery")
REFUSED = {
    "volumes into slices": (("--pretask=hdt_v", "--task=mri_artery"), "hdt_v is a data set of volumes and mri_artery"),
    "slices into volumes": (("--pretask=lits", "--task=hdt_c"), "lits is a data set of slices and hdt_c one of vol"),
    "no such loss": ((*MRI, "--loss=dice_typo"), "--loss=dice_typo is no loss: choose from cross_entropy"),
    "even channels": ((*MRI, "--slice_channels=2"), "--slice_channels=2 has no middle slice"),
    "epochs of volumes": (("--pretask=none", "--task=hdt_c", "--epochs=2"), "--epochs does not go with volumes"),
    "no such flag": ((*MRI, "--losss=dice"), "Unknown command line flag 'losss'. Did you mean: loss ?"),
    "no pre-task": (("--task=mri_artery",), "--pretask is missing"),
    "a 3D network": ((*MRI, "--network=switch32"), "The network switch32 is 3D and"),
    "no such task": (("--pretask=lits", "--task=mri_atery"), "did you mean mri_artery?"),
}
"""Name -> flags of `finetune`, and what the sentence says."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_together_is_one_sentence(name: str, tmp_path: Path) -> None:
    arguments, sentence = REFUSED[name]
    error = command("experiments.finetune", *arguments, f"--workdir={tmp_path}", fails=True)
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sentence in error
    assert not list(tmp_path.iterdir())  # nothing was made before it was refused
