"""Do the ways of training on several devices compute the same, exchange no more than they must, and save memory?

    python -m benchmarks.parallel [--networks=switch8x2] [--rounds=5] [--devices=8]

On a machine with fewer devices it starts itself again over that many host devices on the CPU. These share the cores, so
that times there say what a way costs and not what it gains. Four tables: the difference from one device after 20 steps
(plainly compiled), the exchanges in the compiled step, the compiler's temporary memory of one device, and the time of
a step.
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.collectives import collectives, count_kinds
from benchmarks.measure import alternate, environment, ratio, summary, write_result
from benchmarks.tables import markdown
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.input.augment import Augmentation
from tlseg_jax.models.networks import get_network, init_variables, variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.parallel import ONE, Parallel
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import Batch, Step, batch_inputs, make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

flags.adopt_module_key_flags(common_flags)
DEVICES = flags.DEFINE_integer("devices", 8, "Devices that the ways share.", lower_bound=2)

STEPS = 20
"""Over which the ways are compared."""

MEMORY_SHAPE = (128, 64, 64)
"""Of a volume whose step is compiled and not run; batch 2. Divides by 8 x 8 along its first side."""


def ways(devices: Sequence[jax.Device]) -> dict[str, Parallel]:
    """The ways over powers of two of these devices, by name; the first is a single device."""
    found, everything = {"one": ONE}, len(devices)

    def add(way: Any, data: int, space: int) -> None:
        parallel = Parallel(way, data, space, tuple(devices[: data * space]))
        found[f"pmap {data}" if way == "pmap" else f"mesh data:{data},space:{space}"] = parallel

    for count in (2**i for i in range(1, int(math.log2(everything)) + 1)):
        add("pmap", count, 1)
    for data in (2**i for i in range(int(math.log2(everything)), -1, -1)):
        add("mesh", data, everything // data)
    return found


def build(
    config: UNetConfig,
    parallel: Parallel,
    freeze: str = "none",
    variables: Any = None,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
) -> tuple[Step, Any]:
    """(step, first state or its shapes) of a 3D network, in XLA's own operations.

    Args:
      variables: to start from; None: shapes only.
    """
    like = variables or variable_shapes(config)
    labels = label_parameters(like["params"], get_rules(freeze))
    recipe = get_recipe("default").override(epsilon=1e-3)
    optimiser = make_optimiser(recipe, STEPS, labels)
    step = make_train_step(
        config,
        optimiser,
        label_loss(recipe.loss),
        labels,
        inputs=batch_inputs(augmentation),
        lowering="native",
        parallel=parallel,
    )
    if variables is None:
        return step, jax.eval_shape(lambda v: init_state(v, optimiser), like)
    return step, init_state(jax.tree.map(jnp.array, variables), optimiser)


def noise(shape: Sequence[int], seed: int) -> Batch:
    """A batch in the types of a prepared data set: structures that can be told from the image, but for noise."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal(shape, np.float32)
    label = image + 0.3 * rng.standard_normal(shape, np.float32) > 0.8
    return {"image": image.astype(np.float16), "label": label.astype(np.uint8)}


def compiled(step: Step, state: Any, shape: Sequence[int]) -> Any:
    """The compiled step for batches of `shape`."""
    batch = {
        "image": jax.ShapeDtypeStruct(tuple(shape), np.float16),
        "label": jax.ShapeDtypeStruct(tuple(shape), np.uint8),
    }
    return step.lower(state, batch).compile()  # type: ignore[attr-defined]


def train(
    config: UNetConfig,
    variables: Any,
    parallel: Parallel,
    shape: Sequence[int],
    freeze: str = "none",
    most: int = 1,
    steps: int = STEPS,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """{"losses", "params", "batch_stats"} after some steps, as NumPy arrays.

    Args:
      most: steps in a call.
    """
    step, state = build(config, parallel, freeze, variables, augmentation)
    dispatch = Dispatch(step, most, parallel=parallel)
    losses: list[float] = []
    while len(losses) < steps:
        count = dispatch.length(steps - len(losses))
        batches = [noise(shape, len(losses) + i) for i in range(count)]
        state, metrics = dispatch(state, batches, len(losses))
        losses += np.atleast_1d(np.asarray(metrics["loss"])).tolist()
    params, stats = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    return {"losses": np.array(losses), "params": params, "batch_stats": stats}


def difference(a: Any, b: Any) -> float:
    """The largest difference of two trees' arrays, each by the largest value of its array in `a`."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-12)) for x, y in pairs)


def equality(
    config: UNetConfig, variables: Any, chosen: dict[str, Parallel], shape: Sequence[int], freeze: str
) -> dict[str, dict[str, float]]:
    """Way -> the largest relative difference of its losses, parameters and running averages from one device's.

    Compiled plainly, so that ways round alike but for the order of sums. Even so, among the millions of activations of
    a step one is sooner or later so near to zero, or to its neighbour in a pooling cell, that it falls to the other
    side, and from there two runs part: one device with a batch's rows in reverse order does from its own run as well.
    Before that all agree to 2e-6 (tests/train/test_parallel.py holds it, on a network where it does not happen).
    """
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        one = train(config, variables, ONE, shape, freeze)
        rows = {}
        for name, parallel in chosen.items():
            if parallel.way != "one":
                other = train(config, variables, parallel, shape, freeze)
                rows[name] = {k: difference(one[k], other[k]) for k in one}
        return rows
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def memory(config: UNetConfig, chosen: dict[str, Parallel], shape: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Way -> {"temporary_bytes" of a device, "times_less" than of one device, "collectives" by kind}."""
    rows: dict[str, dict[str, Any]] = {}
    for name, parallel in chosen.items():
        program = compiled(*build(config, parallel), shape)
        temporary = int(program.memory_analysis().temp_size_in_bytes)
        rows[name] = {
            "temporary_bytes": temporary,
            "times_less": next(iter(rows.values()))["temporary_bytes"] / temporary if rows else 1.0,
            "collectives": count_kinds(collectives(program.as_text())),
        }
    return rows


def times(
    config: UNetConfig, variables: Any, chosen: dict[str, Parallel], shape: Sequence[int], rounds: int
) -> dict[str, list[float]]:
    """Way -> seconds of its steps, taken in turn."""

    def runner(parallel: Parallel) -> Callable[[], object]:
        step, state = build(config, parallel, variables=variables)
        dispatch, batch = Dispatch(step, parallel=parallel), noise(shape, 0)

        def run() -> object:
            nonlocal state
            state, metrics = dispatch(state, [batch])
            return jax.block_until_ready(metrics)

        return run

    return alternate({name: runner(p) for name, p in chosen.items()}, rounds)


def measure(
    config: UNetConfig, devices: Sequence[jax.Device], rounds: int, volume: Sequence[int] = MEMORY_SHAPE
) -> dict[str, Any]:
    """All tables of one network.

    Args:
      devices: a power of two of them.
      volume: whose step is compiled for its memory.
    """
    count = len(devices)
    small = (count, config.divisor * count, config.divisor, config.divisor)
    variables = jax.device_get(init_variables(config, jax.random.key(0)))
    chosen = ways(devices)
    some = {n: p for n, p in chosen.items() if p.data * p.space == count and (p.way == "pmap" or p.data == 2)}
    space = {"one": ONE, "pmap 2": chosen["pmap 2"]}
    for k in (2**i for i in range(1, int(math.log2(count)) + 1)):
        space[f"mesh data:1,space:{k}"] = Parallel("mesh", 1, k, tuple(devices[:k]))
    space |= {n: p for n, p in some.items() if p.way == "mesh"}
    batch = (2, *volume)
    found = {
        "network": config.name,
        "steps": STEPS,
        "shape": list(small),
        "equality": {
            "none": equality(config, variables, chosen, small, "none"),
            "encoder": equality(config, variables, some, small, "encoder"),
        },
        "memory_shape": list(batch),
        "memory": memory(config, space, batch),
    }
    seconds = times(config, variables, {"one": ONE} | some, small, rounds)
    return found | {
        "step_seconds": {n: summary(v) for n, v in seconds.items()},
        "time_to_one": {n: ratio(v, seconds["one"]) for n, v in seconds.items() if n != "one"},
    }


def main() -> None:
    """Measure, print and write; over host devices where there are too few."""
    count = DEVICES.value
    if jax.device_count() < count:
        again = os.environ | {"JAX_NUM_CPU_DEVICES": str(count), "JAX_PLATFORMS": "cpu"}
        sys.exit(subprocess.run([sys.executable, "-m", "benchmarks.parallel", *sys.argv[1:]], env=again).returncode)
    started, cases = environment(), []
    for name in common_flags.networks(("switch8x2",)):
        case = measure(get_network(name), jax.devices()[:count], common_flags.rounds(reduced=True))
        print(*markdown({"part": "parallel", "cases": [case]}), sep="\n\n", flush=True)
        cases.append(case)
    write_result("parallel", {"environment": started, "cases": cases}, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
