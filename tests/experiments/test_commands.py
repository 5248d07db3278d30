"""The commands as a user calls them: tiny prepared data end to end; a built-in cohort and a real scan in a slow one."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import csv_rows, write_store
from tests.processes import python
from tlseg_jax.runtime.files import write_json

REPO = Path(__file__).resolve().parents[2]
OASIS = REPO.parent / "shared" / "data" / "brain_oasis"


def command(*args: str, fails: bool = False) -> str:
    done = python("-m", *args)
    assert "Traceback" not in done.stderr, done.stderr
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


FINETUNE = ("experiments.finetune", "--pretask=hdt_v", "--n=2", "--steps=2", "--pretrain_steps=2")
COHORT = ("--cohort_train=2", "--cohort_test=1")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("hdt_v", "hdt_c"):
        store = write_store(folder / "store" / name, 2, 1, {"name": name})
        write_json(store.folder / "manifest.json", store.manifest | {"synthetic": True})
    assert "no finished pre-trained model" in finetune(folder)
    return folder


def finetune(workdir: Path, *flags: str, fails: bool = False) -> str:
    return command(*FINETUNE, *flags, f"--workdir={workdir}", f"--store={workdir / 'store'}", fails=fails)


def run_folder(workdir: Path) -> Path:
    return workdir / "finetune" / "hdt_v-to-hdt_c-n2-seed0"


def test_run_folder_is_whole(workdir: Path) -> None:
    run = run_folder(workdir)
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["task"], summary["pretask"], summary["n"], summary["seed"]) == ("hdt_c", "hdt_v", 2, 0)
    assert summary["synthetic"] is True
    assert set(summary["test_sets"]) == {"hdt_c"}
    rows = csv_rows(run / "subjects.csv")
    for name, entry in summary["test_sets"].items():
        ious = [float(r["iou"]) for r in rows if r["test_set"] == name]
        assert len(ious) == entry["n"] == 1
        assert np.mean(ious) == pytest.approx(entry["iou_mean"], abs=1e-5)
    for figure in ("contours_hdt_c", "learning_curve"):
        assert (run / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").glob("events*"))
    settings = json.loads((run / "settings.json").read_text())
    assert settings["job"]["freeze"] == "none"
    assert len(settings["data"]["subjects"]) == 2


def test_second_call_reuses_everything(workdir: Path) -> None:
    run = run_folder(workdir)
    before = (run / "history.csv").read_text()
    out = finetune(workdir)
    assert "hdt_v: reusing the pre-trained model" in out
    assert (run / "history.csv").read_text() == before


@pytest.mark.slow
def test_a_start_of_other_settings_is_made_beside_and_nothing_passes_for_another(workdir: Path) -> None:
    """As if the order of the calls were the other one: each call's start is of its own settings."""
    run, first = run_folder(workdir), workdir / "pretrain" / "hdt_v-seed0"
    before = {p: p.read_bytes() for f in (run, first) for p in f.rglob("*.csv")}
    out = finetune(workdir, "--learning_rate=0.3", "--pretrain_steps=3")
    assert f"{first} holds a run of other settings (job.recipe.learning_rate, job.steps" in out
    (start,) = (p for p in first.parent.iterdir() if p.name.startswith(f"{first.name}-"))
    (made,) = (p for p in run.parent.iterdir() if p.name.startswith(f"{run.name}-"))
    kept = json.loads((made / "settings.json").read_text())["pretrained"]
    assert kept["run"] == str(start) and kept["step"] == 3
    assert {p: p.read_bytes() for p in before} == before
    again = finetune(workdir)
    assert f"hdt_v: reusing the pre-trained model {first}." in again and again.endswith(f"run: {run}\n")


def test_other_settings_in_the_same_folder_are_refused(workdir: Path) -> None:
    error = finetune(workdir, "--learning_rate=0.5", "--name=" + run_folder(workdir).name, fails=True)
    assert "learning_rate" in error
    assert error.count("\n") <= 3


def test_n_larger_than_the_training_set(workdir: Path) -> None:
    error = finetune(workdir, "--n=4", fails=True)
    assert "n=4" in error
    assert "between 1 and 2" in error


def test_evaluate_adds_a_test_set(workdir: Path) -> None:
    run = run_folder(workdir)
    out = command(
        "experiments.evaluate",
        f"--run={run}",
        "--dataset=hdt_c",
        f"--store={workdir / 'store'}",
        "--split=train",
        "--distances",
    )
    assert "were trained on" in out
    assert set(json.loads((run / "summary.json").read_text())["test_sets"]) == {"hdt_c", "hdt_c_train"}
    finetune(workdir)  # and calling the finished run again loses nothing
    assert set(json.loads((run / "summary.json").read_text())["test_sets"]) == {"hdt_c", "hdt_c_train"}


def test_trust_of_too_few_scans_is_told_after_the_passes(workdir: Path) -> None:
    run = run_folder(workdir)
    given = (f"--run={run}", "--dataset=hdt_c", f"--store={workdir / 'store'}", "--trust", "--passes=2")
    error = command("experiments.evaluate", *given, fails=True)
    assert "1 held-out scans of 1 persons are too few to calibrate trust on" in error
    assert not (run / "trust.json").exists()
    assert "without it" in command("experiments.evaluate", *given, "--adabn=0.3", fails=True)


def test_unknown_data_set_suggests_the_nearest(tmp_path: Path) -> None:
    error = command("experiments.finetune", "--pretask=htd_v", f"--workdir={tmp_path}", fails=True)
    assert "did you mean hdt_v?" in error


def test_a_store_without_the_data_set(tmp_path: Path) -> None:
    error = command(
        "experiments.finetune", "--pretask=none", f"--store={tmp_path}", f"--workdir={tmp_path}", fails=True
    )
    assert "tlseg prepare" in error


@pytest.mark.slow
def test_a_built_in_cohort_is_drawn_once_and_its_network_predicts_a_real_scan_in_its_own_space(tmp_path: Path) -> None:
    workdir = tmp_path / "runs"
    said = command(*FINETUNE, *COHORT, f"--workdir={workdir}")
    assert "nothing is registered" in said and "mean nothing for patients" in said
    assert "reusing the built-in cohort" in command(*FINETUNE, *COHORT, f"--workdir={workdir}")
    summary = json.loads((run_folder(workdir) / "summary.json").read_text())
    assert set(summary["test_sets"]) == {"hdt_c", "oas_c"}
    for name in summary["test_sets"]:
        assert (run_folder(workdir) / "figures" / f"contours_{name}.png").read_bytes().startswith(b"\x89PNG")
    scan = OASIS / "sub-1000_T1w.nii.gz"
    if not scan.exists():
        pytest.skip("no real scans here")
    out = tmp_path / "seg.nii.gz"
    said = command(
        "experiments.predict",
        f"--run={run_folder(workdir)}",
        f"--input={scan}",
        f"--output={out}",
        "--registration=auto",
    )
    assert "only seen synthetic scans" in said
    source, made = nib.load(scan), nib.load(out)
    assert made.shape == source.shape
    assert np.array_equal(made.affine, source.affine)
    assert set(np.unique(np.asarray(made.dataobj))) <= {0, 1}
    ml = np.asarray(made.dataobj).sum() * abs(np.linalg.det(source.affine[:3, :3])) / 1000
    assert f"{ml:.2f} ml" in said
    out.write_bytes(before := out.read_bytes() + b"corrected by hand")
    error = command(
        "experiments.predict",
        f"--run={run_folder(workdir)}",
        f"--input={scan}",
        f"--output={out}",
        "--registration=auto",
        fails=True,
    )
    assert f"{out} is there and was not written by this command, or was changed since" in error
    assert out.read_bytes() == before
