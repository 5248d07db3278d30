"""The bytes that a trace counts, against JAX's own list of residuals, the compiler's figure, and sums by hand."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import print_saved_residuals

from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.models.networks import get_network, variable_shapes
from tlseg_jax.models.remat import Remat
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.liveness import COMPILED, Footprint, count_bytes
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

SIDE = 32
N = 1000


def _traced(config: UNetConfig, sides: tuple[int, ...] = (SIDE,) * 3, freeze: str = "none", **how: Any) -> Any:
    """A step of the default recipe on two float16 images."""
    variables = variable_shapes(config)
    labels = label_parameters(variables["params"], get_rules(freeze))
    recipe = get_recipe("default", "volumes" if config.dimensions == 3 else "slices")
    optimiser = make_optimiser(recipe, 10, labels)
    state = jax.eval_shape(lambda v: init_state(v, optimiser), variables)
    label = jax.ShapeDtypeStruct((2, *sides), jnp.uint8)
    channels = () if config.dimensions == 3 else (config.channels,)
    batch = {"image": jax.ShapeDtypeStruct((2, *sides, *channels), jnp.float16), "label": label}
    loss = label_loss(recipe.loss, config.outputs, config.outputs[0] == "background")
    return make_train_step(config, optimiser, loss, labels, **how).trace(state, batch)


def _footprint(config: UNetConfig, **how: Any) -> Footprint:
    return count_bytes(_traced(config, lowering="native", **how).jaxpr)[1]


def _layers(w: jax.Array, x: jax.Array, checkpointed: bool) -> jax.Array:
    def layer(x: jax.Array) -> jax.Array:
        return jnp.sin(jnp.tanh(x @ w))

    for _ in range(3):
        x = (jax.checkpoint(layer) if checkpointed else layer)(x)
    return jnp.sum(x**2)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_residuals_are_those_that_jax_lists(checkpointed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """`print_saved_residuals` less the arguments, with and without checkpoints."""
    w, x = jnp.ones((8, 8)), jnp.ones((16, 8))
    print_saved_residuals(lambda w: _layers(w, x, checkpointed), w)
    lines = capsys.readouterr().out.splitlines()
    listed = [line for line in lines if "argument" not in line and "constant" not in line]
    shapes = [re.match(r"f32\[([\d,]*)\]", line) for line in listed]
    expected = sum(4 * math.prod(int(n) for n in s[1].split(",") if n) for s in shapes if s)

    @jax.jit
    def train(w: jax.Array, x: jax.Array) -> jax.Array:
        return w - jax.grad(_layers)(w, x, checkpointed)

    arguments, found = count_bytes(train.trace(w, x).jaxpr)
    assert expected > 0
    # A list of JAX's may hold a scalar that is no array of the forward pass.
    assert abs(found.residuals - expected) <= 8
    assert arguments == 4 * (8 * 8 + 16 * 8)


def test_the_peak_of_a_chain_is_what_is_alive_together() -> None:
    """Of a chain of sorts two arrays are alive at once; arrays that wait for the end add up; a fused one is nowhere."""

    def peak(f: Any) -> int:
        return count_bytes(jax.jit(f).trace(jnp.ones(N)).jaxpr)[1].peak

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(5):
            x = jnp.sort(x)
        return x

    def waiting(x: jax.Array) -> jax.Array:
        a, b, c = jnp.sort(x), jnp.sort(x + 1), jnp.sort(x + 2)
        return jnp.sort(a * b * c)

    assert peak(chain) == 2 * 4 * N
    assert 4 * 4 * N <= peak(waiting) <= 5 * 4 * N
    assert peak(lambda x: jnp.sum(jnp.exp(x) * 2 + 1)) == 4


def test_a_loops_body_is_looked_into() -> None:
    """What is alive inside `lax.scan` counts, once."""

    def body(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        y = jnp.sort(jnp.concatenate([x, x, x, x]))
        return jnp.sort(y)[:N], None

    found = count_bytes(jax.jit(lambda x: jax.lax.scan(body, x, length=50)[0]).trace(jnp.ones(N)).jaxpr)[1].peak
    assert 2 * 4 * 4 * N <= found <= 12 * 4 * N


def test_rematerialisation_precision_and_freezing_save_what_they_should(tiny_network: UNetConfig) -> None:
    """Each policy keeps less than the one before, bfloat16 about half, a frozen encoder none of the encoder's."""
    none, block, full = (_footprint(tiny_network, remat=r) for r in ("none", "block", "full"))
    assert none.residuals > block.residuals > full.residuals > 0
    assert none.peak > block.peak >= full.peak
    assert block.compiled > 0.85 * none.compiled  # XLA:CPU has all of it ready at once
    half = _footprint(dataclasses.replace(tiny_network, dtype="bfloat16"))
    assert 0.4 * none.residuals < half.residuals < 0.75 * none.residuals
    frozen = _footprint(tiny_network, freeze="encoder")
    assert frozen.residuals < 0.8 * none.residuals and frozen.peak < none.peak


@pytest.mark.parametrize(
    "case",
    [
        ("switch32", "block", (36, 56, 56)),
        pytest.param(("unet_fast", "none", (36, 56, 56)), marks=pytest.mark.slow),
        pytest.param(("unet2d_fast", "full", (128, 128)), marks=pytest.mark.slow),
        pytest.param(("unet3d256", "none", (48, 32, 32)), marks=pytest.mark.slow),
        pytest.param(("unet2d", "none", (96, 160)), marks=pytest.mark.slow),
        pytest.param(("switch8x2", "full", (32, 48, 40)), marks=pytest.mark.slow),
    ],
)
def test_the_prediction_is_within_15_percent_of_the_compilers(case: tuple[str, Remat, tuple[int, ...]]) -> None:
    """Compiled without the last level of optimisation, which changes no buffer and takes most of the time."""
    network, remat, shape = case
    traced = _traced(get_network(network), shape, remat=remat)
    quick = {"xla_backend_optimization_level": 0}
    analysis = traced.lower().compile(compiler_options=quick).memory_analysis()
    compiled = analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    found = count_bytes(traced.jaxpr)[1]
    assert found.compiled == pytest.approx(compiled, rel=0.15)
    assert found.peak < compiled  # in the trace's order: a lower bound


def test_the_compilers_order_is_breadth_first() -> None:
    """What is ready is computed before what follows from it: two chains are alive at once, not one after the other."""

    def chains(x: jax.Array) -> jax.Array:
        first = jnp.sum(jnp.sort(jnp.sort(jnp.sort(x))))
        return first + jnp.sum(jnp.sort(jnp.sort(jnp.sort(x + 1))))

    found = count_bytes(jax.jit(chains).trace(jnp.ones(N)).jaxpr)[1]
    assert 2 * 4 * N <= found.peak < 3 * 4 * N
    assert 3 * 4 * N <= found.compiled / COMPILED < 5 * 4 * N
