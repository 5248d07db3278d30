"""3x3x3 convolution, and the one place that chooses how it is lowered.

XLA's GPU and TPU compilers take a 3D convolution as it is. XLA:CPU runs it 2 to 7 times slower than
either of two rewritings (see benchmarks/conv_lowering.py), so on a CPU:

- "planes": one 2D 3x3 convolution over the concatenation of each plane with its two neighbours;
- "taps": the sum of 27 shifted products, best where there is a single input channel.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Lowering = Literal["native", "planes", "taps"]


def choose_lowering(in_channels: int, backend: str | None = None) -> Lowering:
    """The fastest lowering of a 3x3x3 convolution on a backend ("cpu", "gpu", "tpu")."""
    if (backend or jax.default_backend()) != "cpu":
        return "native"
    return "taps" if in_channels == 1 else "planes"


def conv3d(x: jax.Array, kernel: jax.Array, lowering: Lowering | None = None) -> jax.Array:
    """3x3x3 convolution, stride 1, zero padding, no bias.

    Args:
      x: (batch, depth, height, width, channels).
      kernel: (3, 3, 3, channels, features).
      lowering: one form, or None for the backend's fastest.

    Returns:
      (batch, depth, height, width, features), the same for every lowering up to rounding.
    """
    form = lowering or choose_lowering(x.shape[-1])
    if form == "planes":
        return _planes(x, kernel)
    if form == "taps":
        return _taps(x, kernel)
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))


def _planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    b, d, h, w, c = x.shape
    features = kernel.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    triples = jnp.concatenate([padded[:, i : i + d] for i in range(3)], axis=-1)
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(3, 3, 3 * c, features)
    y = lax.conv_general_dilated(
        triples.reshape(b * d, h, w, 3 * c),
        flat,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(b, d, h, w, features)


def _taps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    _, d, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    y = jnp.zeros((*x.shape[:-1], kernel.shape[-1]), x.dtype)
    for i in range(3):
        for j in range(3):
            for k in range(3):
                y = y + padded[:, i : i + d, j : j + h, k : k + w] @ kernel[i, j, k]
    return y
