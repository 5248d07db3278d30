"""On whom a method does worse: found where it was put in, not claimed where it was not, and counted by SciPy's test."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.report.sweep_folder import write_sweep
from tests.report.sweep_results import BRAIN, make_rows, write_rows
from tests.report.test_page import Parsed
from tlseg_jax.report.participants import read_participants
from tlseg_jax.report.stats.groups import Group, compare_groups
from tlseg_jax.report.sweep_report import write_report
from tlseg_jax.report.words.study_words import group_words
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import Results, read_results

AGES = {f"hdt_c-{i:02d}": {"age": str(30 + i), "scanner": "AB"[i % 2], "id": f"x{i}"} for i in range(26)}


def results(folder: Path, old: float = 0.0, persons: int = 26, **more: object) -> Results:
    """One method at n = 4; `old` is added to the IoU of those above the median age."""
    rows = make_rows(BRAIN[:1], (4,), 3, persons, unseen=(), noise=0.005, **more)
    for r in rows:
        if r["role"] == "target" and int(r["person"][-2:]) >= persons / 2:
            iou = float(r["iou"]) + old
            r |= {"iou": f"{iou:.6f}", "dice": f"{2 * iou / (1 + iou):.6f}"}
    return read_results(write_rows(folder / "r.csv", rows))


def of(found: tuple[Group, ...], kind: str) -> dict[str, Group]:
    return {g.name: g for g in found if g.kind == kind}


def test_a_group_that_does_worse_is_found_and_others_are_not(tmp_path: Path) -> None:
    given = results(tmp_path, -0.1)
    found = compare_groups(given, "MAL-C-FT", 4, AGES)
    ages = of(found, "age")
    assert list(ages) == ["up to 42.5", "above 42.5"]
    old = ages["above 42.5"]
    assert old.verdict == "lower" and old.difference == pytest.approx(-0.1, abs=0.03) and old.interval.n == 13
    assert old.low is not None and old.high is not None and old.low < old.difference < old.high < 0
    assert ages["up to 42.5"].verdict == "higher" and ages["up to 42.5"].p == old.p
    each = [np.mean([r.iou for r in given if r.role == "target" and r.person == p]) for p in sorted(AGES)]
    kinds = {(g.place, g.kind) for g in found}
    assert kinds == {("hdt_c", k) for k in ("size of the structure", "age", "scanner")}  # one source; ids are no group
    raw = stats.mannwhitneyu(each[13:], each[:13]).pvalue
    assert old.p == pytest.approx(3 * raw)  # three kinds of two groups each, the smallest of three
    assert {g.verdict for g in of(found, "scanner").values()} == {"cannot tell"}
    said = group_words(found, "MAL-C-FT", 4)
    (aged,) = [line for line in said if line.startswith("**By age**")]
    assert "was lower for above 42.5 than for the others, by 0.1" in aged and aged.count("13 persons, 3 seeds") == 2
    (scanner,) = [line for line in said if line.startswith("**By scanner**")]
    assert "no difference was shown" in scanner and "A 0." in scanner and "B 0." in scanner


def test_alike_persons_show_nothing(tmp_path: Path) -> None:
    shown = [
        g.verdict
        for seed in range(10)
        for g in compare_groups(
            results(tmp_path),
            "MAL-C-FT",
            4,
            {p: {"side": "ab"[np.random.default_rng(seed).permutation(26)[i] % 2]} for i, p in enumerate(AGES)},
        )
    ]
    assert shown.count("cannot tell") >= 0.9 * len(shown)


def test_few_persons_are_said_to_show_none(tmp_path: Path) -> None:
    found = compare_groups(results(tmp_path, -0.3, persons=4), "MAL-C-FT", 4, AGES)
    assert all(g.verdict == "cannot tell" and g.low is None for g in found)
    (line,) = group_words(found, "MAL-C-FT", 4)
    assert line.startswith(
        "**Too few persons** to show any difference of MAL-C-FT with n = 4: by size of the structure"
    )
    assert line.endswith("by age on hdt_c (2 against 2 persons), by scanner on hdt_c (2 against 2 persons).")


def test_a_source_is_compared_with_the_others(tmp_path: Path) -> None:
    rows = make_rows(BRAIN[3:], (4,), 3, 14, noise=0.005)
    found = of(compare_groups(read_results(write_rows(tmp_path / "r.csv", rows)), "HDT-C-E2E", 4, {}), "source")
    assert found["oas_c"].verdict == "lower" and found["oas_c"].difference == pytest.approx(-0.25, abs=0.03)
    assert found["hdt_c"].others == found["oas_c"].interval.n == 14


def test_the_page_tells_by_the_columns_of_a_participants_file(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, cells=False, persons=6, fields={"sections": ["answer", "worst"]})
    table = tmp_path / "participants.tsv"
    lines = [f"sub-{s}-{i:02d}\t{'n/a' if i == 5 else 40 + i % 2}\tGE" for s in ("hdt_c", "oas_c") for i in range(6)]
    table.write_text("participant_id\tage\tscanner\n" + "\n".join([*lines, "sub-else\t9\tGE"]) + "\n")
    text = Parsed(write_report(sweep, tmp_path / "report", 0, participants=table).read_text(encoding="utf-8")).text
    assert re.search(r"by age on hdt_c \((3 against 2|2 against 3) persons\)", text)
    assert "by scanner" not in text  # all are of one
    with (tmp_path / "report" / "tables" / "groups.csv").open(newline="") as f:
        ages = {r["group"]: (r["persons"], r["seeds"]) for r in csv.DictReader(f) if r["by"] == "age"}
    assert ages == {"40": ("3", "2"), "41": ("2", "2")}
    assert text.index("What to start from.") < text.index("Too few persons") < text.index("by age on hdt_c")


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("p.tsv", None, "cannot be read"),
        ("p.tsv", "name\tage\na\t1\n", "has no column participant_id, person or subject"),
        ("p.csv", "person\na\n", "has no column beside person"),
        ("p.csv", "person,age\na\n", "has a row of another length"),
        ("p.csv", "person,age\na,1\nsub-a,2\n", "has sub-a twice"),
        ("p.csv", "person,age\nz,1\n", "has none of the 2 persons that the study tested, such as a"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path: Path, name: str, text: str | None, fault: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=fault):
        read_participants(tmp_path / name, ["a", "b"])
