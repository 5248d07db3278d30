"""A trained network as a plain function on NumPy arrays."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.evaluate.inference import AdaptingPredictor, Predictor
from tlseg_jax.models.adabn import adapting, blended, pooled
from tlseg_jax.models.convolutions import network_lowering
from tlseg_jax.models.networks import probability
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError


@functools.cache
def _forward(config: UNetConfig) -> Callable[[Any, jax.Array], jax.Array]:
    """One jitted function a network, so that a new set of parameters compiles nothing."""
    # For patches of a usual size: where a measurement is needed, there is one, whatever the scans' sides.
    side = config.divisor * (math.ceil((256 if config.dimensions == 2 else 64) / config.divisor))
    lowering = network_lowering(config, (1, *(side,) * config.dimensions, config.channels)).lowering
    return jax.jit(probability(config, lowering))


@functools.cache
def _adapting(config: UNetConfig, share: float) -> Callable[[Any, jax.Array, jax.Array], Any]:
    return jax.jit(adapting(config, share))


def make_predictor(
    config: UNetConfig, params: Any, batch_stats: Any, adabn: float = 0.0
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The network as a plain function on NumPy arrays.

    Args:
      adabn: share of what its batch norms normalise by that is taken from each scan (`models.adabn`); 0: none of it.

    Returns:
      (batch, x, y, z) z-scored image of a 3D network, or (batch, x, y, channels) of a 2D one -> (batch, *sides,
      structures) float32 probabilities; with `adabn` an `AdaptingPredictor`.

    Raises:
      InputError: `adabn` is no share, or the network has no batch norms.
    """
    variables = jax.device_put({"params": params, "batch_stats": batch_stats})
    if not (math.isfinite(adabn) and 0 <= adabn <= 1):
        raise InputError(
            f"`adabn={adabn}` is not a share: give 0 (the running averages alone) to 1 (the scan's alone)."
        )

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(_forward(config)(variables, jnp.asarray(image, jnp.float32)))

    if not adabn:
        return predict
    if not batch_stats:
        raise InputError(f"`adabn={adabn}` blends statistics of batch norms, and {config.name} has none: leave it out.")

    def see(rows: NDArray[np.float32], weights: NDArray[np.float32]) -> tuple[NDArray[np.float32], Any]:
        found, own = _adapting(config, adabn)(variables, jnp.asarray(rows, jnp.float32), jnp.asarray(weights))
        return np.asarray(found), jax.tree.map(np.asarray, own)

    def fixed(parts: list[Any], weights: list[float]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        return make_predictor(config, params, blended(batch_stats, pooled(parts, weights), adabn))

    return AdaptingPredictor(see, fixed)


def load_predictor(saved: SavedModel, adabn: float = 0.0) -> Predictor:
    """The network of a run as a plain function; see `make_predictor`."""
    return make_predictor(saved.config, saved.params, saved.batch_stats, adabn)
