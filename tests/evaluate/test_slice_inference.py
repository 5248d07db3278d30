"""Planes in batches of one size, and neighbours by z against loops."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tlseg_jax.evaluate.inference import predict_box
from tlseg_jax.evaluate.slice_inference import neighbours_by_z, predict_planes, predict_stack
from tlseg_jax.geometry import Box
from tlseg_jax.runtime.errors import InputError

Planes = NDArray[np.float32]


def pointwise(planes: Planes) -> Planes:
    """Two outputs: a logistic of the channels' sum, and its complement."""
    p = 1 / (1 + np.exp(-planes.sum(-1)))
    return np.stack([p, 1 - p], -1)


def noise(*shape: int) -> Planes:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("count", [1, 3, 4, 11])
@pytest.mark.parametrize("batch", [1, 4])
def test_batches_do_not_change_the_result_and_have_one_shape(count: int, batch: int) -> None:
    image = noise(count, 6, 5, 3).astype(np.float16)
    shapes = set()

    def record(planes: Planes) -> Planes:
        assert planes.dtype == np.float32
        shapes.add(planes.shape)
        return pointwise(planes)

    out = predict_planes(image, record, batch)
    assert shapes == {(batch, 6, 5, 3)}
    assert out.shape == (count, 6, 5, 2) and out.dtype == np.float32
    assert np.array_equal(out, pointwise(image.astype(np.float32)))


def test_values_that_are_not_finite_are_refused_with_the_sentence_of_volumes() -> None:
    with pytest.raises(InputError) as of_planes:
        predict_planes(noise(2, 4, 4, 1), lambda p: np.full((*p.shape[:3], 1), np.nan, np.float32))
    with pytest.raises(InputError) as of_volumes:
        predict_box(noise(4, 4, 4), Box((0, 0, 0), (4, 4, 4)), lambda p: np.full_like(p, np.inf)[..., None])
    assert str(of_planes.value) == str(of_volumes.value)


@pytest.mark.usefixtures("unchecked")
def test_a_network_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="returned"):
        predict_planes(noise(2, 4, 4, 1), lambda p: p[..., 0])


def stacked(planes: NDArray[np.floating], channels: int, z: Sequence[int]) -> NDArray[np.floating]:
    return np.moveaxis(planes[neighbours_by_z(z, channels)], 1, -1)


@pytest.mark.parametrize("channels", [1, 3, 5, 9])
@pytest.mark.parametrize("first", [0, 17])
def test_whole_volume_repeats_its_ends(channels: int, first: int) -> None:
    planes = noise(6, 3, 2)
    out = stacked(planes, channels, range(first, first + 6))
    k = channels // 2
    padded = np.pad(planes, ((k, k), (0, 0), (0, 0)), mode="edge")
    assert out.shape == (6, 3, 2, channels)
    for i in range(6):
        for c in range(channels):
            assert np.array_equal(out[i, ..., c], padded[i + c])
    assert np.array_equal(out[..., k], planes)


def test_a_gap_is_an_end() -> None:
    z = [3, 4, 8, 9, 10, 20]
    rows = neighbours_by_z(z, 5)
    for i, here in enumerate(z):
        for c, k in enumerate(range(-2, 3)):
            at = here  # walk outwards while the next slice is there
            while at != here + k and at + np.sign(k) in z:
                at += int(np.sign(k))
            assert z[rows[i, c]] == at


def test_a_stack_is_predicted_as_if_it_were_stacked_first() -> None:
    planes, z = noise(7, 4, 5), [0, 1, 2, 3, 7, 8, 9]
    assert np.array_equal(
        predict_stack(planes, 3, z, pointwise, 3), predict_planes(stacked(planes, 3, z), pointwise, 3)
    )
