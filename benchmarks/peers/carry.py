"""Flax variables as PyTorch's state dict: the same names with other separators, and kernels with their axes moved.

NumPy only, so that either side can call it. A gradient carries over like the parameter that it belongs to.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]

_BATCH_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], NDArray[Any]]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), np.asarray(value)


def carry(tree: Mapping[str, Any], dimensions: int) -> Arrays:
    """One collection of a network's variables, or gradients of its parameters, under PyTorch's names and axes.

    Args:
      tree: nested dicts of arrays: `variables["params"]`, `variables["batch_stats"]`, or gradients.
      dimensions: of the network, 2 or 3; a 1x1 convolution that flax holds as a matrix gets as many axes of 1.

    Returns:
      "encoder_0.conv_0.weight" -> (features, channels, depth, height, width), and so on. An up-convolution's weight
      is (channels, features, ...), as `torch.nn.ConvTranspose3d` has it.
    """
    out: Arrays = {}
    for path, value in _leaves(tree):
        *modules, last = path
        module = modules[-1]
        if last == "kernel":
            if value.ndim == 2:
                value = value.reshape((1,) * dimensions + value.shape)
            # (window, channels, features) -> (features, channels, window), the other way round where it goes up, as
            # does a head whose kernel is no matrix.
            rises = module.startswith("up") or (module == "head" and value.shape[0] > 1)
            first = (-2, -1) if rises else (-1, -2)
            value = value.transpose(*(a % value.ndim for a in first), *range(dimensions))
            last = "weight"
        elif module.startswith("bn"):
            last = _BATCH_NORM[last]
        out[".".join((*modules, last))] = np.ascontiguousarray(value, np.float32)
    return out
