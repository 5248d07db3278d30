"""Losses over per-voxel logits. All take whole-number labels, below the number of outputs.

Where the batch is divided over an axis of devices, all take its name as `axis`: the loss is that of the whole batch.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from tlseg_jax.runtime.choose import choose
from tlseg_jax.train.batch_sums import mean_over, sum_over

Logits = Float[Array, "batch *sides outputs"]
VoxelLabels = Integer[Array, "batch *sides"]
Loss = Callable[..., Float[Array, ""]]
"""(logits, labels, axis=None) -> a scalar."""


def cross_entropy(logits: Logits, labels: VoxelLabels, axis: str | None = None) -> Float[Array, ""]:
    """Mean cross-entropy over all voxels (section 3.1).

    Args:
      logits: of the network.
      labels: the right outputs.
      axis: of devices that the batch is divided over; None: it is whole.

    Returns:
      Nats.
    """
    # A one-hot product, not a gather: XLA folds constants for seconds on the gather's gradient.
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -mean_over(jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)), axis)


def soft_dice(logits: Logits, labels: VoxelLabels, axis: str | None = None) -> Float[Array, ""]:
    """One minus the soft Dice overlap of the structures, taken over the whole batch.

    V-Net's form (Milletari et al. 2016, equation of section 3) without the squares; the background
    is left out, and one voxel is added above and below so that an empty batch is defined.

    Args:
      logits: output 0 is the background.
      labels: the right outputs.
      axis: of devices that the batch is divided over; None: it is whole.

    Returns:
      From 0 (perfect) to 1.
    """
    p = jax.nn.softmax(logits)[..., 1:]
    t = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)[..., 1:]
    axes = tuple(range(p.ndim - 1))
    overlap, sizes = sum_over(jnp.stack([jnp.sum(p * t, axes), jnp.sum(p, axes) + jnp.sum(t, axes)]), axis)
    return jnp.mean(1 - (2 * overlap + 1) / (sizes + 1))


def cross_entropy_dice(logits: Logits, labels: VoxelLabels, axis: str | None = None) -> Float[Array, ""]:
    """`cross_entropy` plus `soft_dice`: the first calibrates, the second minds the small structure."""
    return cross_entropy(logits, labels, axis) + soft_dice(logits, labels, axis)


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": cross_entropy,
    "dice": soft_dice,
    "cross_entropy_dice": cross_entropy_dice,
}


def get_loss(name: str) -> Loss:
    """A loss by name.

    Raises:
      InputError: no loss has that name.
    """
    return choose("loss", name, LOSSES)
