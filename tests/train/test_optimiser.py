"""Adam against loops written from the papers in float64, and the schedules' ends."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.typing import NDArray

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.optimiser import learning_rate_schedule, make_optimiser, scale_by_adam_epsilon_hat
from tlseg_jax.train.recipes import RECIPES, get_recipe

pytestmark = pytest.mark.usefixtures("quick_compile")

STEPS = 25


def gradients() -> NDArray[np.float64]:
    """(steps, 6), of sizes from 1e-6 to 10."""
    return np.random.default_rng(0).normal(size=(STEPS, 6)) * 10.0 ** np.arange(-5, 1) * 2


def kingma_ba(grads: NDArray[Any], rate: float, b1: float, b2: float, eps: float, hat: bool) -> NDArray[Any]:
    """Every step's parameters. `hat`: the reordered form at the end of section 2, epsilon uncorrected."""
    x, m, v, path = np.zeros(6), np.zeros(6), np.zeros(6), []
    for t, g in enumerate(grads, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        if hat:
            alpha = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
            x = x - alpha * m / (np.sqrt(v) + eps)
        else:
            x = x - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        path.append(x)
    return np.array(path)


def walk(optimiser: optax.GradientTransformation) -> NDArray[Any]:
    """Every step's parameters by a transformation."""

    def step(carry: Any, g: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        updates, state = optimiser.update({"w": g}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["w"]

    params = {"w": jnp.zeros(6)}
    grads = jnp.asarray(gradients(), jnp.float32)
    return np.asarray(jax.lax.scan(step, (params, optimiser.init(params)), grads)[1])


LABELS = {"w": "trained"}


@pytest.mark.parametrize("epsilon", [0.1, 1e-3])
@pytest.mark.parametrize("hat", [True, False])
def test_adam_in_both_conventions(hat: bool, epsilon: float) -> None:
    recipe = get_recipe("paper").override(epsilon=epsilon, epsilon_hat=hat)
    found = walk(make_optimiser(recipe, STEPS, LABELS))
    expected = kingma_ba(gradients(), 1e-3, 0.9, 0.999, epsilon, hat)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-12)


def test_the_ordinary_form_is_optaxs() -> None:
    recipe = get_recipe("paper").override(epsilon=1e-8, epsilon_hat=False)
    np.testing.assert_array_equal(walk(make_optimiser(recipe, STEPS, LABELS)), walk(optax.adam(1e-3, eps=1e-8)))


def test_the_papers_setting_differs_from_optax_by_the_documented_factor() -> None:
    g = jnp.array([1e-6, 1e-3, 1.0, 100.0])

    def first(t: optax.GradientTransformation) -> NDArray[Any]:
        return np.asarray(t.update(g, t.init(g))[0])

    ratio = first(optax.scale_by_adam(eps=0.1)) / first(scale_by_adam_epsilon_hat(epsilon_hat=0.1))
    root = np.sqrt(1 - 0.999)
    np.testing.assert_allclose(ratio, (root * g + 0.1) / (root * (g + 0.1)), rtol=1e-4)
    assert ratio[0] == pytest.approx(31.6, abs=0.05)


def test_the_papers_recipe_to_the_letter() -> None:
    paper = get_recipe("paper")
    assert (paper.loss, paper.learning_rate, paper.epsilon, paper.epsilon_hat) == ("cross_entropy", 1e-3, 0.1, True)
    assert (paper.schedule, paper.batch_size, paper.b1, paper.b2) == ("constant", 2, 0.9, 0.999)
    assert not paper.intensity_augmentation
    assert not paper.affine_augmentation


def test_override_leaves_what_is_none() -> None:
    paper = get_recipe("paper")
    assert paper.override(loss=None, learning_rate=0.5) == dataclasses.replace(paper, learning_rate=0.5)
    assert RECIPES["volumes"]["paper"]["finetune"].learning_rate == 1e-3


@pytest.mark.parametrize("steps", [1, 2, 10, 99, 300, 5000])
def test_cosine_schedule_rises_falls_and_ends_at_a_hundredth(steps: int) -> None:
    recipe = dataclasses.replace(get_recipe("default"), schedule="cosine", learning_rate=0.4, warmup_steps=20)
    schedule = learning_rate_schedule(recipe, steps)
    rates = np.array([schedule(i) for i in (range(steps + 1) if steps < 400 else range(0, steps + 1, 20))])
    assert rates[0] == pytest.approx(0.04)
    assert rates.max() == pytest.approx(0.4)
    if steps > 1:
        assert rates[-1] == pytest.approx(0.004, rel=1e-3)
    peak = int(rates.argmax())
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert schedule(10 * steps + 10) == pytest.approx(0.004, rel=1e-3)


def test_constant_schedule() -> None:
    schedule = learning_rate_schedule(get_recipe("paper"), 10)
    assert schedule(0) == schedule(10) == 1e-3


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(InputError, match="'linear': choose from constant, cosine"):
        learning_rate_schedule(get_recipe("paper").override(schedule="linear"), 10)
    with pytest.raises(InputError, match="'mine': choose from paper, default"):
        get_recipe("mine")


def test_an_optimiser_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="There is no optimiser named 'sgd': choose from adam, muon"):
        make_optimiser(get_recipe("default").override(optimiser="sgd"), 10, {"wide": "trained"})
