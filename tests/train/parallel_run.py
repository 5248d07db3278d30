"""One training step in every way over eight host devices: `python -m tests.train.parallel_run [all]`.

Started by `test_parallel.py` with eight devices, which a process can only have from its start; prints one line of JSON.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.collectives import collectives
from benchmarks.parallel import STEPS, build, compiled, difference, train
from tests.conftest import he_variables
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.input.augment import Augmentation
from tlseg_jax.models import norm
from tlseg_jax.models.networks import get_network, variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.parallel import ONE, Parallel, local_state
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import batch_inputs, make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

TINY = UNetConfig("tiny8", ((4,),), (8, 4), ((),), (4,), "add")
"""As switch8x2 is made, with one pooling and few convolutions: a program takes seconds to compile."""

SHAPE = (4, 32, 8, 8)

AUGMENTED = Augmentation(flip_left_right=True, intensity=True)
"""By each sample's own random numbers."""


def pmap(data: int) -> Parallel:
    """Over the first devices."""
    return Parallel("pmap", data, 1, tuple(jax.devices()[:data]))


def mesh(data: int, space: int) -> Parallel:
    """Over the first devices."""
    return Parallel("mesh", data, space, tuple(jax.devices()[: data * space]))


def equality(thorough: bool) -> dict[str, Any]:
    """Case -> differences from one device: of the first losses, of all, of the parameters and of the averages."""
    variables = he_variables(TINY)
    found = {}

    def compare(case: str, one: dict[str, Any], other: dict[str, Any]) -> None:
        count = len(other["losses"])
        first = difference(one["losses"][:3], other["losses"][:3])
        found[case] = {"first losses": first, "losses": difference(one["losses"][:count], other["losses"])}
        if count == len(one["losses"]):
            found[case] |= {k: difference(one[k], other[k]) for k in ("params", "batch_stats")}

    steps = STEPS if thorough else 6
    one = train(TINY, variables, ONE, SHAPE, steps=steps, augmentation=AUGMENTED)
    for parallel in (pmap(2), mesh(2, 2), *((pmap(4), mesh(2, 4), mesh(4, 1), mesh(1, 8)) if thorough else ())):
        other = train(TINY, variables, parallel, SHAPE, steps=steps, augmentation=AUGMENTED)
        compare(parallel.describe(), one, other)
    if not thorough:
        return found
    # A way that is wrong: every device's batch norms see its own rows only.
    pmean = norm.lax.pmean
    setattr(norm.lax, "pmean", lambda x, axis: x)  # noqa: B010 - a lambda of no type that a checker could tell
    compare("wrong", one, train(TINY, variables, pmap(2), SHAPE, steps=3, augmentation=AUGMENTED))
    setattr(norm.lax, "pmean", pmean)  # noqa: B010
    one = train(TINY, variables, ONE, SHAPE, "encoder")
    compare("frozen, five a call", one, train(TINY, variables, pmap(2), SHAPE, "encoder", most=5))
    one = _slices(ONE)
    for parallel in (pmap(2), mesh(2, 2)):
        compare(f"slices: {parallel.way}", one, _slices(parallel))
    return found


def _run(parallel: Parallel, step: Any, state: Any, batch: Callable[[int], Any]) -> dict[str, Any]:
    dispatch, losses = Dispatch(step, parallel=parallel), []
    for i in range(3):
        state, metrics = dispatch(state, [batch(i)], i)
        losses.append(float(metrics["loss"]))
    kept = local_state(state)
    assert all(len(a.sharding.device_set) == 1 for a in jax.tree.leaves(kept))
    params, stats = jax.tree.map(np.asarray, (kept.params, kept.batch_stats))
    return {"losses": np.array(losses), "params": params, "batch_stats": stats}


def _slices(parallel: Parallel) -> dict[str, Any]:
    """A 2D network with dropout and a loss within a region, in two micro-batches."""
    config = UNetConfig.residual("tiny2d", (4, 8), dropout=0.5)
    variables = he_variables(config)
    labels = label_parameters(variables["params"], get_rules("none"))
    optimiser = make_optimiser(get_recipe("default").override(epsilon=1e-3), 20, labels)
    step = make_train_step(
        config,
        optimiser,
        label_loss("liver_bce", config.outputs, False),
        labels,
        inputs=batch_inputs(),
        lowering="native",
        parallel=parallel,
        accumulate=2,
    )

    def batch(i: int) -> Any:
        rng = np.random.default_rng(i)
        label = rng.integers(0, 4, (8, 16, 16)).astype(np.uint8)
        image = (label[..., None] + rng.normal(size=(8, 16, 16, 1))).astype(np.float16)
        return {"image": image, "label": label, "region": label & 1 > 0}

    return _run(parallel, step, init_state(jax.tree.map(jnp.array, variables), optimiser), batch)


def programs(config: UNetConfig) -> dict[str, Any]:
    """Of compiled steps the exchanges, [kind, shapes], and the temporary bytes of a device; and parameters' shapes."""
    variables = variable_shapes(config)
    found: dict[str, Any] = {"exchanges": {}, "temporary": {}}
    found["parameters"] = [a.shape for a in jax.tree.leaves(variables["params"])]
    labels = label_parameters(variables["params"], get_rules("encoder"))
    pairs = zip(jax.tree.leaves(variables["params"]), jax.tree.leaves(labels), strict=True)
    found["decoder parameters"] = [a.shape for a, label in pairs if label == "trained"]
    chosen = {"one": (ONE, "none"), "pmap 2": (pmap(2), "none"), "pmap 2, encoder frozen": (pmap(2), "encoder")}
    chosen |= {f"mesh {d}x{k}": (mesh(d, k), "none") for d, k in ((2, 1), (2, 4), (1, 2), (1, 4), (1, 8))}
    for name, (parallel, freeze) in chosen.items():
        program = compiled(*build(config, parallel, freeze), (2, 128, 32, 32))
        found["exchanges"][name] = [(c.kind, c.shapes) for c in collectives(program.as_text())]
        found["temporary"][name] = int(program.memory_analysis().temp_size_in_bytes)
    return found


def main(thorough: bool) -> None:
    """Compile, train and print."""
    found = programs(get_network("switch8x2")) if thorough else {}
    # These run a few steps of next to nothing; what is compiled above is compiled as ever.
    jax.config.update("jax_disable_most_optimizations", True)
    print(json.dumps(found | {"differences": equality(thorough)}))


if __name__ == "__main__":
    main(sys.argv[1:] == ["all"])
