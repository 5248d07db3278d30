"""3x3 convolution and 2x2 up-convolution of planes: the one place that says how they are lowered.

The convolution is XLA's own on every backend: none of the hand-written gradients that
benchmarks/conv2d_step.py puts into the whole training step was reliably 15% faster on a CPU.
XLA:CPU (jaxlib 0.10.2) has its fast form outside loops only. Within `lax.scan` or `lax.map` the forward
pass is as fast, but the input's gradient took 10 and the kernel's 30 to 50 times longer: do not loop over
slices or micro-batches there in training.

The up-convolution is a matrix product, since the gradients of XLA's transposed convolution are slow.
"""

import jax
import jax.numpy as jnp
from jax import lax


def conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution, stride 1, zero padding, no bias.

    Args:
      x: (batch, height, width, channels).
      kernel: (3, 3, channels, features).

    Returns:
      (batch, height, width, features).
    """
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def conv2d_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """2x2 transposed convolution of stride 2, no bias: output cells do not overlap, so it is one product.

    Args:
      x: (batch, height, width, channels).
      kernel: (2, 2, channels, features); [i, j] makes the pixel at (2 row + i, 2 column + j).

    Returns:
      (batch, 2 height, 2 width, features).
    """
    b, h, w, c = x.shape
    features = kernel.shape[-1]
    flat = kernel.transpose(2, 0, 1, 3).reshape(c, 4 * features)
    cells = jnp.dot(x.reshape(-1, c), flat).reshape(b, h, w, 2, 2, features)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, features)
