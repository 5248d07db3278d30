"""Losses of slices against loops in float64 written from the equations; gradients by differences."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
