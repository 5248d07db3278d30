"""Several passes of a scan through a network, each of it changed a little in ways that should not matter.

A pass is a predictor around a predictor: it mirrors or shifts the patch that it is given, changes its grey values, asks
the network, and takes the answer back. So passes work for one patch, for tiles and for slices alike. All is drawn from
a seed: the same passes of the same scan give the same values.

Several trained networks (an ensemble of seeds) are further passes: each takes all of them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import AnyPredictor
from tlseg_jax.preprocess.codes import decide
from tlseg_jax.runtime.errors import InputError

COUNT = 8
"""Passes of a network unless told otherwise."""

SHIFT, GAIN, OFFSET, GAMMA, NOISE = 2, 0.2, 0.2, 0.3, 0.15
"""Most of each: voxels on an axis; natural logarithm; standard deviations of the image; natural logarithm; standard
deviations. Training has seen most of it, so that a good network bears it."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """What is done to a patch before the network sees it.

    Attributes:
      mirrored: left to right; structures of the two sides are exchanged on the way back.
      shift: voxels along x, y, z; of slices along x and y.
      gain: that the grey values are multiplied by.
      offset: that is added to them.
      gamma: exponent within the patch's own range.
      noise: standard deviation of what is added to each voxel.
      seed: of the noise.
    """

    mirrored: bool = False
    shift: tuple[int, int, int] = (0, 0, 0)
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    seed: int = 0


def make_passes(count: int, seed: int, mirror: bool) -> tuple[Pass, ...]:
    """The passes of a seed: the scan as it is, its mirror image, then all changes together.

    More passes add to those of fewer; with `mirror` every other one is mirrored.

    Raises:
      InputError: fewer than two, of which nothing could agree.
    """
    if count < 2:
        raise InputError(f"`passes={count}` cannot agree or disagree: give 2 or more.")
    drawn = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        mirrored = mirror and number % 2 == 1
        if number == 0 or (number == 1 and mirror):
            drawn.append(Pass(mirrored))
            continue
        x, y, z = (int(v) for v in rng.integers(-SHIFT, SHIFT + 1, 3))
        gain, offset, gamma = rng.uniform(-1, 1, 3)
        drawn.append(
            Pass(
                mirrored,
                (x, y, z),
                float(np.exp(GAIN * gain)),
                float(OFFSET * offset),
                float(np.exp(GAMMA * gamma)),
                float(rng.uniform(0, NOISE)),
                int(rng.integers(2**31)),
            )
        )
    return tuple(drawn)


def may_mirror(spec: DatasetSpec) -> bool:
    """Whether a mirrored scan is one that a network of this data set knows, and its structures have their partners."""
    return spec.grid.flip_left_right and spec.mirrored is not None


def through(predictor: AnyPredictor, one: Pass, spec: DatasetSpec) -> AnyPredictor:
    """A network that sees patches through a pass, and answers for them as they were."""
    if one == Pass():
        return predictor
    partners = spec.mirrored if one.mirrored else None
    shift = one.shift[: 2 if spec.kind == "slices" else 3]

    def predict(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        changed = _grey(patches, one)
        if one.mirrored:
            changed = changed[:, ::-1]
        probability = np.asarray(predictor(np.ascontiguousarray(_shifted(changed, shift))))
        back = _shifted(probability, tuple(-s for s in shift))
        if partners is not None:
            back = back[:, ::-1][..., list(partners)]
        return np.ascontiguousarray(back)

    return predict


def _grey(patches: NDArray[np.float32], one: Pass) -> NDArray[np.float32]:
    """Gamma within each patch's range, then gain, offset and noise."""
    out = patches
    if one.gamma != 1:
        axes = tuple(range(1, patches.ndim))
        low, high = patches.min(axes, keepdims=True), patches.max(axes, keepdims=True)
        spread = np.maximum(high - low, 1e-6)
        out = ((patches - low) / spread) ** one.gamma * spread + low
    out = out * one.gain + one.offset
    if one.noise:
        rng = np.random.default_rng(one.seed)
        # One patch's noise for all: what a patch shows must not depend on its place in a batch.
        out = out + one.noise * rng.standard_normal(patches.shape[1:], np.float32)
    return out.astype(np.float32)


def _shifted(patches: NDArray[Any], shift: Sequence[int]) -> NDArray[Any]:
    """Moved by whole voxels along the axes after the first; the border repeats."""
    for axis, by in enumerate(shift, 1):
        if by:
            at = np.clip(np.arange(patches.shape[axis]) - by, 0, patches.shape[axis] - 1)
            patches = patches.take(at, axis)
    return patches


@dataclasses.dataclass(frozen=True, eq=False)
class Passed:
    """What passes gave of one scan, on the voxels that the network sees.

    Attributes:
      first: probability by the first network of the scan as it is.
      mean: probability, the mean of all passes.
      codes: of each pass (`preprocess.codes`).
    """

    first: Float32[np.ndarray, "*sides structures"]
    mean: Float32[np.ndarray, "*sides structures"]
    codes: UInt8[np.ndarray, "passes ..."]


def run_passes(
    predict: Callable[[AnyPredictor], NDArray[np.float32]],
    predictors: Sequence[AnyPredictor],
    passes: Sequence[Pass],
    spec: DatasetSpec,
) -> Passed:
    """Run all passes, of which the first leaves the scan as it is, through all networks.

    Args:
      predict: of a whole scan by a network: (*sides, structures).
      predictors: the networks, of the same structures and grid, which were trained on `spec`.
    """
    first = total = None
    codes = []
    for predictor, one in itertools.product(predictors, passes):
        probability = predict(through(predictor, one, spec))
        codes.append(decide(probability, spec.exclusive))
        if first is None or total is None:
            first, total = probability, np.array(probability)
        else:
            np.add(total, probability, out=total)
    assert first is not None and total is not None
    return Passed(first, total / np.float32(len(codes)), np.stack(codes))
