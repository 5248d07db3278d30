"""Sections on the training and on what was forgotten, from run folders and scores that are known."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.report.sweep_results import LIVER, make_rows, study_dict, write_rows
from tests.report.test_run_curves import write_run
from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.registry import SECTIONS
from tlseg_jax.report.study_info import StudyInfo, read_study
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies.results_table import Results, read_results

TARGET, SOURCE = "mri_artery_tumour", "lits_tumour"

RATE = {"A": 20, "B": 40, "C": 80}
"""Steps in which the loss falls by e: A is fastest, as the report found."""

KEPT = {"B": 0.2, "C": 0.55}


def losses(model: str, seed: int) -> list[float]:
    return [0.01 + 0.7 * float(np.exp(-i / (RATE[model] + seed))) for i in range(600)]


def volumes(base: float, count: int, more: float) -> dict[str, float]:
    return {f"volume-{i}": round(base + more * i, 6) for i in range(count)}


def sweep(
    folder: Path, seeds: int = 3, folds: int = 0, count: int = 8, start: float = 0.6, kept: Mapping[str, float] = KEPT
) -> tuple[Results, StudyInfo]:
    """Models A, B and C; on `count` volumes of the pre-task B and C have 0.01 more Dice a seed and a volume."""
    rows = make_rows(LIVER, (2, 4), seeds, 4, study="liver", task=TARGET, unseen=(), folds=folds)
    rows = [r for r in rows if r["role"] != "pretask"]
    cells = {(r["method"], int(r["n"]), int(r["seed"])): r for r in rows}

    def score(like: Mapping[str, str], scores: Mapping[str, float], **own: str) -> None:
        for name, dice in scores.items():
            numbers = {"iou": f"{dice / (2 - dice):.6f}", "dice": f"{dice:.6f}"}
            where = {"role": "pretask", "test_set": SOURCE, "subject": name, "person": name}
            rows.append(dict(like) | numbers | where | own)

    for seed in range(seeds):
        like = cells["B", 2, seed]
        score(like, volumes(start, count, 0.01), method="", freeze="", cell=f"lits-seed{seed}")
    for (model, n, seed), row in cells.items():
        write_run(
            folder / "cells" / row["cell"],
            losses=losses(model, seed),
            epochs=[(300, 60.0 + seed, 0.5), (600, 30.0, 0.1)],
            detection={TARGET: {"found": 2 + seed, "missed": 1, "false": 3}},
        )
        if model in kept:
            score(row, volumes(kept[model] + 0.01 * seed, count, 0.012 if model == "C" else 0.01), n=str(n))
    study = study_dict(LIVER, (2, 4), seeds, study="liver", task="mri_artery", unseen=(), folds=folds, kind="slices")
    write_json(folder / "study.json", study)
    info = dataclasses.replace(read_study(folder / "study.json"), figures=folder / "report")
    return read_results(write_rows(folder / "results.csv", rows)), info


def section(name: str, results: Results, study: StudyInfo) -> Section:
    found = SECTIONS[name](results, study)
    assert found is not None and all(f.png.is_file() for f in found.figures)
    assert all(len(row) == len(t.columns) for t in found.tables for row in t.rows)
    return found


def words(found: Section) -> str:
    return " ".join(found.paragraphs)


def rows_of(table: ReportTable) -> list[dict[str, object]]:
    return [dict(zip(table.columns, r, strict=True)) for r in table.rows]


@pytest.mark.parametrize("folds", [0, 3])
def test_convergence(tmp_path: Path, folds: int) -> None:
    found = section("convergence", *sweep(tmp_path, folds=folds))
    assert [f.png.stem for f in found.figures] == ["losses_n2", "losses_n4"]
    runs, tests = map(rows_of, found.tables)
    assert len(runs) == 3 * 2 * 3
    # The common loss is that of the slowest run's end; model A's curve in closed form gets there at:
    first = next(r for r in runs if (r["method"], r["n"], r["seed"]) == ("A", 2, 0))
    level, steps = (float(str(first[c])) for c in ("common loss", "steps to common"))
    assert steps == pytest.approx(-20 * np.log((level - 0.01) / 0.7), abs=3)
    assert len(tests) == 2 * 2 * 3 and {t["seeds"] for t in tests} == {3} and {t["comparisons"] for t in tests} == {6}
    said = words(found)
    assert "Not shown, but leaning: B converged more slowly than A at n = 2 with every seed" in said
    assert "3 seeds and 6 comparisons cannot give a p below 1" in said and "C converged more slowly than B" not in said


def test_slower_and_faster_are_said_where_seeds_are_enough(tmp_path: Path) -> None:
    results, study = sweep(tmp_path, seeds=9)
    assert "C converged more slowly than A at n = 4 (steps" in words(section("convergence", results, study))
    turned = tuple(dataclasses.replace(m, pretask="lits" if m.name == "A" else "none") for m in study.methods)
    found = section("convergence", results, dataclasses.replace(study, methods=turned))
    assert "A converged faster than C at n = 4 (steps" in words(found)


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    results, study = sweep(tmp_path, seeds=1, count=1)
    said = words(section("convergence", results, study))
    assert said.count("one seed has no spread to judge a difference by") == 4 and "leaning" not in said
    said = words(section("forgetting", results, study))
    assert said.count("one person has no spread to judge a difference by") == 6 and ": it forgot" not in said


def test_forgetting(tmp_path: Path) -> None:
    found = section("forgetting", *sweep(tmp_path))
    means, persons, tests = map(rows_of, found.tables)
    assert [(r["method"], r["n"]) for r in means] == [("B", 2), ("B", 4), ("C", 2), ("C", 4)]
    c = means[-1]
    assert c["before"] == pytest.approx(0.635) and c["after"] == pytest.approx(0.55 + 0.01 + 0.042)
    assert c["kept"] == pytest.approx(0.602 / 0.635, abs=1e-4) and len(persons) == 4 * 8
    i = np.arange(8)
    b, c_after = 0.21 + 0.01 * i, 0.56 + 0.012 * i
    (at_2, at_4) = tests
    assert (at_2["measure"], at_2["first"], at_2["second"], at_2["persons"]) == ("Dice", "B", "C", 8)
    assert at_2["difference"] == pytest.approx((c_after - b).mean())
    assert at_2["Wilcoxon p"] == pytest.approx(stats.wilcoxon(c_after, b).pvalue, rel=1e-2)
    assert at_2["adjusted p"] == pytest.approx(2 * 2 / 2**8, rel=1e-2) == at_4["adjusted p"]
    assert float(str(at_2["t-test p"])) == pytest.approx(stats.ttest_rel(c_after, b).pvalue, rel=1e-2)
    said = words(found)
    assert "B at n = 2: Dice on lits_tumour 0.635 before the transfer and 0.245 after it, 39% of what it was" in said
    assert said.count("it forgot") == 4
    assert "C's Dice was higher than B's on lits_tumour at n = 2" in said


def test_few_persons_or_nothing_learnt_decide_nothing(tmp_path: Path) -> None:
    said = words(section("forgetting", *sweep(tmp_path / "few", count=4)))
    assert ": it forgot" not in said and "lower for every person, but 4 persons cannot give a p below 0.12" in said
    none = section("forgetting", *sweep(tmp_path / "none", count=1, start=0.0, kept={"B": 0.0}))
    assert "There was next to nothing to forget" in words(none) and rows_of(none.tables[0])[0]["kept"] is None
    assert len(none.tables) == 2  # one method was scored there: nothing is said about freezing
    results, study = sweep(tmp_path / "unscored", kept={})
    assert words(section("forgetting", results, study)).startswith("Not measured")


def test_epochs_lesions_and_losses(tmp_path: Path) -> None:
    results, study = sweep(tmp_path)
    times = rows_of(section("epochs", results, study).tables[0])
    assert [(r["n"], r["method"]) for r in times] == [(n, m) for n in (2, 4) for m in "ABC"]
    assert times[0]["epoch 1"] == pytest.approx(61 / 60, rel=1e-3)
    assert times[0]["total"] == pytest.approx(91 / 60, rel=1e-3)
    lesions = rows_of(section("detection", results, study).tables[0])
    # Found 2 + 3 + 4, missed 1 and false 3 in each of three seeds.
    assert {(r["found"], r["precision"], r["recall"]) for r in lesions} == {(9, 0.5, 0.75)}
    drawn = [f.png.stem for f in section("losses_by_method", results, study).figures]
    assert drawn == ["losses_1", "losses_2", "losses_3"]
    assert len(section("losses", results, study).figures) == 1


def test_runs_without_their_partner_and_runs_that_are_gone_are_left_out_and_counted(tmp_path: Path) -> None:
    results, study = sweep(tmp_path)
    gone = next(r.cell for r in results if (r.method, r.n, r.seed) == ("B", 2, 1))
    shutil.rmtree(study.cell(gone))
    found = section("convergence", results, study)
    assert "1 run cannot be read" in words(found) and "2 runs left out here" in words(found)
    runs = [(r["method"], r["seed"]) for r in rows_of(found.tables[0]) if r["n"] == 2]
    assert runs == [(m, s) for m in "ABC" for s in (0, 2)]
    shutil.rmtree(tmp_path / "cells")
    for name in ("convergence", "losses", "losses_by_method", "epochs", "detection"):
        assert "Not shown: " in words(section(name, results, study))
    assert section("forgetting", results, study).tables  # from results.csv alone
