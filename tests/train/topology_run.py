"""A training saved on four devices goes on on one, two and eight: `python -m tests.train.topology_run FOLDER`.

Started by `test_topology.py` with eight devices, which a process can only have from its start; prints one line of JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.checkpoints.test_checkpoint import Position
from tests.conftest import he_variables
from tlseg_jax.checkpoints.checkpoint import Checkpoints
from tlseg_jax.checkpoints.state import TrainState, init_state
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.parallel import ONE, Parallel
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import batch_inputs, make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

NETWORK = UNetConfig("tiny", ((2,),), (2,), ((2,),), (), "concatenate")
BEFORE, AFTER = 3, 3


def over(way: Any, data: int, space: int = 1) -> Parallel:
    """The first devices."""
    return Parallel(way, data, space, tuple(jax.devices()[: data * space]))


def fresh() -> tuple[TrainState, Any, Any]:
    """The first state, the optimiser and what is trained."""
    variables = he_variables(NETWORK)
    labels = label_parameters(variables["params"], get_rules("none"))
    optimiser = make_optimiser(get_recipe("default").override(epsilon=1e-3), BEFORE + AFTER, labels)
    return init_state(jax.tree.map(jax.numpy.array, variables), optimiser, 5), optimiser, labels


def go_on(state: TrainState, parallel: Parallel, first: int, last: int) -> TrainState:
    """The steps after `first` to `last`."""
    _, optimiser, labels = fresh()
    step = make_train_step(
        NETWORK,
        optimiser,
        label_loss("cross_entropy_dice"),
        labels,
        inputs=batch_inputs(),
        lowering="native",
        parallel=parallel,
    )
    dispatch = Dispatch(step, parallel=parallel)
    for done in range(first, last):
        rng = np.random.default_rng(done)
        label = rng.integers(0, 2, (8, 16, 8, 8)).astype(np.uint8)
        image = (label + rng.normal(size=label.shape)).astype(np.float16)
        state, metrics = dispatch(state, [{"image": image, "label": label}], done)
        jax.block_until_ready(metrics)
    return state


def main(folder: Path) -> dict[str, Any]:
    """Way -> the most that its end differs from that of four devices, and whether it began from the very same bits."""
    saved = go_on(fresh()[0], over("pmap", 4), 0, BEFORE)
    bits = [np.asarray(a).tobytes() for a in jax.tree.leaves(saved)]
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(saved, Position(24), {})  # type: ignore[arg-type]
    whole = [np.asarray(a, np.float64) for a in jax.tree.leaves(go_on(saved, over("pmap", 4), BEFORE, BEFORE + AFTER))]
    found: dict[str, Any] = {}
    for name, parallel in {"one": ONE, "pmap 2": over("pmap", 2), "mesh 4x2": over("mesh", 4, 2)}.items():
        position = Position()
        with Checkpoints(folder) as checkpoints:
            state = checkpoints.restore(fresh()[0], position)  # type: ignore[arg-type]
        same = bits == [np.asarray(a).tobytes() for a in jax.tree.leaves(state)]
        end = go_on(state, parallel, BEFORE, BEFORE + AFTER)
        difference = max(
            float(np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), 1e-6))
            for a, b in zip(jax.tree.leaves(end), whole, strict=True)
        )
        found[name] = {
            "same bits": same,
            "position": position.at,
            "step": int(end.step),
            "difference": difference,
            "devices": len(jax.tree.leaves(end.params)[0].sharding.device_set),
        }
    return found


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)  # compiling well takes longer than running badly
    print(json.dumps(main(Path(sys.argv[1]))))
