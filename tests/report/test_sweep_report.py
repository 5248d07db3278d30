"""A whole report from a folder with known scores; what is gone is said and nothing else changes."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import blob
from tests.report.sweep_folder import write_sweep
from tests.report.sweep_results import LIVER
from tests.report.test_page import Parsed
from tlseg_jax.evaluate.mask_file import save_masks
from tlseg_jax.report.sweep_report import write_report
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import shown
from tlseg_jax.studies.results_table import PRETRAINING_DATA


def report(sweep: Path, viewers: int = 2) -> tuple[Path, Parsed, list[str]]:
    said: list[str] = []
    with shown(said.append):
        page = write_report(sweep, sweep.parents[1] / "report" / sweep.name, viewers)
    return page, Parsed(page.read_text(encoding="utf-8")), said


def score_tables(page: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((page.parent / "tables").glob("*.csv"))}


def test_a_whole_report(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    page, parsed, said = report(sweep)
    assert said == [] and page == tmp_path / "report" / "brain" / "report.html"
    assert "Synthetic data" in parsed.text and "What is missing" not in parsed.text
    assert [a["class"] for a in parsed.all("div") if a.get("class") == "viewer"] == ["viewer"] * 2
    assert "Worst of the target hdt_c" in parsed.text and "Worst of unseen data oas_c" in parsed.text
    assert "sub-99" in parsed.text and "the label is empty" in parsed.text
    names = {p.stem for p in (page.parent / "figures").glob("*.png")}
    assert {"method_grid", "losses"} <= names
    assert names == {p.stem for p in (page.parent / "figures").glob("*.svg")}
    assert page.stat().st_size < 3_000_000
    with (page.parent / "tables" / "target_scores.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert {(r["method"], r["n"]) for r in rows} == {(m, n) for m in ("MAL-C-FT", "HDT-V-FT") for n in ("2", "4", "8")}


def test_scores_come_from_the_table_alone(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    page, _, _ = report(sweep)
    before = score_tables(page)
    figures = {p.name: p.read_bytes() for p in (page.parent / "figures").glob("*.svg")}
    shutil.rmtree(sweep / "cells")
    shutil.rmtree(tmp_path / "store")
    page, parsed, said = report(sweep)
    assert score_tables(page) == before
    after = {p.name: p.read_bytes() for p in (page.parent / "figures").glob("*.svg")}
    assert after == {k: v for k, v in figures.items() if k not in ("method_grid.svg", "losses.svg")}
    assert "Scans that cannot be shown" in parsed.text and "Not shown:" in parsed.text
    assert len(said) == 2 and all("no prepared data set" in s for s in said)
    assert not [a for a in parsed.all("div") if a.get("class") == "viewer"]


def test_an_unfinished_sweep_says_what_is_missing(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "missing": ["HDT-V-FT_n8_s1"],
        "failed": [{"cell": "HDT-V-FT_n8_s0", "reason": "no memory <left>"}],
        "settings": {PRETRAINING_DATA: "images of maps"},
    }
    sweep = write_sweep(tmp_path, cells=False, fields=fields, synthetic=False)
    lines = (sweep / "results.csv").read_text().splitlines()
    (sweep / "results.csv").write_text("\n".join(x for x in lines if "HDT-V-FT_n8" not in x) + "\n")
    page, parsed, _ = report(sweep)
    assert "Drawn pre-training data: images of maps.This study is not finished: it lacks 1 run," in parsed.text
    assert "Synthetic data" not in parsed.text
    assert "no memory <left>" in parsed.text and "10 done, 1 missing, 1 failed" in parsed.text
    assert "HDT-V-FT_n8_s1" in (page.parent / "tables" / "missing.csv").read_text()


def test_masks_of_another_grid_are_noticed(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, n=(4,), seeds=1)
    for path in (sweep / "cells").glob("*/predictions/hdt_c.npz"):
        save_masks(path, {f"hdt_c-{i:02d}": blob(i, 12)[1] > 0 for i in range(4)})
    for path in (sweep / "cells").glob("*/predictions/oas_c.npz"):
        path.write_bytes(b"PK broken")
    _, parsed, said = report(sweep)
    assert any("has 12x12x12 voxels and the scan has 16x16x16" in s for s in said)
    assert any("cannot be read" in s for s in said)
    assert "Not shown: The mask of" in parsed.text


def test_an_earlier_reports_files_do_not_stay_and_others_do(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, n=(4,), seeds=1)
    folder = report(sweep, 0)[0].parent
    theirs = [folder / "tables" / "mine.csv", folder / "figures" / "mine.png", folder / "figures" / "mine.svg"]
    corrected = folder / "figures" / "losses.svg"
    for path in (*theirs, corrected):
        path.write_text("drawn by hand")
    shutil.rmtree(sweep / "cells")  # so that the next report has no such figures
    report(sweep, 0)
    assert all(p.read_text() == "drawn by hand" for p in (*theirs, corrected))
    assert not list(folder.glob("figures/method_grid.*")) and not (folder / "figures" / "losses.png").exists()


def test_a_file_that_was_changed_is_not_replaced(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, cells=False)
    folder = report(sweep, 0)[0].parent
    for name in ("report.html", "tables/target_scores.csv", "figures/learning_curves.svg"):
        ours = (folder / name).read_bytes()
        (folder / name).write_text("with my notes")
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        fault = rf"{name} was not written by this command, or was changed since.* move it"
        with pytest.raises(InputError, match=fault):
            report(sweep, 0)
        assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        (folder / name).write_bytes(ours)
    (folder / name).unlink()
    report(sweep, 0)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("results.csv", None, "results.csv does not exist"),
        ("results.csv", "a,b\n1,2\n", "lacks the column"),
        ("study.json", "{", "study.json cannot be read"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, text: str | None, fault: str) -> None:
    sweep = write_sweep(tmp_path, cells=False)
    (sweep / name).unlink() if text is None else (sweep / name).write_text(text)
    with pytest.raises(InputError, match=fault):
        report(sweep)


def test_folds_and_a_single_n(tmp_path: Path) -> None:
    _, parsed, said = report(write_sweep(tmp_path, n=(4,), seeds=2, folds=2))
    assert said == [] and "2, persons are tested when held out" in parsed.text


def test_slices_without_their_cells(tmp_path: Path) -> None:
    sweep = write_sweep(
        tmp_path,
        "liver",
        LIVER,
        n=(2, 4),
        cells=False,
        task="mri_artery_tumour",
        unseen=(),
        fields={"kind": "slices", "task": "mri_artery", "sections": ["losses_by_method", "convergence", "epochs"]},
    )
    _, parsed, _ = report(sweep)
    assert parsed.text.count("Not shown: 12 runs cannot be read") == 2  # at both n
    assert parsed.text.count("Not shown: 6 runs cannot be read") == 1
