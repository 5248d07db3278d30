"""What do a data set on the device and several steps in one call gain, for networks whose steps are short?

    python -m benchmarks.device_cache [--networks=switch8x2,unet2d] [--steps=1,8] [--noquick]

Training in blocks, as the training loop does it: batches read from the store and sent one by one ("streamed"), the data
set held on the device (`--cache=device`, "cached"), and both with several steps in one call (`--steps_per_call`).
"held" is one batch that lies on the device, with nothing to read, send or gather: what no way of feeding can beat.
The forms take turns on a small built-in cohort, each with a state of its own; a ratio below 1 is a gain over
"streamed". The shorter the step, the larger the share of reading, sending and calling in it: a 3D network is also
measured on patches of 16x16x16, where there is little else; at reduced sizes on those only.
"""

import collections
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.loader import drawn_store, job_for
from benchmarks.measure import alternate, ratio, summary, write_result
from benchmarks.steps import of_data
from tlseg_jax.geometry import Box
from tlseg_jax.models.networks import get_network
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.boxes import Boxes
from tlseg_jax.train.dispatch import Dispatch, cache_room
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.readings import LAG
from tlseg_jax.train.task_data import TaskData

flags.adopt_module_key_flags(common_flags)
STEPS = flags.DEFINE_list("steps", ["1", "8"], "Steps in one call: 1, and divisors of the largest.")

CALLS = 3
"""Calls of several steps in a block; also more steps than the stream reads ahead."""

SMALL = (16, 16, 16)


def calls() -> int:
    """Calls in a block: `CALLS`, or one where nothing is really timed."""
    return 1 if common_flags.TINY.value else CALLS


def steps_a_call() -> tuple[int, ...]:
    """What --steps says.

    Raises:
      InputError: not whole numbers with 1 first, or one does not divide the largest.
    """
    given = [int(n) for n in STEPS.value if n.isdecimal() and int(n)]
    if len(given) != len(STEPS.value) or given[:1] != [1] or any(max(given) % n for n in given):
        raise InputError(f"--steps={','.join(STEPS.value)}: give 1 and divisors of the largest, as in --steps=1,4,16.")
    return tuple(given)


def forms(
    data: TaskData, job: JobSettings, subjects: tuple[str, ...], steps_a_call: Sequence[int]
) -> dict[str, Callable[[], object]]:
    """A block of steps in each form, which returns when its last step is done."""
    step, first = of_data(data, job)
    cache = data.sampler.cache(subjects, cache_room())

    most = max(steps_a_call)

    def block(steps: int, cached: bool = False, held: bool = False) -> Callable[[], object]:
        dispatch = Dispatch(step, steps, cache if cached else None)
        stream = data.batches(subjects, read=not cached)
        if held:
            stream = itertools.repeat(jax.device_put({k: v for k, v in next(stream).items() if k != "index"}))
        state = first()

        def train() -> None:
            nonlocal state
            pending: collections.deque[Any] = collections.deque()
            for _ in range(calls() * most // steps):
                state, metrics = dispatch(state, [next(stream) for _ in range(steps)])
                pending.append(metrics)
                if len(pending) > max(1, LAG // steps):  # as the training loop reads its losses
                    jax.device_get(pending.popleft())
            jax.block_until_ready((state, list(pending)))

        return train

    made = {"held": block(1, held=True)}
    for steps in steps_a_call:
        several = f"_{steps}_a_call" if steps > 1 else ""
        made |= {f"streamed{several}": block(steps), f"cached{several}": block(steps, cached=True)}
    return made


def measure(store: AnyStore, network: str, small: bool, steps: Sequence[int], rounds: int) -> dict[str, Any]:
    """One network on one data set; `small` takes patches of 16x16x16 from the middle of the store's."""
    job, subjects = job_for(store, network), store.subjects("train")
    data = TaskData(store, job, None)
    if small and isinstance(data.sampler, Boxes) and data.sampler.box:
        x, y, z = (
            a + (n - s) // 2 for a, n, s in zip(data.sampler.box.start, data.sampler.box.size, SMALL, strict=True)
        )
        data.sampler.box, data.sampler.sides = Box((x, y, z), SMALL), SMALL
    turns = alternate(forms(data, job, subjects, steps), rounds, warmup=1)
    seconds = {name: [s / (calls() * max(steps)) for s in all_] for name, all_ in turns.items()}
    shape = data.batch_shapes()["image"].shape
    return {
        "network": network,
        "batch": shape[0],
        "shape": list(shape[1 : 1 + job.network.dimensions]),
        "steps_a_call": list(steps),
        "step_seconds": {name: summary(s) for name, s in seconds.items()},
        "step_milliseconds_streamed": 1e3 * summary(seconds["streamed"])["median"],
        **{f"ratio_{n}_to_streamed": ratio(s, seconds["streamed"]) for n, s in seconds.items() if n != "streamed"},
    }


def main() -> None:
    """Measure every network, print the table and write the JSON."""
    reduced, steps = common_flags.quick(), steps_a_call()
    networks = [get_network(n) for n in common_flags.networks(("switch8x2", "unet2d"))]
    cases = []
    with tempfile.TemporaryDirectory(prefix="tlseg_device_cache_") as temporary:
        stores = {d: drawn_store(Path(temporary), d, reduced) for d in {n.dimensions for n in networks}}
        for network in networks:
            for small in ((True,) if reduced else (False, True)) if network.dimensions == 3 else (False,):
                store = stores[network.dimensions]
                case = measure(store, network.name, small, steps, common_flags.rounds(reduced))
                cases.append(case)
                _tell(case)
    write_result("device_cache", {"sizes": common_flags.kind(), "cases": cases}, common_flags.OUT.value)


def _tell(case: dict[str, Any]) -> None:
    size = "x".join(map(str, case["shape"]))
    print(
        f"{case['network']}, {case['batch']} x {size}: {case['step_milliseconds_streamed']:.1f} ms a step streamed; "
        "of that",
        end="",
    )
    for name in case["step_seconds"]:
        if name != "streamed":
            r = case[f"ratio_{name}_to_streamed"]
            print(f", {name.replace('_', ' ')} {r['median']:.3f} ({r['low']:.3f} to {r['high']:.3f})", end="")
    print(flush=True)


if __name__ == "__main__":
    common_flags.run(main)
