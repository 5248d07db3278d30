"""Switch pooling against NumPy, and its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpy.typing import NDArray

from tlseg_jax.models.pool import switch_pool, switch_unpool

pytestmark = pytest.mark.usefixtures("quick_compile")


def cells(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(b, d, h, w, c) -> (b, d/2, h/2, w/2, c, 8): the corners of each cell, z fastest."""
    b, d, h, w, c = x.shape
    split = x.reshape(b, d // 2, 2, h // 2, 2, w // 2, 2, c)
    return split.transpose(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, d // 2, h // 2, w // 2, c, 8)


def volume(shape: tuple[int, ...] = (2, 4, 6, 8, 3), seed: int = 0) -> NDArray[np.float32]:
    """Distinct values, so that every maximum is clear."""
    size = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(size).astype(np.float32).reshape(shape) - size / 2


def test_value_and_switches() -> None:
    x = volume()
    best, switches = switch_pool(jnp.asarray(x))
    np.testing.assert_array_equal(best, cells(x).max(-1))
    np.testing.assert_array_equal(switches, cells(x).argmax(-1))
    assert switches.dtype == jnp.uint8


def test_a_tie_goes_to_the_first_corner_and_so_does_its_gradient() -> None:
    x = np.random.default_rng(0).integers(0, 2, (1, 8, 8, 8, 2)).astype(np.float32)
    best, switches = switch_pool(jnp.asarray(x))
    np.testing.assert_array_equal(switches, cells(x).argmax(-1))
    gradient = jax.grad(lambda x: switch_pool(x)[0].sum())(jnp.asarray(x))
    expected = np.eye(8)[cells(x).argmax(-1)]
    np.testing.assert_array_equal(cells(np.asarray(gradient)), expected)
    assert best.sum() == cells(x).max(-1).sum()


def test_round_trip_is_exact() -> None:
    x = volume()
    best, switches = switch_pool(jnp.asarray(x))
    back = switch_unpool(best, switches)
    kept = cells(x) == cells(x).max(-1, keepdims=True)
    np.testing.assert_array_equal(cells(np.asarray(back)), np.where(kept, cells(x), 0))
    positive = jnp.asarray(volume() + 1e6)
    again, same = switch_pool(switch_unpool(*switch_pool(positive)))
    np.testing.assert_array_equal(again, switch_pool(positive)[0])
    np.testing.assert_array_equal(same, switch_pool(positive)[1])


@pytest.mark.usefixtures("unchecked")  # it calls with NumPy's arrays
def test_gradients_against_finite_differences() -> None:
    x = jnp.asarray(volume((1, 2, 4, 2, 2)))
    check_grads(lambda x: switch_pool(x)[0], (x,), order=1, modes=["rev"], eps=0.25)
    best, switches = switch_pool(x)
    check_grads(lambda y: switch_unpool(y, switches), (best,), order=1, modes=["rev"], eps=0.25)
    check_grads(lambda x: switch_unpool(*switch_pool(x)) ** 2 / 100, (x,), order=1, modes=["rev"], eps=0.25)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 2, 2, 1), (3, 8, 2, 5)])
def test_planes_against_numpy(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    b, h, w, c = shape
    x = rng.normal(size=shape).astype(np.float32)
    corners = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, c, 4)
    weight = rng.normal(size=corners.shape[:-1]).astype(np.float32)
    value, back = jax.vjp(lambda x: switch_pool(x)[0], jnp.asarray(x))
    np.testing.assert_array_equal(value, corners.max(-1))
    np.testing.assert_array_equal(switch_pool(jnp.asarray(x))[1], corners.argmax(-1))
    routed = np.eye(4)[corners.argmax(-1)] * weight[..., None]
    expected = routed.reshape(b, h // 2, w // 2, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(shape)
    np.testing.assert_array_equal(back(jnp.asarray(weight))[0], expected.astype(np.float32))


@pytest.mark.parametrize(
    "shape", [(1, 3, 4, 4, 1), (1, 4, 5, 4, 1), (1, 4, 4, 7, 1), (3, 4, 1), (1, 3, 4, 1), (1, 4, 5, 1)]
)
def test_odd_sides_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="even sides"):
        switch_pool(jnp.zeros(shape))
    with pytest.raises(ValueError, match="even sides"):
        jax.grad(lambda x: switch_pool(x)[0].sum())(jnp.zeros(shape))
