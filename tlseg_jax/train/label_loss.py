"""The loss of label codes (`preprocess.codes`): of exclusive structures or not, all marked or some."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from tlseg_jax.datasets.structures import MAX_STRUCTURES
from tlseg_jax.preprocess.codes import UNMARKED
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.losses import NEVER, RESTRICTED, Reading, get_loss
from tlseg_jax.train.step import Objective

LIVER = "liver"
"""The structure that a restricted loss counts inside of, by name."""


def label_loss(
    name: str, structures: Sequence[str] = ("structure",), exclusive: bool = True, smoothing: float = 0.0
) -> Objective:
    """A loss by name, of logits and of what `batch_inputs` gives.

    That is codes, or {"label": codes} with "marked" (batch, structures), where a label map may mark some structures
    only, and "region" (batch, *sides), where a loss is restricted and no label shows the liver.

    Args:
      structures: in the order of their codes.
      smoothing: of the labels, see `losses`.

    Raises:
      InputError: no loss has that name, or it cannot serve these structures.
    """
    loss, restricted = get_loss(name), name in RESTRICTED
    if restricted and LIVER in structures and (exclusive or len(structures) == 1):
        raise InputError(
            f"The loss {name} trains the other structures inside the {LIVER}, and there is none"
            f"{' where structures exclude each other' if exclusive and len(structures) > 1 else f' but {LIVER}'}: "
            "choose the loss cross_entropy."
        )

    def objective(logits: jax.Array, target: Any, axis: str | None = None) -> jax.Array:
        given = target if isinstance(target, dict) else {"label": target}
        codes, marked, region = given["label"], given.get("marked"), given.get("region")
        if exclusive:
            if marked is not None:
                logits, codes = marginal(logits, codes, marked)
            target = jax.nn.one_hot(codes, logits.shape[-1], dtype=logits.dtype)
        else:
            target = (codes[..., None] >> jnp.arange(len(structures)) & 1).astype(logits.dtype)
            if marked is not None:
                known = _spread(marked, target)
                if len(structures) < MAX_STRUCTURES:  # else all bits say that all structures are there
                    known &= (codes != UNMARKED)[..., None]
                logits, target = jnp.where(known, logits, NEVER), jnp.where(known, target, 0)
        if not restricted:
            return loss(logits, target, Reading(exclusive, None, axis, smoothing))
        if LIVER in structures:
            region = target[..., structures.index(LIVER)]
        if region is not None:
            region = region[..., None].astype(logits.dtype)
            if not exclusive:  # the liver itself is trained everywhere
                region = jnp.where(jnp.asarray([s == LIVER for s in structures]), 1.0, region)
        return loss(logits, target, Reading(exclusive, region, axis, smoothing))

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
      marked: which structures it marks.
    """
    known = _spread(marked, logits[..., 1:])
    rest = jnp.where(known, NEVER, logits[..., 1:])
    background = jax.nn.logsumexp(jnp.concatenate([logits[..., :1], rest], -1), axis=-1, keepdims=True)
    merged = jnp.concatenate([background, jnp.where(known, logits[..., 1:], NEVER)], -1)
    looked = (codes != UNMARKED)[..., None]
    nothing = jnp.concatenate([jnp.zeros_like(background), jnp.full_like(rest, NEVER)], -1)
    marks = jnp.concatenate([jnp.ones_like(marked[:, :1]), marked], -1).astype(bool)
    safe = jnp.where(codes == UNMARKED, 0, codes)
    is_marked = jnp.take_along_axis(marks, safe.reshape(safe.shape[0], -1), axis=1).reshape(safe.shape)
    return jnp.where(looked, merged, nothing), jnp.where(is_marked, safe, 0)


def _spread(marked: jax.Array, like: jax.Array) -> jax.Array:
    """(batch, structures) -> bool of the rank of `like`, (batch, 1, ..., structures)."""
    return marked.astype(bool).reshape(marked.shape[0], *(1,) * (like.ndim - 2), marked.shape[-1])
