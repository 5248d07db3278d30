"""Adam in both conventions of epsilon, learning-rate schedules, and the frozen part left alone."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.l2sp import pull_to_start
from tlseg_jax.train.muon import scale_by_muon_and_adam
from tlseg_jax.train.recipes import OPTIMISERS, Recipe
from tlseg_jax.transfer.layerwise import rate_factors
from tlseg_jax.transfer.stages import UNFREEZING, WARMUP, first_steps, label_groups


class EpsilonHatState(NamedTuple):
    """Step count and the two moments."""

    step: jax.Array
    mu: Any
    nu: Any


def scale_by_adam_epsilon_hat(
    b1: float = 0.9, b2: float = 0.999, epsilon_hat: float = 0.1
) -> optax.GradientTransformation:
    """Adam as TensorFlow 1.15 computes it, with the "epsilon hat" of Kingma & Ba, section 2.

    The update is sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon_hat): epsilon is not bias-corrected,
    which for a large epsilon, such as the paper's 0.1, makes early steps up to 1 / sqrt(1 - b2) = 31.6 times
    smaller than with the usual form `optax.scale_by_adam(eps=0.1)` where gradients are small.
    """

    def init(params: Any) -> EpsilonHatState:
        # Each moment has zeros of its own: the step donates its state, and a buffer only goes once.
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return EpsilonHatState(jnp.zeros([], jnp.int32), mu, nu)

    def update(grads: Any, state: EpsilonHatState, params: Any = None) -> tuple[Any, EpsilonHatState]:
        del params
        step = state.step + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        t = step.astype(jnp.float32)
        rate = jnp.sqrt(1 - b2**t) / (1 - b1**t)
        out = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + epsilon_hat), mu, nu)
        return out, EpsilonHatState(step, mu, nu)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def learning_rate_schedule(recipe: Recipe, steps: int) -> Callable[[Any], Any]:
    """step -> learning rate, by `recipe.schedule` over a run of `steps`.

    With `recipe.unfreezing` "warmup_all" it rises from a tenth twice, for the decoder alone and then for all, and goes
    on by the schedule after that.

    Raises:
      InputError: no schedule has that name.
    """
    if recipe.schedule not in ("constant", "cosine"):
        raise InputError(f"There is no schedule named '{recipe.schedule}': choose from constant, cosine.")
    low, high, end = (recipe.learning_rate * share for share in (0.1, 1, 0.01))
    rises = int(steps * WARMUP) if recipe.unfreezing == "warmup_all" else 0
    if rises:
        rise = optax.linear_schedule(low, high, rises)
        rest = optax.constant_schedule(high)
        if recipe.schedule == "cosine":
            rest = optax.cosine_decay_schedule(high, steps - 2 * rises, end / high if high else 0.0)
        return optax.join_schedules([rise, rise, rest], [rises, 2 * rises])
    if recipe.schedule == "constant":
        return optax.constant_schedule(high)
    warmup = min(recipe.warmup_steps, max(steps // 5, 1))
    return optax.warmup_cosine_decay_schedule(low, high, warmup, max(steps, warmup + 1), end_value=end)


class StartingState(NamedTuple):
    """Step count and the state of what waits."""

    step: jax.Array
    inner: Any


def starting_at(inner: optax.GradientTransformation, first: int) -> optax.GradientTransformation:
    """`inner` from its step `first` on (counted from 0); before, no update, and its state stays as it began.

    Adam's bias correction thus counts the steps that a parameter was trained for. Counted from the run's first
    step it would be spent by the time that a parameter joins, whose first updates were then too long: of a constant
    gradient 3.2 times after one step and 6.5 times after ten.
    """

    def init(params: Any) -> StartingState:
        return StartingState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(grads: Any, state: StartingState, params: Any = None) -> tuple[Any, StartingState]:
        out, moved = inner.update(grads, state.inner, params)
        on = state.step >= first
        kept = jax.tree.map(lambda new, old: jnp.where(on, new, old), moved, state.inner)
        return jax.tree.map(lambda u: jnp.where(on, u, 0), out), StartingState(state.step + 1, kept)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def scale_each(factors: Mapping[str, Any]) -> optax.GradientTransformation:
    """Each update times its own factor, of a tree that has at least the updates' paths."""

    def scaled(updates: Any, params: Any = None) -> Any:
        del params

        def one(path: Any, update: jax.Array) -> jax.Array:
            factor: Any = factors
            for key in path:
                factor = factor[key.key]
            return update * factor

        return jax.tree_util.tree_map_with_path(one, updates)

    return optax.stateless(scaled)


def make_optimiser(
    recipe: Recipe, steps: int, labels: Any, fresh: frozenset[str] = frozenset()
) -> optax.GradientTransformation:
    """Adam or Muon on the trained part, nothing at all on the frozen part.

    With `recipe.l2sp` the trained part is pulled towards where it started (`l2sp.pull_to_start`). With
    `recipe.unfreezing` each group of blocks (`stages.UNFREEZING`) joins at its own step and has its own rate; the same
    optimiser serves all stages. With `recipe.layer_decay` below 1 rates fall from the output down (`layerwise`).

    Args:
      steps: length of the run, for the schedule.
      labels: tree of "trained" and "frozen", the shape of the parameters; of the last stage, where there are stages.
      fresh: what of the parameters is not pre-trained, as `restore.Restored.fresh` has it.

    Returns:
      An `optax.multi_transform` whose state holds moments for the trained part only; initialise it with the
      parameters that the run starts from.

    Raises:
      InputError: no optimiser, schedule or unfreezing has that name.
    """
    muon = choose("optimiser", recipe.optimiser, OPTIMISERS)
    scaling = [optax.scale_by_learning_rate(learning_rate_schedule(recipe, steps))]
    if recipe.layer_decay != 1:
        scaling.insert(0, scale_each(rate_factors(labels, recipe.layer_decay)))

    def trained(first: int = 0, factor: float = 1.0) -> optax.GradientTransformation:
        if recipe.epsilon_hat:
            adam = scale_by_adam_epsilon_hat(recipe.b1, recipe.b2, recipe.epsilon)
        else:
            adam = optax.scale_by_adam(recipe.b1, recipe.b2, recipe.epsilon)
        scaled = scale_by_muon_and_adam(recipe.momentum, adam) if muon else adam
        pulled = optax.chain(pull_to_start(recipe.l2sp, fresh=fresh), scaled) if recipe.l2sp else scaled
        waiting = starting_at(pulled, first) if first else pulled
        return optax.chain(waiting, *([optax.scale(factor)] if factor != 1 else []), *scaling)

    plan = choose("unfreezing", recipe.unfreezing, UNFREEZING)
    if not plan:
        return optax.multi_transform({"trained": trained(), "frozen": optax.set_to_zero()}, labels)
    begins = first_steps(steps, plan)
    groups = {group.name: trained(first, group.rate) for group, first in zip(plan, begins, strict=True)}
    return optax.multi_transform(groups | {"frozen": optax.set_to_zero()}, label_groups(labels, plan))
