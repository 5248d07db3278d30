"""Losses over per-voxel logits. All take (batch, depth, height, width, outputs) and whole-number labels."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from tlseg_jax.choose import choose

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy over all voxels (section 3.1).

    Args:
      logits: (batch, ..., outputs).
      labels: (batch, ...) integers below `outputs`.

    Returns:
      A scalar in nats.
    """
    # A one-hot product, not a gather: XLA folds constants for seconds on the gather's gradient.
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))


def soft_dice(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """One minus the soft Dice overlap of the structures, taken over the whole batch.

    V-Net's form (Milletari et al. 2016, equation of section 3) without the squares; the background
    is left out, and one voxel is added above and below so that an empty batch is defined.

    Args:
      logits: (batch, ..., outputs); output 0 is the background.
      labels: (batch, ...) integers below `outputs`.

    Returns:
      A scalar from 0 (perfect) to 1.
    """
    p = jax.nn.softmax(logits)[..., 1:]
    t = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)[..., 1:]
    axes = tuple(range(p.ndim - 1))
    overlap = 2 * jnp.sum(p * t, axes) + 1
    return jnp.mean(1 - overlap / (jnp.sum(p, axes) + jnp.sum(t, axes) + 1))


def cross_entropy_dice(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`cross_entropy` plus `soft_dice`: the first calibrates, the second minds the small structure."""
    return cross_entropy(logits, labels) + soft_dice(logits, labels)


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
