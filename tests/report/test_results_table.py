"""results.csv is read strictly; persons are the units."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.report.sweep_results import BRAIN, Truth, make_rows, write_results, write_rows
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import by_person, by_unit, read_results


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = read_results(write_results(tmp_path / "results.csv", distances=True))
    assert found.methods == tuple(t.name for t in BRAIN) and found.numbers == (2, 4, 8, 16)
    assert found.seeds == (0, 1, 2) and found.synthetic
    assert len(found.where(role="target")) == len(found.where(role="unseen")) == 4 * 4 * 3 * 6
    assert {r.pretask for r in found.where(role="pretask")} == {"mal_c", "hdt_v", "hdt_wb"}
    row = found.where(role="unseen", method="HDT-V-FT", n=8, seed=1).rows[0]
    assert row.test_set == "oas_c" and row.hd95_mm == pytest.approx(6 * (1 - row.iou), abs=1e-4)
    assert row.volume_error_ml == pytest.approx(row.predicted_ml - row.reference_ml)
    assert row.fold is None and row.factors == {}


def test_a_person_is_one_unit_whatever_the_seeds_and_scans(tmp_path: Path) -> None:
    everything = read_results(write_results(tmp_path / "r.csv", scans=2))
    found = everything.where(role="target", method="MAL-C-FT", n=4)
    assert len(found) == 6 * 2 * 3
    means = by_person(found)
    for person, mean in means.items():
        assert mean == pytest.approx(np.mean([r.iou for r in found if r.person == person]))
    assert len(means) == 6 and len(by_unit(found, lambda r: r.subject)) == 12
    assert by_person(found, "hd95_mm") == {}  # not measured


def test_folds_and_factors(tmp_path: Path) -> None:
    points = [Truth("f1", "f_a", factors={"structure": "caudate", "disease": "AD"})]
    found = read_results(write_results(tmp_path / "r.csv", points, folds=3))
    target = found.where(role="target", n=2)
    assert {r.fold for r in target} == {0, 1, 2} and len(target) == 6
    assert target.rows[0].factors == {"structure": "caudate", "disease": "AD"}


Edit = Callable[[list[dict[str, str]]], object]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda r: r[20].update(iou="1.2"), "line 22: 'iou' is '1.2', not a number between 0 and 1"),
        (lambda r: r[20].update(iou="nan"), "line 22: 'iou' is 'nan'"),
        (lambda r: r[20].update(reference_ml="-1"), "'reference_ml' is '-1', not a number of 0 or more"),
        (lambda r: r[20].update(role="test"), "'role' is 'test', not one of target, unseen, pretask"),
        (lambda r: r[20].update(n="two"), "'n' is 'two', not a whole number"),
        (lambda r: r[20].update(n="0"), "trained on 1 scan or more"),
        (lambda r: r[20].update(person=""), "'person' is empty"),
        (lambda r: r[20].update(synthetic="yes"), "'synthetic' is 'yes', not 0 or 1"),
        (lambda r: r[20].update(dice="0.1"), "do not belong together"),
        (lambda r: r[20].update(method=""), "'method' is empty"),
        (lambda r: r[0].update(method="X"), "'n' is 0, and a model is trained on 1 scan or more"),
        (lambda r: r.insert(21, dict(r[20])), "lines 22 and 23 are both of subject hdt_c-02 of hdt_c in cell"),
        (lambda r: r.clear(), "has no rows"),
    ],
)
def test_an_impossible_row_is_named_in_one_sentence(tmp_path: Path, edit: Edit, words: str) -> None:
    rows = make_rows()
    edit(rows)
    with pytest.raises(InputError) as e:
        read_results(write_rows(tmp_path / "results.csv", rows))
    assert words in str(e.value) and "results.csv" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "lacks the column 'study'"),
        (None, "does not exist: run the sweep first"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("", "lacks the column 'study'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str | bytes | None, words: str) -> None:
    path = tmp_path / "results.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words):
        read_results(path)


def test_a_cut_line_and_columns_that_no_sweep_writes(tmp_path: Path) -> None:
    path = write_results(tmp_path / "results.csv")
    whole = path.read_text()
    path.write_text(whole[: len(whole) - 40])
    with pytest.raises(InputError, match=f"line {whole.count(chr(10))}: the row has another length"):
        read_results(path)
    header, rest = whole.split("\n", 1)
    path.write_text(f"{header},colour\n{rest}")
    with pytest.raises(InputError, match="'colour' that no sweep writes"):
        read_results(path)
    path.write_text(f"{header},factor_skull\n{rest}")
    with pytest.raises(InputError, match="lacks the column 'factor_structure'"):
        read_results(path)


def test_all_scans_are_one_n_of_their_own_however_many_each_fold_leaves(tmp_path: Path) -> None:
    """On an axis they stand at the mean of the folds' numbers, and are still not the n of that number."""
    rows = make_rows(BRAIN[:1], (2, 8, 99), 2, 4)
    for row in rows:
        if row["n"] == "99":
            row |= {"n": "all", "scans": str(7 + 2 * int(row["seed"]))}
    results = read_results(write_rows(tmp_path / "r.csv", rows))
    numbers = results.numbers
    assert [str(n) for n in numbers] == ["2", "8", "all"] and np.array(numbers, float).tolist() == [2, 8, 8]
    assert len(set(numbers)) == 3 and numbers[2] != 8 and numbers[2] != 8 and max(numbers[2], 8) is numbers[2]
    assert {r.seed for r in results.where(n=numbers[2])} == {0, 1}
    assert all(r.n == 8 for r in results.where(n=8)) and f"n = {numbers[2]}" == "n = all"
    rows[-1]["scans"] = ""
    with pytest.raises(InputError, match=r"line \d+: 'scans' is empty"):
        read_results(write_rows(tmp_path / "r.csv", rows))
