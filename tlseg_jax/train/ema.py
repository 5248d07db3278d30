"""Averaged weights: an exponential moving average of what training passes through, which is then the model.

Single steps of a fine-tuning on few scans scatter about what fits them; their mean lies nearer to it (Polyak & Juditsky
1992). The batch norms' running averages are averaged with the weights, by the same decay: those of the newest step
belong to other weights.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from tlseg_jax.runtime.errors import InputError


def check_decay(decay: float) -> None:
    """Raise InputError: it is no decay."""
    if not (math.isfinite(decay) and 0 <= decay < 1):
        raise InputError(f"`ema={decay}` is not a decay: give 0 (no averaging) or more, below 1, such as 0.99.")


def decay_at(decay: float, step: Any) -> jax.Array:
    """The decay of the update after so many earlier ones: min(decay, (1 + step) / (10 + step)).

    As TensorFlow's `ExponentialMovingAverage` has it: a random start is forgotten however short the run is.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))


def averaged(
    average: Mapping[str, Any], now: Mapping[str, Any], labels: Any, running: frozenset[str], step: Any, decay: float
) -> dict[str, Any]:
    """The average after a training step.

    What does not train is left as it is, to the bit: frozen parameters, and the statistics of norms that keep to their
    running averages.

    Args:
      average: {"params", "batch_stats"} before.
      now: the same of the step's end.
      labels: tree of "trained" and "frozen".
      running: paths of the batch norms whose running averages do not move.
      step: steps done before this one.
      decay: share of `average` that is kept, once the run is long enough (`decay_at`).
    """
    kept = decay_at(decay, step)
    parts, out = flatten_dict(labels), {}
    for path, old in flatten_dict(dict(average)).items():
        tree, *inside = path
        moves = parts[tuple(inside)] == "trained" if tree == "params" else "/".join(inside[:-1]) not in running
        new: Any = now[tree]
        for key in inside:
            new = new[key]
        out[path] = kept * old + (1 - kept) * new if moves else old
    return unflatten_dict(out)  # type: ignore[no-any-return]
