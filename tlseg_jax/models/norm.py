"""Batch normalisation that keeps one copy of its input for the backward pass, in the input's own type.

Flax's keeps float32 copies under bfloat16, and the ReLU after it one more (Ioffe & Szegedy 2015 for the equations).
Parameters and running averages have flax's names, so that models trained with it still load.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Float32

EPSILON = 1e-5

Maps = Float[Array, "batch *sides channels"]
PerChannel = Float32[Array, " channels"]


class BatchNorm(nn.Module):
    """Normalise each channel over the batch and all sides, scale and shift it, and apply a ReLU where asked.

    Attributes:
      momentum: of the running averages.
      axis: the axis of devices that the batch is divided over, where each sees its own rows only; None: it is whole.
    """

    momentum: float
    axis: str | None = None

    @nn.compact
    def __call__(self, x: Maps, average: bool, relu: bool) -> Maps:
        """The result has the type of `x`.

        Args:
          x: the input.
          average: whether to use the running averages, and leave them as they are, instead of the batch's statistics.
          relu: whether negative results become zero.
        """
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        if average:
            factor = scale * lax.rsqrt(var.value + EPSILON)
            y = _affine(x, mean.value, factor, bias).astype(x.dtype)
            return nn.relu(y) if relu else y
        y, batch_mean, batch_var = normalise(relu, self.axis, x, scale, bias)
        if not self.is_initializing():
            for kept, new in ((mean, batch_mean), (var, batch_var)):
                kept.value = self.momentum * kept.value + (1 - self.momentum) * new
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def normalise(
    relu: bool, axis: str | None, x: Maps, scale: PerChannel, bias: PerChannel
) -> tuple[Maps, PerChannel, PerChannel]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, and a ReLU of it where asked.

    Args:
      relu: whether negative results become zero.
      axis: of devices, each with its rows of the batch: the statistics, here and in the gradient of `x`, are then of
        all rows, and the gradients of `scale` and `bias` of this device's rows, to be added up over the devices.
      x: the input.
      scale: of each channel.
      bias: of each channel.

    Returns:
      The result, of the type of `x`, and the batch's mean and variance, which nothing is differentiated through.
    """
    return _forward(relu, axis, x, scale, bias)[0]


Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def _affine(x: jax.Array, mean: ArrayLike, factor: ArrayLike, bias: ArrayLike) -> jax.Array:
    """(x - mean) * factor + bias, in float32."""
    return (x.astype(jnp.float32) - mean) * factor + bias


def _forward(
    relu: bool, axis: str | None, x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Kept]:
    wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    mean, square = jnp.mean(wide, axes), jnp.mean(wide * wide, axes)
    if axis is not None:
        mean, square = lax.pmean(jnp.stack([mean, square]), axis)
    var = jnp.maximum(square - mean * mean, 0)
    inverse = lax.rsqrt(var + EPSILON)
    y = _affine(wide, mean, inverse * scale, bias)
    y = jnp.maximum(y, 0) if relu else y
    return (y.astype(x.dtype), mean, var), (x, mean, inverse, scale, bias)


def _backward(
    relu: bool, axis: str | None, kept: Kept, gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale, bias = kept
    g, axes = gradients[0].astype(jnp.float32), tuple(range(x.ndim - 1))
    normal = (x.astype(jnp.float32) - mean) * inverse
    if relu:
        g = jnp.where(normal * scale + bias > 0, g, 0)
    to_bias, to_scale = jnp.sum(g, axes), jnp.sum(g * normal, axes)
    count = x.size // x.shape[-1]
    mean_g, mean_normal = to_bias / count, to_scale / count
    if axis is not None:
        mean_g, mean_normal = lax.pmean(jnp.stack([mean_g, mean_normal]), axis)
    to_x = (g - mean_g - normal * mean_normal) * (inverse * scale)
    return to_x.astype(x.dtype), to_scale, to_bias


normalise.defvjp(_forward, _backward)
