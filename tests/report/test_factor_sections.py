"""A factor study's part of the report: planted effects are found again, from results.csv alone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.report.sweep_results import BRAIN, Truth, write_results, write_study
from tlseg_jax.datasets.factors import EXTRA_POINTS, Levels, design
from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.sections.factors import compare_pair, factor_effects, factor_interactions, factor_pair
from tlseg_jax.report.stats.factor_analysis import analyse, shift_losses, target_scores
from tlseg_jax.report.study_info import StudyInfo, read_study
from tlseg_jax.studies.results_table import ResultRow, Results, by_person, read_results

DISEASE, SPACE, SKULL_LOSS = 0.03, -0.06, 0.05


def methods(data_sets: Sequence[Levels]) -> list[Truth]:
    rng = np.random.default_rng(0)
    return [
        Truth(
            f"F{i:02d}-FT",
            x.name,
            0.8 + DISEASE * (x.disease == "AD") + SPACE * (x.space == "native") + rng.normal(0, 0.005),
            0.3,
            0.6,
            0.1 + SKULL_LOSS * (x.skull == "stripped"),
            factors=x.to_dict(),
        )
        for i, x in enumerate(data_sets)
    ]


def factor_sections(results: Results, folder: Path, study: StudyInfo) -> tuple[Section, ...]:
    """The three sections, without those that the study has nothing for; figures go to FOLDER/figures."""
    study = dataclasses.replace(study, figures=folder / "figures")
    found = (make(results, study) for make in (factor_effects, factor_interactions, factor_pair))
    return tuple(s for s in found if s is not None)


def study_of(folder: Path, truths: Sequence[Truth], **settings: Any) -> tuple[Results, StudyInfo]:
    values = {"n": (2, 8), "seeds": 2} | settings
    write_results(folder / "results.csv", truths, noise=0.01, persons=5, **values)
    write_study(folder / "study.json", truths, **values)
    return read_results(folder / "results.csv"), read_study(folder / "study.json")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, StudyInfo, tuple[Section, ...]]:
    """32 data sets and MAL-C's twin, beside methods that have no factors and a remedy that must not count."""
    truths = methods(design("half", ("mal_c_mni305",)))
    remedy = dataclasses.replace(truths[0], name="F00-FT l2sp", a=0.1, remedy="l2sp", baseline=truths[0].name)
    folder = tmp_path_factory.mktemp("half")
    results, study = study_of(folder, [*truths, remedy, BRAIN[3]])
    for left in folder.iterdir():
        left.unlink()  # results.csv has been read, and nothing else is needed
    return results, study, factor_sections(results, folder, study)


def table_of(sections: Sequence[Section], name: str) -> ReportTable:
    (found,) = [t for s in sections for t in s.tables if t.name == name]
    return found


def test_planted_effects_are_found(half: tuple[Results, StudyInfo, tuple[Section, ...]]) -> None:
    _, _, sections = half
    rows = {row[:2]: row[3:] for row in table_of(sections, "factor_main_effects").rows}
    assert len(rows) == 2 * 7
    for measure, effect, truth in (
        ("IoU on the target", "disease", 100 * DISEASE),
        ("IoU on the target", "space", 100 * SPACE),
        ("IoU on the target", "scanner", 0.0),
        ("loss on unseen data", "skull", 100 * SKULL_LOSS),
        ("loss on unseen data", "disease", 0.0),
    ):
        difference, low, high, df = rows[measure, effect]
        assert low < difference < high and abs(difference - truth) < high - low < 3.0
        assert df == 33 - 1 - 6 - 15
        assert truth == 0 or low > 0 or high < 0
    assert len(table_of(sections, "factor_interactions").rows) == 2 * 15
    text = " ".join(sections[0].paragraphs)
    assert "33 pre-trained models" in text and "5 persons" in text and "disease (AD - HD) +" in text


def test_figures_are_there_with_their_mark(
    half: tuple[Results, StudyInfo, tuple[Section, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, study, sections = half
    figures = [f for s in sections for f in s.figures]
    assert [f.png.name for f in figures] == ["factor_effects.png", "factor_interactions.png", "factor_pair.png"]
    for f in figures:
        assert f.png.read_bytes().startswith(b"\x89PNG") and "<svg" in f.png.with_suffix(".svg").read_text()
    said: list[str] = []

    def text(self: Figure, x: float, y: float, s: str, **_: Any) -> None:
        said.append(s)

    monkeypatch.setattr(Figure, "text", text)
    factor_pair(results, dataclasses.replace(study, figures=tmp_path))
    assert said == ["synthetic"] and study.synthetic


def test_the_pair_is_the_persons_mean_difference(half: tuple[Results, StudyInfo, tuple[Section, ...]]) -> None:
    results, _, sections = half
    native, mni = (EXTRA_POINTS[k].name for k in ("mal_c", "mal_c_mni305"))
    rows = table_of(sections, "factor_pair").rows
    assert [r[:3] for r in rows] == [("target", 2, 5), ("target", 8, 5), ("unseen", 2, 5), ("unseen", 8, 5)]
    for role, n, _, difference, low, high, each, *_ in rows:
        of = [
            by_person([r for r in results if (r.role, r.n, r.pretask, r.remedy) == (role, n, k, "")])
            for k in (native, mni)
        ]
        assert difference == pytest.approx(100 * np.mean([of[1][p] - of[0][p] for p in of[0]]), abs=1e-3)
        # Five persons are too few for an interval.
        assert low is None and high is None
        assert [float(v) for v in str(each).split(", ")] == pytest.approx(
            sorted(100 * (of[1][p] - of[0][p]) for p in of[0]), abs=1e-3
        )
    assert "MNI305 gives +" in sections[-1].paragraphs[1] and "95% interval" not in sections[-1].paragraphs[1]


def test_scores_are_means_over_seeds(half: tuple[Results, StudyInfo, tuple[Section, ...]]) -> None:
    results, _, _ = half
    scores = target_scores(results)
    assert len(scores) == 33 * 2 * 5
    one = scores[0]
    rows = [
        r
        for r in results
        if (r.pretask, r.n, r.person, r.role, r.remedy) == (one.model, one.n, one.person, "target", "")
    ]
    assert len(rows) == 2 and one.score == pytest.approx(50 * (rows[0].iou + rows[1].iou))


def test_a_fraction_of_a_fraction_names_what_is_mixed(tmp_path: Path) -> None:
    results, study = study_of(tmp_path, methods(design("quarter")))
    sections = factor_sections(results, tmp_path, study)
    names = {row[1] for row in table_of(sections, "factor_interactions").rows}
    assert len(names) == 7 and "disease x space or scanner x labels" in names
    assert "cannot be told apart" in " ".join(sections[1].paragraphs)
    # Two degrees of freedom are too few for the main effects, so those come from the model without interactions.
    assert {row[-1] for row in table_of(sections, "factor_main_effects").rows if row[1] != "labelled scans"} == {9}
    assert {row[-1] for row in table_of(sections, "factor_interactions").rows} == {2}
    assert len(sections) == 2  # MAL-C is there and its twin is not


def test_an_unfinished_study_says_what_it_cannot_tell(tmp_path: Path) -> None:
    results, study = study_of(tmp_path, methods(design("quarter")))
    last = results.rows[-1].pretask

    def done(r: ResultRow) -> bool:
        return r.role == "target" or (r.pretask != last and not (r.n == 8 and r.person.endswith("4")))

    sections = factor_sections(Results(tuple(filter(done, results))), tmp_path, study)
    said = " ".join(sections[0].paragraphs)
    assert "is not known for 17 pre-trained model(s) and n" in said and "IoU on the target" in said
    few = [r for r in results if r.pretask == last and r.role == "target"]
    (only,) = factor_sections(Results(tuple(few)), tmp_path, study)
    assert "are not estimated: No factor takes two levels" in only.paragraphs[0] and not only.tables


def test_a_study_without_factors_has_no_such_section(tmp_path: Path) -> None:
    results, study = study_of(tmp_path, BRAIN)
    assert factor_sections(results, tmp_path, study) == ()


def test_losses_are_of_whole_runs(tmp_path: Path) -> None:
    results, _ = study_of(tmp_path, methods(design("quarter")))
    losses, left_out = shift_losses(results)
    assert len(losses) == 32 and left_out == 0 and {o.person for o in losses} == {""}
    one = losses[0]
    means = [
        np.mean([r.iou for r in results if (r.pretask, r.n, r.role) == (one.model, one.n, role)])
        for role in ("target", "unseen")
    ]
    assert one.score == pytest.approx(100 * (means[0] - means[1]))
    assert analyse("loss", losses).main.persons == 0


def test_a_pair_needs_both(tmp_path: Path) -> None:
    results, study = study_of(tmp_path, methods(design("points")))
    native, mni = EXTRA_POINTS["mal_c"], EXTRA_POINTS["mal_c_mni305"]
    assert set(compare_pair(results, native, mni, "target")) == {2, 8}
    one = [r for r in results if r.pretask == mni.name or r.n == 2]
    assert set(compare_pair(one, native, mni, "target")) == {2}
    assert factor_pair(Results(tuple(r for r in results if r.pretask == mni.name)), study) is None
