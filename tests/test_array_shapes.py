"""The shapes and types in the library's signatures are true wherever the tests run (pyproject.toml's addopts)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from tlseg_jax.evaluate.inference import predict_box
from tlseg_jax.figures.contours import outline
from tlseg_jax.geometry import Box
from tlseg_jax.input.augment import Augmentation, augment
from tlseg_jax.models.pool import switch_pool
from tlseg_jax.models.up_conv import up_convolution
from tlseg_jax.preprocess.slice_resize import Axis, Resizer
from tlseg_jax.train.losses import Reading, cross_entropy

KEY = jax.random.key(0)
FALSE: dict[str, Callable[[], Any]] = {
    "pooling without channels": lambda: switch_pool(jnp.zeros(4)),
    "a kernel of other channels": lambda: up_convolution(jnp.zeros((1, 4, 4, 2)), jnp.zeros((2, 2, 3, 5))),
    "labels of other voxels": lambda: cross_entropy(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 4, 5, 2)), Reading(True)),
    "one column of labels": lambda: cross_entropy(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 4, 4, 1)), Reading(False)),
    "a batch for a patch": lambda: augment(KEY, jnp.zeros((1, 4, 4, 4)), jnp.zeros((1, 4, 4, 4), int), Augmentation()),
    "labels of a fractional type": lambda: augment(KEY, jnp.zeros((4, 4, 4)), jnp.zeros((4, 4, 4)), Augmentation()),
    "a slice for a volume": lambda: predict_box(np.zeros((4, 4)), Box((0,) * 3, (4,) * 3), lambda p: p),
    "whole numbers for an image": lambda: predict_box(np.zeros((4,) * 3, int), Box((0,) * 3, (4,) * 3), lambda p: p),
    "a volume for a slice": lambda: outline(np.zeros((4, 4, 4), bool), (1, 1)),
    "double precision for a slice": lambda: Resizer((Axis(4, 2, 2, 0),) * 2).image(np.zeros((4, 4)), 0),
}


@pytest.mark.parametrize("fault", FALSE)
def test_an_array_of_another_rank_shape_or_type_is_refused(fault: str) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        FALSE[fault]()
