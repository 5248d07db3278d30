"""Curves that differ by less than their seeds agree, and others do not."""

import numpy as np
import pytest

from benchmarks.precision import agreement

STEPS = 40


def made(shift: float, noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    falling = 1 / (1 + np.arange(STEPS) / 10)
    return falling + rng.normal(0, 0.05, (5, 1)) + rng.normal(0, noise, (5, STEPS)) + shift


def test_the_same_curves_with_a_little_rounding_agree() -> None:
    a = made(0, 0.01, 1)
    found = agreement(a, a + np.random.default_rng(2).normal(0, 0.001, a.shape))
    assert found["within_noise"] is True
    assert found["same_seed"] < 0.002 < 0.02 < found["other_seed"]
    assert found["seed_noise"] == pytest.approx(a[:, -10:].mean(1).std(ddof=1))


def test_curves_that_end_higher_do_not_agree() -> None:
    a = made(0, 0.01, 1)
    found = agreement(a, made(0.3, 0.01, 3))
    assert found["within_noise"] is False
    assert found["difference"] == pytest.approx(0.3, abs=0.1)
    assert found["bfloat16"] - found["float32"] == pytest.approx(found["difference"])
