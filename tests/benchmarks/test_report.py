"""Results become the tables of a page and plots, the same ones each time."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import freezing, report, step_time
from benchmarks.measure import RESULTS, write_result
from benchmarks.sizes import Size
from tlseg_jax.runtime.errors import InputError

# Not every program of a CPU can be kept for the next start; these need not be.
pytestmark = pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache")

TINY = Size("switch32", 1, (8, 8, 8), "tiny")
PAGE = f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nThe rest.\n"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the results of two parts."""
    monkeypatch.chdir(tmp_path)
    ratio = {"median": 1.5, "low": 1.25, "high": 2.0}
    loader = {
        "data": "heads",
        "network": "switch32",
        "batch": 2,
        "shape": [8, 8, 8],
        "samples_a_second_in_training": 12.0,
        "ratio_store_to_held": ratio,
    }
    write_result("loader", {"sizes": "reduced", "cases": [loader]}, str(RESULTS / "some-machine" / "loader.json"))
    other = {"cases": [{"network": "unet2d", "gain": ratio, "steps_per_call": 8, "losses": [0.1, 0.2]}]}
    write_result("device_cache", other, str(RESULTS / "some-machine" / "device_cache.json"))
    return tmp_path


def _write(text: str = PAGE) -> str:
    return report.between_markers(text, report.tables_text(report.read_results()), "performance.md")


@pytest.mark.usefixtures("results")
def test_tables_replace_what_is_between_the_markers_and_nothing_else() -> None:
    text = _write()
    assert text.startswith("# Title\n\n") and text.endswith("\n\nThe rest.\n") and "old" not in text
    assert "| heads | switch32, 2 x 8x8x8 | 12 | 1.50 (1.25 to 2.00) |" in text
    assert "`python -m benchmarks.loader`" in text and "reduced sizes" in text
    assert _write(text) == text


@pytest.mark.usefixtures("results")
def test_a_part_without_a_table_of_its_own_gets_its_plain_values() -> None:
    text = _write()
    assert "| network | gain | steps per call |" in text and "| unet2d | 1.50 (1.25 to 2.00) | 8 |" in text


@pytest.mark.usefixtures("results")
def test_plots_are_the_same_each_time() -> None:
    (path,) = report.draw_all(report.read_results())
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG") and path == RESULTS / "some-machine" / "loader.png"
    assert report.draw_all(report.read_results()) == [path] and path.read_bytes() == first


@pytest.mark.parametrize("text", ["no markers", report.BEGIN, f"{report.END}{report.BEGIN}", PAGE + PAGE])
def test_a_page_without_its_markers_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="once each"):
        report.between_markers(text, "", "performance.md")


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("content", ["{", "[]", '{"machine": {}}'])
def test_a_file_that_is_no_result_is_one_sentence(content: str) -> None:
    (RESULTS / "some-machine" / "old.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"benchmarks\.old"):
        report.read_results()


@pytest.mark.usefixtures("results")
def test_a_result_of_another_make_is_one_sentence() -> None:
    write_result("freezing", {"cases": [{}]}, str(RESULTS / "some-machine" / "freezing.json"))
    with pytest.raises(InputError, match="make it again"):
        _write()


def test_no_results_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run a benchmark first"):
        report.read_results(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("results", "quick_compile")
def test_what_the_steps_parts_write_is_what_their_tables_read() -> None:
    rates: dict[str, Any] = {"matrix_rate": {"float32": 1e11}, "copy_rate": 1e10}
    forms = step_time.measure(TINY, ("float32",), rates["matrix_rate"], rates["copy_rate"], rounds=2)
    timed = rates | {"cases": [{"size": TINY.to_dict(), "forms": forms}]}
    write_result("step_time", timed, str(RESULTS / "some-machine" / "step_time.json"))
    rows = freezing.measure(TINY, "float32", rounds=2)
    frozen = {"cases": [{"size": TINY.to_dict(), "dtype": "float32", "freezings": rows}]}
    write_result("freezing", frozen, str(RESULTS / "some-machine" / "freezing.json"))
    text = _write()
    assert "| switch32, 1 x 8x8x8 | float32, frozen |" in text
    assert "| switch32, 1 x 8x8x8 | float32 | encoder |" in text
    assert {p.stem for p in report.draw_all(report.read_results())} == {"loader", "step_time", "freezing"}
    # What is frozen needs no gradient, so less is kept for it.
    assert rows["encoder"]["share"]["kept_bytes"] < 1 and rows["encoder"]["share"]["flops"] < 1
    assert dataclasses.replace(TINY, batch=2).name == "switch32, 2 x 8x8x8"


def test_committed_results_make_a_table() -> None:
    folder = Path(__file__).resolve().parents[2] / RESULTS
    if not any(folder.glob("*/*.json")):
        pytest.skip("no results are there")
    found = report.read_results(folder)
    assert all(json.dumps(r) for parts in found.values() for r in parts) and report.tables_text(found)
