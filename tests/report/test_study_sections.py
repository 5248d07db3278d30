"""A study's sections: what is drawn and said, from results.csv alone, finished or not."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.sweep_results import BRAIN, LIVER, REMEDIES, Truth, make_rows, write_results, write_rows, write_study
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.registry import SECTIONS, USUAL, make_sections
from tlseg_jax.report.stats.method_tests import compare_methods
from tlseg_jax.report.stats.sweep_stats import mean_scores, scored_sets
from tlseg_jax.report.study_info import read_study
from tlseg_jax.report.study_tables import scores_table
from tlseg_jax.report.words.difference import difference, verdict_words
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import read_results
from tlseg_jax.studies.study import read_study_file

STUDIES = Path(__file__).parents[2] / "experiments" / "studies"


SCORES = ["answer", "worst", "pretasks", "target", "unseen", "learning", "volumes", "method_tests", "remedies"]
"""Sections that need nothing but results.csv."""

BRAIN_TITLES = read_study_file(STUDIES / "brain.toml").titles


def sections(
    folder: Path, methods: tuple[Truth, ...] = BRAIN, study: dict[str, Any] | None = None, **settings: object
) -> dict[str, Section]:
    results = read_results(write_results(folder / "results.csv", methods, **settings))
    info = read_study(write_study(folder / "study.json", methods, **({"sections": SCORES} | (study or {}))))
    return {s.title: s for s in make_sections(results, dataclasses.replace(info, figures=folder / "report/figures"))}


def check_whole(found: dict[str, Section], folder: Path) -> None:
    """Figures are there in both forms, tables are rectangular, every claim has its n."""
    for section in found.values():
        for figure in section.figures:
            assert figure.png.is_file() and figure.png.with_suffix(".svg").is_file()
            assert figure.png.parent == folder / "report" / "figures" and "person" in figure.caption
        for table in section.tables:
            assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
        for line in section.paragraphs:
            if "95% interval" in line and re.search(r"\d\.\d", line):
                assert re.search(r"\d+ persons?", line), line
    names = [t.name for s in found.values() for t in s.tables]
    assert len(set(names)) == len(names)


def test_a_brain_study_has_the_papers_parts(tmp_path: Path) -> None:
    titles = {"titles": {k: v for k, v in BRAIN_TITLES.items() if k in SCORES}}
    found = sections(tmp_path, (*BRAIN, *REMEDIES), titles, persons=5, seeds=2, distances=True)
    check_whole(found, tmp_path)
    assert list(found) == [
        "How many scans to label, and what to start from",
        "What to distrust: worst cases and failures",
        "Pre-trained models (Table 2)",
        "Target data by number of labelled scans (Fig. 5)",
        "Unseen data (Fig. 6)",
        "Learning curves and labels needed",
        "Volume agreement",
        "Paired tests between methods",
        "Remedies against fragility on unseen data",
    ]
    table = found["Pre-trained models (Table 2)"].tables[0]
    assert [row[0] for row in table.rows] == ["mal_c", "hdt_v", "hdt_wb"] and table.columns[-1] == "paper, other scans"
    scores = found["Target data by number of labelled scans (Fig. 5)"].tables[0]
    assert "HD95 [mm]" in scores.columns and len(scores.rows) == 7 * 4  # remedies too
    assert scores.columns[-1] == "without a distance" and {row[-1] for row in scores.rows} == {0}
    for section in found.values():
        for figure in section.figures:
            assert "synthetic" in figure.caption


def test_figures_repeat_exactly_and_only_those_of_synthetic_scans_are_marked(tmp_path: Path) -> None:
    found: dict[str, dict[str, bytes]] = {}
    for run, synthetic in (("drawn", True), ("again", True), ("scanned", False)):
        parts = sections(
            tmp_path / run, BRAIN[:2], {"synthetic": synthetic}, n=(2, 4, 8), persons=4, seeds=1, synthetic=synthetic
        )
        figures = [f for s in parts.values() for f in s.figures]
        assert all(("synthetic" in f.caption) == synthetic for f in figures)
        files = [f.png.with_suffix(e) for f in figures for e in (".png", ".svg")]
        found[run] = {file.name: file.read_bytes() for file in files}
    assert found["drawn"] == found["again"] and len(found["drawn"]) == 10
    assert not any(found["drawn"][name] == found["scanned"][name] for name in found["drawn"])


def test_the_smallest_unfinished_sweep_says_what_it_cannot_say(tmp_path: Path) -> None:
    """One cell, one person: no interval, no test, no fit, no traceback."""
    found = sections(tmp_path, BRAIN[3:], n=(2,), seeds=1, persons=1, unseen=())
    check_whole(found, tmp_path)
    words = "\n".join(line for s in found.values() for line in s.paragraphs)
    assert "No pre-trained model was scored" in words and "No data of another source were scored" in words
    assert "There is no fit, as three parameters need scores at 3 or more values of n (there: 2)" in words
    assert "There are not two methods" in words and "limits of agreement need two persons or more" in words
    assert "95% interval 0" not in words


def test_pretraining_alone_is_a_report_too(tmp_path: Path) -> None:
    rows = [r for r in make_rows() if r["role"] == "pretask"]
    results = read_results(write_rows(tmp_path / "results.csv", rows))
    study = read_study(write_study(tmp_path / "study.json", sections=SCORES))
    assert [s.title for s in make_sections(results, study)] == ["Pre-trained models"]  # type: ignore[union-attr]


def test_the_worst_cases_are_those_of_the_method_that_the_answer_names(tmp_path: Path) -> None:
    found = sections(tmp_path, (*BRAIN[:1], *BRAIN[3:]), {"sections": ["answer", "worst"]}, n=(2, 8), persons=4)
    assert "the highest was MAL-C-FT" in found["How many scans to label, and what to start from"].paragraphs[0]
    worst = found["What to distrust: worst cases and failures"]
    (table,) = (t for t in worst.tables if t.name == "worst_cases")
    results = read_results(tmp_path / "results.csv")
    own = results.where(method="MAL-C-FT", n=8, role="target")
    assert [row[6] for row in table.rows if row[0] == "hdt_c"] == [
        pytest.approx(v, abs=1e-4) for v in sorted(r.iou for r in own)[:10]
    ]
    assert {row[3:5] for row in table.rows} == {("MAL-C-FT", 8)} and "of MAL-C-FT with n = 8" in table.caption
    said = [line for line in worst.paragraphs if "of MAL-C-FT with n = 8" in line]
    assert len(said) == len(worst.paragraphs) == 4  # groups, failures, the lowest of two sets
    rows = [r for r in make_rows(BRAIN, (2,), 1, 4) if r["role"] == "unseen"]
    none = read_results(write_rows(tmp_path / "unseen.csv", rows))
    section = SECTIONS["worst"](none, read_study(tmp_path / "study.json"))
    assert section is not None and len({row[3] for row in section.tables[0].rows}) > 1
    assert "of all methods and n" in section.tables[0].caption


def test_a_study_has_the_sections_that_it_asks_for_in_its_order(tmp_path: Path) -> None:
    found = sections(tmp_path, BRAIN[:2], {"sections": ["worst", "pretasks"], "titles": {"worst": "Where it hurts"}})
    assert list(found) == ["Where it hurts", "Pre-trained models"]
    for wrong in ({"sections": ["worst", "scroes"]}, {"titles": {"scroes": "X"}}):
        with pytest.raises(InputError, match="There is no section of a report named 'scroes': choose from answer"):
            sections(tmp_path, BRAIN[:2], wrong)


def test_the_built_in_studies_ask_for_sections_that_exist() -> None:
    for path in STUDIES.glob("*.toml"):
        study = read_study_file(path)
        assert study.sections and {*study.sections, *study.titles} <= SECTIONS.keys()
        assert ("factor_effects" in study.sections) != (study.sections[0] == "answer")
    assert set(USUAL) < SECTIONS.keys() and USUAL[0] == "answer"


def test_a_liver_study_and_many_methods(tmp_path: Path) -> None:
    study: dict[str, Any] = {"kind": "slices", "task": "mri", "unseen": []}
    liver = sections(tmp_path / "liver", LIVER, study, n=(4, 9), persons=4, task="mri", unseen=())
    check_whole(liver, tmp_path / "liver")
    assert not any("Fig." in title or "Table" in title for title in liver)
    points = tuple(
        Truth(f"f{i}", f"f_{i}", factors={"structure": "caudate", "space": "native" if i % 2 else "MNI305"})
        for i in range(12)
    )
    many = sections(tmp_path / "many", points, persons=4, seeds=1, n=(2, 4, 8))
    check_whole(many, tmp_path / "many")
    assert not {"Paired tests between methods", "How many scans to label, and what to start from"} & many.keys()
    assert {f.png.name for s in many.values() for f in s.figures} == {"iou_by_n_hdt_c.png", "unseen_by_n_oas_c.png"}


def test_sentences_say_no_more_than_the_tests(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "r.csv", persons=12, seeds=5, noise=0.005))
    study = read_study(write_study(tmp_path / "s.json"))
    t = compare_methods(results, study)[0]
    assert t.verdict == "lower" and t.turned().verdict == "higher"
    assert difference(t.turned()).startswith("MAL-C-FT's IoU was higher than HDT-V-FT's on hdt_c at n = 2 (+0.1")
    assert "over 12 persons" in difference(t) and "over 5 seeds" in difference(t)
    luck = dataclasses.replace(t, by_seed={0: -0.5, 1: 0.2})
    assert luck.verdict == "cannot tell" and "other runs could turn it round" in difference(luck)
    small = read_results(write_results(tmp_path / "r.csv", persons=5, seeds=2, noise=0.005))
    t = compare_methods(small, study)[0]
    assert t.verdict == "leans lower"
    assert "5 persons and 24 comparisons cannot give a p below 1" in difference(t)


def test_many_comparisons_are_told_by_what_they_found(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "r.csv", persons=12, seeds=5, noise=0.005))
    every = compare_methods(results, read_study(write_study(tmp_path / "s.json")))
    pair = [t for t in every if {t.first, t.second} == {"MAL-C-FT", "HDT-V-FT"} and t.test_set == every[0].test_set]
    shown, luck = pair[0], dataclasses.replace(pair[1], by_seed={0: -0.5, 1: 0.2})
    small = dataclasses.replace(shown.test, low=None, high=None, wilcoxon_p=1.0, n=2, values=(-0.1, -0.12))
    leans = dataclasses.replace(shown, n=16, test=small, p=1.0)
    assert (shown.verdict, luck.verdict, leans.verdict) == ("lower", "cannot tell", "leans lower")
    lines = verdict_words([shown, luck, leans])
    assert [line.split(" on ")[0] for line in lines] == [
        "Shown", "Not shown, but the same way for every person", "Not told apart"
    ]  # fmt: skip
    d = shown.test
    assert f"{shown.second} lower than {shown.first} at n = 2: {d.mean_difference:+.3f} (95% interval" in lines[0]
    assert lines[1].endswith(f"lower than {shown.first} at n = 16: {d.mean_difference:+.3f}.")
    assert f"{luck.second} and {luck.first} at n = {luck.n}: " in lines[2]
    assert verdict_words([shown, *pair[2:3]])[0].count("; ") == 0  # one method, its n in a row


def test_scores_tell_how_many_predictions_have_no_distance(tmp_path: Path) -> None:
    rows = make_rows(BRAIN[:1], persons=4, seeds=2, n=(4,), unseen=(), distances=True)
    of_target = [r for r in rows if r["role"] == "target"]
    for r in of_target[:3]:
        r.update(hd95_mm="", asd_mm="", iou="0", dice="0", predicted_ml="0")
    results = read_results(write_rows(tmp_path / "results.csv", rows))
    study = read_study(write_study(tmp_path / "study.json", BRAIN[:1], n=(4,)))
    (row,) = scores_table("t", results, study, mean_scores(results, study), scored_sets(results)).rows
    assert row[-1] == 3
    by_person: dict[str, list[float]] = {}
    for r in of_target[3:]:
        by_person.setdefault(r["person"], []).append(float(r["hd95_mm"]))
    assert row[-3] == pytest.approx(np.mean([np.mean(values) for values in by_person.values()]), abs=1e-3)


def test_a_study_whose_millilitres_are_a_template_s_is_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path / "study.json")
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in plain.items() if k != "mm"}))
    with pytest.raises(InputError, match=r"ml and mm are a template's, .* run the sweep again"):
        read_study(path)
