"""Losses against SciPy and NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.losses import cross_entropy, cross_entropy_dice, get_loss, soft_dice

pytestmark = pytest.mark.usefixtures("quick_compile")


def example(outputs: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(outputs)
    return rng.normal(size=(2, 3, 4, 5, outputs)) * 3, rng.integers(0, outputs, (2, 3, 4, 5))


def both(loss: Any, logits: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(jax.jit(loss)(jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.int32)))


@pytest.mark.parametrize("outputs", [2, 3])
def test_cross_entropy(outputs: int) -> None:
    logits, labels = example(outputs)
    log_p = scipy.special.log_softmax(logits, axis=-1)
    expected = -np.take_along_axis(log_p, labels[..., None], -1).mean()
    assert both(cross_entropy, logits, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("outputs", [2, 3])
def test_soft_dice(outputs: int) -> None:
    logits, labels = example(outputs)
    p = scipy.special.softmax(logits, axis=-1)
    terms = [
        1 - (2 * p[..., k][labels == k].sum() + 1) / (p[..., k].sum() + (labels == k).sum() + 1)
        for k in range(1, outputs)
    ]
    assert both(soft_dice, logits, labels) == pytest.approx(np.mean(terms), rel=1e-5)
    total = both(cross_entropy, logits, labels) + np.mean(terms)
    assert both(cross_entropy_dice, logits, labels) == pytest.approx(total, rel=1e-5)


def test_perfect_and_empty_predictions() -> None:
    labels = example(2)[1]
    sure = 60.0 * (2 * np.eye(2)[labels] - 1)
    assert both(cross_entropy, sure, labels) == pytest.approx(0, abs=1e-6)
    assert both(soft_dice, sure, labels) == pytest.approx(0, abs=1e-6)
    assert both(soft_dice, -sure, labels) > 0.95
    nothing = np.zeros_like(labels)
    assert both(soft_dice, 60.0 * (2 * np.eye(2)[nothing] - 1), nothing) == pytest.approx(0, abs=1e-6)


def test_gradients_are_finite_for_extreme_logits() -> None:
    logits, labels = jnp.array([[200.0, -200.0], [-200.0, 200.0]]), jnp.array([1, 1])
    gradient = jax.jit(jax.grad(cross_entropy_dice))(logits, labels)
    assert np.isfinite(gradient).all()
    assert gradient[0, 0] > 0


def test_cross_entropy_gradient_is_probability_minus_target() -> None:
    logits, labels = example(3)
    gradient = jax.jit(jax.grad(cross_entropy))(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    expected = (scipy.special.softmax(logits, -1) - np.eye(3)[labels]) / labels.size
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


def test_an_unknown_loss_lists_the_known() -> None:
    assert get_loss("cross_entropy") is cross_entropy
    with pytest.raises(InputError, match="'focal': choose from cross_entropy, dice, cross_entropy_dice"):
        get_loss("focal")
