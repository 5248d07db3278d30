"""Is every convolution of every network right in bfloat16 and TF32, value and both gradients, in each lowering?

    python -m benchmarks.conv_equality [--networks=switch8x2] [--dtypes=float32,bfloat16] [--noquick]

cuDNN's kernels for few channels or large volumes have been silently wrong before, and a wrong kernel is fast: this
runs before anything is timed. Each shape that a network's forward pass holds at its size goes through the check that a
form has to pass where it is chosen (`tlseg_jax.models.lowering.measure`): against XLA's own convolution in float32
throughout, "float32" as by default, which on a GPU means TF32. A convolution that is wrong says how; with one it ends
with exit code 2, after the JSON is written.
"""

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import cores, environment, write_result
from benchmarks.sizes import Size
from tlseg_jax.models.convolutions import network_convolutions
from tlseg_jax.models.lowering.choice import forms_for, this_device
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.lowering.forms import FEW, FORMS, WIDE
from tlseg_jax.models.lowering.measure import TOLERANCE, ConvShape, measured_here
from tlseg_jax.models.networks import get_network
from tlseg_jax.runtime.errors import InputError

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

REHEARSED = 2
"""Cases of a network with --tiny."""


def shapes(size: Size) -> list[ConvShape]:
    """The distinct 3x3 and 3x3x3 convolutions of a network at a size."""
    config = get_network(size.network)
    return network_convolutions(config, (size.batch, *size.shape, config.channels))


def lowerings(kernel: tuple[int, ...]) -> tuple[Lowering, ...]:
    """Those that this backend may take for a kernel and that are not another of them by another name."""
    if jax.default_backend() != "cpu":
        few, folds = len(kernel) == 5 and max(kernel[-2:]) <= FEW, 2 * max(kernel[-2:]) <= WIDE
        return ("native", *("turned",) * few, *("folded",) * folds)
    return tuple(forms_for(this_device()))


def measure(size: Size, dtypes: tuple[str, ...], most: int | None = None) -> Iterator[dict[str, Any]]:
    """Whether each convolution of a network at a size is right, or so many of them; "fault" says what is wrong."""
    cases = [(s, dtype, lowering) for s in shapes(size) for dtype in dtypes for lowering in lowerings(s.kernel)]
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:  # compiling takes most of the time
        checks = [pool.submit(measured_here, FORMS[name].convolve, [s], dtype) for s, dtype, name in cases[:most]]
        for (s, dtype, lowering), check in zip(cases, checks, strict=False):
            fault = check.result()["fault"]
            name = f"{s.kernel[-2]} to {s.kernel[-1]}, " + "x".join(map(str, s.image[:-1]))
            of = {"network": size.network, "convolution": name, "image": s.image, "kernel": s.kernel}
            yield of | {"dtype": dtype, "lowering": lowering, "right": not fault} | ({"fault": fault} if fault else {})


def main() -> None:
    """Compare every convolution, print the table, write the JSON, and fail where one is wrong."""
    started, rows = environment(), []
    result: dict[str, Any] = {"environment": started, "sizes": common_flags.kind(), "tolerance": TOLERANCE}
    for size in common_flags.sizes():
        for row in measure(size, common_flags.dtypes(), REHEARSED if common_flags.TINY.value else None):
            rows.append(row)
            what = f"{row['network']:<12}{row['convolution']:<34}{row['dtype']:<10}{row['lowering']:<10}"
            print(f"{what}  {row.get('fault', 'right')}", flush=True)
            # Row by row: what is measured stays, whatever becomes of the next.
            write_result("conv_equality", result | {"cases": rows}, common_flags.OUT.value, quiet=True)
    print(f"{len(rows)} convolutions")
    wrong = [f"{r['convolution']} ({r['dtype']}, {r['lowering']})" for r in rows if not r["right"]]
    if wrong:
        raise InputError(f"{len(wrong)} of {len(rows)} convolutions are wrong on this device: {'; '.join(wrong)}.")


if __name__ == "__main__":
    common_flags.run(main)
