"""How far the passes of a scan agree: the mean Dice of all pairs of their masks, structure by structure.

Roy et al. 2019 and Zenk et al. 2024 (arXiv 2406.03323, "pairwise Dice") found this the best single sign of a failed
segmentation among those compared there.
"""

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from tlseg_jax.preprocess.codes import mask_of


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
