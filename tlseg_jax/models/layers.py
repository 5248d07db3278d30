"""The layers that all networks are made of. Each takes its input in parts, which count as joined along the channels.

So a skip is never copied beside what comes up from below, and a frozen encoder's skip has no gradient to compute.
Parameters are float32 and are brought to the type of the input.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tlseg_jax.models.lowering.conv import Lowering, convolution_of_parts
from tlseg_jax.models.up_conv import up_convolution

Parts = Sequence[Float[Array, "batch *sides _"]]
"""Arrays that differ in their channels only."""

RUNNING_NOWHERE: frozenset[str] = frozenset()
"""No batch norm that keeps to its running averages in training."""

Init = Literal["he", "xavier"]
"""How a kernel starts: the He normal is usual before a ReLU, the Xavier normal is that of the liver report's model A
(section 4.2)."""

_INITIALIZERS: Mapping[str, Any] = {
    "he": nn.initializers.he_normal(),
    "xavier": nn.initializers.xavier_normal(),
    "lecun": nn.initializers.lecun_normal(),
}


def _channels(parts: Parts) -> int:
    return sum(p.shape[-1] for p in parts)


def _kernel(layer: nn.Module, init: str, shape: tuple[int, ...]) -> Any:
    return layer.param("kernel", _INITIALIZERS[init], shape, jnp.float32)


def _of_parts(parts: Parts, kernel: Any, product: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """The sum of each part's product with its own of the kernel's rows, which are the last axis but one."""
    pieces = jnp.split(kernel, list(itertools.accumulate(p.shape[-1] for p in parts))[:-1], axis=-2)
    products = (product(p, piece.astype(p.dtype)) for p, piece in zip(parts, pieces, strict=True))
    return functools.reduce(operator.add, products)


class Conv(nn.Module):
    """3x3 or 3x3x3 convolution without bias (a batch norm follows).

    Attributes:
      features: channels of the output.
      kernel_init: None: He normal.
      lowering: None takes what is usual on the device.
    """

    features: int
    kernel_init: Init | None = None
    lowering: Lowering | None = None

    @nn.compact
    def __call__(self, parts: Parts) -> Float[Array, "batch *sides {self.features}"]:
        """Of parts with two or three sides."""
        shape = (*(3,) * (parts[0].ndim - 2), _channels(parts), self.features)
        kernel = _kernel(self, self.kernel_init or "he", shape)
        return convolution_of_parts(parts, jnp.asarray(kernel, parts[0].dtype), self.lowering)


class Projection(nn.Module):
    """1x1 or 1x1x1 convolution, which is a product over the channels.

    Attributes:
      features: channels of the output.
      kernel_init: None: LeCun normal.
      bias: whether one is added.
    """

    features: int
    kernel_init: Init | None = None
    bias: bool = True

    @nn.compact
    def __call__(self, parts: Parts) -> Float[Array, "batch *sides {self.features}"]:
        """Of parts with any sides."""
        kernel = _kernel(self, self.kernel_init or "lecun", (_channels(parts), self.features))
        y = _of_parts(parts, kernel, jnp.dot)
        if not self.bias:
            return y
        return y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(y.dtype)


class UpConv(nn.Module):
    """Transposed convolution whose output cells do not overlap, such as 2x2x2 of stride 2, with bias.

    Attributes:
      features: channels of the output.
      kernel_init: None: He normal.
      side: of an output cell, which is the stride.
    """

    features: int
    kernel_init: Init | None = None
    side: int = 2

    @nn.compact
    def __call__(self, parts: Parts) -> Float[Array, "batch *larger {self.features}"]:
        """`side` times each side."""
        shape = (*(self.side,) * (parts[0].ndim - 2), _channels(parts), self.features)
        kernel = _kernel(self, self.kernel_init or "he", shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y = _of_parts(parts, kernel, up_convolution)
        return y + bias.astype(y.dtype)
