"""Unfreezing in stages: which blocks when, and that the optimiser moves each from its own first step on."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from tests.conftest import blob, he_variables
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.models.networks import NETWORKS, get_network, variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import learning_rate_schedule, make_optimiser
from tlseg_jax.train.recipes import Recipe, get_recipe
from tlseg_jax.train.step import make_train_step
from tlseg_jax.transfer.freeze import FREEZING, get_rules, label_parameters
from tlseg_jax.transfer.stages import STAGED, first_steps, label_groups, stages

pytestmark = pytest.mark.usefixtures("quick_compile")

LABELS = {"head": {"w": "trained"}, "decoder_0": {"w": "trained"}, "encoder_0": {"w": "trained"}}
RATES = {"head": 1.0, "decoder_0": 1 / 2.6, "encoder_0": 1 / 2.6**2}


@functools.cache
def shapes(network: str) -> Any:
    return variable_shapes(get_network(network))["params"]


def trained(labels: Any) -> set[str]:
    return {path[0] for path, part in flatten_dict(labels).items() if part == "trained"}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_head_then_the_decoder_then_all(network: str) -> None:
    params = shapes(network)
    first, second, third = stages(label_parameters(params, get_rules("none")), 300)
    assert [s.last_step for s in (first, second, third)] == [100, 200, 300]
    assert trained(first.labels) == {"head"}
    encoder = {b for b in params if b.startswith("encoder_") or b == "bottleneck"}
    assert trained(second.labels) == set(params) - encoder
    assert trained(third.labels) == set(params)
    assert {g for path, g in flatten_dict(label_groups(third.labels, STAGED)).items() if path[0] in encoder} == {
        "encoder"
    }


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 301])
@pytest.mark.parametrize("freeze", FREEZING)
@pytest.mark.parametrize("network", ["switch8x2", "unet2d"])
def test_what_every_division_has(network: str, freeze: str, steps: int) -> None:
    """Ends rise to the run's, trained blocks only grow to those of `freeze`, and none of the frozen ever trains."""
    params = shapes(network)
    whole = label_parameters(params, get_rules(freeze))
    found = stages(whole, steps)
    ends = [s.last_step for s in found]
    assert ends == sorted(set(ends))
    assert ends[0] > 0
    assert ends[-1] == steps
    assert found[-1].labels == whole
    for before, after in itertools.pairwise(found):
        assert trained(before.labels) < trained(after.labels)
    if freeze == "norm_only":  # a head that is pre-trained rests
        assert len(found) == 1 + (steps >= 2)
    elif steps >= 3:
        assert len(found) == (2 if freeze == "encoder" else 3)
        assert trained(found[0].labels) == {"head"}
        assert ends[:-1] == [*first_steps(steps, STAGED)[1:]][: len(found) - 1]


@pytest.mark.parametrize("network", NETWORKS)
def test_warmup_all_is_the_decoder_with_the_head_and_then_all(network: str) -> None:
    params = shapes(network)
    first, second = stages(label_parameters(params, get_rules("none")), 300, "warmup_all")
    assert (first.last_step, second.last_step) == (30, 300)
    encoder = {b for b in params if b.startswith("encoder_") or b == "bottleneck"}
    assert trained(first.labels) == set(params) - encoder
    assert trained(second.labels) == set(params)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warmup_all_rises_twice_and_the_encoder_trains_as_adam_afresh_from_the_second(schedule: str) -> None:
    """Against Adam by hand: of a gradient that stays the same each update is the step's rate."""
    recipe = get_recipe("paper").override(
        epsilon=0.0, epsilon_hat=False, unfreezing="warmup_all", learning_rate=0.1, schedule=schedule
    )
    grads = {block: {"w": jnp.ones((STEPS, 4))} for block in LABELS}
    found = walk(recipe, grads)
    rise = [0.01, 0.04, 0.07]  # three steps from a tenth of the rate towards it
    rest = np.arange(STEPS - 6)
    falls = 0.1 * (0.99 * (1 + np.cos(np.pi * rest / (STEPS - 6))) / 2 + 0.01)
    rates = np.concatenate([rise, rise, np.full(STEPS - 6, 0.1) if schedule == "constant" else falls])
    np.testing.assert_allclose(found["head"][:, 0], -np.cumsum(rates), rtol=1e-4)
    np.testing.assert_allclose(found["decoder_0"], found["head"])
    np.testing.assert_array_equal(found["encoder_0"][:3], 0)
    np.testing.assert_allclose(found["encoder_0"][3:, 0], -np.cumsum(rates[3:]), rtol=1e-4)


def test_a_run_too_short_for_a_warm_up_has_none() -> None:
    assert [s.last_step for s in stages(LABELS, 9, "warmup_all")] == [9]
    recipe = get_recipe("default")
    usual, short = (learning_rate_schedule(recipe.override(unfreezing=u), 9) for u in ("at_once", "warmup_all"))
    assert [float(usual(i)) for i in range(9)] == [float(short(i)) for i in range(9)]


def test_at_once_is_one_stage() -> None:
    labels = label_parameters(shapes("switch32"), get_rules("encoder"))
    (only,) = stages(labels, 70, "at_once")
    assert only.last_step == 70
    assert only.labels == labels


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(InputError, match="unfreezing named 'slowly': choose from at_once, staged, warmup_all"):
        stages(LABELS, 70, "slowly")
    with pytest.raises(InputError, match="unfreezing named 'slowly': choose from at_once, staged, warmup_all"):
        make_optimiser(get_recipe("paper").override(unfreezing="slowly"), 10, LABELS)


STEPS = 30


def settings(hat: bool, l2sp: float = 0.0) -> Recipe:
    return get_recipe("paper").override(
        epsilon=1e-3, epsilon_hat=hat, unfreezing="staged", l2sp=l2sp, learning_rate=0.01
    )


def walk(recipe: Recipe, grads: Any, labels: Any = None) -> Any:
    """Every step's parameters from 0: {block: (steps, 4)}."""
    optimiser = make_optimiser(recipe, STEPS, labels or LABELS)

    def step(carry: Any, g: Any) -> Any:
        w, state = carry
        updates, state = optimiser.update(g, state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    start = {block: {"w": jnp.zeros(4)} for block in LABELS}
    _, path = jax.lax.scan(step, (start, optimiser.init(start)), grads)
    return {block: np.asarray(path[block]["w"]) for block in path}


def gradients() -> dict[str, Any]:
    """(steps, 4) a block, of sizes from 1e-4 to 0.1; from the first step on."""
    draw = np.random.default_rng(3).normal(size=(STEPS, 4)) * 10.0 ** np.arange(-4, 0)
    return {block: {"w": jnp.asarray(draw, jnp.float32)} for block in LABELS}


@pytest.mark.parametrize("hat", [True, False])
@pytest.mark.parametrize("l2sp", [0.0, 0.5])
def test_a_group_rests_exactly_and_then_trains_as_adam_afresh_at_its_own_rate(hat: bool, l2sp: float) -> None:
    """Every group sees the same gradients: what the head does in k steps, a later one does from its first step on."""
    grads = gradients()
    found = walk(settings(hat, l2sp), grads)
    for group, first, block in zip(STAGED, first_steps(STEPS, STAGED), RATES, strict=True):
        assert group.rate == pytest.approx(RATES[block])
        np.testing.assert_array_equal(found[block][:first], 0)
        assert np.all(found[block][first:] != 0)
        alone = get_recipe("paper").override(epsilon=1e-3, epsilon_hat=hat, l2sp=l2sp, learning_rate=0.01 * group.rate)
        after = {b: {"w": jnp.roll(g["w"], -first, 0)} for b, g in grads.items()}
        expected = walk(alone, after)[block][: STEPS - first]
        np.testing.assert_allclose(found[block][first:], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("hat", [True, False])
def test_without_a_gradient_nothing_moves_even_where_it_may(hat: bool) -> None:
    """What a stage does not differentiate comes as zeros: no moment and no pull stirs it, whatever its group."""
    zeros = jax.tree.map(jnp.zeros_like, gradients())
    zeros["head"] = gradients()["head"]
    found = walk(settings(hat, l2sp=0.5), zeros)
    assert np.all(found["head"] != 0)
    for block in ("decoder_0", "encoder_0"):
        np.testing.assert_array_equal(found[block], 0)


def test_frozen_blocks_stay_and_have_no_moments() -> None:
    labels = LABELS | {"encoder_0": {"w": "frozen"}}
    found = walk(settings(True), gradients(), labels)
    np.testing.assert_array_equal(found["encoder_0"], 0)
    state = make_optimiser(settings(True), STEPS, labels).init({b: {"w": jnp.zeros(4)} for b in LABELS})
    assert sum(x.size for x in jax.tree.leaves(state) if x.dtype == np.float32) == 2 * 2 * 4


@pytest.mark.slow
def test_a_network_trains_stage_by_stage_with_one_state(tiny_network: UNetConfig) -> None:
    variables = he_variables(tiny_network)
    recipe = get_recipe("default").override(unfreezing="staged", l2sp=0.01)
    parts = stages(label_parameters(variables["params"], get_rules("none")), 6)
    optimiser = make_optimiser(recipe, 6, parts[-1].labels)
    state = init_state(jax.tree.map(jnp.array, variables), optimiser)
    images, labels = zip(*(blob(i) for i in range(2)), strict=True)
    batch = {"image": jnp.asarray(np.stack(images), jnp.float16), "label": jnp.asarray(np.stack(labels))}
    first = flatten_dict(jax.tree.map(np.array, variables["params"]))
    losses = []
    for part in parts:
        step = make_train_step(tiny_network, optimiser, label_loss("cross_entropy_dice"), part.labels)
        while state.step < part.last_step:
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        moved = {p[0] for p, w in flatten_dict(state.params).items() if not np.array_equal(w, first[p])}
        assert moved == trained(part.labels)
    assert losses[-1] < losses[0]
