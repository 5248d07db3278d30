"""Timing in turns, ratios, rates and result files."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measure
from tlseg_jax.runtime.errors import InputError


def test_programs_take_turns_and_warming_up_is_not_counted() -> None:
    calls: list[str] = []
    seconds = measure.alternate({n: lambda n=n: calls.append(n) for n in "ab"}, rounds=3, warmup=2)  # type: ignore[misc]
    assert "".join(calls) == "ab" * 5
    assert {n: len(s) for n, s in seconds.items()} == {"a": 3, "b": 3}
    assert all(s > 0 for all_ in seconds.values() for s in all_)


def test_summary_is_numpys() -> None:
    seconds = [3.0, 1.0, 2.0, 10.0]
    assert measure.summary(seconds) == {"median": 2.5, "p90": np.percentile(seconds, 90), "least": 1.0}


def test_a_ratio_is_taken_pair_by_pair() -> None:
    b = [1.0, 10.0, 100.0]  # a disturbance that both sides share
    found = measure.ratio([2 * s for s in b], b)
    assert found == {"median": 2.0, "low": 2.0, "high": 2.0}
    with pytest.raises(ValueError, match="broadcast"):
        measure.ratio([1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_result_says_where_it_comes_from(tmp_path: Path) -> None:
    path = measure.write_result("loader", {"sizes": "reduced"}, str(tmp_path / "made" / "loader.json"))
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["part"], found["command"], found["sizes"]) == ("loader", "python -m benchmarks.loader", "reduced")
    assert {"jax", "numpy", "python"} <= set(found["environment"]["versions"])
    assert found["environment"]["cores"] >= 1


def test_the_default_place_names_part_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = measure.write_result("loader", {})
    assert path == Path("benchmarks/results") / measure.machine_name() / "loader.json" and path.is_file()


def test_a_result_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose another --out"):
        measure.write_result("loader", {}, str(tmp_path / "file" / "loader.json"))


def test_the_machines_folder_is_a_plain_name() -> None:
    assert measure.machine_name().replace("-", "").replace("_", "").replace(".", "").isalnum()
