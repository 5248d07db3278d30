"""How far two frameworks' arrays are apart."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def compare_arrays(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference, relative to the largest magnitude of `expected`.

    Raises:
      ValueError: their shapes differ.
    """
    if found.shape != expected.shape:
        raise ValueError(f"{found.shape} is compared with {expected.shape}")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def compare_gradients(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> float:
    """The largest of `compare_arrays` over the parameters.

    Raises:
      ValueError: one side has parameters that the other lacks, or shapes differ.
    """
    if set(found) != set(expected):
        raise ValueError(f"only one side has {sorted(set(found) ^ set(expected))}")
    return max(compare_arrays(found[n], expected[n]) for n in expected)
