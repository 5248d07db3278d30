"""Sections of the liver study from run folders with known losses and scores."""

import shutil
from pathlib import Path

import pytest

from tests.report.sweep_results import LIVER, make_rows, study_dict, write_rows
from tests.report.test_compare_report import losses, volumes
from tests.report.test_compare_runs import SOURCE, write_run
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.slice_sections import slice_sections
from tlseg_jax.report.study_info import StudyInfo, read_study
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies.results_table import Results, read_results

TARGET = "mri_artery_tumour"


def sweep(folder: Path, seeds: int = 3, folds: int = 0) -> tuple[Results, StudyInfo, Path]:
    """Runs in which model A is fastest and C keeps most of the 0.6 that the pre-trained model has on the source."""
    rows = make_rows(LIVER, (2, 4), seeds, 4, study="liver", task=TARGET, unseen=(), folds=folds)
    rows = [r for r in rows if r["role"] != "pretask"]
    own = {"method": "", "baseline": "", "freeze": "", "role": "pretask", "pretask": "lits", "test_set": SOURCE}
    for name, dice in volumes(0.6, 8).items():
        iou = dice / (2 - dice)
        rows.append(
            rows[0] | own
            | {"subject": name, "person": name, "iou": f"{iou:.6f}", "dice": f"{dice:.6f}", "cell": "pretrain_lits"}
        )  # fmt: skip
    cells = {(r["method"], int(r["n"]), int(r["seed"])): r["cell"] for r in rows if r["method"]}
    kept = {"A": 0.05, "B": 0.2, "C": 0.55}
    for (model, n, seed), cell in cells.items():
        here = {r["subject"]: float(r["dice"]) for r in rows if r["cell"] == cell}
        write_run(
            folder / "cells" / cell, model=model, seed=seed, n=n, losses=losses(model, seed),
            epochs=[(300, 60.0 + seed, 0.5), (600, 30.0, 0.1)],
            dice={TARGET: here, SOURCE: volumes(kept[model] + 0.01 * seed, 8)},
        )  # fmt: skip
    write_json(
        folder / "study.json",
        study_dict(LIVER, (2, 4), seeds, study="liver", task="mri_artery", unseen=(), folds=folds, kind="slices"),
    )
    return read_results(write_rows(folder / "results.csv", rows)), read_study(folder / "study.json"), folder


def words(section: Section) -> str:
    return " ".join(section.paragraphs)


@pytest.mark.parametrize("folds", [0, 3])
def test_the_four_sections(tmp_path: Path, folds: int) -> None:
    results, study, folder = sweep(tmp_path, folds=folds)
    curves, minutes, speed, forgetting = slice_sections(results, study, folder, tmp_path / "report")
    assert [f.png.stem for f in curves.figures] == ["curves_n4", "curves_n2", "model_A", "model_B", "model_C"]
    assert all(f.png.is_file() for f in curves.figures) and curves.paragraphs == ()
    (times,) = minutes.tables
    assert times.columns[:3] == ("model", "n", "seeds")
    first = dict(zip(times.columns, times.rows[0], strict=True))
    assert first["model"] == "A" and first["n"] == 2 and first["epoch 1"] == pytest.approx(61 / 60, rel=1e-3)
    assert len(speed.tables[0].rows) == 3 * 2 * 3
    assert "n = 2: " in words(speed) and "converged more slowly than model A with every seed" in words(speed)
    assert "mean Dice on lits_tumour was 0.635 (8 volumes)" in words(forgetting)
    table = forgetting.tables[0]
    rows = [dict(zip(table.columns, r, strict=True)) for r in table.rows]
    c = next(r for r in rows if (r["model"], r["n"]) == ("C", 4))
    assert c["before"] == pytest.approx(0.635) and c["after"] == pytest.approx(0.55 + 0.01 + 0.035)
    assert "Model C's Dice on lits_tumour was higher than model B's" in words(forgetting)


def test_runs_without_their_partner_and_runs_that_are_gone_are_left_out_and_counted(tmp_path: Path) -> None:
    results, study, folder = sweep(tmp_path)
    gone = next(r.cell for r in results if (r.method, r.n, r.seed) == ("B", 2, 1))
    shutil.rmtree(folder / "cells" / gone)
    curves, minutes, _, _ = slice_sections(results, study, folder, tmp_path / "report")
    assert "1 of 18 runs cannot be read" in words(curves) and "2 run(s) are left out here" in words(curves)
    seeds = {(r[0], r[1]): r[2] for r in minutes.tables[0].rows}
    assert seeds["A", 2] == 2 and seeds["A", 4] == 3


def test_other_methods_have_no_such_sections(tmp_path: Path) -> None:
    rows = make_rows(n=(2,), seeds=1, persons=2)
    results = read_results(write_rows(tmp_path / "results.csv", rows))
    write_json(tmp_path / "study.json", study_dict())
    assert slice_sections(results, read_study(tmp_path / "study.json"), tmp_path, tmp_path / "report") == ()
