"""z-scores: mean 0 and standard deviation 1."""

import numpy as np
from jaxtyping import Bool, Float32

from tlseg_jax.preprocess.reading.scan import ExclusionError


def zscore(
    image: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"] | None = None, name: str = "The scan"
) -> Float32[np.ndarray, "x y z"]:
    """Subtract the mean and divide by the standard deviation (Weatheritt et al., section 3.2).

    Args:
      mask: (x, y, z) bool, where mean and deviation are taken; None takes the whole volume, as the
        paper does ("z-normalisation acts on the whole domain"). Every voxel is scaled either way.

    Raises:
      ExclusionError: all values are the same.
    """
    values = (image if mask is None else image[mask]).astype(np.float64)
    mean, deviation = (values.mean(), values.std()) if values.size else (0.0, 0.0)
    if not deviation > 1e-7 * max(abs(mean), 1e-30):
        where = "on the grid" if mask is None else "within the mask"
        raise ExclusionError(
            f"{name} has the same value everywhere {where}: check that it holds a head and that the "
            "affine of its header (and its mask) is right."
        )
    return ((image - mean) / deviation).astype(np.float32)
