"""Losses of slices against scikit-learn, and loops in float64 written from the equations; gradients by differences."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.losses import LOSSES, Reading, restricted_cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compile")

Array = NDArray[Any]
OUTPUTS = ("liver", "tumour")


def example(outputs: int = 2, seed: int = 0) -> tuple[Array, Array, Array]:
    """Logits, target and a region about half the pixels; the last output is rare."""
    rng = np.random.default_rng(seed)
    shape = (2, 5, 4)
    target = rng.random((*shape, outputs)) < np.linspace(0.5, 0.15, outputs)
    target[0, 1, 2] = True
    return rng.normal(size=(*shape, outputs)) * 3, target.astype(float), (rng.random(shape) < 0.5).astype(float)


def entropy(logit: float, truth: float) -> float:
    """-t log p - (1 - t) log(1 - p), from the definition."""
    p = 1 / (1 + np.exp(-logit))
    return float(-truth * np.log(p) - (1 - truth) * np.log1p(-p))


def loop_bce(logits: Array, target: Array, region: Array) -> float:
    values = [entropy(z, t) for z, t in zip(logits.ravel(), target.ravel(), strict=True)]
    return sum(values) / len(values)


def loop_dice(logits: Array, target: Array, region: Array) -> float:
    terms = []
    for k in range(logits.shape[-1]):
        p = 1 / (1 + np.exp(-logits[..., k]))
        terms.append(1 - (2 * (p * target[..., k]).sum() + 1) / (p.sum() + target[..., k].sum() + 1))
    return sum(terms) / len(terms)


def loop_generalised_dice(logits: Array, target: Array, region: Array) -> float:
    """Equation of Sudre et al. 2017 with sums over pixels, over outputs and complements."""
    classes = []
    for k in range(logits.shape[-1]):
        p, r = 1 / (1 + np.exp(-logits[..., k])), target[..., k]
        classes += [(p, r), (1 - p, 1 - r)]
    finite = [1 / r.sum() ** 2 for _, r in classes if r.sum()]
    above = below = 0.0
    for p, r in classes:
        w = 1 / r.sum() ** 2 if r.sum() else max(finite)
        above += w * (r * p).sum()
        below += w * (r + p).sum()
    return 1 - 2 * above / below


def loop_liver(logits: Array, target: Array, region: Array) -> float:
    """For outputs liver, then anything else; the liver's label is the region."""
    region = target[..., 0]
    terms = []
    for k in range(logits.shape[-1]):
        inside = [
            entropy(logits[(*at, k)], target[(*at, k)]) for at in np.ndindex(region.shape) if k == 0 or region[at]
        ]
        terms.append(sum(inside) / len(inside) if inside else 0.0)
    return sum(terms) / len(terms)


REFERENCES: dict[str, Callable[[Array, Array, Array], float]] = {
    "bce": loop_bce,
    "dice": loop_dice,
    "generalised_dice": loop_generalised_dice,
    "bce_dice": lambda *a: loop_bce(*a) + loop_dice(*a),
    "cross_entropy": loop_bce,
    "cross_entropy_dice": lambda *a: loop_bce(*a) + loop_dice(*a),
    "liver_bce": loop_liver,
}


@functools.cache
def program(name: str, outputs: tuple[str, ...]) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(label_loss(name, outputs, False)))


def codes_of(target: Array) -> Array:
    return (target.astype(np.int32) << np.arange(target.shape[-1])).sum(-1)


def found(name: str, logits: Array, target: Array, region: Array, outputs: tuple[str, ...]) -> tuple[float, Array]:
    given = {"label": jnp.asarray(codes_of(target)), "region": jnp.asarray(region, jnp.float32)}
    value, gradient = program(name, outputs)(jnp.asarray(logits, jnp.float32), given)
    return float(value), np.asarray(gradient)


def differences(loss: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Central differences in float64."""
    out = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        move = np.zeros_like(at)
        move[i] = step
        out[i] = (loss(at + move) - loss(at - move)) / (2 * step)
    return out


def test_every_loss_has_a_reference() -> None:
    assert REFERENCES.keys() == LOSSES.keys()


@pytest.mark.parametrize("empty", ["none", "last", "all"])
@pytest.mark.parametrize("outputs", [OUTPUTS, ("liver", "tumour", "vessel")])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(name: str, outputs: tuple[str, ...], empty: str) -> None:
    logits, target, region = example(len(outputs))
    if empty == "last":
        target[..., -1] = 0
    elif empty == "all":
        target[:] = 0
        region[:] = 0
    reference = REFERENCES[name]
    value, gradient = found(name, logits, target, region, outputs)
    assert value == pytest.approx(reference(logits, target, region), rel=1e-5)
    expected = differences(lambda z: reference(z, target, region), logits)
    np.testing.assert_allclose(gradient, expected, atol=2e-5 * np.abs(expected).max())


def test_cross_entropy_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    logits, target, region = example()
    p = scipy.special.expit(logits)
    every = metrics.log_loss(target.ravel(), p.ravel(), labels=[0, 1])
    assert found("bce", logits, target, region, OUTPUTS)[0] == pytest.approx(every, rel=1e-5)

    liver = metrics.log_loss(target[..., 0].ravel(), p[..., 0].ravel(), labels=[0, 1])
    inside = target[..., 0] > 0
    tumour = metrics.log_loss(target[..., 1][inside], p[..., 1][inside], labels=[0, 1])
    value, _ = found("liver_bce", logits, target, region, OUTPUTS)
    assert value == pytest.approx((liver + tumour) / 2, rel=1e-5)


def test_dice_of_sure_predictions_is_scikit_learns_f1() -> None:
    """The one pixel added above and below vanishes among many pixels."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    target, guess = rng.random((4, 100, 100, 2)) < 0.3, rng.random((4, 100, 100, 2)) < 0.4
    scores = [metrics.f1_score(target[..., k].ravel(), guess[..., k].ravel()) for k in range(2)]
    value, _ = found("dice", 60.0 * (2 * guess - 1), target.astype(float), np.ones(target.shape[:3]), OUTPUTS)
    assert 1 - value == pytest.approx(np.mean(scores), abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [60.0, 1e4])
def test_sure_predictions(name: str, size: float) -> None:
    _, target, region = example()
    right, gradient = found(name, size * (2 * target - 1), target, region, OUTPUTS)
    assert right == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    wrong, gradient = found(name, -size * (2 * target - 1), target, region, OUTPUTS)
    assert wrong > 0.8
    assert np.isfinite(gradient).all()


def test_generalised_dice_minds_the_rare_output_as_much_as_the_common_one() -> None:
    """Cross-entropy hardly sees a missed tumour of 4 pixels beside a missed liver of 2,000."""
    target = np.zeros((1, 64, 64, 2))
    target[0, :40, :50, 0] = target[0, 5:7, 5:7, 1] = 1
    region = target[..., 0]
    lost = {}
    for k in range(2):
        guess = target.copy()
        guess[..., k] = 0
        for name in ("bce", "generalised_dice"):
            lost[name, k] = found(name, 20 * (2 * guess - 1), target, region, OUTPUTS)[0]
    assert lost["bce", 0] > 100 * lost["bce", 1]
    assert lost["generalised_dice", 1] > lost["generalised_dice", 0]


def test_generalised_dice_of_a_batch_that_shows_nothing_is_the_mean_probability() -> None:
    logits, target, region = example()
    value, _ = found("generalised_dice", logits, 0 * target, region, OUTPUTS)
    assert value == pytest.approx(scipy.special.expit(logits).mean(), rel=1e-5)


def test_liver_cross_entropy_leaves_the_outside_alone() -> None:
    logits, target, region = example()
    _, gradient = found("liver_bce", logits, target, region, OUTPUTS)
    region = target[..., 0]
    assert (gradient[region == 0][:, 1] == 0).all()
    assert (gradient[region == 1][:, 1] != 0).all()
    assert (gradient[..., 0] != 0).all()
    value, gradient = found("liver_bce", logits[..., 1:], target[..., 1:], 0 * region, ("tumour",))
    assert value == 0
    assert (gradient == 0).all()


def test_liver_cross_entropy_needs_a_region_and_something_inside_it() -> None:
    logits, target, _ = example(1)
    with pytest.raises(ValueError, match="needs the liver's region"):
        label_loss("liver_bce", ("tumour",), False)(jnp.asarray(logits), jnp.asarray(codes_of(target)))
    with pytest.raises(ValueError, match="needs the liver's region"):
        restricted_cross_entropy(jnp.asarray(logits), jnp.asarray(target), Reading(False))
    with pytest.raises(InputError, match="none but liver: choose the loss cross_entropy"):
        label_loss("liver_bce", ("liver",), False)


@pytest.mark.parametrize("name", ["bce", "dice", "generalised_dice", "bce_dice"])
def test_the_others_need_no_region(name: str) -> None:
    logits, target, region = example()
    given, _ = found(name, logits, target, region, OUTPUTS)
    without = label_loss(name, OUTPUTS, False)(jnp.asarray(logits), jnp.asarray(codes_of(target)))
    assert float(without) == pytest.approx(given, rel=1e-6)


def test_an_unknown_loss_lists_the_known() -> None:
    with pytest.raises(
        InputError, match=r"'focal': choose from cross_entropy, dice, .*generalised_dice, liver_bce, bce, bce_dice"
    ):
        label_loss("focal", OUTPUTS, False)
