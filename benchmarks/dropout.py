"""How much longer is a training step of the 2D network with flax's dropout than with ours?

    python -m benchmarks.dropout [--sides=96,128] [--dtypes=float32] [--rounds=5]

Ours draws one random bit a value, flax's 32. The whole step is timed, since XLA fuses what stands alone in a smaller
benchmark; the two take turns.
"""

from typing import Any
from unittest import mock

import flax.linen as nn
import jax
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, environment, ratio, write_result
from benchmarks.steps import assemble, runner
from tlseg_jax.models import block
from tlseg_jax.runtime.errors import InputError

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

SIDES = flags.DEFINE_list("sides", ["96", "128"], "Pixels a side of the slices.")

BATCH = 10
"""Slices a step, as in the report."""


class _FlaxDropout(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, samples: jax.Array | None = None) -> jax.Array:
        return nn.Dropout(self.rate, deterministic=not train)(x)


def measure(side: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Slices of one size."""
    given: dict[str, Any] = {"dtype": dtype, "shape": (side, side), "batch": BATCH}
    ours = runner(assemble("unet2d", **given))
    # The step is traced at its first call, which must happen while the other dropout stands in.
    with mock.patch.object(block, "Dropout", _FlaxDropout):
        theirs = runner(assemble("unet2d", **given))
        theirs()
    seconds = alternate({"ours": ours, "flax": theirs}, rounds)
    return {"side": side, "dtype": dtype, "ratio_flax_to_ours": ratio(seconds["flax"], seconds["ours"])}


def main() -> None:
    """Measure every size, print and write."""
    if not all(s.isdigit() and int(s) > 0 for s in SIDES.value):
        raise InputError(f"--sides={','.join(SIDES.value)} must be whole numbers of pixels: give --sides=96,128.")
    result: dict[str, Any] = {"environment": environment(), "batch": BATCH, "cases": []}
    for side in map(int, SIDES.value):
        for dtype in common_flags.dtypes(("float32",)):
            case = measure(side, dtype, common_flags.rounds())
            result["cases"].append(case)
            print(f"{side}, {dtype}: {case['ratio_flax_to_ours']['median']:.2f} times as long", flush=True)
    write_result("dropout", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
