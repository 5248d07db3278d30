"""How much faster is each lowering of a 3x3 or 3x3x3 convolution than XLA's own on this machine?

    python -m benchmarks.conv_lowering [--dtypes=float32] [--rounds=5]

Times value and both gradients, the lowerings in turn within each round, on layers of `switch32` and `switch8x2` at
2 mm (two 40x56x56 patches) and 1 mm, and of the 2D network (four 128x128 slices), and prints each one's ratio to
`lax.conv_general_dilated`. Below 1 is faster.
"""

import functools
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, environment, ratio, summary, write_result
from tlseg_jax.models import onednn
from tlseg_jax.models.conv import Lowering, choose_lowering, convolution

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

LAYERS: dict[str, tuple[tuple[int, ...], int]] = {
    "1 to 32, 40x56x56": ((2, 40, 56, 56, 1), 32),
    "32 to 32, 20x28x28": ((2, 20, 28, 28, 32), 32),
    "64 to 32, 20x28x28": ((2, 20, 28, 28, 64), 32),
    "8 to 8, 40x56x56": ((2, 40, 56, 56, 8), 8),
    "8 to 8, 72x112x112": ((2, 72, 112, 112, 8), 8),
    "16 to 8, 72x112x112": ((2, 72, 112, 112, 16), 8),
    "32 to 32, 128x128": ((4, 128, 128, 32), 32),
    "64 to 32, 128x128": ((4, 128, 128, 64), 32),
    "128 to 128, 32x32": ((4, 32, 32, 128), 128),
}


def lowerings() -> tuple[Lowering, ...]:
    """Those that this machine has, XLA's own first."""
    return tuple(n for n in get_args(Lowering) if n != "onednn" or onednn.available(jax.default_backend()))


def program(lowering: Lowering, shape: tuple[int, ...], features: int, dtype: str) -> Callable[[], object]:
    """Value and both gradients of one convolution of noise, as a function of nothing."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], shape).astype(dtype)
    kernel = jax.random.normal(keys[1], (*(3,) * (len(shape) - 2), shape[-1], features)).astype(dtype)
    weight = jax.random.normal(keys[2], (*shape[:-1], features)).astype(dtype)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(x: jax.Array, kernel: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(convolution(x, kernel, lowering) * weight)

    return lambda: jax.block_until_ready(loss(x, kernel, weight))


def main() -> None:
    """Measure every layer, print the table and write the JSON."""
    started, names, rounds = environment(), lowerings(), common_flags.rounds()
    cases: list[dict[str, Any]] = []
    print(f"chosen here: {choose_lowering()}\n{'layer':<22}{'':<10}" + "".join(f"{n:>10}" for n in names))
    for layer, (shape, features) in LAYERS.items():
        for dtype in common_flags.dtypes(("float32",)):
            seconds = alternate({n: program(n, shape, features, dtype) for n in names}, rounds)
            ratios = {n: ratio(s, seconds["native"]) for n, s in seconds.items()}
            taken = {n: summary(s) for n, s in seconds.items()}
            cases.append({"layer": layer, "dtype": dtype, "seconds": taken, "ratio_to_native": ratios})
            print(f"{layer:<22}{dtype:<10}" + "".join(f"{ratios[n]['median']:>10.2f}" for n in names), flush=True)
    result = {"environment": started, "rounds": rounds, "chosen": choose_lowering(), "cases": cases}
    write_result("conv_lowering", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
