"""The networks, passes and calibration that a prediction is judged with, and how far the passes agree.

Their agreement is the mean Dice of all pairs of their masks, structure by structure: Roy et al. 2019 and Zenk et al.
2024 (arXiv 2406.03323, "pairwise Dice") found this the best single sign of a failed segmentation among those compared.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import AnyPredictor
from tlseg_jax.evaluate.trust.calibration import Calibration, PassedStructure
from tlseg_jax.evaluate.trust.passes import Pass, Passed, run_passes
from tlseg_jax.preprocess.codes import decide, mask_of
from tlseg_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Trust:
    """What `predict_scan` judges its scans with.

    Attributes:
      predictors: networks of the same structures and grid.
      passes: of each.
      calibration: of these networks and passes; None: agreement is all that is told.
    """

    predictors: Sequence[AnyPredictor]
    passes: Sequence[Pass]
    calibration: Calibration | None = None

    def ask(self, predict: Callable[[AnyPredictor], NDArray[np.float32]], spec: DatasetSpec) -> Passed:
        """See `run_passes`."""
        return run_passes(predict, self.predictors, self.passes, spec)


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


def pairwise_dice(codes: UInt8[np.ndarray, "passes ..."], structures: int, exclusive: bool) -> list[float]:
    """Of each structure the mean Dice over all pairs of passes, of which there are two or more; empty masks agree."""
    flat = codes.reshape(len(codes), -1)
    flat = flat[:, (flat != 0).any(0)]
    pairs = np.triu_indices(len(codes), 1)
    found = []
    for structure in range(structures):
        masks = mask_of(flat, structure, exclusive)
        masks = masks[:, masks.any(0)].astype(np.float32)
        both = (masks @ masks.T).astype(np.float64)
        size = np.diag(both)
        either = size[pairs[0]] + size[pairs[1]]
        dice = np.where(either > 0, 2 * both[pairs] / np.maximum(either, 1), 1.0)
        found.append(float(dice.mean()))
    return found


def volumes(
    codes: UInt8[np.ndarray, "passes ..."], structures: int, exclusive: bool
) -> Float64[np.ndarray, "passes structures"]:
    """Voxels of each structure in each pass."""
    flat = codes.reshape(len(codes), -1)
    counts = [np.count_nonzero(mask_of(flat, s, exclusive), axis=1) for s in range(structures)]
    return np.stack(counts, 1).astype(np.float64)


def doubt(
    codes: UInt8[np.ndarray, "passes ..."], decided: UInt8[np.ndarray, "*sides"]
) -> Float32[np.ndarray, "*sides"]:
    """Share of the passes that say another code than `decided`, in each voxel."""
    return (codes != decided).mean(0, dtype=np.float32)


def check_alike(models: Sequence[Any], where: Sequence[Path]) -> None:
    """Check that models, each of a folder, can be averaged: the same voxels in, the same structures out.

    Args:
      models: with a `config` and a `description`, as a `SavedModel` and an `AnyModel` have.

    Raises:
      InputError: they do not; what differs is named.
    """
    first = models[0].description
    for model, name in zip(models[1:], where[1:], strict=True):
        d = model.description
        a, b = first["spec"], d["spec"]
        differ = [k for k in sorted({*a, *b} - {"name", "train_count", "test_count"}) if a.get(k) != b.get(k)]
        differ += [k for k in ("prepare", "patch_box") if first.get(k) != d.get(k)]
        differ += ["channels"] if model.config.channels != models[0].config.channels else []
        if differ:
            raise InputError(
                f"{name} and {where[0]} cannot predict together, as they differ in {', '.join(differ)}: name runs that "
                "were trained on the same data set and store."
            )
