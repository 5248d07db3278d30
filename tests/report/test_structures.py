"""The report of a study of several structures: a tab is the report of that structure alone, the first has the means."""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.report.sweep_folder import write_sweep
from tests.report.sweep_results import BRAIN, REMEDIES, make_rows, write_rows
from tests.report.test_page import Parsed
from tlseg_jax.report.stats.sweep_stats import over_structures
from tlseg_jax.report.sweep_cases import best_method, choose_cases
from tlseg_jax.report.sweep_report import write_report
from tlseg_jax.studies.results_table import read_results

STRUCTURES = ("caudate_left", "Lateral ventricle")
METHODS = (BRAIN[0], BRAIN[3], REMEDIES[0])
Rows = list[dict[str, str]]


def rows_of(structure: str) -> Rows:
    """Scores of one of several structures, unlike the others'."""
    easier = 0.1 * STRUCTURES.index(structure)
    methods = [type(m)(**{**vars(m), "a": m.a - easier}) for m in METHODS]
    rows = make_rows(methods, n=(2, 4, 8), seeds=2, persons=4, noise=0.02 + easier / 5, distances=True)
    return [r | {"structure": structure, "test_set": f"{r['test_set']}_{structure}"} for r in rows]


def report(folder: Path, rows: Rows) -> tuple[Path, Parsed]:
    sweep = write_sweep(folder, methods=METHODS, n=(2, 4, 8), seeds=2, persons=4, cells=False)
    write_rows(sweep / "results.csv", rows)
    page = write_report(sweep, folder / "report", 0)
    return page, Parsed(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Parsed]:
    return report(tmp_path_factory.mktemp("both"), [r for s in STRUCTURES for r in rows_of(s)])


def tables(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in folder.glob("*.csv")}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_tab_is_the_report_of_its_structure_alone(both: tuple[Path, Parsed], tmp_path: Path, structure: str) -> None:
    page, parsed = both
    alone, own = report(tmp_path, rows_of(structure))
    name = structure.replace(" ", "-")
    of_runs = {"methods.csv", "settings.csv", "exclusions.csv"}
    wanted = tables(alone.parent / "tables")
    assert tables(page.parent / "tables" / name) == {k: v for k, v in wanted.items() if k not in of_runs}
    assert of_runs <= tables(page.parent / "tables").keys()
    figures = {p.name: p.read_bytes() for p in (page.parent / "figures" / name).glob("*.svg")}
    agreement = figures.pop("volume_agreement.svg")  # whose heading has the structure
    assert all(v == (alone.parent / "figures" / k).read_bytes() for k, v in figures.items())
    assert f"iou_by_n_hdt_c_{structure}.svg" in figures and b"matplotlib" in agreement
    assert structure in parsed.text
    assert "tabs" not in {c for a in own.all("div") for c in (a.get("class") or "").split()}
    assert "tablist" not in alone.read_text(encoding="utf-8")


def test_the_first_tab_has_the_means_over_structures(both: tuple[Path, Parsed]) -> None:
    page, _ = both
    persons: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for structure in STRUCTURES:
        for r in rows_of(structure):
            if r["method"]:
                for name in (structure, "mean of 2"):
                    persons[r["role"], name, r["n"]][r["method"]].append(float(r["iou"]))
    with (page.parent / "tables" / "all" / "structures.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 2 * 3 * 3  # data sets, structures with their mean, n
    for row in rows:
        role = "target" if row["data set"] == "hdt_c" else "unseen"
        for method, values in persons[role, row["structure"], row["n"]].items():
            assert float(row[method]) == pytest.approx(np.mean(values), abs=1e-4)
    names = set(tables(page.parent / "tables" / "all"))
    assert {"target_scores.csv", "unseen_scores.csv", "method_tests.csv", "learning_curves.csv"} <= names
    assert not names & {"volume_agreement.csv", "worst_cases.csv"}  # no volumes or misses of a mean


def test_the_tabs_are_links_where_no_script_runs(both: tuple[Path, Parsed]) -> None:
    page, parsed = both
    ids = [a["id"] for _, a in parsed.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in parsed.all("a") if (a.get("href") or "").startswith("#")]
    assert {(link or "")[1:] for link in links} <= set(ids)
    panels = [a["id"] for a in parsed.all("div") if a.get("class") == "panel"]
    assert panels == ["all-structures", "caudate-left", "lateral-ventricle"]
    assert all(links.count(f"#{p}") == 2 for p in panels)  # among the contents and above the panels
    assert not any("hidden" in a for _, a in parsed.tags)
    downloads = [a["download"] for a in parsed.all("a") if a.get("download")]
    assert len(downloads) == len(set(downloads)) == len(list(page.parent.glob("tables/**/*.csv")))


def test_a_missing_distance_is_not_left_out_of_a_mean(tmp_path: Path) -> None:
    rows = [r for s in STRUCTURES for r in rows_of(s) if r["role"] == "target"]
    rows[0]["hd95_mm"] = ""
    found = over_structures(read_results(write_rows(tmp_path / "r.csv", rows)))
    assert len(found) == len(rows) / 2 and {r.test_set for r in found} == {"hdt_c_mean"}
    first = next(r for r in found if (r.cell, r.subject) == (rows[0]["cell"], rows[0]["subject"]))
    assert first.hd95_mm is None and first.asd_mm is not None
    assert sum(r.hd95_mm is None for r in found) == 1


def test_the_worst_median_and_best_are_of_all_structures_of_a_data_set(tmp_path: Path) -> None:
    results = read_results(write_rows(tmp_path / "r.csv", [r for s in STRUCTURES for r in rows_of(s)]))
    cases = choose_cases(results, best_method(results))
    assert [(c.row.data_set, c.title) for c in cases] == [
        (d, t) for d in ("hdt_c", "oas_c") for t in ("worst", "median", "best")
    ]
    for i, data_set in enumerate(("hdt_c", "oas_c")):
        each = defaultdict(list)
        for r in results.where(method=cases[0].row.method, n=8):
            if r.role != "pretask" and r.data_set == data_set:
                each[r.structure, r.subject].append(r.iou)
        means = sorted(map(float, map(np.mean, each.values())))
        assert [c.mean for c in cases[3 * i : 3 * i + 3]] == pytest.approx([means[0], means[3], means[-1]])


def test_scans_that_mark_fewer_structures_are_told(tmp_path: Path) -> None:
    rows = [r for s in STRUCTURES for r in rows_of(s) if not (s == STRUCTURES[1] and r["subject"] == "hdt_c-02")]
    _, parsed = report(tmp_path, rows)
    assert "1 of 4 scans mark fewer, and theirs is the mean over those." in parsed.text


def test_structures_that_only_their_case_tells_apart_have_folders_of_their_own(tmp_path: Path) -> None:
    names = {STRUCTURES[0]: "all", STRUCTURES[1]: "ALL"}
    rows = [
        r | {"structure": names[s], "test_set": re.sub(f"{s}$", names[s], r["test_set"])}
        for s in STRUCTURES
        for r in rows_of(s)
        if r["role"] == "target"
    ]
    page, _ = report(tmp_path, rows)
    assert {p.name for p in (page.parent / "tables").iterdir() if p.is_dir()} == {"all", "all-2", "ALL-3"}


def test_a_table_that_does_not_say_the_structure_is_of_one(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "r.csv", rows_of(STRUCTURES[0]))
    lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    at = lines[0].index("structure")
    with path.open("w", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([x for i, x in enumerate(line) if i != at] for line in lines)
    found = read_results(path)
    assert found.structures == ("",) and found.rows[-1].data_set == found.rows[-1].test_set
