"""Agreement against published examples, an ANOVA by statsmodels and simulation."""

import numpy as np
import pytest
from scipy import stats

from tlseg_jax.report.stats.agreement import bland_altman, intraclass_correlation

# Peak expiratory flow of 17 people by two meters (Bland & Altman, Lancet 327, 1986, first readings).
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]

# Four judges of six targets (Shrout & Fleiss, Psychol. Bull. 86, 1979, Table 2).
JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def test_limits_of_agreement_of_the_published_meters() -> None:
    """Mean -2.1, standard deviation 38.8, limits -79.7 and 75.5 (with 2 for 1.96), mean's interval -22.0 to 17.8."""
    found = bland_altman({str(i): [a - b] for i, (a, b) in enumerate(zip(WRIGHT, MINI, strict=True))})
    assert found is not None and found.n == found.measurements == 17
    assert found.bias.value == pytest.approx(-2.1, abs=0.05) and found.std == pytest.approx(38.8, abs=0.05)
    assert (found.bias.low, found.bias.high) == (pytest.approx(-22.0, abs=0.1), pytest.approx(17.8, abs=0.1))
    assert found.bias.value - 2 * found.std == pytest.approx(-79.7, abs=0.1)
    # The paper takes sqrt(3 s^2 / n) for the limits' standard error and 2 for 1.96: -114.3 to -45.1.
    assert found.lower.low == pytest.approx(-114.3, abs=4) and found.lower.high == pytest.approx(-45.1, abs=4)
    exact = stats.t.ppf(0.975, 16) * found.std * np.sqrt(1 / 17 + 1.96**2 / (2 * 16))
    assert found.upper.high == pytest.approx(found.bias.value + 1.96 * found.std + exact)


def test_limits_of_repeated_measurements_are_those_of_a_single_one() -> None:
    """Means over runs vary less than a run does: the limits must hold 95% of single differences all the same."""
    rng = np.random.default_rng(0)
    person = rng.normal(1.0, 0.5, 4000)
    runs = {str(i): rng.normal(p, 1.2, 1 + i % 4) for i, p in enumerate(person)}
    found = bland_altman(runs)
    assert found is not None and found.measurements > found.n
    assert found.std == pytest.approx(np.hypot(0.5, 1.2), rel=0.03)
    single = rng.normal(person, 1.2)
    inside = np.mean((single > found.lower.value) & (single < found.upper.value))
    assert inside == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("measurements", [1, 3])
def test_the_intervals_cover(measurements: int) -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(600):
        person = rng.normal(0, 0.6, 20)
        found = bland_altman({str(i): rng.normal(p, 0.8, measurements) for i, p in enumerate(person)})
        assert found is not None and found.bias.low is not None and found.bias.high is not None
        assert found.upper.low is not None and found.upper.high is not None
        held.append((found.bias.low < 0 < found.bias.high, found.upper.low < 1.96 < found.upper.high))
    assert np.mean(held, axis=0) == pytest.approx([0.95, 0.94], abs=0.03)


def test_too_few_for_limits() -> None:
    assert bland_altman({}) is None and bland_altman({"a": [1.0, 2.0]}) is None
    found = bland_altman({"a": [0.5], "b": [0.5]})
    assert found is not None and found.lower.value == found.upper.value == 0.5


def test_intraclass_correlation_of_the_published_judges() -> None:
    """ICC(2,1) = .29 and ICC(3,1) = .71 there, which McGraw & Wong call ICC(A,1) and ICC(C,1)."""
    found = intraclass_correlation(JUDGES)
    assert found is not None
    assert found.agreement.value == pytest.approx(0.2898, abs=5e-5)
    assert found.consistency.value == pytest.approx(0.7148, abs=5e-5)
    # The intervals that R's psych::ICC prints for these data.
    assert (found.agreement.low, found.agreement.high) == (
        pytest.approx(0.019, abs=5e-4),
        pytest.approx(0.761, abs=5e-4),
    )
    assert (found.consistency.low, found.consistency.high) == (
        pytest.approx(0.342, abs=5e-4),
        pytest.approx(0.946, abs=5e-4),
    )


def test_an_offset_lowers_agreement_and_not_consistency() -> None:
    a = np.arange(8.0)
    same = intraclass_correlation(np.stack([a, a], 1))
    assert same is not None and same.agreement.value == same.consistency.value == 1.0
    moved = intraclass_correlation(np.stack([a, a + 3], 1))
    assert moved is not None and moved.consistency.value == 1.0 and moved.agreement.value < 0.7
    assert intraclass_correlation(np.ones((5, 2))) is None and intraclass_correlation(np.ones((1, 2))) is None


def test_the_interval_of_agreement_covers() -> None:
    rng = np.random.default_rng(3)
    truth = 1.0 / (1.0 + 0.15 + 0.3)
    held = []
    for _ in range(400):
        x = rng.normal(0, 1, (25, 1)) + rng.normal(0, np.sqrt(0.15), (1, 8)) + rng.normal(0, np.sqrt(0.3), (25, 8))
        found = intraclass_correlation(x)
        assert found is not None and found.agreement.low is not None and found.agreement.high is not None
        held.append(found.agreement.low < truth < found.agreement.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
