"""L2-SP: fine-tuning that is pulled back to the pre-trained parameters (Li, Grandvalet & Davoine, ICML 2018)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

FRESH_SHARE = 0.1
"""beta as a share of alpha: a new head is only kept small, and less firmly than the rest is kept in its place."""


class StartState(NamedTuple):
    """The parameters at the start."""

    start: Any


def pull_to_start(alpha: float, fresh: frozenset[str] = frozenset()) -> optax.GradientTransformation:
    """Add the gradient of L2-SP's penalty, alpha / 2 |w - w0|^2 + beta / 2 |v|^2.

    w are the parameters that were pre-trained, w0 their values at the start, v those that were not. It goes before
    Adam, as a term of the loss would. Every parameter takes part, scales and offsets of the batch norms too.

    Args:
      alpha: strength on w; 0 adds nothing to it.
      fresh: paths of v, such as "head/kernel", or "head/kernel[1]" for index 1 of its last axis only.

    Returns:
      A transformation whose state is w0, copied by `init` from the parameters that it is given.
    """
    beta = FRESH_SHARE * alpha

    def init(params: Any) -> StartState:
        # Copies: a training step gives the buffers of parameters and state away, each once.
        return StartState(jax.tree.map(jnp.array, params))

    def update(grads: Any, state: StartState, params: Any = None) -> tuple[Any, StartState]:
        if params is None:
            raise ValueError("pull_to_start needs the parameters: call update(grads, state, params).")

        def pulled(path: Any, grad: jax.Array, now: jax.Array, start: jax.Array) -> jax.Array:
            name = "/".join(str(key.key) for key in path)
            if name in fresh:
                return grad + beta * now
            columns = [i for i in range(now.shape[-1] if now.ndim else 0) if f"{name}[{i}]" in fresh]
            if not columns:
                return grad + alpha * (now - start)
            new = jnp.zeros(now.shape[-1], bool).at[jnp.array(columns)].set(True)
            return grad + jnp.where(new, beta * now, alpha * (now - start))

        return jax.tree_util.tree_map_with_path(pulled, grads, params, state.start), state

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]
