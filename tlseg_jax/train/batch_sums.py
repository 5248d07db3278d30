"""Sums and means over a batch that is divided over devices, in losses: with gradients of this device's rows."""

import functools

import jax
from jax import lax
from jaxtyping import Array, Float


def sum_over(x: Float[Array, "*shape"], axis: str | None) -> Float[Array, "*shape"]:
    """The sum of every device's `x`; `x` itself where the batch is whole.

    What follows from the sum is the same on every device, a loss of the whole batch, and so is its gradient. Passed on
    to `x` as it is, it gives each device the part of the parameters' gradient that is due to its own rows, and these
    add up to the whole. (The plain sum's would be added up over the devices once more.)
    """
    return x if axis is None else _sum(axis, x)


def mean_over(x: Float[Array, "*shape"], axis: str | None) -> Float[Array, "*shape"]:
    """The mean of every device's `x`, as `sum_over`: of a mean over rows, where all have as many."""
    return x if axis is None else _sum(axis, x) / lax.axis_size(axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(axis: str, x: jax.Array) -> jax.Array:
    return lax.psum(x, axis)


_sum.defvjp(lambda axis, x: (lax.psum(x, axis), None), lambda axis, kept, g: (g,))
