"""L2-SP against the derivative of its penalty, and against the minimum of a problem that has one on paper."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlseg_jax.train.l2sp import FRESH_SHARE, pull_to_start
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe

pytestmark = pytest.mark.usefixtures("quick_compile")

ALPHA = 0.3


def parameters(seed: int) -> dict[str, Any]:
    """A block and a head of three outputs."""
    rng = np.random.default_rng(seed)
    return {
        "encoder_0": {"conv_0": {"kernel": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)}},
        "head": {
            "kernel": jnp.asarray(rng.normal(size=(2, 3)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=3), jnp.float32),
        },
    }


def close(found: Any, expected: Any, rtol: float = 1e-5) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), found, expected)


@pytest.mark.parametrize(
    "fresh", [(), ("head/kernel", "head/bias"), ("head/kernel[1]", "head/bias[1]")], ids=["none", "head", "output"]
)
def test_what_is_added_is_the_derivative_of_the_penalty(fresh: tuple[str, ...]) -> None:
    start, now, grads = parameters(0), parameters(1), parameters(2)
    new = jax.tree.map(lambda w: np.zeros(w.shape, bool), start)
    for name in ("kernel", "bias"):
        if f"head/{name}" in fresh:
            new["head"][name][:] = True
        if f"head/{name}[1]" in fresh:
            new["head"][name][..., 1] = True

    def penalty(w: Any) -> jax.Array:
        def one(w: jax.Array, start: jax.Array, new: Any) -> jax.Array:
            kept = ALPHA / 2 * (w - start) ** 2
            return jnp.where(new, FRESH_SHARE * ALPHA / 2 * w**2, kept).sum()

        return sum(jax.tree.leaves(jax.tree.map(one, w, start, new)), jnp.zeros(()))

    pull = pull_to_start(ALPHA, fresh=frozenset(fresh))
    found, _ = pull.update(grads, pull.init(start), now)
    close(found, jax.tree.map(jnp.add, grads, jax.grad(penalty)(now)))


def test_at_the_start_nothing_is_pulled_and_the_gradient_passes_unchanged() -> None:
    start, grads = parameters(0), parameters(1)
    pull = pull_to_start(10.0)
    found, state = pull.update(grads, pull.init(start), start)
    jax.tree.map(np.testing.assert_array_equal, found, grads)
    jax.tree.map(np.testing.assert_array_equal, state.start, start)


def test_descent_ends_between_the_start_and_the_target() -> None:
    """min 1/2 |w - target|^2 + alpha/2 |w - start|^2 is at (target + alpha start) / (1 + alpha)."""
    start, target = parameters(0), parameters(1)
    descent = optax.chain(pull_to_start(ALPHA), optax.sgd(0.5))

    def step(_: Any, carry: Any) -> Any:
        w, state = carry
        updates, state = descent.update(jax.tree.map(jnp.subtract, w, target), state, w)
        return optax.apply_updates(w, updates), state

    found, _ = jax.lax.fori_loop(0, 100, step, (start, descent.init(start)))
    close(found, jax.tree.map(lambda t, s: (t + ALPHA * s) / (1 + ALPHA), target, start))


@pytest.mark.parametrize("recipe", ["paper", "default"])
def test_the_optimiser_pulls_the_trained_part_only_and_its_state_may_be_given_away(recipe: str) -> None:
    """The stronger the pull the nearer the end to the start; a step that donates its state works."""
    labels = {"encoder_0": {"conv_0": {"kernel": "frozen"}}, "head": {"kernel": "trained", "bias": "trained"}}
    start, target = parameters(0), parameters(1)

    def train(alpha: float) -> Any:
        chosen = get_recipe(recipe).override(
            l2sp=alpha, schedule="constant", learning_rate=0.05, epsilon=1e-3, optimiser="adam"
        )
        optimiser = make_optimiser(chosen, 100, labels)

        def step(w: Any, state: Any) -> Any:
            updates, state = optimiser.update(jax.tree.map(jnp.subtract, w, target), state, w)
            return optax.apply_updates(w, updates), state

        given = jax.jit(step, donate_argnums=(0, 1))
        w = jax.tree.map(jnp.array, start)
        state = optimiser.init(w)
        for _ in range(100):
            w, state = given(w, state)
        np.testing.assert_array_equal(w["encoder_0"]["conv_0"]["kernel"], start["encoder_0"]["conv_0"]["kernel"])
        kept = sum(x.size for x in jax.tree.leaves(state) if x.dtype == np.float32)
        assert kept == 9 * (3 if alpha else 2)  # two moments of the head, and its start
        return w["head"]

    distances = [float(optax.tree.norm(jax.tree.map(jnp.subtract, train(a), start["head"]))) for a in (0, 1, 10)]
    assert distances[0] > 1.5 * distances[1] > 1.5 * 1.5 * distances[2]


def test_it_needs_the_parameters() -> None:
    pull = pull_to_start(1.0)
    with pytest.raises(ValueError, match="needs the parameters"):
        pull.update(parameters(0), pull.init(parameters(0)))
