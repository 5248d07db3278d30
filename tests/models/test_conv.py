"""Every lowering of the convolution against XLA's own; against SciPy they are in `test_lowering`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tlseg_jax.models.lowering import kernel_gradient
from tlseg_jax.models.lowering.conv import Lowering, convolution, convolution_of_parts
from tlseg_jax.models.lowering.forms import FORMS, LAYOUTS

pytestmark = pytest.mark.usefixtures("quick_compile")

LOWERINGS = [n for n, form in FORMS.items() if not (form.lacking and form.lacking())]
"""Those of other backends, too: they are XLA's operations."""


def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution as XLA has it, in full precision."""
    return lax.conv_general_dilated(
        x, kernel, (1,) * (x.ndim - 2), "SAME", dimension_numbers=LAYOUTS[x.ndim], precision=lax.Precision.HIGHEST
    )


SHAPES = [(2, 4, 6, 5, 1, 3), (1, 3, 4, 5, 3, 2), (1, 1, 2, 1, 2, 2), (2, 6, 5, 1, 3), (1, 7, 1, 4, 9), (3, 8, 4, 9, 4)]
SHAPES += [(2, 4, 6, 8, 8, 8), (1, 3, 5, 12, 1, 8), (1, 3, 4, 6, 16, 8), (2, 5, 32, 1, 1)]  # sides that fold


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lowering", [*LOWERINGS, None])
def test_value_and_both_gradients(lowering: Lowering | None, shape: tuple[int, ...]) -> None:
    *outer, channels, features = shape
    rng = np.random.default_rng(0)
    taps = (3,) * (len(outer) - 1)
    sizes = [(*outer, channels), (*taps, channels, features), (*outer, features)]
    x, kernel, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in sizes)

    @jax.jit
    def both(x: jax.Array, kernel: jax.Array) -> list[tuple[jax.Array, ...]]:
        out = []
        for form in (direct, lambda x, k: convolution(x, k, lowering)):
            value, back = jax.vjp(form, x, kernel)
            out.append((value, *back(weight)))
        return out

    for a, b in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("sides", [(3, 8, 6), (10, 7)])
def test_the_gradient_of_the_kernel_over_several_blocks(
    sides: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_gradient, "BLOCK", 2 * sides[-1])  # blocks of two rows
    rng = np.random.default_rng(1)
    x, g = (jnp.asarray(rng.normal(size=(2, *sides, n)), jnp.float32) for n in (9, 2))
    (expected,) = jax.vjp(lambda k: direct(x, k), jnp.zeros((*(3,) * len(sides), 9, 2)))[1](g)
    found = kernel_gradient.kernel_gradient(x, g)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_bfloat16_is_kept_and_near(lowering: Lowering) -> None:
    rng = np.random.default_rng(2)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in [(1, 4, 4, 4, 3), (3, 3, 3, 3, 4)])
    g = jnp.asarray(rng.normal(size=(1, 4, 4, 4, 4)), jnp.bfloat16)
    value, back = jax.vjp(lambda x, k: convolution(x, k, lowering), x, kernel)
    wide, wide_back = jax.vjp(direct, x.astype(jnp.float32), kernel.astype(jnp.float32))
    for found, expected in zip((value, *back(g)), (wide, *wide_back(g.astype(jnp.float32))), strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            found.astype(jnp.float32), expected, atol=0.02 * float(jnp.abs(expected).max())
        )  # 8 bits of mantissa


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_parts_are_their_concatenation(lowering: Lowering) -> None:
    rng = np.random.default_rng(3)
    parts = [jnp.asarray(rng.normal(size=(2, 3, 4, 5, n)), jnp.float32) for n in (1, 3, 2)]
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 6, 4)), jnp.float32)
    found = convolution_of_parts(parts, kernel, lowering)
    np.testing.assert_allclose(found, direct(jnp.concatenate(parts, -1), kernel), atol=1e-5)


def test_a_part_whose_gradient_nobody_asks_for_costs_none() -> None:
    parts = [jnp.ones((1, 8, 8, 8, 4)), jnp.ones((1, 8, 8, 8, 4))]
    kernel = jnp.ones((3, 3, 3, 8, 4))

    def flops(asked: int) -> float:
        def loss(given: list[jax.Array], kernel: jax.Array) -> jax.Array:
            return jnp.sum(convolution_of_parts([*given, *parts[asked:]], kernel, "native") ** 2)

        return float(jax.jit(jax.grad(loss)).lower(parts[:asked], kernel).compile().cost_analysis()["flops"])

    one, both = flops(1), flops(2)
    assert one < 0.8 * both  # two forward and one backward convolution against two and two


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_under_vmap(lowering: Lowering) -> None:
    rng = np.random.default_rng(4)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in [(2, 1, 4, 3, 4, 2), (2, 3, 3, 3, 2, 3)])

    def gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda k: jnp.sum(convolution(x, k, lowering) ** 2))(kernel)

    found = jax.jit(jax.vmap(gradient))(x, kernel)
    for i in range(2):
        np.testing.assert_allclose(found[i], gradient(x[i], kernel[i]), rtol=1e-4, atol=1e-3)
