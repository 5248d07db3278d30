"""Losses against SciPy and NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.losses import Reading, cross_entropy, cross_entropy_dice, generalised_dice, soft_dice

pytestmark = pytest.mark.usefixtures("quick_compile")


def example(outputs: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(outputs)
    return rng.normal(size=(2, 3, 4, 5, outputs)) * 3, rng.integers(0, outputs, (2, 3, 4, 5))


def one_hot(labels: NDArray[Any], outputs: int) -> NDArray[Any]:
    return np.eye(outputs)[labels]


def both(loss: Any, logits: NDArray[Any], labels: NDArray[Any]) -> float:
    target = one_hot(labels, logits.shape[-1])
    return float(jax.jit(lambda z, t: loss(z, t, Reading(True)))(jnp.asarray(logits, jnp.float32), jnp.float32(target)))


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


@pytest.mark.parametrize("outputs", [2, 3])
def test_generalised_dice_of_a_softmax_weighs_each_output_by_its_size(outputs: int) -> None:
    """The equation of Sudre et al. 2017, in sums, of a batch that lacks the last output."""
    logits, labels = example(outputs)
    labels[labels == outputs - 1] = 0
    p, r = scipy.special.softmax(logits, axis=-1), one_hot(labels, outputs)
    axes = (0, 1, 2, 3)
    sizes = r.sum(axes)
    w = 1 / np.where(sizes, sizes, np.inf) ** 2
    w = np.where(sizes, w, w.max())
    expected = 1 - 2 * (w * (r * p).sum(axes)).sum() / (w * (r + p).sum(axes)).sum()
    assert both(generalised_dice, logits, labels) == pytest.approx(expected, rel=1e-5)


def test_restricted_cross_entropy_of_a_softmax_counts_inside_the_region() -> None:
    logits, labels = example(3)
    region = np.random.default_rng(0).random(labels.shape) < 0.4
    log_p = scipy.special.log_softmax(logits, axis=-1)
    expected = -np.take_along_axis(log_p, labels[..., None], -1)[region].mean()
    loss = label_loss("liver_bce", ("cyst", "tumour"))
    target = {"label": jnp.asarray(labels), "region": jnp.asarray(region)}
    assert float(jax.jit(loss)(jnp.float32(logits), target)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="there is none where structures exclude each other"):
        label_loss("liver_bce", ("liver", "tumour"))


def test_perfect_and_empty_predictions() -> None:
    labels = example(2)[1]
    sure = 60.0 * (2 * np.eye(2)[labels] - 1)
    assert both(cross_entropy, sure, labels) == pytest.approx(0, abs=1e-6)
    assert both(soft_dice, sure, labels) == pytest.approx(0, abs=1e-6)
    assert both(soft_dice, -sure, labels) > 0.95
    nothing = np.zeros_like(labels)
    assert both(soft_dice, 60.0 * (2 * np.eye(2)[nothing] - 1), nothing) == pytest.approx(0, abs=1e-6)


def test_gradients_are_finite_for_extreme_logits() -> None:
    logits, target = jnp.array([[200.0, -200.0], [-200.0, 200.0]]), jnp.array([[0.0, 1.0], [0.0, 1.0]])
    gradient = jax.jit(jax.grad(lambda z: cross_entropy_dice(z, target, Reading(True))))(logits)
    assert np.isfinite(gradient).all()
    assert gradient[0, 0] > 0


def test_cross_entropy_gradient_is_probability_minus_target() -> None:
    logits, labels = example(3)
    gradient = jax.jit(jax.grad(lambda z: cross_entropy(z, jnp.float32(one_hot(labels, 3)), Reading(True))))(
        jnp.float32(logits)
    )
    expected = (scipy.special.softmax(logits, -1) - np.eye(3)[labels]) / labels.size
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
