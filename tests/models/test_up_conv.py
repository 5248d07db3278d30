"""The transposed convolution against XLA's own, and repeated values against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tlseg_jax.models.lowering.forms import LAYOUTS
from tlseg_jax.models.up_conv import up_convolution, up_nearest

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize(("sides", "cell"), [((3, 4), 2), ((3, 2, 4), 2), ((3, 4), 3)])
def test_value_and_gradients_against_xla(sides: tuple[int, ...], cell: int) -> None:
    rng = np.random.default_rng(2)
    n = len(sides)
    shapes = [(2, *sides, 5), (*(cell,) * n, 5, 3), (2, *(cell * s for s in sides), 3)]
    x, kernel, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)

    def reference(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # XLA correlates the spread-out input with the kernel, so the kernel is turned round.
        return lax.conv_transpose(
            x,
            jnp.flip(kernel, range(n)),
            (cell,) * n,
            "VALID",
            dimension_numbers=LAYOUTS[x.ndim],
            precision=lax.Precision.HIGHEST,
        )

    both = []
    for form in (reference, up_convolution):
        value, back = jax.vjp(form, x, kernel)
        both.append((value, *back(weight)))
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max())


def test_the_type_of_the_input_is_kept() -> None:
    assert (
        up_convolution(jnp.ones((1, 2, 2, 1), jnp.bfloat16), jnp.ones((2, 2, 1, 1), jnp.bfloat16)).dtype == jnp.bfloat16
    )


@pytest.mark.parametrize("sides", [(3, 4), (3, 2, 4)])
def test_nearest_values_are_numpy_s_repeated_and_its_gradient_their_sum(sides: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, *sides, 3)).astype(np.float32)
    weight = rng.normal(size=(2, *(2 * s for s in sides), 3)).astype(np.float32)
    expected, gradient = x, weight
    for axis in range(1, 1 + len(sides)):
        expected = np.repeat(expected, 2, axis)
        gradient = np.add.reduceat(gradient, np.arange(0, gradient.shape[axis], 2), axis)
    found, back = jax.vjp(up_nearest, jnp.asarray(x))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(back(jnp.asarray(weight))[0], gradient, atol=1e-5)
