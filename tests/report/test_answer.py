"""What the page opens with: no more than the tests behind it say, of any size of study."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.report.sweep_folder import write_sweep
from tests.report.sweep_results import BRAIN, REMEDIES, Truth, make_rows, write_rows, write_study
from tests.report.test_page import Parsed
from tlseg_jax.report.page.sections import Section, Tabs
from tlseg_jax.report.registry import make_sections
from tlseg_jax.report.sections.answer import answer
from tlseg_jax.report.stats.method_tests import compare_labels, compare_methods
from tlseg_jax.report.study_info import read_study
from tlseg_jax.report.sweep_report import write_report
from tlseg_jax.studies.results_table import Results, by_person, read_results

NUMBERS = (2, 4, 8, 16, 32)


def answered(folder: Path, methods: tuple[Truth, ...] = BRAIN, **settings: object) -> tuple[Results, tuple[str, ...]]:
    results = read_results(write_rows(folder / "r.csv", make_rows(methods, **settings)))
    study = dataclasses.replace(read_study(write_study(folder / "s.json", methods)), figures=folder)
    found = answer(results, study)
    assert found is not None and found.figures[0].png.is_file() and len(found.paragraphs) == 3
    assert all(re.search(r"\d persons?\b", line) and re.search(r"\d seeds?\b", line) for line in found.paragraphs)
    return results, found.paragraphs


def test_a_start_is_advised_where_it_was_shown_to_be_better(tmp_path: Path) -> None:
    results, (start, _, elsewhere) = answered(tmp_path, n=NUMBERS, seeds=5, persons=15, noise=0.003)
    assert "With 32 labelled scans start from MAL-C-FT (pre-trained on mal_c): its mean IoU on hdt_c was" in start
    assert "with 2 the highest was MAL-C-FT again" in start and start.count("higher than all others") == 2
    assert "told apart" not in start and "15 persons, 5 seeds" in start and "95% interval" in start
    own = results.where(role="unseen", method="MAL-C-FT", n=32)
    persons = {p: np.mean([r.iou for r in own if r.person == p]) for p in by_person(own)}
    lowest = min(persons, key=lambda p: persons[p])
    assert f"{np.mean(list(persons.values())):.3f} (95% interval" in elsewhere
    assert f"the lowest persons were {lowest} ({persons[lowest]:.3f}) and hdt_c-" in elsewhere


def test_like_starts_are_not_told_apart(tmp_path: Path) -> None:
    twins = (Truth("one", "mal_c"), Truth("two"), Truth("far", a=0.4, b=0.2))
    results, (start, *_) = answered(tmp_path, twins, n=(2, 8), seeds=4, persons=15)
    assert "**it cannot be told apart**" in start and "start from" not in start.split("**")[2]
    assert start.count("higher than far;") == 1 and re.search(r"not told apart from (one|two)\.$", start)
    for found in compare_methods(results, read_study(tmp_path / "s.json")):
        if {found.first, found.second} == {"one", "two"}:
            assert found.verdict not in ("higher", "lower")
    assert "would likely have gone unseen" in start


@pytest.mark.parametrize("persons", [2, 5])
def test_too_few_persons_are_said_to_be(tmp_path: Path, persons: int) -> None:
    _, (start, enough, _) = answered(tmp_path, BRAIN[:1] + BRAIN[3:], n=(2, 32), seeds=3, persons=persons, noise=0.003)
    assert "start from MAL-C-FT" not in start and "however large: it takes 7 persons for Wilcoxon's test" in start
    assert "what is enough cannot be told" in enough and "it takes 6 persons" in enough and "95%" not in start + enough


def test_labels_are_enough_from_where_the_most_are_not_shown_to_gain(tmp_path: Path) -> None:
    """A curve that is flat from n = 8 on, tested against SciPy over the persons."""
    rows = make_rows(BRAIN[:1], NUMBERS, 5, 15, unseen=(), noise=0.004)
    gain = {2: -0.1, 4: -0.05}
    for r in rows:
        if r["role"] == "target":
            flat = BRAIN[0].a - BRAIN[0].b * int(r["n"]) ** -BRAIN[0].c
            iou = float(r["iou"]) - flat + 0.8 + gain.get(int(r["n"]), 0.0)
            r |= {"iou": f"{iou:.6f}", "dice": f"{2 * iou / (1 + iou):.6f}"}
    results = read_results(write_rows(tmp_path / "r.csv", rows))
    tests = compare_labels(results, "MAL-C-FT")
    assert [(t.first, t.second, t.family) for t in tests] == [(f"n = {n}", "n = 32", 4) for n in NUMBERS[:-1]]
    assert [t.verdict == "higher" for t in tests] == [True, True, False, False]
    own = {n: results.where(role="target", n=n) for n in NUMBERS}
    mean = {n: np.array([np.mean([r.iou for r in o if r.person == p]) for p in by_person(o)]) for n, o in own.items()}
    for t, n in zip(tests, NUMBERS, strict=False):
        assert t.test.wilcoxon_p == pytest.approx(stats.wilcoxon(mean[32] - mean[n], method="exact").pvalue)
    study = dataclasses.replace(read_study(write_study(tmp_path / "s.json", BRAIN[:1])), figures=tmp_path)
    found = answer(results, study)
    assert found is not None
    assert "From n = 8 on, more labels gained MAL-C-FT no more than could be seen" in found.paragraphs[1]
    fewer = np.mean(mean[4]) - np.mean(mean[32])
    assert (
        fewer < 0 and f"with n = 4 it was lower than with n = 32 ({fewer:+.3f}, 95% interval -" in found.paragraphs[1]
    )
    fewer = answer(Results(tuple(r for r in results if r.n <= 8)), study)
    assert (
        fewer is not None and "still gained at the last step that was tried, from n = 4 to n = 8" in fewer.paragraphs[1]
    )


def test_the_page_opens_with_it_and_others_stand_in_its_figure(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, cells=False, fields={"sections": ["answer", "worst"]})
    others = tmp_path / "other.csv"
    others.write_text("subject,dice\n" + "".join(f"hdt_c-{i:02d},0.5\n" for i in range(4)))
    page = write_report(sweep, tmp_path / "report", 0, {"nnU-Net": others})
    parsed = Parsed(page.read_text(encoding="utf-8"))
    first = parsed.text.index("How many scans to label, and what to start from")
    assert first < parsed.text.index("What to start from.") < parsed.text.index("worst cases and failures", first + 200)
    assert "on hdt_c: nnU-Net 0.333" in parsed.text


def test_of_several_structures_there_is_one_answer_and_a_table(tmp_path: Path) -> None:
    """The middle method is the best of the mean, though of no structure."""
    methods = [Truth(name, a=0.8, b=0.2) for name in ("a", "b", "middle")]
    higher = {("caudate", "a"): 0.1, ("thalamus", "b"): 0.1, ("caudate", "middle"): 0.08, ("thalamus", "middle"): 0.08}
    given = make_rows(methods, (2, 8), 2, 4, noise=0.001)
    rows = [
        r | {"structure": s, "test_set": f"{r['test_set']}_{s}", "iou": f"{iou:.6f}", "dice": f"{2 * iou / (1 + iou)}"}
        for s in ("caudate", "thalamus")
        for r in given
        for iou in [float(r["iou"]) - 0.2 + higher.get((s, r["method"]), 0.0)]
    ]
    results = read_results(write_rows(tmp_path / "r.csv", rows))
    study = dataclasses.replace(read_study(write_study(tmp_path / "s.json", methods, n=(2, 8))), figures=tmp_path)
    first, tabs, *_ = make_sections(results, study)
    assert isinstance(first, Section) and isinstance(tabs, Tabs) and len(first.paragraphs) == 3
    assert all(re.search(r"\d persons from [\d.]+ to [\d.]+, 2 seeds", line) for line in first.paragraphs)
    assert (
        "the highest was middle" in first.paragraphs[0] and "hdt_c_mean, over 2 structures, was" in first.paragraphs[0]
    )
    (table,) = first.tables
    assert [(row[0], row[4], row[5]) for row in table.rows] == [("caudate", 4, "a"), ("thalamus", 4, "b")]
    for row in table.rows:
        own = results.where(method="middle", n=8, structure=str(row[0]))
        persons = by_person(own.where(role="target")).values()
        elsewhere = by_person(own.where(role="unseen")).values()
        wanted = (np.mean([*persons]), min(persons), max(persons), np.mean([*elsewhere]))
        assert [row[i] for i in (1, 2, 3, 6)] == pytest.approx(wanted, abs=1e-4)
    assert not any(s.title == first.title for t in tabs.tabs for s in t.sections)
    (worst,) = (s for s in tabs.tabs[1].sections if s.title == "What to distrust: worst cases and failures")
    assert {row[3:5] for t in worst.tables if t.name == "worst_cases" for row in t.rows} == {("middle", 8)}


SIGNED = re.compile(r"\b(higher|lower)\b[^.;:()]*(?:\((?:[^()+-]*?)|: )([+-])\d")
"""A direction, and the sign of the number that stands beside it."""


def test_a_direction_and_its_number_agree(tmp_path: Path) -> None:
    worse = dataclasses.replace(REMEDIES[0], name="MAL-C-FT bad", remedy="bad", a=0.7)
    methods, asked = (BRAIN[0], BRAIN[3], REMEDIES[2], worse), ["answer", "worst", "method_tests", "remedies"]
    given: dict[str, Any] = {"n": (2, 8), "seeds": 5, "persons": 14, "noise": 0.004, "cells": False}
    sweep = write_sweep(tmp_path, methods=methods, fields={"sections": asked}, **given)
    text = Parsed(write_report(sweep, tmp_path / "report", 0).read_text(encoding="utf-8")).text
    found = SIGNED.findall(text)
    assert {("higher", "+"), ("lower", "-")} == set(found) and len(found) > 8
    assert SIGNED.findall("With n = 4 it was lower (+0.045, 95% interval") == [("lower", "+")]  # as it once was


def test_one_test_person_is_said_to_be_too_few(tmp_path: Path) -> None:
    _, sentences = answered(tmp_path, n=(2, 8), persons=1)
    assert "1 person cannot show a difference, however large: it takes 6 persons" in sentences[0]
