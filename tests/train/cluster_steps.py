"""Training steps on a store by several processes: `python -m tests.train.cluster_steps STORE STEPS [MESH]`.

Prints one line of JSON from each: losses, and a digest of what the parameters have become; the chief their values too.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.conftest import he_variables
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.commands import cli, cluster_flags
from tlseg_jax.input.augment import Augmentation
from tlseg_jax.input.patches import make_batches, training_box
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime import processes
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.parallel import ONE, Parallel, choose_parallel, local_state
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import batch_inputs, make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

NETWORK = UNetConfig("tiny", ((4,), (4,)), (4,), ((4,), (4,)), (), "concatenate")

BATCH = 4


def train(folder: Path, steps: int, parallel: Parallel = ONE) -> tuple[list[float], Any, Any]:
    """Losses of so many steps, and the parameters and batch norms' averages at the end, as NumPy arrays."""
    store = Store(folder)
    settings = InputSettings(BATCH, process=processes.index(), processes=processes.count())
    batches = make_batches(store, store.subjects("train"), training_box(store), settings)
    variables = he_variables(NETWORK)
    labels = label_parameters(variables["params"], get_rules("none"))
    optimiser = make_optimiser(get_recipe("default").override(epsilon=1e-3), steps, labels)
    step = make_train_step(
        NETWORK,
        optimiser,
        label_loss("cross_entropy_dice"),
        labels,
        parallel=parallel,
        lowering="native",
        inputs=batch_inputs(Augmentation(flip_left_right=True)),
    )
    state = init_state(jax.tree.map(jnp.array, variables), optimiser)
    dispatch, losses = Dispatch(step, parallel=parallel), []
    for i in range(steps):
        state, metrics = dispatch(state, [next(batches)], i)
        losses.append(float(metrics["loss"]))
    kept = local_state(state)
    return losses, *jax.tree.map(np.asarray, (kept.params, kept.batch_stats))


def main(given: Sequence[str]) -> None:
    """Train, and say what came of it."""
    cluster_flags.start()
    mesh = given[2] if len(given) > 2 else None
    parallel = choose_parallel("mesh" if mesh else "pmap", mesh, BATCH, (16, 16, 16), 4)
    losses, *trees = train(Path(given[0]), int(given[1]), parallel)
    leaves = [leaf.tobytes() for leaf in jax.tree.leaves(trees)]
    said: dict[str, Any] = {"losses": losses, "digest": hashlib.sha256(b"".join(leaves)).hexdigest()}
    if processes.is_chief():
        said["values"] = [leaf.ravel().tolist() for leaf in jax.tree.leaves(trees)]
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    cli.run_command(main)
