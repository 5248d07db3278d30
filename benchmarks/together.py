"""Do several runs of one shape train faster together, as lanes of `jax.vmap`, than one after another?

    python -m benchmarks.together [--networks=switch32,switch8x2] [--rounds=20] [--noquick]

A step of 1, 2 and 4 runs at once, in turn; what counts is the time a step and run. `experiments.sweep --together=auto`
takes the same measurement at its start, for the networks and the device at hand.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, environment, ratio, summary, write_result
from benchmarks.sizes import Size
from benchmarks.steps import assemble, keep_those_that_fit
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.dispatch import Dispatch

flags.adopt_module_key_flags(common_flags)

RUNS = flags.DEFINE_list("runs", ["1", "2", "4"], "Runs at once, the first of them alone.")

NETWORKS = ("switch32", "switch8x2")


def measure(size: Size, freeze: str, rounds: int, runs: Sequence[int] = (1, 2, 4)) -> dict[str, Any]:
    """One network at one size.

    Args:
      freeze: a name of `FREEZING`.
      runs: at once; 1 first.
    """
    built = assemble(size.network, freeze=freeze, shape=size.shape, batch=size.batch)

    def turn(count: int) -> Callable[[], object]:
        # The step gives its state away: each gets copies of its own. One run is not a lane of one.
        state, batch = jax.tree.map(jnp.array, (built.state, built.batch))
        if count > 1:
            state, batch = jax.tree.map(lambda v: jnp.stack([v] * count), (state, batch))
        dispatch = Dispatch(built.step, runs=count if count > 1 else 0)

        def run() -> object:
            nonlocal state
            state, metrics = dispatch(state, [batch])
            return jax.block_until_ready(metrics)

        return run

    seconds = alternate(keep_those_that_fit({str(n): turn(n) for n in runs}), rounds)
    each = {n: [s / int(n) for s in taken] for n, taken in seconds.items()}
    return {
        "network": size.network,
        "batch": size.batch,
        "shape": list(size.shape),
        "frozen": freeze,
        "step_seconds_a_run": {n: summary(v) for n, v in each.items()},
        **{f"ratio_{n}_runs_to_one": ratio(each[n], each["1"]) for n in each if n != "1"},
    }


def main() -> None:
    """Parse the flags, measure, print and write."""
    if RUNS.value[:1] != ["1"] or not all(n.isdecimal() and int(n) for n in RUNS.value):
        raise InputError(f"--runs={','.join(RUNS.value)}: give whole numbers, 1 first, as in --runs=1,4,16.")
    before, runs = environment(), [int(n) for n in RUNS.value]
    cases = []
    for size in common_flags.sizes(NETWORKS):
        for freeze in ("encoder", "none"):
            case = measure(size, freeze, common_flags.rounds(), runs)
            cases.append(case)
            ratios = {n: case.get(f"ratio_{n}_runs_to_one") for n in runs[1:]}
            told = ", ".join(f"{n} at once {r['median']:.2f}" if r else f"{n} do not fit" for n, r in ratios.items())
            print(f"{size.network}, frozen: {freeze}: time a run to one alone: {told}")
    path = write_result(
        "together",
        {
            "question": "a step of several runs at once, its time a run against one run alone",
            "sizes": common_flags.kind(),
            "cases": cases,
            "environment": before,
        },
        common_flags.OUT.value,
    )
    print(f"written to {path.parent}")


if __name__ == "__main__":
    common_flags.run(main)
