"""Whether probabilities mean what they say, and one number that makes them.

Expected calibration error: over bins of confidence the mean distance between how sure the network is of its most
probable class and how often that is right (Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3). A
temperature T divides the network's logits; of probabilities it is p ** (1 / T), scaled to add up to one. It never
changes which class is the most probable, and so no label map.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from numpy.typing import NDArray
from scipy import ndimage, special

from tlseg_jax.preprocess.codes import UNMARKED, anywhere, decide, mask_of

BINS = 15
NEAR = 2
"""Voxels around the structures, true or found: far from them all is background, and every network is right there."""

VOXELS = 10_000
"""Of a scan at most, drawn at random."""

_TINY = 1e-7


def classes(
    probability: Float[np.ndarray, "voxels structures"], exclusive: bool
) -> Float32[np.ndarray, "rows classes"]:
    """Probabilities that add up to one: of the background and each structure; else of no and yes for each structure."""
    p = np.asarray(probability, np.float32)
    if exclusive:
        return np.concatenate([np.clip(1 - p.sum(-1, keepdims=True), 0, 1), p], -1)
    flat = p.reshape(-1)
    return np.stack([1 - flat, flat], -1)


def sampled(
    probabilities: Sequence[Float[np.ndarray, "*sides structures"]],
    reference: UInt8[np.ndarray, "*sides"],
    exclusive: bool,
) -> tuple[list[Float32[np.ndarray, "rows classes"]], Int[np.ndarray, " rows"]]:
    """Of voxels near the structures the classes' probabilities, by each of several maps, and the true class.

    What nobody looked at, by the codes of the reference, is left out.
    """
    there = anywhere(reference) | anywhere(decide(probabilities[0], exclusive))
    near = ndimage.binary_dilation(there, iterations=NEAR)
    if exclusive:
        near &= reference != UNMARKED
    at = np.flatnonzero(near)
    at = np.random.default_rng(0).permutation(at)[:VOXELS]
    codes = reference.reshape(-1)[at]
    structures = probabilities[0].shape[-1]
    truth = codes.astype(np.int64)
    if not exclusive:
        truth = np.stack([mask_of(codes, s, False) for s in range(structures)], -1).reshape(-1).astype(np.int64)
    return [classes(p.reshape(-1, structures)[at], exclusive) for p in probabilities], truth


def tempered(p: Float[np.ndarray, "rows classes"], temperature: float) -> NDArray[np.float32]:
    """Probabilities at a temperature."""
    return np.asarray(special.softmax(np.log(np.maximum(p, _TINY)) / np.float32(temperature), -1), np.float32)


def at_temperature(
    probability: Float[np.ndarray, "*sides structures"], temperature: float, exclusive: bool
) -> Float32[np.ndarray, "*sides structures"]:
    """A map of the structures' probabilities at a temperature; what is zero stays so, which most voxels are."""
    out = np.array(probability, np.float32)
    some = (out > 1e-4).any(-1)
    changed = tempered(classes(out[some], exclusive), temperature)
    out[some] = changed[:, 1:] if exclusive else changed[:, 1].reshape(-1, out.shape[-1])
    return out


def fit_temperature(p: Float[np.ndarray, "rows classes"], truth: Int[np.ndarray, " rows"]) -> float:
    """The temperature under which the truth is the most likely (least negative log-likelihood), 0.2 to 5."""
    from scipy import optimize  # here, as `predict` fits nothing and is to start fast

    logits = np.log(np.maximum(p, _TINY))

    def loss(log_t: float) -> float:
        likely = special.log_softmax(logits / np.float32(np.exp(log_t)), -1)
        return -float(likely[np.arange(len(truth)), truth].mean())

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.2), np.log(5.0)), method="bounded", options={"xatol": 1e-2})
    return float(np.exp(found.x))


def calibration_error(p: Float[np.ndarray, "rows classes"], truth: Int[np.ndarray, " rows"]) -> float:
    """Expected calibration error of the most probable class, in equal bins of its probability."""
    sure, right = p.max(-1), p.argmax(-1) == truth
    which = np.minimum((sure * BINS).astype(int), BINS - 1)
    count = np.bincount(which, minlength=BINS)
    distance = np.abs(np.bincount(which, sure, BINS) - np.bincount(which, right, BINS))
    return float(distance.sum() / count.sum())
