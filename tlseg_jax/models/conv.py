"""3x3x3 convolution, and the one place that chooses how it is lowered.

XLA's GPU and TPU compilers take a 3D convolution as it is. XLA:CPU is slow at it (see
benchmarks/conv_lowering.py), so on a CPU it becomes "planes": one 2D 3x3 convolution over the
concatenation of each plane with its two neighbours.

Not here: the sum of 27 shifted products. Alone it is the fastest for a single input channel, but those
products are elementwise, and XLA fuses them into whatever reads the result and computes them anew
there: a training step with the encoder frozen took 3.6 s in place of 0.3 s.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Lowering = Literal["native", "planes"]


def choose_lowering(backend: str | None = None) -> Lowering:
    """The fastest lowering of a 3x3x3 convolution on a backend ("cpu", "gpu", "tpu")."""
    return "planes" if (backend or jax.default_backend()) == "cpu" else "native"


def conv3d(x: jax.Array, kernel: jax.Array, lowering: Lowering | None = None) -> jax.Array:
    """3x3x3 convolution, stride 1, zero padding, no bias.

    Args:
      x: (batch, depth, height, width, channels).
      kernel: (3, 3, 3, channels, features).
      lowering: one form, or None for the backend's fastest.

    Returns:
      (batch, depth, height, width, features), the same for every lowering up to rounding.
    """
    if (lowering or choose_lowering()) == "planes":
        return _planes(x, kernel)
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
