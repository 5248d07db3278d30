"""How long is a training step of the 2D network with each lowering of its convolutions, and with flax's dropout?

    python -m benchmarks.conv2d_step [--sides=96,128] [--dtypes=float32] [--rounds=5]

Times the whole step, since XLA fuses what stands alone in a smaller benchmark. The forms take turns, and each one's
ratio to the step that the library runs is printed:

  library       the lowering chosen here, dropout of one random bit a value
  flax_dropout  the same with flax's dropout, 32 random bits a value
  native, ...   the other lowerings (see benchmarks.conv_lowering)
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.conv_lowering import lowerings
from benchmarks.measure import alternate, environment, ratio, summary, write_result
from benchmarks.steps import assemble, runner
from tlseg_jax.models import block
from tlseg_jax.models.lowering.choice import usual_lowering
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


def forms(side: int, dtype: str) -> dict[str, Callable[[], object]]:
    """Name -> a step of that form, compiled."""
    given: dict[str, Any] = {"dtype": dtype, "shape": (side, side), "batch": BATCH}
    built = {"library": runner(assemble("unet2d", **given))}
    # The step is traced at its first call, which must happen while the other dropout stands in.
    with mock.patch.object(block, "Dropout", _FlaxDropout):
        built["flax_dropout"] = runner(assemble("unet2d", **given))
        built["flax_dropout"]()
    others = (n for n in lowerings() if n != usual_lowering(2))
    return built | {n: runner(assemble("unet2d", lowering=n, **given)) for n in others}


def main() -> None:
    """Measure every form at every size, print the table and write the JSON."""
    if not all(s.isdigit() and int(s) > 0 for s in SIDES.value):
        raise InputError(f"--sides={','.join(SIDES.value)} must be whole numbers of pixels: give --sides=96,128.")
    started, rounds = environment(), common_flags.rounds()
    cases: list[dict[str, Any]] = []
    print(f"{'side':>4}  {'':<10}{'form':<16}{'seconds':>9}{'ratio':>8}   (to library: {usual_lowering(2)})")
    for side in map(int, SIDES.value):
        for dtype in common_flags.dtypes(("float32",)):
            seconds = alternate(forms(side, dtype), rounds)
            taken = {n: summary(s) for n, s in seconds.items()}
            ratios = {n: ratio(s, seconds["library"]) for n, s in seconds.items()}
            cases.append({"side": side, "dtype": dtype, "seconds": taken, "ratio_to_library": ratios})
            for n, r in ratios.items():
                print(f"{side:>4}  {dtype:<10}{n:<16}{taken[n]['median']:>9.3f}{r['median']:>8.2f}", flush=True)
    result = {"environment": started, "rounds": rounds, "batch": BATCH, "chosen": usual_lowering(2), "cases": cases}
    write_result("conv2d_step", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
