"""The benchmark of runs at once measures every number of them."""

import pytest

from benchmarks import together
from benchmarks.sizes import Size
from benchmarks.tables import plain

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.slow
def test_every_number_of_runs_is_measured() -> None:
    case = together.measure(Size("switch8x2", 1, (8, 8, 8), "tiny"), "encoder", rounds=2, runs=(1, 2))
    assert set(case["step_seconds_a_run"]) == {"1", "2"} and case["ratio_2_runs_to_one"]["median"] > 0
    (table,) = plain({"part": "together", "cases": [case]})
    assert "ratio 2 runs to one" in table.columns
