"""The search for the largest size, and the straight line that it follows where nothing can be compiled."""

import math

import pytest

from benchmarks.memory_limits import Case, bytes_by_trace, largest, traced
from benchmarks.sizes import Size
from tlseg_jax.models.networks import NETWORKS


@pytest.mark.parametrize("limit", [0, 1, 7, 8, 100, 12345])
@pytest.mark.parametrize("stride", [1, 16])
def test_the_largest_that_fits_is_found(limit: int, stride: int) -> None:
    """As by trying them all."""

    def takes(n: int) -> float:
        return 3.0 * n + 5 if n < 2000 else math.inf

    expected = max((n for n in range(stride, 2000, stride) if takes(n) <= limit), default=None)
    assert largest(takes, limit, 64, stride) == expected


def test_few_probes_give_a_size_that_was_tried_and_fits() -> None:
    """Never one that was only guessed."""
    tried = []

    def takes(n: int) -> float:
        tried.append(n)
        return float(n)

    found = largest(takes, 1000, 5)
    assert found in tried and len(tried) <= 5


@pytest.mark.parametrize("network", NETWORKS)
def test_memory_is_a_straight_line_in_the_voxels(network: str) -> None:
    """Of a batch and a shape that the line was not drawn through, within a hundredth."""
    sides = (64, 64, 64) if NETWORKS[network].dimensions == 3 else (256, 256)
    case = Case(Size(network, 2, sides, "cubes"), "float32", "block")
    other = case.sized(batch=3, shape=tuple(2 * s for s in sides))
    found = traced(other)
    line = bytes_by_trace(case)
    assert line(3 * math.prod(other.size.shape)) == pytest.approx(found["arguments"] + found["trace_peak"], rel=0.01)
