"""Losses over the logits of voxels or pixels, of exclusive outputs or of those that may overlap.

All take

    logits: (batch, *sides, outputs)
    target: (batch, *sides, outputs) of 0 and 1: exclusive outputs are one-hot, and the first is the background
    how: what these are, see `Reading`

and give a scalar.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Shaped

from tlseg_jax.runtime.choose import choose
from tlseg_jax.train.batch_sums import mean_over, sum_over

Logits = Float[Array, "batch *sides outputs"]
Target = Shaped[Array, "batch *sides outputs"]
LossRegion = Shaped[Array, "batch *sides weights"]


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """How a loss reads its logits and target.

    Attributes:
      exclusive: whether the outputs share a softmax; else each is a sigmoid of its own: a tumour's pixel is also liver.
      region: (batch, *sides, outputs or 1), the weight of each place, for the losses in `RESTRICTED`; others read none.
      axis: of devices that the batch is divided over: the loss is that of the whole batch; None: it is whole.
      smoothing: share of each place's target that is spread evenly over the outputs that it may have, in the
        cross-entropy (label smoothing; Szegedy et al. 2016, "Rethinking the Inception architecture", section 7), such
        as 0.1; Dice losses are of the target as it is.
    """

    exclusive: bool
    region: LossRegion | None = None
    axis: str | None = None
    smoothing: float = 0.0


Loss = Callable[[jax.Array, jax.Array, Reading], jax.Array]

NEVER = -1e9
"""A logit whose probability is 0, and so is its gradient: of an output that a place cannot have."""


def _entropy(logits: jax.Array, target: jax.Array, how: Reading) -> jax.Array:
    """Nats of each place: (batch, *sides, 1) of a softmax, or of each output."""
    if how.smoothing:
        possible = (logits > NEVER / 2).astype(logits.dtype)
        even = possible / jnp.sum(possible, axis=-1, keepdims=True) if how.exclusive else possible / 2
        target = (1 - how.smoothing) * target + how.smoothing * even
    if how.exclusive:  # a one-hot product, not a gather: XLA folds constants for seconds on the gather's gradient
        return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1, keepdims=True)
    return optax.sigmoid_binary_cross_entropy(logits, target)


def cross_entropy(logits: Logits, target: Target, how: Reading) -> Float[Array, ""]:
    """Mean cross-entropy over all places (both papers' loss), and over outputs that are not exclusive, in nats."""
    return mean_over(jnp.mean(_entropy(logits, target, how)), how.axis)


def soft_dice(logits: Logits, target: Target, how: Reading) -> Float[Array, ""]:
    """One minus the soft Dice overlap of each structure over the whole batch, mean over structures: 0 is perfect.

    V-Net's form (Milletari et al. 2016, equation of section 3) without the squares; the background
    is left out, and one voxel is added above and below so that a batch without a structure is defined.
    """
    p = jax.nn.softmax(logits)[..., 1:] if how.exclusive else jax.nn.sigmoid(logits)
    t = target[..., 1:] if how.exclusive else target
    axes = tuple(range(p.ndim - 1))
    overlap, sizes = sum_over(jnp.stack([jnp.sum(p * t, axes), jnp.sum(p, axes) + jnp.sum(t, axes)]), how.axis)
    return jnp.mean(1 - (2 * overlap + 1) / (sizes + 1))


def generalised_dice(logits: Logits, target: Target, how: Reading) -> Float[Array, ""]:
    """Generalised Dice loss (Sudre et al. 2017, section 2), over the whole batch: 0 is perfect, 1 the worst.

        1 - 2 sum_l w_l sum_n r_ln p_ln / sum_l w_l sum_n (r_ln + p_ln),   w_l = 1 / (sum_n r_ln)^2

    Its classes l are the exclusive outputs, or, of sigmoids, every output and every output's complement
    (probability one minus the output's). A class without a pixel in the batch would weigh infinitely: it gets
    the largest weight of the classes that have one. No epsilon is needed, since one class always has pixels; a batch
    of sigmoids that shows no structure gives the mean probability.
    """
    axes = tuple(range(logits.ndim - 1))
    # Complements come from their own logits: 1 - p would lose the last digits of a sure prediction.
    pairs = (
        [(jax.nn.softmax(logits), target)]
        if how.exclusive
        else [(jax.nn.sigmoid(logits), target), (jax.nn.sigmoid(-logits), 1 - target)]
    )
    # Means in place of sums: the number of pixels cancels, and float32 has no large powers to hold.
    reference = jnp.concatenate([jnp.mean(t, axes) for _, t in pairs])
    predicted = jnp.concatenate([jnp.mean(p, axes) for p, _ in pairs])
    overlap = jnp.concatenate([jnp.mean(t * p, axes) for p, t in pairs])
    reference, predicted, overlap = mean_over(jnp.stack([reference, predicted, overlap]), how.axis)
    present = reference > 0
    weights = jnp.where(present, 1 / jnp.where(present, reference, 1) ** 2, 0)
    weights = jnp.where(present, weights, jnp.max(weights))
    return 1 - 2 * jnp.sum(weights * overlap) / jnp.sum(weights * (reference + predicted))


def cross_entropy_dice(logits: Logits, target: Target, how: Reading) -> Float[Array, ""]:
    """`cross_entropy` plus `soft_dice`: the first calibrates, the second minds the small structure."""
    return cross_entropy(logits, target, how) + soft_dice(logits, target, how)


def restricted_cross_entropy(logits: Logits, target: Target, how: Reading) -> Float[Array, ""]:
    """Cross-entropy that counts inside a region only, as inside the liver (Chlebus et al. 2018), in nats.

    Each output's mean is over the region's weights; then the outputs' mean. An output without a place gives 0.

    Raises:
      ValueError: there is no region.
    """
    if how.region is None:
        raise ValueError("the loss liver_bce needs the liver's region: give a label or a prediction")
    axes = tuple(range(logits.ndim - 1))
    entropy = _entropy(logits, target, how)
    weight = jnp.broadcast_to(how.region, entropy.shape)
    total, each = sum_over(jnp.stack([jnp.sum(weight, axes), jnp.sum(weight * entropy, axes)]), how.axis)
    return jnp.mean(each / jnp.where(total > 0, total, 1))


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": cross_entropy,
    "dice": soft_dice,
    "cross_entropy_dice": cross_entropy_dice,
    "generalised_dice": generalised_dice,
    "liver_bce": restricted_cross_entropy,
    "bce": cross_entropy,
    "bce_dice": cross_entropy_dice,
}
"""By name; "bce" and "bce_dice" are what the liver report calls them."""

RESTRICTED = ("liver_bce",)
"""Losses that count inside the liver only."""

UNSMOOTHED = ("dice", "generalised_dice")
"""Losses without a cross-entropy, whose labels nothing smooths."""


def get_loss(name: str) -> Loss:
    """A loss by name.

    Raises:
      InputError: no loss has that name.
    """
    return choose("loss", name, LOSSES)
