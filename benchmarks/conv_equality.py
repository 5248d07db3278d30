"""Is every convolution of every network right in bfloat16 and TF32, value and both gradients, in each lowering?

    python -m benchmarks.conv_equality [--networks=switch8x2] [--dtypes=float32,bfloat16] [--noquick]

cuDNN's kernels for few channels or large volumes have been silently wrong before, and a wrong kernel is fast: this
runs before anything is timed. Each shape that a network's forward pass holds at its size is convolved as the lowering
does it ("float32" as by default, which on a GPU means TF32), and in float32 throughout by XLA's own convolution of the
same rounded operands. Reported are ||found - expected|| / ||expected|| and the largest difference over the largest
magnitude, of the value, the input's gradient and the kernel's; beyond `TOLERANCE` it ends with exit code 2, after the
JSON is written.
"""

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import cores, environment, write_result
from benchmarks.sizes import Size
from tlseg_jax.models.convolutions import network_convolutions
from tlseg_jax.models.lowering.choice import forms_for, this_device
from tlseg_jax.models.lowering.conv import Lowering, convolution
from tlseg_jax.models.lowering.forms import FEW, WIDE
from tlseg_jax.models.lowering.measure import TOLERANCE
from tlseg_jax.models.networks import get_network
from tlseg_jax.runtime.errors import InputError

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

PRODUCED = ("value", "input_gradient", "kernel_gradient")

REHEARSED = 2
"""Cases of a network with --tiny."""

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a network."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    dtype: str
    lowering: Lowering

    @property
    def name(self) -> str:
        """As "8 to 16, 2x36x56x56"."""
        return f"{self.kernel[-2]} to {self.kernel[-1]}, " + "x".join(map(str, self.image[:-1]))


def shapes(size: Size) -> tuple[Shapes, ...]:
    """The distinct shapes of image and kernel of a network's 3x3 and 3x3x3 convolutions at a size."""
    config = get_network(size.network)
    found = network_convolutions(config, (size.batch, *size.shape, config.channels))
    return tuple((s.image, s.kernel) for s in found)


def lowerings(kernel: tuple[int, ...]) -> tuple[Lowering, ...]:
    """Those that this backend may take for a kernel and that are not another of them by another name."""
    if jax.default_backend() != "cpu":
        few, folds = len(kernel) == 5 and max(kernel[-2:]) <= FEW, 2 * max(kernel[-2:]) <= WIDE
        return ("native", *("turned",) * few, *("folded",) * folds)
    return tuple(forms_for(this_device()))


def _noise(shape: tuple[int, ...], seed: jax.Array) -> jax.Array:
    """Uniform in -1 to 1, by hashing each place: `jax.random` takes the compiler ten times as long as a convolution."""
    x = jax.lax.iota(jnp.uint32, math.prod(shape)) + seed * jnp.uint32(0x9E3779B9)
    for factor in (0x7FEB352D, 0x846CA68B):
        x = (x ^ (x >> 16)) * jnp.uint32(factor)
    return (x ^ (x >> 16)).astype(jnp.int32).reshape(shape) / jnp.float32(2**31)


def _operands(case: Convolution, seed: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Image, kernel and what the value is weighed with, of noise, in the case's type."""
    shapes = (case.image, case.kernel, (*case.image[:-1], case.kernel[-1]))
    image, kernel, weight = (_noise(shape, seed + jnp.uint32(i)).astype(case.dtype) for i, shape in enumerate(shapes))
    return image, kernel, weight


def _all(lowering: Lowering, operands: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    image, kernel, weight = operands
    value, back = jax.vjp(lambda x, k: convolution(x, k, lowering), image, kernel)
    return (value, *back(weight))


def _program(case: Convolution) -> Callable[[], jax.Array]:
    """Compiles what gives the figures of a case: (3, 2), by `PRODUCED` the norm's and the largest difference."""

    def figures(seed: jax.Array) -> tuple[jax.Array, ...]:
        return _all(case.lowering, _operands(case, seed))

    def expected(seed: jax.Array) -> tuple[jax.Array, ...]:
        operands = tuple(o.astype(jnp.float32) for o in _operands(case, seed))
        with jax.default_matmul_precision("highest"):
            return _all("native", operands)

    # Two programs: in one, XLA could find that both sides do the same. The seed is an argument, or the compiler would
    # draw and convolve while it compiles.
    seed = jnp.uint32(1)
    found = jax.jit(figures).lower(seed).compile()
    # Which algorithm is fastest does not matter to what is expected, and a GPU takes long to try them.
    wanted = jax.jit(expected).lower(seed).compile(compiler_options={"xla_gpu_autotune_level": 0})

    def run() -> jax.Array:
        rows = []
        for a, b in zip(found(seed), wanted(seed), strict=True):
            difference = a.astype(jnp.float32) - b
            norm = jnp.linalg.norm(difference.ravel()) / jnp.linalg.norm(b.ravel())
            rows.append(jnp.stack([norm, jnp.abs(difference).max() / jnp.abs(b).max()]))
        return jnp.stack(rows)

    return run


def measure(size: Size, dtypes: tuple[str, ...], most: int | None = None) -> Iterator[dict[str, Any]]:
    """The figures of every convolution of a network at a size, or of so many; one that fails says how in "failed"."""
    cases = [
        Convolution(image, kernel, dtype, lowering)
        for image, kernel in shapes(size)
        for dtype in dtypes
        for lowering in lowerings(kernel)
    ]
    cases = cases[:most]
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        for case, program in zip(cases, [pool.submit(_program, c) for c in cases], strict=True):
            row: dict[str, Any] = {"network": size.network, "convolution": case.name} | dataclasses.asdict(case)
            try:
                figures = jax.device_get(program.result()())
            except Exception as e:  # one kernel that cannot run says nothing of the others
                row |= {"failed": f"{type(e).__name__}: {e}"[:300], "right": False}
            else:
                row |= {
                    what: {"norm": float(norm), "largest": float(largest)}
                    for what, (norm, largest) in zip(PRODUCED, figures, strict=True)
                }
                # A comparison with NaN is false: NaN is never right.
                row["right"] = bool((figures <= TOLERANCE[case.dtype]).all())
            yield row


def main() -> None:
    """Compare every convolution, print the table, write the JSON, and fail where one is wrong."""
    started, rows = environment(), []
    result: dict[str, Any] = {"environment": started, "sizes": common_flags.kind(), "tolerance": TOLERANCE}
    heading = f"{'network':<12}{'convolution':<34}{'type':<10}{'lowering':<10}"
    print(f"{heading}  differences by norm: " + ", ".join(PRODUCED))
    for size in common_flags.sizes():
        for row in measure(size, common_flags.dtypes(), REHEARSED if common_flags.TINY.value else None):
            rows.append(row)
            told = row.get("failed") or "  ".join(f"{row[p]['norm']:.1e}" for p in PRODUCED)
            mark = "" if row["right"] else "  WRONG"
            line = f"{row['network']:<12}{row['convolution']:<34}{row['dtype']:<10}{row['lowering']:<10}  {told}{mark}"
            print(line, flush=True)
            # Row by row: what is measured stays, whatever becomes of the next.
            write_result("conv_equality", result | {"cases": rows}, common_flags.OUT.value, quiet=True)
    print(f"{len(rows)} convolutions")
    wrong = [f"{r['convolution']} ({r['dtype']}, {r['lowering']})" for r in rows if not r["right"]]
    if wrong:
        raise InputError(f"{len(wrong)} of {len(rows)} convolutions are wrong on this device: {'; '.join(wrong)}.")


if __name__ == "__main__":
    common_flags.run(main)
