"""Losses over per-pixel logits of slices, one sigmoid an output.

All take logits, a target of 0 or 1, and a region or None, and give an average over the whole batch, also where that is
divided over an axis of devices, whose name they then take. Outputs may overlap: a tumour's pixel is also liver.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Shaped

from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.batch_sums import mean_over, sum_over

PixelLogits = Float[Array, "batch *sides outputs"]
Target = Float[Array, "batch *sides outputs"]
LossRegion = Shaped[Array, "batch *sides"]
SliceLoss = Callable[..., Float[Array, ""]]
"""(logits, target, region, axis=None) -> a scalar."""
LIVER = "liver"
"""The output whose pixels are the region of `liver_cross_entropy`, by name."""


def binary_cross_entropy(
    logits: PixelLogits, target: Target, region: LossRegion | None = None, axis: str | None = None
) -> Float[Array, ""]:
    """Binary cross-entropy, the report's loss (section 3.2.2): mean over pixels, outputs and batch.

    Args:
      logits: of the network.
      target: 0 or 1.
      region: unused.
      axis: of devices that the batch is divided over; None: it is whole.

    Returns:
      Nats.
    """
    return mean_over(jnp.mean(optax.sigmoid_binary_cross_entropy(logits, target)), axis)


def sigmoid_dice(
    logits: PixelLogits, target: Target, region: LossRegion | None = None, axis: str | None = None
) -> Float[Array, ""]:
    """One minus the soft Dice overlap of each output over the whole batch, mean over outputs.

    V-Net's form (Milletari et al. 2016, equation of section 3) without the squares; one pixel is added
    above and below, so that an output that the batch does not show is defined.

    Args:
      logits: of the network.
      target: 0 or 1.
      region: unused.
      axis: of devices that the batch is divided over; None: it is whole.

    Returns:
      From 0 (perfect) to 1.
    """
    p = jax.nn.sigmoid(logits)
    axes = tuple(range(logits.ndim - 1))
    overlap, sizes = sum_over(jnp.stack([jnp.sum(p * target, axes), jnp.sum(p, axes) + jnp.sum(target, axes)]), axis)
    return jnp.mean(1 - (2 * overlap + 1) / (sizes + 1))


def generalised_dice(
    logits: PixelLogits, target: Target, region: LossRegion | None = None, axis: str | None = None
) -> Float[Array, ""]:
    """Generalised Dice loss (Sudre et al. 2017, section 2), over the whole batch.

        1 - 2 sum_l w_l sum_n r_ln p_ln / sum_l w_l sum_n (r_ln + p_ln),   w_l = 1 / (sum_n r_ln)^2

    Its classes l are every output and, since each output is a sigmoid of its own, every output's complement
    (probability one minus the output's). A class without a pixel in the batch would weigh infinitely: it gets
    the largest weight of the classes that have one. No epsilon is needed, since of an output and its
    complement one always has pixels; a batch that shows no structure gives the mean probability.

    Args:
      logits: of the network.
      target: 0 or 1.
      region: unused.
      axis: of devices that the batch is divided over; None: it is whole.

    Returns:
      From 0 (perfect) to 1.
    """
    p = jax.nn.sigmoid(logits)
    axes = tuple(range(logits.ndim - 1))
    # Means in place of sums: the number of pixels cancels, and float32 has no large powers to hold.
    # Complements come from their own logits: 1 - p would lose the last digits of a sure prediction.
    reference = jnp.concatenate([jnp.mean(target, axes), jnp.mean(1 - target, axes)])
    predicted = jnp.concatenate([jnp.mean(p, axes), jnp.mean(jax.nn.sigmoid(-logits), axes)])
    overlap = jnp.concatenate([jnp.mean(target * p, axes), jnp.mean((1 - target) * jax.nn.sigmoid(-logits), axes)])
    reference, predicted, overlap = mean_over(jnp.stack([reference, predicted, overlap]), axis)
    present = reference > 0
    weights = jnp.where(present, 1 / jnp.where(present, reference, 1) ** 2, 0)
    weights = jnp.where(present, weights, jnp.max(weights))
    return 1 - 2 * jnp.sum(weights * overlap) / jnp.sum(weights * (reference + predicted))


def binary_cross_entropy_dice(
    logits: PixelLogits, target: Target, region: LossRegion | None = None, axis: str | None = None
) -> Float[Array, ""]:
    """`binary_cross_entropy` plus `sigmoid_dice`: the first calibrates, the second minds the small structure."""
    return binary_cross_entropy(logits, target, axis=axis) + sigmoid_dice(logits, target, axis=axis)


def liver_cross_entropy(
    logits: PixelLogits, target: Target, region: LossRegion | None, whole: tuple[bool, ...], axis: str | None = None
) -> Float[Array, ""]:
    """Binary cross-entropy that counts inside the liver only (Chlebus et al. 2018).

    Each output's mean is over its own pixels, those of the batch's region or all; then the outputs' mean.
    An output without a pixel gives 0.

    Args:
      logits: of the network.
      target: 0 or 1.
      region: 1 inside the liver (a label or a prediction) and 0 outside; values between weigh.
      whole: for each output whether it is trained on all pixels, as the liver itself is.
      axis: of devices that the batch is divided over; None: it is whole.

    Returns:
      Nats.

    Raises:
      ValueError: there is no region.
    """
    if region is None:
        raise ValueError("the loss liver_bce needs the liver's region, (batch, x, y): give a label or a prediction")
    weight = jnp.where(jnp.asarray(whole), 1.0, region[..., None].astype(logits.dtype))
    axes = tuple(range(logits.ndim - 1))
    entropy = optax.sigmoid_binary_cross_entropy(logits, target)
    weight = jnp.broadcast_to(weight, entropy.shape)
    total, each = sum_over(jnp.stack([jnp.sum(weight, axes), jnp.sum(weight * entropy, axes)]), axis)
    return jnp.mean(each / jnp.where(total > 0, total, 1))


def _bind_liver(outputs: Sequence[str]) -> SliceLoss:
    whole = tuple(o == LIVER for o in outputs)
    if all(whole):
        raise InputError(
            f"The loss liver_bce trains the other outputs inside the liver, and there is none but "
            f"{LIVER}: choose the loss bce."
        )
    return functools.partial(liver_cross_entropy, whole=whole)


def _alike(loss: SliceLoss) -> Callable[[Sequence[str]], SliceLoss]:
    """For a loss that treats every output alike."""
    return lambda outputs: loss


SLICE_LOSSES: Mapping[str, Callable[[Sequence[str]], SliceLoss]] = {
    "bce": _alike(binary_cross_entropy),
    "dice": _alike(sigmoid_dice),
    "generalised_dice": _alike(generalised_dice),
    "bce_dice": _alike(binary_cross_entropy_dice),
    "liver_bce": _bind_liver,
}
"""Name -> a function from the outputs' names to the loss."""


def get_slice_loss(name: str, outputs: Sequence[str]) -> SliceLoss:
    """A loss by name, for a network with these outputs.

    Args:
      name: one of `SLICE_LOSSES`.
      outputs: the network's structures, in order.

    Returns:
      (logits, target, region, axis=None) -> scalar; only "liver_bce" reads the region.

    Raises:
      InputError: no loss has that name, or it cannot serve these outputs.
    """
    return choose("loss", name, SLICE_LOSSES)(outputs)
