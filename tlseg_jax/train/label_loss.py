"""The loss of label codes (`preprocess.codes`): of exclusive structures or not, all marked or some."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from tlseg_jax.preprocess.codes import UNMARKED
from tlseg_jax.train.losses import get_loss
from tlseg_jax.train.slice_losses import get_slice_loss
from tlseg_jax.train.step import Objective

OF_SIGMOIDS = {"cross_entropy": "bce", "cross_entropy_dice": "bce_dice"}
"""Losses of exclusive structures -> those that are the same of structures that may contain each other."""

_NEVER = -1e9
"""A logit whose probability is 0, and so is its gradient."""


def label_loss(name: str, structures: int, exclusive: bool, partial: bool) -> Objective:
    """A loss by name, of logits and of what `patch_inputs` gives.

    Args:
      name: see `losses` and `slice_losses`.
      structures: how many there are.
      exclusive: whether a voxel shows one at most.
      partial: whether a label map may mark some of them only; the target is then (codes, marked).

    Raises:
      InputError: no loss has that name.
    """
    loss = get_loss(name) if exclusive else get_slice_loss(OF_SIGMOIDS.get(name, name), ("",) * structures)

    def objective(logits: jax.Array, target: Any, axis: str | None = None) -> jax.Array:
        codes, marked = target if partial else (target, None)
        if exclusive:
            if marked is not None:
                logits, codes = marginal(logits, codes, marked)
            return loss(logits, codes, axis=axis)
        bits = (codes[..., None] >> jnp.arange(structures) & 1).astype(logits.dtype)
        if marked is not None:
            known = _spread(marked, bits)
            logits, bits = jnp.where(known, logits, _NEVER), jnp.where(known, bits, 0)
        return loss(logits, bits, None, axis=axis)

    return objective


def marginal(
    logits: Float[Array, "batch *sides outputs"],
    codes: Int[Array, "batch *sides"],  # noqa: F821
    marked: Shaped[Array, "batch structures"],
) -> tuple[Float[Array, "batch *sides outputs"], Int[Array, "batch *sides"]]:  # noqa: F821
    """Logits and codes in which what a label map does not mark is background.

    Where a structure is not marked, the background of the label map may be it: their probabilities are added up
    (marginal loss; Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation", equation 3). Where nobody looked (`codes.UNMARKED`) every loss is 0.

    Args:
      logits: output 0 is the background.
      codes: of the label map.
      marked: which structures it marks.
    """
    known = _spread(marked, logits[..., 1:])
    rest = jnp.where(known, _NEVER, logits[..., 1:])
    background = jax.nn.logsumexp(jnp.concatenate([logits[..., :1], rest], -1), axis=-1, keepdims=True)
    merged = jnp.concatenate([background, jnp.where(known, logits[..., 1:], _NEVER)], -1)
    looked = (codes != UNMARKED)[..., None]
    nothing = jnp.concatenate([jnp.zeros_like(background), jnp.full_like(rest, _NEVER)], -1)
    marks = jnp.concatenate([jnp.ones_like(marked[:, :1]), marked], -1).astype(bool)
    safe = jnp.where(codes == UNMARKED, 0, codes)
    is_marked = jnp.take_along_axis(marks, safe.reshape(safe.shape[0], -1), axis=1).reshape(safe.shape)
    return jnp.where(looked, merged, nothing), jnp.where(is_marked, safe, 0)


def _spread(marked: jax.Array, like: jax.Array) -> jax.Array:
    """(batch, structures) -> bool of the rank of `like`, (batch, 1, ..., structures)."""
    return marked.astype(bool).reshape(marked.shape[0], *(1,) * (like.ndim - 2), marked.shape[-1])
