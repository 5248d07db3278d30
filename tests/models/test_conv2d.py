"""The convolutions of planes against SciPy, and XLA's transposed convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from jax import lax

from tlseg_jax.models.conv2d import conv2d, conv2d_transpose

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_convolution_against_scipy() -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 6, 2)), rng.normal(size=(3, 3, 2, 4))
    expected = np.zeros((2, 5, 6, 4))
    for b, c, f in np.ndindex(2, 2, 4):
        expected[b, ..., f] += scipy.signal.correlate2d(x[b, ..., c], kernel[..., c, f], mode="same")
    found = conv2d(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_transposed_convolution_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 2, 5, 3))
    expected = np.zeros((2, 6, 8, 3))
    for b, row, column, i, j in np.ndindex(2, 3, 4, 2, 2):
        expected[b, 2 * row + i, 2 * column + j] = x[b, row, column] @ kernel[i, j]
    found = conv2d_transpose(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_transposed_convolution_and_its_gradients_against_xla() -> None:
    rng = np.random.default_rng(2)
    x, kernel, weight = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in [(2, 3, 4, 5), (2, 2, 5, 3), (2, 6, 8, 3)]
    )

    def reference(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # XLA correlates the spread-out input with the kernel, so the kernel is turned round.
        return lax.conv_transpose(
            x,
            kernel[::-1, ::-1],
            (2, 2),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )

    sides = []
    for form in (reference, conv2d_transpose):
        value, back = jax.vjp(form, x, kernel)
        sides.append((value, *back(weight)))
    for a, b in zip(*sides, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max())


def test_the_type_of_the_input_is_kept() -> None:
    x = jnp.ones((1, 2, 2, 1), jnp.bfloat16)
    np.testing.assert_array_equal(conv2d(x, jnp.ones((3, 3, 1, 1), x.dtype)), np.full((1, 2, 2, 1), 4))
    assert conv2d_transpose(x, jnp.ones((2, 2, 1, 1), x.dtype)).dtype == x.dtype
