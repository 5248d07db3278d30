"""One byte a voxel for all structures: a code where they exclude each other, a bit each where they do not.

Exclusive: 0 is the background and k + 1 the structure k. Else bit k is set where the structure k is. Of one structure
both are 0 and 1.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from tlseg_jax.datasets.structures import Labels

UNMARKED = 255
"""Code of exclusive structures where nobody looked."""

_AT_ONCE = 1 << 20


def mask_of(codes: UInt8[np.ndarray, "*sides"], structure: int, exclusive: bool) -> Bool[np.ndarray, "*sides"]:
    """Where one structure is, by its place."""
    return codes == structure + 1 if exclusive else (codes >> structure & 1).astype(np.bool_)


def anywhere(codes: UInt8[np.ndarray, "*sides"]) -> Bool[np.ndarray, "*sides"]:
    """Where any structure is."""
    return (codes > 0) & (codes != UNMARKED)


def shown(
    codes: UInt8[np.ndarray, "*sides"], structures: int, exclusive: bool, axis: tuple[int, ...] | None = None
) -> Bool[np.ndarray, "*rest {structures}"]:
    """Which structures there are along axes, or anywhere; `UNMARKED` is none where structures are exclusive."""
    if exclusive:
        return np.stack([(codes == i + 1).any(axis) for i in range(structures)], -1)
    seen = np.bitwise_or.reduce(codes, axis=axis)
    return (np.asarray(seen)[..., None] >> np.arange(structures) & 1).astype(bool)


def looked(codes: UInt8[np.ndarray, "*sides"], labels: Labels) -> UInt8[np.ndarray, "*sides"]:
    """Codes that show nothing where nobody looked."""
    return codes if labels.unmarked is None else np.where(codes == UNMARKED, np.uint8(0), codes)


def voxels_of(codes: UInt8[np.ndarray, "*sides"], labels: Labels) -> dict[str, int]:
    """Structure -> its voxels; where nobody looked there are none."""
    flat = codes.ravel(order="K")
    counts = np.zeros(256, np.int64)
    for first in range(0, flat.size, _AT_ONCE):  # NumPy counts numbers of eight bytes
        counts += np.bincount(flat[first : first + _AT_ONCE], minlength=256)
    if labels.unmarked is not None:
        counts[UNMARKED] = 0
    every = np.arange(256, dtype=np.uint8)
    return {s: int(counts[mask_of(every, i, labels.exclusive)].sum()) for i, s in enumerate(labels.structures)}


def encode(masks: Sequence[Bool[np.ndarray, "*sides"]], exclusive: bool) -> UInt8[np.ndarray, "*sides"]:
    """The codes of structures whose voxels are given; of exclusive ones that overlap the last counts."""
    codes = np.zeros(masks[0].shape, np.uint8)
    for i, mask in enumerate(masks):
        if exclusive:
            codes[mask] = i + 1
        else:
            codes |= mask.astype(np.uint8) << i
    return codes


def decide(probability: Shaped[np.ndarray, "*sides structures"], exclusive: bool) -> UInt8[np.ndarray, "*sides"]:
    """The codes that probabilities of the structures stand for.

    Exclusive structures share a softmax with the background: the most probable of all is taken. Others are where their
    own is above one half.
    """
    if not exclusive:
        return encode([p > 0.5 for p in np.moveaxis(probability, -1, 0)], False)
    if probability.shape[-1] == 1:
        return (probability[..., 0] > 0.5).astype(np.uint8)
    most = probability.max(-1)
    return np.where(most > 1 - probability.sum(-1), probability.argmax(-1) + 1, 0).astype(np.uint8)


def mirror_table(partners: Sequence[int], exclusive: bool) -> tuple[int, ...]:
    """Code -> what it is in a mirror where structures change places (`structures.mirrored`); () where none does."""
    return () if tuple(partners) == tuple(range(len(partners))) else _table(partners, exclusive)


def moved_codes(
    codes: UInt8[np.ndarray, "*sides"], places: Sequence[int], exclusive: bool
) -> UInt8[np.ndarray, "*sides"]:
    """The codes among other structures, where the structure i stands at `places[i]`."""
    return np.array(_table(places, exclusive), np.uint8)[codes]


def _table(places: Sequence[int], exclusive: bool) -> tuple[int, ...]:
    """Code -> what it is where the structure i stands at `places[i]`."""
    if exclusive:
        moved = {i + 1: p + 1 for i, p in enumerate(places)}
        return tuple(moved.get(code, code) for code in range(256))
    bits = [*places, *range(len(places), 8)]
    return tuple(sum(1 << p for p in {p for i, p in enumerate(bits) if code >> i & 1}) for code in range(256))
