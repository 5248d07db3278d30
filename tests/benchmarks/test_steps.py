"""The step that is timed is the library's, and its FLOPs and bytes are those of its convolutions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import sizes, steps
from tlseg_jax.models.networks import NETWORKS
from tlseg_jax.runtime.errors import InputError

# Not every program of a CPU can be kept for the next start; these need not be.
pytestmark = pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache")

TINY: dict[str, dict[str, Any]] = {
    "switch32": {"shape": (8, 8, 8), "batch": 1},
    "unet2d": {"shape": (16, 16), "batch": 2},
}


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("network", ["switch32", pytest.param("unet2d", marks=pytest.mark.slow)])
def test_a_step_goes_on_from_the_last_one(network: str) -> None:
    run, flops, moved = steps.timed(steps.assemble(network, **TINY[network]))
    losses = [float(run()["loss"]) for _ in range(3)]  # type: ignore[index]
    assert losses[2] < losses[0]
    assert flops > moved > 0


@pytest.mark.parametrize("network", ["switch32", pytest.param("unet2d", marks=pytest.mark.slow)])
def test_a_frozen_step_is_counted_smaller(network: str) -> None:
    counted = {}
    for freeze in ("none", sizes.get_size(network).frozen):
        built = steps.assemble(network, freeze=freeze, **TINY[network])
        given = built.native, built.state, built.batch
        counted[freeze == "none"] = steps.step_flops(*given), steps.step_bytes(*given)
    assert all(frozen < full for frozen, full in zip(counted[False], counted[True], strict=True))


def test_bytes_are_those_of_the_convolutions_operands_and_results_within_loops_too() -> None:
    x, w = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4, 4))

    def thrice(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        def once(y: jax.Array, _: None) -> tuple[jax.Array, None]:
            return lax.conv_general_dilated(y, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + 1, None

        return lax.scan(once, x, None, length=3)[0], w

    assert steps.step_bytes(jax.jit(thrice), x, w) == 3 * 4 * (2 * x.size + w.size)  # type: ignore[arg-type]


@pytest.mark.slow
def test_bfloat16_halves_the_bytes() -> None:
    built = {d: steps.assemble("unet2d", dtype=d, **TINY["unet2d"]) for d in ("float32", "bfloat16")}
    full, half = (steps.step_bytes(b.native, b.state, b.batch) for b in built.values())
    assert half == pytest.approx(full / 2, rel=0.05)


def test_a_program_without_memory_is_left_out_and_another_fault_is_not() -> None:
    def lacks() -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    def broken() -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    assert list(steps.keep_those_that_fit({"small": lambda: None, "large": lacks})) == ["small"]
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        steps.keep_those_that_fit({"broken": broken})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", sizes.KINDS)
def test_every_network_has_sizes(network: str, kind: sizes.Kind) -> None:
    for size in sizes.get_sizes(network, kind):
        assert len(size.shape) == NETWORKS[network].dimensions
        assert size.to_dict() == {"name": size.name} | dataclasses.asdict(size)


def test_a_network_without_sizes_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no size"):
        sizes.get_sizes("unknown")
