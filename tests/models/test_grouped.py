"""Batch norms in the groups of the convolutions round them: the same numbers, and only where they can be."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlseg_jax.export.stablehlo import export_network
from tlseg_jax.models.convolutions import network_lowering
from tlseg_jax.models.lowering import choice
from tlseg_jax.models.lowering.choice import Device, usual_lowering
from tlseg_jax.models.lowering.conv import places_between
from tlseg_jax.models.lowering.forms import FORMS, folded
from tlseg_jax.models.lowering.measure import ConvShape, in_block, measure, measured_here
from tlseg_jax.models.networks import init_variables
from tlseg_jax.models.norm import BatchNorm, normalise
from tlseg_jax.models.remat import Remat
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compile")

NEW_CARD = Device("a new card", "gpu", "99.0.0")
NET = UNetConfig("tiny", ((4, 4),), (4,), ((),), (4, 4), "add")
SIDES = (2, 6, 16)


def noise(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(1, 2, shape), dtype)


def near(found: Any, expected: Any, dtype: str = "float32") -> None:
    """Within 1e-5 of the largest value, or a few roundings to bfloat16."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = (np.asarray(v, np.float32) for v in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol={"float32": 1e-5, "bfloat16": 1.6e-2}[dtype] * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("shape", "places"), [((3, 4, 5, 28, 8), 4), ((1, 6, 7, 14, 16), 2), ((5, 9, 24, 4), 8)])
def test_groups_normalise_as_single_places_do(shape: tuple[int, ...], places: int, relu: bool, dtype: str) -> None:
    x, g = noise(shape, dtype), noise(shape, dtype, 1)
    scale, bias = noise(shape[-1:], seed=2), noise(shape[-1:], seed=3)

    def all_of(places: int) -> Any:
        y, back, *_ = jax.vjp(lambda *a: normalise(relu, None, places, *a), x, scale, bias)
        return y, back((g, jnp.zeros_like(y[1]), jnp.zeros_like(y[2])))

    near(all_of(places), all_of(1), dtype)


def test_running_averages_normalise_groups_alike() -> None:
    x = noise((3, 4, 6, 8))
    stats = {"mean": noise((8,), seed=1), "var": jnp.abs(noise((8,), seed=2)) + 1}
    variables = {"params": {"scale": noise((8,), seed=3), "bias": noise((8,), seed=4)}, "batch_stats": stats}
    found, expected = (BatchNorm(0.9, places=p).apply(variables, x, True, True) for p in (2, 1))
    near(found, expected)


def step(lowering: str, remat: Remat = "none", running: frozenset[str] = frozenset()) -> Any:
    """(image -> loss, running averages, gradients) of a small network."""
    variables = init_variables(NET, jax.random.key(0))
    weight = noise((3, *SIDES, 2), seed=7)
    module = NET.module(remat, lowering)

    def loss(params: Any, image: jax.Array) -> Any:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, moved = module.apply(given, image, train=True, running=running, mutable=["batch_stats"])
        return jnp.mean(jax.nn.sigmoid(logits) * weight[: len(image)]), moved

    return lambda image: jax.value_and_grad(loss, has_aux=True)(variables["params"], image)


def same_step(found: Any, expected: Any) -> None:
    """The same loss and running averages, and gradients within 1e-5 of the largest of them all."""
    near(found[0], expected[0])
    scale = max(float(jnp.abs(v).max()) for v in jax.tree.leaves(expected[1]))
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
def test_a_networks_step_is_the_same() -> None:
    image = noise((3, *SIDES, 1))
    expected = jax.jit(step("native"))(image)
    for remat in ("none", "full"):  # in "full" there is "block" too
        same_step(jax.jit(step("grouped", remat))(image), expected)


def test_frozen_norms_and_several_runs_at_once() -> None:
    """`frozen_bn=running`, and `--together`, which maps a step over runs."""
    running = frozenset(("encoder_0/bn_0", "final/bn_0"))
    images = noise((2, 1, *SIDES, 1))
    found, expected = (jax.jit(jax.vmap(step(n, running=running)))(images) for n in ("grouped", "native"))
    same_step(found, expected)


def test_groups_are_those_of_both_convolutions() -> None:
    x = noise((1, 2, 2, 12, 8))
    assert places_between([1], x, 8, "grouped") == places_between([8, 4], x, 8, "grouped") == 4
    assert places_between([16], x, 8, "grouped") == places_between([8, 16], x, 8, "grouped") == 1
    assert places_between([16], x, 16, "grouped") == 2
    assert places_between([8], x, 8, "folded") == places_between([8], x, 8) == 1


def test_norms_between_two_convolutions_are_grouped_and_no_others() -> None:
    """The last norm of a block is read by pooling or un-pooling, which groups would stand in the way of."""
    seen: dict[str, int] = {}

    def look(do: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, BatchNorm):
            seen["/".join(context.module.path)] = context.module.places
        return do(*args, **kwargs)

    with nn.intercept_methods(look):
        jax.eval_shape(step("grouped"), noise((1, *SIDES, 1)))
    assert seen["encoder_0/bn_0"] == 8 and seen["final/bn_0"] == 8 and seen["encoder_0/bn_1"] == seen["final/bn_1"] == 1


def test_it_is_taken_where_it_was_measured_only(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "this_device", lambda: NEW_CARD)
    choice._usual.cache_clear()
    assert usual_lowering(3, "float32", NEW_CARD) == "folded"
    image = (1, *SIDES, 1)
    times = {"native": 3.0, "turned": 2.0, "folded": 1.5, "grouped": 1.0}
    monkeypatch.setattr(choice, "measure", lambda names, *_: {n: choice.Measured(times[n]) for n in names})
    assert network_lowering(NET, image).lowering == usual_lowering(3, "float32", NEW_CARD) == "grouped"
    # Within a volume only XLA's own is divided.
    assert network_lowering(NET, image, divided=True).lowering == "native"
    with pytest.raises(InputError, match="cannot do divided"):
        network_lowering(NET, image, "grouped", divided=True)
    choice._usual.cache_clear()


SHAPES = [ConvShape((2, 2, 3, 8, 1), (3, 3, 3, 1, 4))]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_forms_are_measured_with_the_norm_between(dtype: str) -> None:
    found = measure(["folded", "grouped"], SHAPES, dtype)
    assert all(m.seconds for m in found.values()), found


def test_wrong_groups_are_found() -> None:
    wrong = dataclasses.replace(FORMS["grouped"], convolve=lambda x, k: folded(x, k)[..., ::-1, :])
    found = measured_here(in_block(wrong), SHAPES, "float32", in_block(FORMS["native"]))
    assert found["seconds"] is None and "differs by" in found["fault"]


def test_an_exported_program_holds_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = UNetConfig.module

    def module(self: UNetConfig, remat: Remat = "none", lowering: str | None = None, axis: str | None = None) -> Any:
        asked.append(str(lowering))
        return real(self, remat, lowering, axis)

    variables = init_variables(NET, jax.random.key(0))
    monkeypatch.setattr(UNetConfig, "module", module)
    assert export_network(NET, variables["params"], variables["batch_stats"], ("cpu", "cuda", "tpu"))
    assert set(asked) == {"native", "planes"}
