"""Others beside a study: what is read of their files, whom their means are over, and where the page shows them."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import tlseg_jax as tl
from tests.report.sweep_folder import write_sweep
from tests.report.sweep_results import BRAIN, Truth, make_rows, write_rows, write_study
from tests.report.test_page import Parsed
from tlseg_jax.report import view
from tlseg_jax.report.stats.method_tests import compare_others
from tlseg_jax.report.stats.sweep_stats import OtherScore, other_scores, over_structures
from tlseg_jax.report.study_info import read_study
from tlseg_jax.report.sweep_report import write_report
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.other_results import named_files, with_others
from tlseg_jax.studies.results_table import Results, read_results

STRUCTURES = ("caudate_left", "Lateral ventricle")
Rows = list[dict[str, str]]
Scores = dict[tuple[str, str, str], float]
"""(Test set, structure, subject) -> IoU of the other."""


def rows_of(*structures: str, **settings: Any) -> Rows:
    """Rows of a study, of each structure."""
    out: Rows = []
    for i, structure in enumerate(structures):
        methods = [type(m)(**{**vars(m), "a": m.a - 0.1 * i}) for m in BRAIN[:2]]
        rows = make_rows(methods, **{"n": (2, 4), "seeds": 2, "persons": 4} | settings)
        out += [r | {"structure": structure, "test_set": f"{r['test_set']}_{structure}"} for r in rows]
    return out


def others_of(rows: Rows, seed: int = 3) -> Scores:
    """Another's IoU of each scan and structure that the study tested."""
    rng = np.random.default_rng(seed)
    keys = dict.fromkeys((r["test_set"], r.get("structure", ""), r["subject"]) for r in rows if r["role"] != "pretask")
    return {k: float(rng.uniform(0.4, 0.9)) for k in keys}


def write_csv(path: Path, scores: Mapping[tuple[str, str, str], float], columns: str) -> Path:
    """A table with these of the columns test_set, structure, subject, iou, dice."""
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, columns.split(","), extrasaction="ignore")
        writer.writeheader()
        for (test_set, structure, subject), iou in scores.items():
            row = {"test_set": test_set, "structure": structure, "subject": subject, "iou": iou}
            writer.writerow(row | {"dice": 2 * iou / (1 + iou), "person": "whoever", "reference_ml": 7})
    return path


def read(folder: Path, rows: Rows) -> Results:
    return read_results(write_rows(folder / "r.csv", rows))


def score(results: Results, test_set: str, measure: Any = "iou") -> OtherScore:
    return next(o for o in other_scores(results, measure) if o.test_set.name == test_set)


@pytest.mark.parametrize(
    "columns", ["test_set,structure,subject,person,iou,dice,reference_ml", "subject,dice", "iou,subject"]
)
def test_a_table_of_one_structure(tmp_path: Path, columns: str) -> None:
    rows = make_rows(BRAIN[:2], n=(2, 4), seeds=2, persons=4, scans=2)
    theirs = others_of(rows)
    path = write_csv(tmp_path / "a.csv", theirs | {("elsewhere", "", "nobody"): 0.5}, columns)
    results = with_others(read(tmp_path, rows), {"Other": path})
    assert (results.others[0].scores, results.others[0].unused) == (17, 1)
    for test_set in ("hdt_c", "oas_c"):
        found = score(results, test_set).score
        assert found is not None and found.interval.n == 4
        mean = np.mean([v for (t, _, _), v in theirs.items() if t == test_set])
        assert found.mean == pytest.approx(mean, abs=1e-9)
        dice = score(results, test_set, "dice").score
        each = [2 * v / (1 + v) for (t, _, _), v in theirs.items() if t == test_set]
        assert dice is not None and dice.mean == pytest.approx(np.mean(each), abs=1e-9)


NNUNET = """{
  "foreground_mean": {"Dice": 0.8, "IoU": 0.7},
  "mean": {"1": {"Dice": 0.8, "IoU": 0.7}},
  "metric_per_case": [
    {"metrics": {"1": {"Dice": 0.8, "FN": 2, "FP": 2, "IoU": 0.6666666666666666, "TN": 90, "TP": 8, "n_pred": 10,
                       "n_ref": 10},
                 "2": {"Dice": 0.5, "FN": 1, "FP": 1, "IoU": 0.3333333333333333, "TN": 97, "TP": 1, "n_pred": 2,
                       "n_ref": 2}},
     "prediction_file": "/a/predictions/hdt_c-00.nii.gz", "reference_file": "/a/labelsTs/hdt_c-00.nii.gz"},
    {"metrics": {"1": {"Dice": NaN, "FN": 0, "FP": 0, "IoU": NaN, "TN": 100, "TP": 0, "n_pred": 0, "n_ref": 0},
                 "(2,)": {"Dice": 0.0, "FN": 1, "FP": 1, "IoU": 0.0, "TN": 98, "TP": 0, "n_pred": 1, "n_ref": 1}},
     "prediction_file": "C:\\\\a\\\\predictions\\\\hdt_c-01.nii.gz", "reference_file": "C:\\\\a\\\\hdt_c-01.nii.gz"}
  ]
}"""


def test_nnunets_summary(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(NNUNET)
    rows = rows_of(*STRUCTURES, persons=3)
    results = with_others(read(tmp_path, rows), {"nnU-Net": tmp_path / "summary.json"})
    first, second = (score(results, f"hdt_c_{s}") for s in STRUCTURES)
    assert first.score is not None and second.score is not None
    # Two masks that are both empty agree, as in our own scores.
    assert first.score.persons == pytest.approx({"hdt_c-00": 2 / 3, "hdt_c-01": 1.0})
    assert second.score.persons == pytest.approx({"hdt_c-00": 1 / 3, "hdt_c-01": 0.0})
    assert (first.partly, first.of) == ("2 of 3 persons", 3)
    mean = score(over_structures(results), "hdt_c_mean").score
    assert mean is not None and mean.mean == pytest.approx(np.mean([(2 / 3 + 1 / 3) / 2, 0.5]))
    assert score(results, f"oas_c_{STRUCTURES[0]}").score is None


def test_a_person_counts_with_all_scans_and_in_a_mean_with_all_structures(tmp_path: Path) -> None:
    rows = rows_of(*STRUCTURES, scans=2)
    theirs = others_of(rows)
    lacks = ("hdt_c_caudate_left", "caudate_left", "hdt_c-01_scan1")
    del theirs[lacks]
    path = write_csv(tmp_path / "a.csv", theirs, "test_set,structure,subject,iou")
    results = with_others(read(tmp_path, rows), {"Other": path})

    def mean_of(*structures: str, without: str = "-") -> float:
        return float(
            np.mean([v for (t, s, x), v in theirs.items() if t[:5] == "hdt_c" and s in structures and without not in x])
        )

    for where, k, want in (
        ("hdt_c_caudate_left", 3, mean_of("caudate_left", without="hdt_c-01")),
        ("hdt_c_Lateral ventricle", 4, mean_of("Lateral ventricle", without="nobody")),
    ):
        found = score(results, where)
        assert found.score is not None and found.score.interval.n == k and found.of == 4
        assert found.score.mean == pytest.approx(want)
    over = score(over_structures(results), "hdt_c_mean")
    assert over.score is not None and over.partly == "3 of 4 persons"
    assert over.score.mean == pytest.approx(mean_of(*STRUCTURES, without="hdt_c-01"))


def test_differences_are_of_the_persons_that_both_have(tmp_path: Path) -> None:
    rows = make_rows(BRAIN[:2], n=(2, 4), seeds=3, persons=14)
    theirs = {k: v for k, v in others_of(rows).items() if k[2] not in ("hdt_c-03", "hdt_c-07")}
    results = with_others(
        read(tmp_path, rows), {"Other": write_csv(tmp_path / "a.csv", theirs, "test_set,subject,iou")}
    )
    study = read_study(write_study(tmp_path / "study.json", BRAIN[:2]))
    tests = {(t.test_set.name, t.second, t.n): t for t in compare_others(results, study)}
    assert len(tests) == 2 * 2 * 2
    found = tests["hdt_c", "HDT-V-FT", 4]
    ours: dict[str, list[float]] = {}
    for r in rows:
        if (r["role"], r["method"], r["n"]) == ("target", "HDT-V-FT", "4"):
            ours.setdefault(r["subject"], []).append(float(r["iou"]))
    each = np.array([np.mean(v) - theirs["hdt_c", "", s] for s, v in ours.items() if ("hdt_c", "", s) in theirs])
    assert found.test.n == 12 and found.left_out == 2 and len(found.by_seed) == 3
    assert found.test.mean_difference == pytest.approx(each.mean(), abs=1e-8)
    assert found.test.low is not None and found.test.high is not None and found.test.low < each.mean() < found.test.high
    assert found.family == 4


def pair(line: str, more: str = "") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "x.csv").write_text(f"subject,iou,dice{more}\nhdt_c-00,0.5,\n{line}\n")
        return folder / "x.csv"

    return write


def plain(name: str, text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return write


def nnunet(change: Callable[[Any], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "s.json").write_text(json.dumps(change(json.loads(NNUNET))))
        return folder / "s.json"

    return write


def with_values(**values: Any) -> Callable[[Any], Any]:
    def change(summary: Any) -> Any:
        summary["metric_per_case"] = summary["metric_per_case"][:1]
        summary["metric_per_case"][0]["metrics"] = values.get("metrics", {"1": values})
        return summary

    return change


@pytest.mark.parametrize(
    ("write", "fault"),
    [
        (lambda folder: folder / "none.csv", "none.csv does not exist"),
        (plain("x.csv", ""), "lacks the column 'subject'"),
        (plain("x.csv", "subject,score\na,1\n"), r"lacks the column 'dice' \(or 'iou'\); it has subject, score"),
        (plain("x.csv", "subject;dice\na;1\n"), "separated by commas"),
        (plain("x.csv", "subject,dice,dice\na,1,1\n"), "has the column 'dice' twice"),
        (plain("x.csv", "subject,dice\n"), "has no scores"),
        (pair("hdt_c-01,1.2,"), "line 3: 'iou' is '1.2', not a number between 0 and 1"),
        (pair("hdt_c-01,,87.3"), "line 3: 'dice' is '87.3'"),
        (pair("hdt_c-01,,nan"), "line 3: 'dice' is 'nan'"),
        (pair("hdt_c-01,,"), "line 3: 'dice' is empty"),
        (pair("hdt_c-01,0.5,0.9"), "line 3: an IoU of 0.5 and a Dice of 0.9 do not belong together"),
        (pair("hdt_c-00,0.5,"), "line 3: line 2 is of scan hdt_c-00, too"),
        (pair("hdt_c-01,0.5"), "line 3: the row has another length"),
        (pair(",0.5,"), "line 3: 'subject' is empty"),
        (plain("x.csv", "subject,dice\nsub-1,0.5\n"), r"no score of a scan.*its scans are sub-1.*hdt_c-00 of hdt_c"),
        (
            plain("x.csv", "subject,structure,dice\nhdt_c-00,putamen,0.5\nhdt_c-00,pallidum,0.5\n"),
            "scores of pallidum, putamen, and the study segments",
        ),
        (plain("s.json", "{"), "s.json cannot be read"),
        (plain("s.json", '{"test_sets": {}}'), "no summary.json of nnU-Net v2.*its subjects.csv"),
        (plain("s.json", '{"metric_per_case": [{"metrics": {}}]}'), "case 1: it lacks 'metrics' or 'prediction_file'"),
        (nnunet(lambda s: s), "case 1: its label '2' is none of the study's 1 structures"),
        (nnunet(with_values(metrics={"(1, 2)": {"Dice": 1}})), r"case 1: its label '\(1, 2\)'"),
        (nnunet(with_values(Dice=1.5)), "case 1: 'Dice' is '1.5'"),
        (nnunet(with_values(Dice=float("nan"), n_ref=0, n_pred=3)), "case 1: 'Dice' is 'nan'"),
        (nnunet(with_values(HD=3)), "case 1: label 1 has neither 'Dice' nor 'IoU'"),
    ],
)
def test_what_is_no_score_is_refused(tmp_path: Path, write: Callable[[Path], Path], fault: str) -> None:
    results = read(tmp_path, make_rows(BRAIN[:1], n=(2,), seeds=1, persons=3))
    with pytest.raises(InputError, match=fault):
        with_others(results, {"Other": write(tmp_path)})


def test_what_could_be_two_things_is_refused(tmp_path: Path) -> None:
    same = [r | {"subject": r["subject"][-2:]} for r in make_rows(BRAIN[:1], n=(2,), seeds=1, persons=3)]
    results = read(tmp_path, same)
    with pytest.raises(InputError, match="scan 00 is that of hdt_c or of oas_c: add a column 'test_set'"):
        with_others(results, {"Other": plain("x.csv", "subject,iou\n00,0.5\n")(tmp_path)})
    named = plain("x.csv", "subject,iou,test_set\n00,0.5,hdt_c\n00,0.7,oas_c\n")(tmp_path)
    found = with_others(results, {"Other": named})
    assert [o.score and o.score.mean for o in other_scores(found)] == [0.5, 0.7]
    twice = plain("x.csv", "subject,iou,test_set\n00,0.5,mine\n00,0.7,yours\n")(tmp_path)
    with pytest.raises(InputError, match="in the test sets 'mine' and 'yours', and the study has neither"):
        with_others(results, {"Other": twice})
    with pytest.raises(InputError, match="as the study names a method"):
        with_others(results, {"MAL-C-FT": named})
    several = read(tmp_path, rows_of(*STRUCTURES))
    with pytest.raises(InputError, match="lacks the column 'structure', and the study is of caudate_left, Lateral"):
        with_others(several, {"Other": plain("x.csv", "subject,iou\nhdt_c-00,0.5\n")(tmp_path)})


@pytest.mark.parametrize("text", ["a.csv", ":a.csv", "name:", "_a:b.csv", "$a$:b.csv", "a" * 41 + ":b.csv"])
def test_a_name_that_cannot_stand_in_a_figure_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="write NAME:FILE"):
        named_files([text])


def test_names_and_files() -> None:
    assert named_files(["nnU-Net: C:/a.json", "model (1.0):b"]) == {
        "nnU-Net": Path("C:/a.json"),
        "model (1.0)": Path("b"),
    }
    with pytest.raises(InputError, match="two files named 'a'"):
        named_files(["a:1", "a:2"])
    with pytest.raises(InputError, match="has 9 files, and a figure tells 8 apart"):
        named_files([f"a{i}:{i}" for i in range(9)])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Each figure with a legend that is saved, by its name."""
    out: dict[str, Figure] = {}
    save = view.save_figure

    def keep(figure: Figure, path: Path, **given: str) -> None:
        if figure.legends:
            out[f"{path.parent.name}/{path.stem}"] = figure
        save(figure, path, **given)

    monkeypatch.setattr(view, "save_figure", keep)
    return out


def lines_in(figure: Figure, axis: int = 0, upright: bool = False) -> dict[str, tuple[float, Any]]:
    """Name -> where it lies and how it is dashed, of the lines through the whole of a panel."""
    found = {}
    for line in figure.axes[axis].lines:
        along, across = (line.get_ydata(), line.get_xdata()) if upright else (line.get_xdata(), line.get_ydata())
        if list(along) == [0, 1] and not str(line.get_label()).startswith("_"):
            low, high = figure.axes[axis].get_xlim() if upright else figure.axes[axis].get_ylim()
            assert low <= across[0] == across[1] <= high and line.get_linestyle() == "--"
            found[str(line.get_label())] = (float(across[0]), tuple(line._dash_pattern[1]))
    return found


def labels_of(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.legends[0].get_texts()]


def in_legends(figure: Figure) -> None:
    """Every legend lies within its figure."""
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0


def test_the_figures_have_the_lines_and_the_page_names_them(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    rows = rows_of(*STRUCTURES, n=(2, 4, 8))
    sweep = write_sweep(tmp_path, n=(2, 4, 8), cells=False)
    write_rows(sweep / "results.csv", rows)
    one, two = others_of(rows, 3), others_of(rows, 4)
    gone = [k for k in two if k[0].startswith("oas_c") and (k[1] == STRUCTURES[1] or k[2] == "oas_c-02")]
    for key in gone:
        del two[key]
    low = {k: v / 10 for k, v in one.items()}
    files = {
        name: write_csv(tmp_path / f"{name[0]}.csv", scores, "test_set,structure,subject,iou,dice")
        for name, scores in (("MeshNet", one), ("nnU-Net", two), ("far below", low))
    }
    page = write_report(sweep, tmp_path / "report", 0, files)
    parsed = Parsed(page.read_text(encoding="utf-8"))

    def mean(scores: Scores, data_set: str, *structures: str) -> float:
        return float(np.mean([v for (t, s, _), v in scores.items() if t.startswith(data_set) and s in structures]))

    def check(figure: Figure, axis: int, data_set: str, structures: Sequence[str], names: Sequence[str]) -> None:
        found = lines_in(figure, axis)
        each = {"MeshNet": one, "nnU-Net": two, "far below": low}
        want = {n: mean(each[n], data_set, *structures) for n in names}
        assert {n: y for n, (y, _) in found.items()} == pytest.approx(want)
        assert len({dash for _, dash in found.values()}) == len(names)

    every = ("MeshNet", "nnU-Net", "far below")
    for folder, structures in (
        ("all", STRUCTURES),
        ("caudate_left", STRUCTURES[:1]),
        ("Lateral-ventricle", STRUCTURES[1:]),
    ):
        stem = "mean" if folder == "all" else structures[0]
        check(drawn[f"{folder}/iou_by_n_hdt_c_{stem}"], 0, "hdt_c", structures, every)
        # Of unseen data nnU-Net lacks a structure, so it has no mean over both either.
        unseen = every if folder == "caudate_left" else ("MeshNet", "far below")
        check(drawn[f"{folder}/unseen_by_n"], 0, "oas_c", structures, unseen)
        check(drawn[f"{folder}/learning_curves"], 0, "hdt_c", structures, every)
        check(drawn[f"{folder}/learning_curves"], 1, "oas_c", structures, unseen)
        assert labels_of(drawn[f"{folder}/unseen_by_n"])[2:] == list(unseen)
        assert labels_of(drawn[f"{folder}/learning_curves"])[2:] == list(every)
    for figure in drawn.values():
        in_legends(figure)
        behind = [x.zorder for a in figure.axes for x in a.lines if x.get_label() in every]
        assert max(behind) <= min(x.zorder for a in figure.axes for x in a.lines if x.get_marker() not in ("None", ""))
    dashes = {n: {lines_in(f)[n][1] for f in drawn.values() if n in lines_in(f)} for n in every}
    assert all(len(d) == 1 for d in dashes.values())  # the same in every figure

    text = parsed.text
    assert (
        f"MeshNet {mean(one, 'hdt_c', *STRUCTURES):.3f}" in text and "Dashed lines are others, which have no n" in text
    )
    assert f"nnU-Net {mean(two, 'oas_c', STRUCTURES[0]):.3f} (3 of 4 persons)" in text
    assert "nnU-Net has 3 of 4 persons of oas_c_caudate_left: its mean is over those" in text
    assert "nnU-Net has no person of oas_c_mean with all scans, so it has no line there" in text
    assert "On hdt_c_mean, 0 of 18 comparisons showed a difference (4 persons)" in text
    assert "than far below's on hdt_c_caudate_left at n = 8" in text
    assert str(files["nnU-Net"]) in text

    def table(name: str) -> list[dict[str, str]]:
        with (page.parent / "tables" / name).open(newline="") as f:
            return list(csv.DictReader(f))

    row = next(r for r in table("caudate_left/unseen_scores.csv") if r["method"] == "nnU-Net")
    assert (row["n"], row["seeds"], row["persons"], row["note"]) == ("", "", "3", "no n; 3 of 4 persons")
    mine = {k[2]: v for k, v in two.items() if k[0].startswith("oas_c") and k[1] == "caudate_left"}
    assert row["lowest person"] == min(mine, key=lambda s: mine[s])
    assert float(row["lowest"]) == pytest.approx(min(mine.values()), abs=1e-4)
    sides = {(r["data set"], r["structure"]): r["nnU-Net"] for r in table("all/structures.csv")}
    assert float(sides["hdt_c", "mean of 2"]) == pytest.approx(mean(two, "hdt_c", *STRUCTURES), abs=1e-4)
    assert sides["oas_c", "mean of 2"] == sides["oas_c", STRUCTURES[1]] == ""
    assert len(table("all/target_others.csv")) == 3 * 3 * 2


def test_of_many_methods_the_lines_are_upright(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    methods = [Truth(f"M{i}", "mal_c") for i in range(9)]
    sweep = write_sweep(tmp_path, methods=methods, n=(2, 4), cells=False)
    rows = make_rows(methods, n=(2, 4), seeds=2, persons=4)
    theirs = others_of(rows)
    file = write_csv(tmp_path / "a.csv", theirs, "test_set,subject,iou")
    write_report(sweep, tmp_path / "report", 0, {"Other": file})
    for test_set, stem in (("hdt_c", "iou_by_n_hdt_c"), ("oas_c", "unseen_by_n_oas_c")):
        figure = drawn[f"figures/{stem}"]
        for axis in (0, 1):
            (x, _), *others = lines_in(figure, axis, upright=True).values()
            assert not others and x == pytest.approx(np.mean([v for k, v in theirs.items() if k[0] == test_set]))
        assert labels_of(figure) == ["Other"]


def test_the_command_takes_several_of_one_study(tmp_path: Path) -> None:
    for name in ("brain", "other"):
        write_sweep(tmp_path, name, n=(2,), cells=False)
    file = plain("x.csv", "subject,dice\nhdt_c-00,0.5\n")(tmp_path)
    compare = [f"A:{file}", f"B:{file}"]
    with pytest.raises(InputError, match="for the report of one study: give `study`, one of brain, other"):
        tl.report(tmp_path, viewers=0, compare=compare)
    (page,) = tl.report(tmp_path, study="other", viewers=0, compare=compare)
    with (page.parent / "tables" / "others.csv").open(newline="") as f:
        assert [(r["name"], r["file"], r["scores"]) for r in csv.DictReader(f)] == [(x, str(file), "1") for x in "AB"]


def test_a_file_of_a_study_that_could_not_show_it_is_refused(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, cells=False, fields={"sections": ["methods", "worst"]})
    file = plain("x.csv", "subject,dice\nhdt_c-00,0.5\n")(tmp_path)
    with pytest.raises(InputError, match="no section where others could stand"):
        write_report(sweep, tmp_path / "report", 0, {"Other": file})
    assert not (tmp_path / "report").exists()
