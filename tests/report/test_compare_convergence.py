"""Convergence of curves whose numbers are known in closed form."""

import math

import numpy as np
import pytest

from tlseg_jax.evaluate.convergence import common_levels, measure_convergence, smoothed


def falling(rate: float, steps: int = 2000, floor: float = 0.0) -> list[tuple[int, float]]:
    return [(i, floor + (1 - floor) * math.exp(-i / rate)) for i in range(1, steps + 1)]


def test_an_exponential_has_its_half_life_and_its_area() -> None:
    fast, slow = falling(100), falling(200)
    levels = common_levels([fast, slow])
    f, s = measure_convergence(fast, levels), measure_convergence(slow, levels)
    # A median of a falling curve is the curve itself, but for the half window at the ends.
    for c, rate in ((f, 100), (s, 200)):
        for share in (0.5, 0.25, 0.1):
            step = c.steps_to[share]
            assert step == pytest.approx(-rate * math.log(share * levels.start), abs=2)
        assert c.area == pytest.approx(rate / 2000 / levels.start, rel=0.06)
    assert levels.end == pytest.approx(math.exp(-1975 / 200), rel=0.03)
    assert s.steps_to_end == pytest.approx(1975, abs=3)
    assert f.steps_to_end is not None and s.steps_to_end is not None
    assert f.steps_to_end == pytest.approx(s.steps_to_end / 2, abs=3)


def test_every_run_reaches_the_common_level_and_noise_does_not_decide_it() -> None:
    rng = np.random.default_rng(0)
    curves = [[(i, v * math.exp(rng.normal(0, 0.3))) for i, v in falling(r, floor=0.05)] for r in (50, 100, 400)]
    levels = common_levels(curves)
    assert levels.end == pytest.approx(0.055, rel=0.25)
    found = [measure_convergence(c, levels) for c in curves]
    assert all(c.steps_to_end is not None for c in found)
    assert found[0].area < found[1].area < found[2].area
    assert measure_convergence(curves[0][::-1], levels) == found[0]


def test_runs_of_other_lengths_share_the_shortest_ones_steps() -> None:
    long, short = falling(100, 2000), falling(100, 500)
    levels = common_levels([long, short])
    assert levels.last_step == 500
    assert measure_convergence(long, levels).area == pytest.approx(measure_convergence(short, levels).area, rel=0.05)


def test_a_level_that_is_never_reached_is_none_and_few_steps_do() -> None:
    flat = [(i, 0.7) for i in range(1, 50)]
    levels = common_levels([flat])
    found = measure_convergence(flat, levels)
    assert found.steps_to == {0.5: None, 0.25: None, 0.1: None}
    assert found.steps_to_end == 1 and found.area == pytest.approx(1)
    one = measure_convergence([(1, 0.7)], common_levels([[(1, 0.7)]]))
    assert one.steps_to_end == 1 and one.area == pytest.approx(1)
    zero = measure_convergence([(1, 0.0), (2, 0.0)], common_levels([[(1, 0.0), (2, 0.0)]]))
    assert math.isnan(zero.area)


def test_what_is_not_finite_counts_nowhere() -> None:
    curve = falling(100)
    gaps = [*curve[:5], (6, math.nan), *curve[6:], (2001, math.inf)]
    steps, values = smoothed(gaps)
    assert 6 not in steps and steps[-1] == 2000 and np.isfinite(values).all()


def test_the_ends_are_medians_of_half_a_window() -> None:
    values = np.random.default_rng(1).random(400)
    _, found = smoothed(list(enumerate(values.tolist(), 1)))
    half = (400 // 20 | 1) // 2
    assert found[200] == np.median(values[200 - half : 201 + half])
    assert values[-half - 1 :].min() < found[-1] < values[-half - 1 :].max()
    assert found[-1] == pytest.approx(np.median(values[-half - 1 :]), abs=0.15)
