"""The networks, passes and calibration that a prediction is judged with."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.trust.agreement import pairwise_dice, volumes
from tlseg_jax.evaluate.trust.calibration import Calibration, PassedStructure
from tlseg_jax.evaluate.trust.passes import AnyPredictor, Pass, Passed, run_passes
from tlseg_jax.preprocess.codes import decide


@dataclasses.dataclass(frozen=True, eq=False)
class Trust:
    """What `predict_scan` judges its scans with.

    Attributes:
      predictors: networks of the same structures and grid.
      passes: of each.
      calibration: of these networks and passes; None: agreement is all that is told.
      progress: show a bar of the passes on stderr.
    """

    predictors: Sequence[AnyPredictor]
    passes: Sequence[Pass]
    calibration: Calibration | None = None
    progress: bool = False

    def ask(self, predict: Callable[[AnyPredictor], NDArray[np.float32]], spec: DatasetSpec) -> Passed:
        """See `run_passes`."""
        return run_passes(predict, self.predictors, self.passes, spec, self.progress)


def passed_structures(passed: Passed, spec: DatasetSpec, volumes_ml: Mapping[str, float]) -> dict[str, PassedStructure]:
    """Structure -> what passes say of it.

    A pass's volume is that of the label map times the ratio of its voxels to the mean's, both where the network sees
    them: to take each pass to the scan's own voxels would cost more than the passes.
    """
    agreement = pairwise_dice(passed.codes, len(spec.structures), spec.exclusive)
    counted = volumes(passed.codes, len(spec.structures), spec.exclusive)
    mean = volumes(decide(passed.mean, spec.exclusive)[None], len(spec.structures), spec.exclusive)[0]
    found = {}
    for i, structure in enumerate(spec.structures):
        ml = float(volumes_ml[structure])
        if not ml or not mean[i]:
            found[structure] = PassedStructure(agreement[i], ml, ml, ml)
            continue
        ratio = counted[:, i] / mean[i]
        # The mean's own volume can lie outside those of the passes: few voxels are its alone.
        low, high = min(float(ratio.min()), 1.0), max(float(ratio.max()), 1.0)
        found[structure] = PassedStructure(agreement[i], ml, ml * low, ml * high)
    return found
