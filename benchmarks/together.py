"""Do several runs of one shape train faster together, as lanes of `jax.vmap`, than one after another?

    python -m benchmarks.together [--networks=switch32,switch8x2] [--rounds=20] [--noquick]

A step of 1, 2 and 4 runs at once, in turn; what counts is the time a step and run. `experiments.sweep --together=auto`
takes the same measurement at its start, for the networks and the device at hand.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, environment, ratio, summary, write_result
from benchmarks.sizes import Size, get_sizes
from benchmarks.steps import assemble
from tlseg_jax.train.dispatch import Dispatch

flags.adopt_module_key_flags(common_flags)

RUNS = (1, 2, 4)
"""At once."""

NETWORKS = ("switch32", "switch8x2")


def measure(size: Size, freeze: str, rounds: int) -> dict[str, Any]:
    """One network at one size.

    Args:
      size: the network and what it is measured on.
      freeze: a name of `FREEZING`.
      rounds: timed turns of each number.
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

    seconds = alternate({str(n): turn(n) for n in RUNS}, rounds)
    each = {n: [s / int(n) for s in taken] for n, taken in seconds.items()}
    return {
        "network": size.network, "batch": size.batch, "shape": list(size.shape), "frozen": freeze,
        "step_seconds_a_run": {n: summary(v) for n, v in each.items()},
        **{f"ratio_{n}_runs_to_one": ratio(each[n], each["1"]) for n in each if n != "1"},
    }  # fmt: skip


def main() -> None:
    """Parse the flags, measure, print and write."""
    before = environment()
    cases = []
    for size in (s for n in common_flags.networks(NETWORKS) for s in get_sizes(n, common_flags.quick())):
        for freeze in ("encoder", "none"):
            case = measure(size, freeze, common_flags.rounds())
            cases.append(case)
            told = ", ".join(f"{n} at once {case[f'ratio_{n}_runs_to_one']['median']:.2f}" for n in RUNS[1:])
            print(f"{size.network}, frozen: {freeze}: time a run to one alone: {told}")
    path = write_result(
        "together",
        {
            "question": "a step of several runs at once, its time a run against one run alone",
            "cases": cases,
            "environment": before,
        },
        common_flags.OUT.value,
    )
    print(f"written to {path.parent}")


if __name__ == "__main__":
    common_flags.run(main)
