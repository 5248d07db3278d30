"""Test-time augmentation: the mean of a network's answers to a scan as it is, mirrored, and both moved by a voxel.

A network that pools answers a little otherwise wherever its cells lie on the scan, and to each side; the mean is nearer
to the truth than any of them. nnU-Net averages over mirrored axes alone (Isensee et al. 2021). Of slices it gains
nothing that can be seen, and they are asked once (docs/commands.md has the figures).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import AdaptingPredictor, Predictor
from tlseg_jax.evaluate.trust.passes import Pass, may_mirror, through

PASSES = (Pass(), Pass(mirrored=True), Pass(shift=(1, 1, 1)), Pass(mirrored=True, shift=(-1, -1, -1)))
"""Where a mirrored scan is one that the network knows; else those that mirror are left out."""


def averages(description: Mapping[str, Any]) -> bool:
    """Whether a model is averaged unless told otherwise: the papers' own figures are of one pass and every voxel."""
    return description.get("smallest_pieces") is not None


def averaged_words(spec: DatasetSpec) -> str:
    """What the scores of a network of a data set are of, where it is averaged."""
    ways = "mirrored, and both moved" if may_mirror(spec) else "and moved"
    return f"the mean over each scan as it is, {ways} by a voxel"


def averaged(predictor: Predictor, spec: DatasetSpec) -> Predictor:
    """The mean of `PASSES` through a 3D network; a 2D network as it is.

    Args:
      spec: what it was trained on. An `AdaptingPredictor` goes by the statistics of the scan as it is in all passes.
    """
    if spec.kind == "slices":
        return predictor
    if isinstance(predictor, AdaptingPredictor):
        fixed = predictor.fixed
        return dataclasses.replace(predictor, fixed=lambda *seen: averaged(fixed(*seen), spec), again=True)
    mirror = may_mirror(spec)
    return mean_of([through(predictor, one, spec) for one in PASSES if mirror or not one.mirrored])


def mean_of(predictors: Sequence[Predictor]) -> Predictor:
    """The mean of several networks' answers, or of one network's in several ways."""
    if len(predictors) == 1:
        return predictors[0]

    def predict(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        total = np.array(predictors[0](patches), np.float32)
        for one in predictors[1:]:
            total += one(patches)
        return np.divide(total, len(predictors), out=total)

    return predict
