"""The learning curve against SciPy's own fit and against curves that are known."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit

from tlseg_jax.report.stats.learning_fit import LearningCurve, NoCurve, fit_learning_curve, labels_needed

N = (2, 4, 8, 16, 32, 64)


def scores(
    a: float,
    b: float,
    c: float,
    persons: int = 12,
    noise: float = 0.0,
    spread: float = 0.02,
    n: tuple[int, ...] = N,
    seed: int = 0,
) -> dict[int, dict[str, float]]:
    rng = np.random.default_rng(seed)
    own = rng.normal(0, spread, persons)
    return {k: {f"p{i}": float(a - b * k**-c + own[i] + rng.normal(0, noise)) for i in range(persons)} for k in n}


def fitted(found: LearningCurve | NoCurve) -> LearningCurve:
    assert isinstance(found, LearningCurve)
    return found


def test_a_known_curve_is_found() -> None:
    curve = fitted(fit_learning_curve(scores(0.9, 0.5, 0.7, spread=0.0)))
    assert (curve.a, curve.b, curve.c) == (
        pytest.approx(0.9, abs=1e-4),
        pytest.approx(0.5, abs=1e-3),
        pytest.approx(0.7, abs=2e-3),
    )
    assert curve.at(np.array(N)) == pytest.approx(curve.mean, abs=1e-4)
    assert curve.persons == 12 and curve.n == N


@pytest.mark.parametrize("seed", range(4))
def test_it_fits_no_worse_than_scipy(seed: int) -> None:
    data = scores(0.88, 0.6, 0.8, noise=0.03, seed=seed)
    curve = fitted(fit_learning_curve(data))
    mean = np.array([np.mean(list(data[n].values())) for n in N])
    n = np.array(N, float)
    found, _ = curve_fit(
        lambda x, a, b, c: a - b * x**-c, n, mean, p0=(0.9, 0.5, 0.5), bounds=([0, 0, 0.05], [1, np.inf, 4])
    )
    theirs = ((found[0] - found[1] * n ** -found[2] - mean) ** 2).sum()
    ours = ((curve.at(n) - mean) ** 2).sum()
    assert ours <= theirs * (1 + 1e-3) + 1e-9
    assert (curve.a, curve.c) == (pytest.approx(found[0], abs=2e-3), pytest.approx(found[2], rel=0.02))


def test_bounds_hold_for_scores_that_no_such_curve_has() -> None:
    falling = fitted(fit_learning_curve({n: {"p": 0.8 - 0.01 * i, "q": 0.7} for i, n in enumerate(N)}))
    assert falling.b == 0 and falling.a == pytest.approx(np.mean(falling.mean))
    straight = fitted(fit_learning_curve({n: {"p": 0.1 + 0.15 * i, "q": 0.1 + 0.14 * i} for i, n in enumerate(N)}))
    assert straight.a <= 1 and straight.c >= 0.05
    assert (straight.resampled[:, 0] <= 1).all() and (straight.resampled[:, 1] >= 0).all()


def test_labels_needed_are_those_of_the_curve() -> None:
    curve = fitted(fit_learning_curve(scores(0.9, 0.5, 0.7, noise=0.01)))
    found = labels_needed(curve, 0.8)
    assert found.reach == "within" and found.n == pytest.approx((0.5 / 0.1) ** (1 / 0.7), rel=0.15)
    assert float(curve.at(np.array([found.n]))[0]) == pytest.approx(0.8)
    assert found.low is not None and found.high is not None and found.low < found.n < found.high
    assert found.words == f"{found.n:.1f}" and found.interval == f"{found.low:.1f} to {found.high:.1f}"


def test_what_was_not_tried_is_not_claimed() -> None:
    curve = fitted(fit_learning_curve(scores(0.9, 0.5, 0.7, spread=0.0)))
    never = labels_needed(curve, 0.92)
    assert never.reach == never.words == "not reached" and never.n is None and never.high == math.inf
    far = labels_needed(curve, 0.89)
    assert far.reach == "beyond the range" and far.words == far.interval == "more than 64"
    first = labels_needed(curve, 0.3)
    assert first.reach == "at the fewest" and first.words == "2 or fewer"


def test_too_little_says_why() -> None:
    two = fit_learning_curve(scores(0.9, 0.5, 0.7, n=(2, 4)))
    assert isinstance(two, NoCurve) and "3 or more values of n (there: 2, 4)" in two.reason
    nobody = fit_learning_curve({2: {"a": 0.1}, 4: {"b": 0.2}, 8: {"c": 0.3}})
    assert isinstance(nobody, NoCurve) and nobody.reason == "no person has a score at every n"
    one = fitted(fit_learning_curve(scores(0.9, 0.5, 0.7, persons=1)))
    assert one.band(np.array([3.0])) is None and one.plateau.low is None
    assert labels_needed(one, 0.8).interval == ""


def test_the_interval_covers_what_other_persons_would_give() -> None:
    """95% over persons, somewhat less with 15 of them, as percentile intervals are."""
    truth, held = (0.5 / 0.1) ** (1 / 0.7), []
    for seed in range(30):
        found = labels_needed(fitted(fit_learning_curve(scores(0.9, 0.5, 0.7, 15, 0.01, 0.03, seed=seed))), 0.8)
        assert found.low is not None and found.high is not None
        held.append(found.low <= truth <= found.high)
    assert 0.8 <= np.mean(held) <= 1.0
