"""A trained network as a plain function on NumPy arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.evaluate.inference import Predictor
from tlseg_jax.models.networks import probability
from tlseg_jax.models.unet import UNetConfig


@functools.cache
def _forward(config: UNetConfig) -> Callable[[Any, jax.Array], jax.Array]:
    """One jitted function a network, so that a new set of parameters compiles nothing."""
    return jax.jit(probability(config))


def make_predictor(
    config: UNetConfig, params: Any, batch_stats: Any
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The network as a plain function on NumPy arrays.

    Returns:
      (batch, x, y, z) z-scored image of a 3D network, or (batch, x, y, channels) of a 2D one -> (batch, *sides,
      structures) float32 probabilities.
    """
    variables = jax.device_put({"params": params, "batch_stats": batch_stats})

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(_forward(config)(variables, jnp.asarray(image, jnp.float32)))

    return predict


def load_predictor(saved: SavedModel) -> Predictor:
    """The network of a run as a plain function; see `make_predictor`."""
    return make_predictor(saved.config, saved.params, saved.batch_stats)
