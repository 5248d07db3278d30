"""From a volume's planes to a probability for every pixel and structure, in batches of one size."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray

from tlseg_jax.evaluate.inference import AdaptingPredictor, check_probability

SlicePredictor = Callable[[Float32[np.ndarray, "batch x y channels"]], Float32[np.ndarray, "batch x y outputs"]]
"""Planes -> probability of each structure."""

BATCH = 8

Planes = Float[np.ndarray, "planes x y"]


def predict_planes(
    image: Float[np.ndarray, "planes x y channels"], predictor: SlicePredictor, batch: int = BATCH
) -> Float32[np.ndarray, "planes x y outputs"]:
    """Probability, 0 to 1, of every structure in planes that have their channels.

    The network is always called with `batch` planes: the last batch is filled up with its own first plane, so that a
    compiled network is compiled once.

    Raises:
      InputError: the network gives values that are not finite.
    """
    return _predict(len(image), lambda a, b: image[a:b], predictor, batch)


def predict_stack(
    planes: Planes, channels: int, z: Sequence[int], predictor: SlicePredictor, batch: int = BATCH
) -> Float32[np.ndarray, "planes x y outputs"]:
    """As `predict_planes` of planes with their neighbours as channels, of which one batch at a time is held.

    That is 2.5D (Wang & Tang 2020, on the best LiTS entries): the plane itself in the middle, from the feet upwards.

    Args:
      planes: as the store has them.
      channels, z: see `neighbours_by_z`.
      predictor, batch: see `predict_planes`.

    Raises:
      InputError: the network gives values that are not finite.
    """
    rows = neighbours_by_z(z, channels)
    return _predict(len(planes), lambda a, b: np.moveaxis(planes[rows[a:b]], 1, -1), predictor, batch)


def neighbours_by_z(z: Sequence[int], channels: int) -> Int[np.ndarray, "planes {channels}"]:
    """Which planes make the channels of each plane.

    A neighbour is the plane of the next whole z. Where there is none, at the ends of a volume, the last
    plane before it repeats.

    Args:
      z: of each plane, in slices, rising.
      channels: odd; 2k + 1 gives k planes on each side.

    Returns:
      Positions in `z`.
    """
    step = np.diff(np.asarray(z, np.int64))
    here = np.arange(len(z))
    next_up, next_down = here.copy(), here.copy()
    next_up[:-1] += step == 1
    next_down[1:] -= step == 1
    above, below = [here], [here]
    for _ in range(channels // 2):
        above.append(next_up[above[-1]])
        below.append(next_down[below[-1]])
    return np.stack([*below[:0:-1], *above], 1)


def _predict(
    count: int, read: Callable[[int, int], NDArray[np.floating]], predictor: SlicePredictor, batch: int
) -> NDArray[np.float32]:
    if isinstance(predictor, AdaptingPredictor):
        return predictor.over_scan(lambda p: _predict(count, read, p, batch))
    out: NDArray[np.float32] | None = None
    for start in range(0, count, batch):
        stop = min(start + batch, count)
        part = read(start, stop).astype(np.float32)
        # Filling up keeps one shape, hence one compilation.
        full = np.concatenate([part, np.repeat(part[:1], batch - len(part), 0)]) if len(part) < batch else part
        probability = np.asarray(predictor(full))
        if probability.ndim != 4 or probability.shape[:3] != full.shape[:3]:
            raise ValueError(f"the predictor returned {probability.shape} for planes of {full.shape}")
        check_probability(probability)
        if out is None:
            out = np.empty((count, *probability.shape[1:]), np.float32)
        out[start:stop] = probability[: len(part)]
    assert out is not None
    return out
