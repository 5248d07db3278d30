"""Max pooling of planes against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlseg_jax.models.pool2d import max_pool

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 2, 2, 1), (3, 8, 2, 5)])
def test_value_and_gradient_against_numpy(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    b, h, w, c = shape
    x = rng.normal(size=shape).astype(np.float32)
    cells = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, c, 4)
    weight = rng.normal(size=cells.shape[:-1]).astype(np.float32)
    value, back = jax.vjp(max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(value, cells.max(-1))
    routed = np.eye(4)[cells.argmax(-1)] * weight[..., None]
    expected = routed.reshape(b, h // 2, w // 2, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(shape)
    np.testing.assert_array_equal(back(jnp.asarray(weight))[0], expected.astype(np.float32))


def test_a_tie_goes_to_the_first_and_no_gradient_is_lost() -> None:
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 4, 4, 2)))
    expected = np.zeros((1, 4, 4, 2))
    expected[:, ::2, ::2] = 1
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("shape", [(1, 3, 4, 1), (1, 4, 5, 1), (4, 4, 1)])
def test_odd_sides_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of even sides, not"):
        max_pool(jnp.zeros(shape))
