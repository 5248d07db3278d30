"""Every lowering of the convolution against XLA's own 3D convolution and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax import lax

from tlseg_jax.models.conv import Lowering, choose_lowering, conv3d

pytestmark = pytest.mark.usefixtures("quick_compile")


def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 3D convolution as XLA has it, in full precision."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision=lax.Precision.HIGHEST,
    )


@pytest.mark.parametrize("shape", [(2, 4, 6, 5, 1, 3), (1, 3, 4, 5, 3, 2), (1, 1, 2, 1, 2, 2)])
@pytest.mark.parametrize("lowering", ["native", "planes", None])
def test_value_and_both_gradients(lowering: Lowering | None, shape: tuple[int, ...]) -> None:
    *outer, channels, features = shape
    rng = np.random.default_rng(0)
    sizes = [(*outer, channels), (3, 3, 3, channels, features), (*outer, features)]
    x, kernel, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in sizes)

    @jax.jit
    def both(x: jax.Array, kernel: jax.Array) -> list[tuple[jax.Array, ...]]:
        out = []
        for form in (direct, lambda x, k: conv3d(x, k, lowering)):
            value, back = jax.vjp(form, x, kernel)
            out.append((value, *back(weight)))
        return out

    for a, b in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("lowering", ["native", "planes"])
def test_against_scipy(lowering: Lowering) -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 5, 4, 6, 2)), rng.normal(size=(3, 3, 3, 2, 3))
    expected = np.stack(
        [
            sum(scipy.ndimage.correlate(x[0, ..., c], kernel[..., c, f], mode="constant") for c in range(2))
            for f in range(3)
        ],
        axis=-1,
    )
    found = conv3d(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), lowering)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("lowering", ["native", "planes"])
def test_the_type_of_the_input_is_kept(lowering: Lowering) -> None:
    x, kernel = jnp.ones((1, 2, 2, 2, 1), jnp.bfloat16), jnp.ones((3, 3, 3, 1, 1), jnp.bfloat16)
    out = conv3d(x, kernel, lowering)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, np.full((1, 2, 2, 2, 1), 8))


def test_which_lowering() -> None:
    assert [choose_lowering(b) for b in ("cpu", "gpu", "tpu")] == ["planes", "native", "native"]
