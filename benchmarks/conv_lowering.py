"""How much faster is each lowering of a 3x3 or 3x3x3 convolution than XLA's own on this machine?

    python -m benchmarks.conv_lowering [--dtypes=float32] [--rounds=5]
    python -m benchmarks.conv_lowering --nolayers --networks=switch8x2 --steps_by=native,folded

Times value and both gradients, the lowerings in turn within each round, on layers of `switch32` and `switch8x2` at
2 mm (two 40x56x56 patches) and 1 mm, and of the 2D network (four 128x128 slices), with each one's ratio to
`lax.conv_general_dilated`. With --steps_by whole training steps are timed in these lowerings too.
"""

import concurrent.futures
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, cores, environment, ratio, summary, write_result
from benchmarks.steps import assemble, runner
from tlseg_jax.models.lowering.choice import forms_for, this_device, usual_lowering
from tlseg_jax.models.lowering.conv import Lowering, convolution
from tlseg_jax.runtime.choose import choose

flags.adopt_module_key_flags(common_flags)  # so that --help lists them
LAYERS_TIMED = flags.DEFINE_bool("layers", True, "Time layers by themselves.")
STEPS_BY = flags.DEFINE_list("steps_by", [], "Lowerings that the steps of --networks are timed in too, besides native.")

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
    return tuple(forms_for(this_device()))


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


def times(programs: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
    """Seconds of each, and the ratio to "native", in turns; all are compiled beforehand, side by side."""
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda compiles: compiles(), programs.values()))
    seconds = alternate(programs, common_flags.rounds())
    return {
        "seconds": {n: summary(s) for n, s in seconds.items()},
        "ratio_to_native": {n: ratio(s, seconds["native"]) for n, s in seconds.items()},
    }


def line(name: str, dtype: str, found: Mapping[str, Any]) -> str:
    """Milliseconds of each lowering."""
    told = "".join(f"{n:>10} {1e3 * s['median']:8.3g}" for n, s in found["seconds"].items())
    return f"{name:<30}{dtype:<10}{told}"


def main() -> None:
    """Measure, print the table and write the JSON."""
    started, names = environment(), lowerings()
    asked = [choose("lowering", n, {k: k for k in names}) for n in STEPS_BY.value]
    steps_by = tuple(dict.fromkeys(("native", *asked))) if asked else ()
    cases: list[dict[str, Any]] = []
    print(f"chosen here: {usual_lowering()}; milliseconds by lowering")
    for layer, (shape, features) in LAYERS.items() if LAYERS_TIMED.value else ():
        for dtype in common_flags.dtypes(("float32",)):
            found = times({n: program(n, shape, features, dtype) for n in names})
            cases.append({"layer": layer, "dtype": dtype} | found)
            print(line(layer, dtype, found), flush=True)
    for size in common_flags.sizes() if steps_by else ():
        for dtype in common_flags.dtypes(("float32",)):
            of = {"dtype": dtype, "shape": size.shape, "batch": size.batch}
            found = times({n: runner(assemble(size.network, lowering=n, **of)) for n in steps_by})
            cases.append({"step": size.name, "dtype": dtype} | found)
            print(line(size.name, dtype, found), flush=True)
    rounds = common_flags.rounds()
    result = {"environment": started, "rounds": rounds, "chosen": usual_lowering(), "cases": cases}
    write_result("conv_lowering", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
