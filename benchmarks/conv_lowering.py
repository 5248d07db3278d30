"""How much faster is each lowering of a 3x3x3 convolution than XLA's own on this machine?

    python -m benchmarks.conv_lowering [--rounds=5] [--out=benchmarks/results/cpu-2core/conv_lowering.json]

Times value and both gradients, the lowerings in turn within each round, on the layers of `switch32` at
2 mm (two 40x56x56 patches), and prints each one's median ratio to `lax.conv_general_dilated`.
"""

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import flags as common_flags
from benchmarks.flags import OUT, ROUNDS
from tlseg_jax.models.conv import Lowering, conv3d

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

LAYERS: dict[str, tuple[tuple[int, ...], int]] = {
    "1 to 32, 40x56x56": ((2, 40, 56, 56, 1), 32),
    "32 to 32, 20x28x28": ((2, 20, 28, 28, 32), 32),
    "64 to 32, 20x28x28": ((2, 20, 28, 28, 64), 32),
    "8 to 8, 40x56x56": ((2, 40, 56, 56, 8), 8),
}
LOWERINGS: tuple[Lowering, ...] = ("native", "planes")


def _program(lowering: Lowering) -> Any:
    def loss(x: jax.Array, kernel: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(conv3d(x, kernel, lowering) * weight)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def measure(shape: tuple[int, ...], features: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of value and gradients, a list a lowering, taken in turn."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], shape)
    kernel = jax.random.normal(keys[1], (3, 3, 3, shape[-1], features))
    weight = jax.random.normal(keys[2], (*shape[:-1], features))
    programs = {n: _program(n) for n in LOWERINGS}
    seconds: dict[str, list[float]] = {n: [] for n in LOWERINGS}
    for number in range(rounds + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(x, kernel, weight))
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main(_: list[str]) -> None:
    """Measure every layer, print the table and write the JSON."""
    layers = {}
    print(f"{'layer':<22}" + "".join(f"{n:>10}" for n in LOWERINGS) + "   (share of native's time)")
    for layer, (shape, features) in LAYERS.items():
        seconds = measure(shape, features, ROUNDS.value)
        ratios = {
            n: statistics.median(a / b for a, b in zip(seconds[n], seconds["native"], strict=True)) for n in LOWERINGS
        }
        layers[layer] = {
            "median_seconds": {n: statistics.median(s) for n, s in seconds.items()},
            "ratio_to_native": ratios,
        }
        print(f"{layer:<22}" + "".join(f"{ratios[n]:>10.2f}" for n in LOWERINGS))
    if OUT.value:
        path = Path(OUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        machine = {"backend": jax.default_backend(), "cores": os.cpu_count(), "machine": platform.machine()}
        result = {"machine": machine, "jax": jax.__version__, "rounds": ROUNDS.value, "layers": layers}
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
