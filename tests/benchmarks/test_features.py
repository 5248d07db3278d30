"""The benchmark of kept features measures both forms, and its table and plot read what it writes."""

import pytest

from benchmarks import features
from benchmarks.plots import PLOTS
from benchmarks.sizes import Size
from benchmarks.tables import TABLES
from tlseg_jax.models.networks import get_network

# Not every program of a CPU can be kept for the next start; these need not be.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache"),
    pytest.mark.usefixtures("quick_compile"),
]


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        pytest.param(Size("switch8x2", 2, (8, 8, 8), "tiny"), 4, marks=pytest.mark.slow),
        pytest.param(Size("unet2d", 3, (16, 16), "tiny", "first_two"), 2, marks=pytest.mark.slow),
    ],
)
def test_both_forms_are_measured_and_shown(size: Size, levels: int) -> None:
    case = features.measure(size, "float32", rounds=2)
    assert case["levels"] == levels <= get_network(size.network).levels
    assert 0 < case["share_of_flops"] < 1 and case["feature_bytes_a_scan"] > case["image_bytes_a_scan"]
    assert set(case["step_seconds"]) == set(case["flops"]) == {"computed", "kept"}
    (table,) = TABLES["features"]({"cases": [case]})
    ((name, *_, shares, _megabytes, _pay),) = table.rows
    assert name == size.name and shares == f"{case['share_of_flops']:.0%}" and len(table.columns) == len(table.rows[0])
    (point,) = PLOTS["features"]({"cases": [case]}).points
    assert point.value == case["ratio_kept_to_computed"]["median"]
    assert size.name in features.line(size, case)
    no_gain = case | {"steps_to_pay_a_scan": None}
    assert "nothing pays for" in features.line(size, no_gain)
    assert TABLES["features"]({"cases": [no_gain]})[0].rows[0][-1] == "no gain"
