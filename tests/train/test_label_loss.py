"""Losses of label codes that mark some structures only, against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from tlseg_jax.preprocess.codes import UNMARKED
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.losses import Reading, get_loss

pytestmark = pytest.mark.usefixtures("quick_compile")

STRUCTURES = 3
NAMES = ("a", "b", "c")
MARKED = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1]], np.uint8)


def example(exclusive: bool = True) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3, 4, 5, 6, STRUCTURES + exclusive)) * 3
    return logits, rng.integers(0, STRUCTURES + 1 if exclusive else 8, (3, 4, 5, 6))


def value(
    name: str,
    logits: NDArray[Any],
    codes: NDArray[Any],
    marked: Any = None,
    exclusive: bool = True,
    smoothing: float = 0.0,
) -> float:
    loss = label_loss(name, NAMES, exclusive, smoothing)
    target: Any = jnp.asarray(codes, jnp.int32)
    if marked is not None:
        target = {"label": target, "marked": jnp.asarray(marked)}
    return float(jax.jit(loss)(jnp.float32(logits), target))


def merged(logits: NDArray[Any], codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities and one-hot labels with what is not marked in the background, voxel by voxel."""
    p = scipy.special.softmax(logits, axis=-1)
    t = np.eye(STRUCTURES + 1)[codes]
    for i, marks in enumerate(MARKED):
        for k in np.flatnonzero(marks == 0) + 1:
            for of in (p, t):
                of[i, ..., 0] += of[i, ..., k]
                of[i, ..., k] = 0
    return p, t


def test_what_is_not_marked_is_background_to_the_cross_entropy() -> None:
    logits, codes = example()
    p, t = merged(logits, codes)
    expected = -np.log((p * t).sum(-1)).mean()
    assert value("cross_entropy", logits, codes, MARKED) == pytest.approx(expected, rel=1e-5)


def test_what_is_not_marked_adds_nothing_to_dice() -> None:
    logits, codes = example()
    p, t = merged(logits, codes)
    axes = (0, 1, 2, 3)
    expected = 1 - (2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1)
    assert value("dice", logits, codes, MARKED) == pytest.approx(expected[1:].mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "cross_entropy_dice"])
def test_where_all_is_marked_it_is_the_plain_loss(name: str) -> None:
    logits, codes = example()
    everything = np.ones((3, STRUCTURES), np.uint8)
    plain = float(get_loss(name)(jnp.float32(logits), jnp.float32(np.eye(STRUCTURES + 1)[codes]), Reading(True)))
    assert value(name, logits, codes) == pytest.approx(plain, rel=1e-6)
    assert value(name, logits, codes, everything) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("exclusive", [True, False])
def test_what_is_not_marked_has_no_gradient(exclusive: bool) -> None:
    """Neither a structure that a scan does not mark, by itself, nor any where nobody looked."""
    logits, codes = example(exclusive)
    codes[0, 0] = UNMARKED
    loss = label_loss("cross_entropy_dice", NAMES, exclusive)
    target = {"label": jnp.asarray(codes, jnp.int32), "marked": jnp.asarray(MARKED)}
    gradient = np.asarray(jax.jit(jax.grad(lambda x: loss(x, target)))(jnp.float32(logits)))
    assert np.isfinite(gradient).all()
    if exclusive:  # moving probability between the background and what is not marked changes nothing
        assert not gradient[0, 0].any() and gradient[0, 1].any()
        p = scipy.special.softmax(logits, axis=-1)
        share = p[2, ..., :3] / p[2, ..., :3].sum(-1, keepdims=True)
        np.testing.assert_allclose(gradient[2, ..., :3], share * gradient[2, ..., :3].sum(-1, keepdims=True), atol=1e-6)
    else:
        assert (
            not gradient[0, ..., 1].any()
            and not gradient[0, 0].any()
            and not gradient[2, ..., :2].any()
            and gradient[1].any()
        )


def test_structures_that_contain_each_other_have_a_sigmoid_each() -> None:
    logits, codes = example(False)
    bits = (codes[..., None] >> np.arange(STRUCTURES) & 1).astype(np.float32)
    for name, same in (("cross_entropy", "bce"), ("dice", "dice"), ("cross_entropy_dice", "bce_dice")):
        plain = get_loss(same)(jnp.float32(logits), jnp.asarray(bits), Reading(False))
        assert value(name, logits, codes, exclusive=False) == pytest.approx(float(plain), rel=1e-6)


def test_smoothing_spreads_a_share_of_the_label_over_all_outputs() -> None:
    logits, codes = example()
    log_p = scipy.special.log_softmax(logits, axis=-1)
    soft = 0.9 * np.eye(STRUCTURES + 1)[codes] + 0.1 / (STRUCTURES + 1)
    entropy = -(soft * log_p).sum(-1).mean()
    dice = value("dice", logits, codes)
    assert value("cross_entropy", logits, codes, smoothing=0.1) == pytest.approx(entropy, rel=1e-5)
    assert value("cross_entropy_dice", logits, codes, smoothing=0.1) == pytest.approx(entropy + dice, rel=1e-5)
    assert value("dice", logits, codes, smoothing=0.1) == dice


def test_smoothing_of_sigmoids_moves_both_ends_alike() -> None:
    """Each output is a choice of two: 0 becomes half of the share, and 1 as much less."""
    logits, codes = example(False)
    soft = 0.9 * (codes[..., None] >> np.arange(STRUCTURES) & 1) + 0.05
    p = scipy.special.expit(logits)
    expected = -(soft * np.log(p) + (1 - soft) * np.log1p(-p)).mean()
    assert value("cross_entropy", logits, codes, exclusive=False, smoothing=0.1) == pytest.approx(expected, rel=1e-5)


def test_smoothing_reaches_only_outputs_that_a_scan_marks() -> None:
    logits, codes = example()
    codes[0, 0] = UNMARKED
    looked = codes != UNMARKED
    p, t = merged(logits, np.where(looked, codes, 0))
    may = np.concatenate([np.ones((3, 1)), MARKED], 1)[:, None, None, None]
    soft = 0.9 * t + 0.1 * may / may.sum(-1, keepdims=True)
    expected = -np.where(looked, (soft * np.log(np.where(may > 0, p, 1))).sum(-1), 0).mean()
    assert value("cross_entropy", logits, codes, MARKED, smoothing=0.1) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("exclusive", [True, False])
def test_smoothing_has_no_gradient_where_nobody_looked(exclusive: bool) -> None:
    logits, codes = example(exclusive)
    codes[0, 0] = UNMARKED
    loss = label_loss("cross_entropy", NAMES, exclusive, 0.1)
    target = {"label": jnp.asarray(codes, jnp.int32), "marked": jnp.asarray(MARKED)}
    gradient = np.asarray(jax.jit(jax.grad(lambda x: loss(x, target)))(jnp.float32(logits)))
    assert np.isfinite(gradient).all()
    assert not gradient[0, 0].any() and gradient[0, 1].any()
    if not exclusive:
        assert not gradient[2, ..., :2].any()
